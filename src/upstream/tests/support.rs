//! A backend that follows a script, and what is needed to call it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{RetryOn, UpstreamConfig};
use crate::proxy::exchange::{Abort, BodyFault, Pull, RequestBody, Stream, Wait};
use crate::proxy::{Incoming, Outgoing, Phase, Reuse, Upstream, UpstreamError};
use crate::upstream::UreqUpstream;
use balancer_http::fields::Fields;
use balancer_http::message::BodyLength;
use balancer_pool::backends::Endpoint;
use balancer_time::Nanos;

/// Long enough for a busy machine, short enough for a test that waits for it.
pub const SHORT: Duration = Duration::from_millis(300);
/// Never reached by a test that passes.
pub const LONG: Duration = Duration::from_secs(20);

/// Measures how long something takes.
pub struct Watch(Clock, Nanos);

impl Watch {
    pub fn start() -> Self {
        let clock = Clock::real();
        let now = clock.now();
        Self(clock, now)
    }

    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.0.now() - self.1)
    }
}

/// A listener on a port of its own; each connection runs the script on a thread of its own.
pub struct Backend {
    pub endpoint: Arc<Endpoint>,
    accepted: Arc<AtomicUsize>,
}

impl Backend {
    /// `script(n, peer)`: n counts connections from 0. The connection is closed when it returns.
    pub fn start(script: impl Fn(usize, &mut Peer) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = Endpoint::alone("b", listener.local_addr().expect("an address"));
        let accepted = Arc::new(AtomicUsize::new(0));
        let (count, script) = (Arc::clone(&accepted), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let index = count.fetch_add(1, Ordering::SeqCst);
                let script = Arc::clone(&script);
                let mut peer = Peer { stream: stream.expect("a connection"), rest: Vec::new() };
                // How a script ends is the script's business: most are cut off.
                std::thread::spawn(move || drop(script(index, &mut peer)));
            }
        });
        Self { endpoint, accepted }
    }

    /// Reads requests without bodies and answers each with `answer`, for ever.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_, peer| {
            loop {
                peer.head()?;
                peer.write(&answer)?;
            }
        })
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// The backend's end of one connection.
pub struct Peer {
    pub stream: TcpStream,
    rest: Vec<u8>,
}

impl Peer {
    /// The next request's head, with its empty line, each byte as a character. An error at the end of the stream.
    pub fn head(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.rest.windows(4).position(|window| window == b"\r\n\r\n") {
                return Ok(self.rest.drain(..end + 4).map(char::from).collect());
            }
            self.more()?;
        }
    }

    /// Exactly that many bytes.
    pub fn exactly(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        while self.rest.len() < bytes {
            self.more()?;
        }
        Ok(self.rest.drain(..bytes).collect())
    }

    /// Everything up to the end of the stream.
    pub fn drain(&mut self) -> Vec<u8> {
        while self.more().is_ok() {}
        std::mem::take(&mut self.rest)
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.rest.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Ends the connection with a RST.
    pub fn reset(&mut self) {
        let linger = Some(Duration::ZERO);
        socket2::SockRef::from(&self.stream).set_linger(linger).expect("linger");
        self.stream = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| TcpStream::connect(listener.local_addr()?))
            .expect("another socket in its place");
    }

    /// Waits until the other side has closed.
    pub fn until_closed(&mut self) -> io::Result<()> {
        self.drain();
        Ok(())
    }
}

pub fn config() -> UpstreamConfig {
    UpstreamConfig {
        connect_timeout: LONG,
        response_timeout: LONG,
        read_timeout: LONG,
        idle_timeout: Duration::from_secs(4),
        request_timeout: None,
        retries: 1,
        retry_on: RetryOn::default(),
        retry_budget: 0.2,
        resolve_interval: LONG,
        max_head_bytes: 32 * 1024,
        max_headers: 256,
        accept_invalid: false,
        via: true,
    }
}

pub fn upstream() -> UreqUpstream {
    UreqUpstream::new(&config(), Clock::real())
}

/// One that loses patience.
pub fn impatient() -> UreqUpstream {
    UreqUpstream::new(&UpstreamConfig { response_timeout: SHORT, ..config() }, Clock::real())
}

/// A body in memory, or one that arrives in pieces and may fail.
#[derive(Default)]
pub struct TestBody {
    pub memory: Option<Vec<u8>>,
    pub pieces: Vec<Vec<u8>>,
    pub fault: Option<BodyFault>,
    pub reads: usize,
}

impl TestBody {
    pub fn none() -> Self {
        Self::default()
    }

    pub fn in_memory(bytes: &[u8]) -> Self {
        Self { memory: Some(bytes.to_vec()), ..Self::default() }
    }

    pub fn pieces(pieces: &[&[u8]]) -> Self {
        Self { pieces: pieces.iter().rev().map(|piece| piece.to_vec()).collect(), ..Self::default() }
    }
}

impl RequestBody for TestBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        let Some(mut piece) = self.pieces.pop() else {
            return self.fault.map_or(Ok(0), |fault| Err(io::Error::other(fault)));
        };
        let read = piece.len().min(buffer.len());
        buffer[..read].copy_from_slice(&piece[..read]);
        if read < piece.len() {
            self.pieces.push(piece.split_off(read));
        }
        Ok(read)
    }

    fn buffered(&self) -> Option<&[u8]> {
        self.memory.as_deref()
    }

    fn consumed(&self) -> bool {
        self.reads > 0
    }
}

/// What a request is made of; the rest has defaults.
pub struct Request<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub fields: &'a [(&'a str, &'a [u8])],
    pub length: BodyLength,
    pub reuse: Reuse,
    pub deadline: Option<Nanos>,
}

impl Default for Request<'_> {
    fn default() -> Self {
        Self {
            method: "GET",
            target: "/",
            fields: &[("Host", b"h")],
            length: BodyLength::Empty,
            reuse: Reuse::Any,
            deadline: None,
        }
    }
}

impl Request<'_> {
    pub fn send_with(
        &self,
        upstream: &UreqUpstream,
        backend: &Backend,
        body: &mut dyn RequestBody,
        abort: &Abort,
    ) -> Result<Incoming, UpstreamError> {
        let mut fields = Fields::new();
        self.fields.iter().for_each(|(name, value)| fields.push(name, value));
        let outgoing = Outgoing {
            method: self.method,
            target: self.target,
            fields: &fields,
            length: self.length,
            reuse: self.reuse,
            deadline: self.deadline,
        };
        upstream.send(&backend.endpoint, &outgoing, body, abort)
    }

    pub fn send(&self, upstream: &UreqUpstream, backend: &Backend) -> Result<Incoming, UpstreamError> {
        self.send_with(upstream, backend, &mut TestBody::none(), &Abort::default())
    }
}

/// Sends a plain GET.
pub fn get(upstream: &UreqUpstream, backend: &Backend) -> Result<Incoming, UpstreamError> {
    Request::default().send(upstream, backend)
}

/// A plain GET that is answered; its body.
pub fn get_body(upstream: &UreqUpstream, backend: &Backend) -> Vec<u8> {
    let mut incoming = get(upstream, backend).expect("an answer");
    read(&mut *incoming.body).expect("a whole body")
}

pub fn phase(result: Result<Incoming, UpstreamError>) -> Phase {
    result.map(|incoming| incoming.status).expect_err("no answer").phase
}

/// Reads a body to its end with a small buffer; the log's text when it broke.
pub fn read(body: &mut dyn Stream) -> Result<Vec<u8>, String> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 7]);
    loop {
        match body.pull(&mut buffer, Wait::Block) {
            Pull::Bytes(read) => bytes.extend_from_slice(&buffer[..read]),
            Pull::End => return Ok(bytes),
            Pull::Pending => panic!("a blocking read came back with nothing"),
            Pull::Broken(why) => return Err(why),
        }
    }
}
