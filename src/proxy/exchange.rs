//! What an engine and a [`Service`](super::service::Service) hand each other: requests with their bodies, answers, and
//! events to count. Nothing here depends on the engine: `loops` and `portable` use the same types.

use std::borrow::Cow;
use std::io;

pub use crate::metrics::{Handshake, Http2Flood, Rejection};
use balancer_http::fields::Fields;
use balancer_time::Nanos;

mod problem;

use balancer_http::message::{BodyLength, Reason, RequestHead};

/// Why a request's body could not be read to its end. Travels inside an [`io::Error`] (`io::Error::other`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// Longer than `frontend.max_body_bytes`, or its route's `max_body_bytes`: 413.
    TooLarge,
    /// Chunked framing that breaks RFC 9112 §7.1: 400.
    Malformed,
    /// Silent for `frontend.body_timeout`, or below the minimum rate: 408.
    TimedOut,
    /// The client closed or reset its side before the end: it gets no answer.
    ClientGone,
}

impl std::fmt::Display for BodyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TooLarge => {
                "the request's body is larger than frontend.max_body_bytes, or than its route's bound"
            }
            Self::Malformed => "the request's chunked body is malformed",
            Self::TimedOut => "the client sent its body too slowly",
            Self::ClientGone => "the client left before its body ended",
        })
    }
}

impl std::error::Error for BodyFault {}

impl BodyFault {
    /// The reason of a refusal for it.
    pub fn reason(self) -> Reason {
        match self {
            Self::TooLarge => Reason::ContentTooLarge,
            Self::TimedOut => Reason::RequestTimeout,
            Self::Malformed | Self::ClientGone => Reason::BadRequest,
        }
    }

    /// The fault inside an error of [`RequestBody::read`].
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().copied()
    }
}

/// A request's body. Reading it first answers an `Expect: 100-continue`.
pub trait RequestBody {
    /// Reads the next bytes, waiting for them; 0 is the end. Errors are [`BodyFault`]s.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A request for a thread that may block: a call of the API. The answer is the service's return value, so none can be
/// forgotten.
pub struct BlockingRequest<'a> {
    /// What was asked.
    pub head: &'a mut RequestHead,
    /// The body, unread.
    pub body: &'a mut dyn RequestBody,
    /// When the head was complete.
    pub received_at: Nanos,
}

/// What an engine tells its service to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontendEvent {
    /// A connection was refused or closed before it had a request.
    Rejected(Rejection),
    /// A worker caught a panic.
    Panicked,
    /// A loop handled a batch of events, and took that long, in nanoseconds.
    Turn(Nanos),
    /// A TLS handshake with a client ended so, that long after the connection's first byte, in nanoseconds.
    Handshake(Handshake, Nanos),
    /// An HTTP/2 connection was ended for a flood.
    Http2Flooded(Http2Flood),
    /// This process has no descriptor or memory left to accept connections.
    Short(rustix::io::Errno),
}

/// An answer for the client. The engine adds `Content-Length` or `Transfer-Encoding`, and `Connection`: `fields` must
/// not hold these, and must hold everything else, `Date` included.
pub struct Answer {
    /// 200 to 999, or 101 with [`AnswerBody::Tunnel`].
    pub status: u16,
    /// The reason phrase as the backend sent it; `None` for the standard one.
    pub reason: Option<Vec<u8>>,
    /// End-to-end fields in order.
    pub fields: Fields,
    /// What follows the head.
    pub body: AnswerBody,
    /// End the connection after this answer, whatever the client asked.
    pub close: bool,
    /// For a refusal of our own, why it is one, in words for the operator; `None` for every other answer.
    pub cause: Option<Cow<'static, str>>,
    /// Told once how the delivery ended. Dropped unsettled only if the engine itself failed.
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
    /// A body that the engine moves from the backend that answered; [`BodyLength::Known`] is sent as Content-Length,
    /// the others chunked (or until close to HTTP/1.0).
    Relayed(BodyLength),
    /// After a 101: the engine relays both directions until one side ends.
    Tunnel,
}

/// How the delivery of an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// Every byte was handed to the kernel.
    Complete,
    /// The client left or took nothing for `frontend.write_timeout`.
    ClientGone,
    /// The backend broke off in mid-body; the text is for the log.
    BackendBroke(String),
    /// The backend broke off before anything was sent, and a 502 went out instead; the text is for the log.
    Replaced(String),
}

/// What has to happen when an answer was delivered: the lease is given back, the log line is written.
pub trait Ticket: Send {
    /// Called once, with the body bytes that were sent (framing not counted).
    fn settle(self: Box<Self>, body_bytes: u64, delivery: DeliveryOutcome);
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
