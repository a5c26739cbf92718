//! The portable engine, on the crate `tiny_http`. It runs everywhere. A table of cases × engines in docs/engines.md has
//! what it can't do: close a connection that the client wants kept, bound heads and connections, time out.
//!
//! The crate parses leniently. So every head that it hands over is written out again and read by our own strict parser:
//! both engines judge by the same rules.
//!
//! - `steps`: a request's story, driven by a worker that waits for whatever the story waits for.
//! - `call`: one call of a backend, by ureq's public interface.
//! - `body`, `deliver`: a request's body, and an answer on its way to the client.
//! - `target`: what ureq can't send on.

mod body;
mod call;
mod deliver;
mod steps;
pub(super) mod target;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use tiny_http::{Request, Server};

use crate::clock::Clock;
use crate::config;
use crate::error::Reject;
use crate::proxy::exchange::{FrontendEvent, Rejection};
use crate::proxy::service::Service;
use balancer_http::framing::request::{Bounds, HeadVerdict, parse};
use balancer_http::message::Reason;
use balancer_http::message::{BodyLength, RequestHead, Version};
use balancer_time::nanos;

use body::Body;
use call::BackendCaller;
use deliver::{ClientFacts, deliver};

/// Keys of the configuration that have no effect on this engine: the crate keeps its connections to itself.
pub const IGNORED_KEYS: [&str; 13] = [
    "frontend.max_connections",
    "frontend.max_connections_per_ip",
    "frontend.head_timeout",
    "frontend.body_timeout",
    "frontend.idle_timeout",
    "frontend.write_timeout",
    "frontend.tunnel_timeout",
    "frontend.min_bytes_per_sec",
    "frontend.slow_grace",
    "frontend.upgrades",
    "frontend.abort_on_close",
    "frontend.proxy_protocol",
    "frontend.accept_invalid",
];
/// Most servers of the crate at once: one for each listener, and one more after each accept error. Such an error ends
/// the crate's accept thread for good, while its kept connections go on. At the bound the oldest server is given up.
const MAX_SERVERS: usize = 16;
/// How long a worker that is to stop waits for one more request. Kept connections can't be closed, and a client that
/// was not told yet may be about to send its next request.
const LAST_LOOK: Duration = Duration::from_millis(250);
/// How long such a worker waits at a time, and how often draining looks whether all workers have stopped.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// The pause after an accept error before accepting goes on. The error is most likely "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The text of the error that the crate's `recv` returns after `unblock`.
const UNBLOCKED: &str = "thread unblocked";
/// A worker's stack: deep enough for ureq without TLS. The system gives memory only for the part that is used.
const STACK_BYTES: usize = 512 * 1024;

/// A running engine.
pub struct TinyHttp {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
    /// Whether shutting the listeners down would end them for other processes, too.
    inherited: bool,
}

struct Shared {
    listeners: Vec<TcpListener>,
    /// Where each of them listens.
    addresses: Vec<SocketAddr>,
    /// Locked for a moment by each worker between two requests, never across I/O.
    servers: Mutex<Vec<(usize, Arc<Server>)>>,
    service: Arc<dyn Service>,
    caller: BackendCaller,
    clock: Clock,
    bounds: Bounds,
    max_body_bytes: u64,
    request_buffer_bytes: usize,
    response_buffer_bytes: usize,
    workers: usize,
    stopping: AtomicBool,
    busy: AtomicUsize,
    /// Workers at a call of the API that may wait for the database.
    waiting_calls: AtomicUsize,
    ended: AtomicUsize,
}

impl TinyHttp {
    /// Starts accepting on bound listeners.
    ///
    /// # Errors
    /// When a listener can't be cloned or a thread not be started.
    pub fn start(
        listeners: Vec<TcpListener>,
        inherited: bool,
        config: &config::Frontend,
        service: Arc<dyn Service>,
        clock: Clock,
    ) -> io::Result<Self> {
        let mut addresses = Vec::new();
        let mut servers = Vec::new();
        for (index, listener) in listeners.iter().enumerate() {
            addresses.push(listener.local_addr()?);
            // Accepted connections inherit it. Without it answers of 1 MiB run at a quarter of the speed.
            socket2::SockRef::from(listener).set_tcp_nodelay(true)?;
            servers.push((index, Arc::new(serve_on(listener)?)));
        }
        let shared = Arc::new(Shared {
            listeners,
            addresses: addresses.clone(),
            servers: Mutex::new(servers),
            service,
            caller: BackendCaller::new(config.head_bounds().max_head_bytes, config.workers(), clock.clone()),
            clock,
            bounds: config.head_bounds(),
            max_body_bytes: config.max_body_bytes,
            request_buffer_bytes: config.request_buffer_bytes,
            response_buffer_bytes: config.response_buffer_bytes,
            workers: config.workers(),
            stopping: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            waiting_calls: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
        });
        let workers = (0..config.workers())
            .map(|index| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("worker-{index}"))
                    .stack_size(STACK_BYTES)
                    .spawn(move || shared.work(index))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { shared, workers, addresses, inherited })
    }

    /// Where it listens, with real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// How many workers are at a request. The crate does not say what its connections are doing.
    pub fn workers_busy(&self) -> usize {
        self.shared.busy.load(Ordering::Relaxed)
    }

    /// Takes no new connections; kept ones are told to close with their next answer.
    pub fn stop_accepting(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        if !self.inherited {
            for listener in &self.shared.listeners {
                // Wakes the crate's accept thread with an error, which ends it.
                let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
            }
        }
        self.shared.wake_workers();
    }

    /// Waits until every request is answered; false when that took longer than `limit`.
    pub fn drain(&self, limit: Duration) -> bool {
        let deadline = self.shared.clock.now() + nanos(limit);
        while self.shared.ended.load(Ordering::SeqCst) < self.workers.len() {
            if self.shared.clock.now() >= deadline {
                return false;
            }
            // Each time anew: a worker that looks for a last request may take the wake-up that was meant for another.
            self.shared.wake_workers();
            thread::sleep(DRAIN_POLL);
        }
        true
    }
}

fn serve_on(listener: &TcpListener) -> io::Result<Server> {
    Server::from_listener(listener.try_clone()?, None).map_err(|error| io::Error::other(error.to_string()))
}

impl Shared {
    fn work(&self, index: usize) {
        let mut silent_since = None;
        loop {
            let server = {
                let servers = self.servers.lock();
                servers.get(index % servers.len().max(1)).cloned()
            };
            let Some((listener, server)) = server else { break };
            if self.stopping.load(Ordering::SeqCst) {
                let since = *silent_since.get_or_insert_with(|| self.clock.now());
                match server.recv_timeout(DRAIN_POLL) {
                    Ok(Some(request)) => {
                        self.handle(request, listener);
                        silent_since = None;
                    }
                    Ok(None) if self.clock.now() >= since + nanos(LAST_LOOK) => {
                        // This worker may have taken the `unblock` that was meant for one that still waits.
                        server.unblock();
                        break;
                    }
                    // An `unblock` ends the wait, too.
                    Ok(None) | Err(_) => {}
                }
                continue;
            }
            match server.recv() {
                Ok(request) => self.handle(request, listener),
                Err(error) => self.after_accept_error(listener, &error),
            }
        }
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Starts a new server after an accept error. `recv` fails once after such an error, and after each `unblock`,
    /// which is none.
    fn after_accept_error(&self, listener: usize, error: &io::Error) {
        if self.stopping.load(Ordering::SeqCst) || error.to_string() == UNBLOCKED {
            return;
        }
        log::error!("accepting failed ({error}); going on in {ACCEPT_PAUSE:?}");
        self.service.observe(FrontendEvent::Rejected(Rejection::Descriptors));
        let fresh = loop {
            thread::sleep(ACCEPT_PAUSE);
            match serve_on(&self.listeners[listener]) {
                Ok(server) => break Arc::new(server),
                Err(error) => log::error!("accepting cannot go on yet: {error}"),
            }
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
        };
        {
            let mut servers = self.servers.lock();
            servers.push((listener, fresh));
            if servers.len() > MAX_SERVERS.max(2 * self.listeners.len()) {
                servers.remove(0);
                log::warn!("kept connections from before an accept error were given up");
            }
        }
        // Each worker looks again which server it belongs to.
        self.wake_workers();
    }

    /// Ends every blocked `recv` once.
    fn wake_workers(&self) {
        let servers: Vec<_> = self.servers.lock().iter().map(|(_, server)| Arc::clone(server)).collect();
        for server in servers {
            for _ in 0..self.workers {
                server.unblock();
            }
        }
    }

    /// Answers one request that came to that listener. A panic does not end the worker.
    fn handle(&self, request: Request, listener: usize) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        let caught = catch_unwind(AssertUnwindSafe(|| self.exchange(request, listener)));
        self.busy.fetch_sub(1, Ordering::Relaxed);
        if caught.is_err() {
            self.service.observe(FrontendEvent::Panicked);
            log::error!("a worker panicked outside of a service; its request was dropped");
        }
    }

    fn exchange(&self, mut request: Request, listener: usize) {
        let received_at = self.clock.now();
        let Some(peer) = request.remote_addr().copied() else { return };
        let mut head = RequestHead::blank(peer);
        #[cfg(target_os = "linux")]
        let connection = self.connection(listener, peer);
        #[cfg(target_os = "linux")]
        {
            let connection: std::sync::Weak<super::owner::Ends> = Arc::downgrade(&connection);
            head.connection = Some(connection);
        }
        let mut asked_to_keep = false;
        let refused = match self.read_head(&request, &mut head) {
            Ok(keep_alive) => {
                asked_to_keep = keep_alive;
                None
            }
            Err(reject) => Some(reject),
        };
        let mut body = Body::new(&mut request, &head, self.max_body_bytes, self.request_buffer_bytes);
        let answered = match refused.or_else(|| body.refusal()) {
            Some(reject) => (self.service.refuse(&head, &reject, received_at), None),
            None => self.answer(&mut head, &mut body, received_at),
        };
        let unread = body.unread();
        let client = ClientFacts {
            head: &head,
            // Asked now, since the engine may have begun to stop meanwhile.
            asked_to_keep: asked_to_keep && !self.stopping.load(Ordering::SeqCst),
        };
        deliver(request, answered, client, unread, self.response_buffer_bytes);
    }

    /// What is known of a request's connection. The crate keeps the socket, and does not say to which of our addresses
    /// it came.
    #[cfg(target_os = "linux")]
    fn connection(&self, listener: usize, peer: SocketAddr) -> Arc<super::owner::Ends> {
        let ours = self.addresses.get(listener).copied().filter(|ours| !ours.ip().is_unspecified());
        Arc::new(super::owner::Ends { ours, peer })
    }

    /// Judges the head that the crate has read by our own rules. `Ok`: whether the client wants its connection kept.
    fn read_head(&self, request: &Request, head: &mut RequestHead) -> Result<bool, Reject> {
        let mut text = Vec::with_capacity(1024);
        for part in [request.method().as_str(), " ", request.url(), " HTTP/"] {
            text.extend_from_slice(part.as_bytes());
        }
        let version = request.http_version();
        text.extend_from_slice(format!("{}.{}\r\n", version.0, version.1).as_bytes());
        for header in request.headers() {
            super::render::field(&mut text, header.field.as_str().as_str(), header.value.as_bytes());
        }
        text.extend_from_slice(b"\r\n");
        match parse(&text, &self.bounds, head) {
            HeadVerdict::Complete { .. } if head.length == BodyLength::Chunked && keeps_chunks(request) => {
                let detail = "a chunked body beside an upgrade is not read here";
                Err(Reject::new(Reason::NotImplemented, detail))
            }
            HeadVerdict::Complete { keep_alive, .. } => {
                let refused = target::refusal(&head.target).or_else(|| target::unsendable(head));
                refused.map_or(Ok(keep_alive), Err)
            }
            HeadVerdict::Refused(refusal) => Err(Reject::new(refusal.reason, refusal.detail)),
            HeadVerdict::Incomplete => {
                Err(Reject::new(Reason::BadRequest, "the request's head is not whole"))
            }
        }
    }
}

/// Whether the crate hands over a chunked body without decoding it. It does so when the head asks for an upgrade, since
/// it takes what follows for bytes of the new protocol.
fn keeps_chunks(request: &Request) -> bool {
    let first = request.headers().iter().find(|header| header.field.equiv("Connection"));
    first.is_some_and(|header| header.value.as_str().to_ascii_lowercase().contains("upgrade"))
}

/// Whether some of a request's body is still to come from the client when the answer is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Nothing.
    Nothing,
    /// Something: the answer has to be sent before the crate reads the rest.
    Something,
}

impl ClientFacts<'_> {
    fn speaks_chunked(&self) -> bool {
        self.head.version == Version::Http11
    }
}

/// The length of a body that is read whole before the request is served; `None` for one that streams.
fn fits(length: BodyLength, buffer_bytes: usize) -> Option<usize> {
    match length {
        BodyLength::Known(bytes) => usize::try_from(bytes).ok().filter(|bytes| *bytes <= buffer_bytes),
        _ => None,
    }
}
