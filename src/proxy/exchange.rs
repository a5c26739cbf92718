//! What a frontend hands to a service and what it gets back. A worker knows a request and an answer, never an engine:
//! the `tiny_http` and the `epoll` frontend both drive a [`Service`](super::service::Service) through these types.

use std::borrow::Cow;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::waits::CallObserver;
use balancer_http::fields::Fields;
use balancer_time::Nanos;

mod parked;
mod problem;

use balancer_http::message::{BodyLength, RequestHead};
pub use parked::{Awaitable, Parked, Registration, Served};

/// Why a request's body could not be read to its end. Travels inside an [`io::Error`] (`io::Error::other`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// Longer than `frontend.max_body_bytes`: 413.
    TooLarge,
    /// Chunked framing that breaks RFC 9112 §7.1: 400.
    Malformed,
    /// Silent for `frontend.body_timeout`, or below the minimum rate: 408.
    TimedOut,
    /// The client closed or reset its side before the end: nobody to answer.
    ClientGone,
}

impl std::fmt::Display for BodyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request's body is larger than frontend.max_body_bytes",
            Self::Malformed => "the request's chunked body is malformed",
            Self::TimedOut => "the client sent its body too slowly",
            Self::ClientGone => "the client left before its body ended",
        })
    }
}

impl std::error::Error for BodyFault {}

impl BodyFault {
    /// The fault inside an error of [`RequestBody::read`].
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().copied()
    }
}

/// A request's body. Reading it first answers an `Expect: 100-continue`.
pub trait RequestBody {
    /// Reads the next bytes, waiting for them; 0 is the end. Errors are [`BodyFault`]s.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// The whole body when it lies in memory; such a body can be sent again. Reading does not change it.
    fn buffered(&self) -> Option<&[u8]>;

    /// Whether [`RequestBody::read`] has taken any byte that can't be had again.
    fn consumed(&self) -> bool;
}

/// A handle on the backend connection that a worker is blocked on, so that whoever sees the client leave can end the
/// call. Belongs to one exchange; takes a lock that is never held across I/O. It also tells the frontend that the
/// worker is blocked, so that another one can take its place.
#[derive(Default)]
pub struct Abort {
    socket: Mutex<Option<Arc<TcpStream>>>,
    cancelled: AtomicBool,
    calling: AtomicBool,
    observer: Option<Arc<dyn CallObserver>>,
}

impl std::fmt::Debug for Abort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Abort").field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}

impl Abort {
    /// A handle whose calls somebody hears of.
    pub fn observed_by(observer: Arc<dyn CallObserver>) -> Self {
        Self { observer: Some(observer), ..Self::default() }
    }

    /// A blocking call to that endpoint begins, connecting included. [`Abort::release`] ends it.
    pub fn calling(&self, endpoint: u64) {
        if let Some(observer) = &self.observer
            && !self.calling.swap(true, Ordering::Relaxed)
        {
            observer.began(endpoint);
        }
    }

    /// A kept connection is about to be looked at, and then used if it has nothing to read.
    pub fn looking(&self, socket: &Arc<TcpStream>) {
        if let Some(observer) = &self.observer {
            observer.looking(socket.as_fd());
        }
    }

    /// Names the socket that the call is about to block on; shut down at once if the client is gone already.
    pub fn watch(&self, socket: &Arc<TcpStream>) {
        self.calling(0);
        *self.socket.lock() = Some(Arc::clone(socket));
        if self.cancelled() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// The call is over; its socket may be kept for the next one.
    pub fn release(&self) {
        *self.socket.lock() = None;
        if let Some(observer) = &self.observer
            && self.calling.swap(false, Ordering::Relaxed)
        {
            observer.ended();
        }
    }

    /// The client is gone: ends the call that is under way and every later one of this exchange.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        if let Some(socket) = self.socket.lock().as_ref() {
            // The peer may have closed already; then there is nothing to end.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Whether the client is gone.
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

/// One exchange, as a service sees it. The answer is the service's return value, so none can be forgotten.
pub struct Exchange<'a> {
    /// What was asked.
    pub head: &'a mut RequestHead,
    /// The body, unread.
    pub body: &'a mut dyn RequestBody,
    /// Where a blocked backend call is made known.
    pub abort: &'a Abort,
    /// When the head was complete.
    pub received_at: Nanos,
    /// Whether the frontend can relay a connection in both directions after a 101.
    pub can_upgrade: bool,
    /// Whether the frontend can keep the request while nobody works at it; if not, the service waits on the worker.
    pub may_park: bool,
}

/// What a frontend tells its service to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontendEvent {
    /// A connection was refused or closed before it had a request; the text is the metric's `reason`, one of a few
    /// constants.
    Rejected(&'static str),
    /// A worker caught a panic.
    Panicked,
    /// A loop handled a batch of events, and took that long, in nanoseconds.
    Turn(Nanos),
    /// This process has no descriptor or memory left to accept connections.
    Short(rustix::io::Errno),
}

/// An answer for the client. The frontend adds `Content-Length` or `Transfer-Encoding` and `Connection`; `fields` must
/// not hold them, and must hold everything else (`Date`, too).
pub struct Answer {
    /// 200 to 999, or 101 with [`AnswerBody::Upgrade`].
    pub status: u16,
    /// The reason phrase as the backend sent it; `None` for the standard one.
    pub reason: Option<Vec<u8>>,
    /// End-to-end fields in order.
    pub fields: Fields,
    /// What follows the head.
    pub body: AnswerBody,
    /// End the connection after this answer, whatever the client asked.
    pub close: bool,
    /// Why it is a refusal of ours, in the operator's words; `None` for everything else.
    pub cause: Option<Cow<'static, str>>,
    /// Told once how the delivery ended; dropped without a word only if the frontend itself failed.
    pub ticket: Option<Box<dyn Ticket>>,
}

/// What follows an answer's head.
pub enum AnswerBody {
    /// Nothing: HEAD, 204, 304. `declared` is the Content-Length that a GET would have had, sent as it is for HEAD
    /// and 304 (RFC 9110 §8.6).
    None {
        /// In bytes; `None` sends no Content-Length.
        declared: Option<u64>,
    },
    /// A whole body in memory.
    Bytes(Vec<u8>),
    /// A body that arrives while it is sent. [`BodyLength::Known`] is sent as Content-Length, the others chunked (or
    /// until close to HTTP/1.0).
    Stream(BodyLength, Box<dyn Stream>),
    /// After a 101: both directions are relayed until one side ends.
    Upgrade(Upgrade),
    /// A body that the engine moves from the backend that answered; [`BodyLength::Known`] is sent as Content-Length, the
    /// others chunked (or until close to HTTP/1.0).
    Relayed(BodyLength),
    /// After a 101: the engine relays both directions until one side ends.
    Tunnel,
}

/// The backend's side of an upgraded connection.
pub struct Upgrade {
    /// The connection, its own and in no pool.
    pub backend: TcpStream,
    /// What the backend sent behind its 101 already.
    pub early: Vec<u8>,
}

/// May a read wait?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until bytes come, the end, or the time-out for silence.
    Block,
    /// Not at all: [`Pull::Pending`] when nothing is there.
    Poll,
}

/// What a read of a response body brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Pull {
    /// That many bytes, at least 1.
    Bytes(usize),
    /// The body is complete.
    End,
    /// Nothing for now; only with [`Wait::Poll`].
    Pending,
    /// The backend broke off, was too slow or sent bad framing; the text is for the log. The client must see a broken
    /// answer, never a complete one.
    Broken(String),
}

/// A response body that arrives while it is sent. Dropping it before its end closes the backend's connection.
pub trait Stream: Send {
    /// Reads the next bytes of the body, its framing taken off.
    fn pull(&mut self, buffer: &mut [u8], wait: Wait) -> Pull;

    /// The socket to wait on after [`Pull::Pending`].
    fn socket(&self) -> Option<Awaitable<'_>>;

    /// The longest silence that [`Wait::Block`] allows; whoever waits on [`Stream::socket`] instead must keep it.
    fn silence_limit(&self) -> Duration;

    /// When all of it must be over, however slowly its reader takes it.
    fn deadline(&self) -> Option<Nanos> {
        None
    }

    /// Why the answer breaks off when either has passed, for the log.
    fn too_late(&self) -> String {
        "the backend was silent for too long in the middle of its answer".to_owned()
    }
}

/// How the delivery of an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Every byte was handed to the kernel.
    Complete,
    /// The client left or took nothing for `frontend.write_timeout`.
    ClientGone,
    /// The backend broke off in mid-body; the text is for the log.
    BackendBroke(String),
    /// The backend broke off before anything was sent, and a 502 went out instead; the text is for the log.
    Replaced(String),
}

/// Whatever must happen when an answer is delivered: the lease given back, the log line written.
pub trait Ticket: Send {
    /// Called once, with the body bytes that were sent (framing not counted).
    fn settle(self: Box<Self>, body_bytes: u64, delivery: Delivery);
}

impl Answer {
    /// An answer with a status and a whole body and nothing else.
    pub fn new(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            reason: None,
            fields: Fields::with_room(8, 384),
            body: AnswerBody::Bytes(body),
            close: false,
            cause: None,
            ticket: None,
        }
    }

    /// The same with one more field.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push(name, value.as_ref());
        self
    }
}
