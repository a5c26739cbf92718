//! Posts to one collector, on one connection that is kept. Not by ureq: its time-outs begin anew with each part of an
//! exchange unless it starts a thread for each, and it is built without TLS. Here one deadline bounds all of it, but a
//! look-up of the host's name, which the system bounds.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::outcome::CollectorAnswer;
use crate::clock::Clock;
use crate::config::CollectorUrl;
use crate::timed::{TimedStream, left_until};
use crate::tls::roots;
use crate::tls::upstream::server_name;
use balancer_http::framing::chunk::{ChunkDecoder, ChunkStep};
use balancer_http::framing::response::{self, Head, HeadRules, MAX_INTERIM};
use balancer_http::message::BodyLength;
use balancer_http::trace::TraceParent;
use balancer_time::Nanos;

/// Most bytes of an answer's body that are read; a connection that has more to say is closed.
const MAX_BODY: usize = 64 * 1_024;

/// See the module.
pub(super) struct Collector {
    url: CollectorUrl,
    clock: Clock,
    /// What sessions are made with; made at the first.
    tls: Option<Arc<ClientConfig>>,
    kept: Option<Wire>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PostFault {
    /// It may come another time.
    Unreachable(String),
    /// Whatever answers there is no collector of ours.
    NotHttp(String),
}

enum Wire {
    Plain(TimedStream),
    Tls(Box<StreamOwned<ClientConnection, TimedStream>>),
}

/// An exchange that failed.
struct Broken {
    fault: PostFault,
    /// No byte of an answer had come.
    is_silent: bool,
}

impl Collector {
    pub fn new(url: CollectorUrl, clock: Clock) -> Self {
        Self { url, clock, tls: None, kept: None }
    }

    pub fn url(&self) -> &CollectorUrl {
        &self.url
    }

    /// Posts a JSON body, and reads the answer, until then.
    pub fn post(&mut self, body: &[u8], deadline: Nanos) -> Result<CollectorAnswer, PostFault> {
        if let Some(mut wire) = self.kept.take() {
            wire.socket_mut().deadline = deadline;
            if wire.is_quiet() {
                match self.exchange(wire, body) {
                    // It was closed while nothing was sent; some say so first.
                    Err(Broken { is_silent: true, .. }) | Ok(CollectorAnswer { status: 408, .. })
                        if left_until(deadline, &self.clock).is_ok() => {}
                    other => return other.map_err(|broken| broken.fault),
                }
                self.kept = None;
            }
        }
        let wire = self.connect(deadline).map_err(PostFault::Unreachable)?;
        let outcome = self.exchange(wire, body);
        if outcome.is_err() {
            // Its certificate may be one of a root that the system has only got since: the next session reads them
            // again.
            self.tls = None;
        }
        outcome.map_err(|broken| broken.fault)
    }

    fn connect(&mut self, deadline: Nanos) -> Result<Wire, String> {
        let CollectorUrl { is_tls, host, port, .. } = &self.url;
        let addresses = (host.as_str(), *port).to_socket_addrs().map_err(|error| error.to_string())?;
        let stream = connect_to_one(&addresses.collect::<Vec<_>>(), deadline, &self.clock)?;
        // What is written is whole.
        let _ = stream.set_nodelay(true);
        let stream = TimedStream { stream, clock: self.clock.clone(), deadline };
        if !is_tls {
            return Ok(Wire::Plain(stream));
        }
        let name = server_name(host)
            .ok_or_else(|| format!("{host:?} is no name that a certificate could be for"))?;
        let session = ClientConnection::new(self.tls()?, name).map_err(|error| error.to_string())?;
        Ok(Wire::Tls(Box::new(StreamOwned::new(session, stream))))
    }

    /// The system's roots, which it may not have had before.
    fn tls(&mut self) -> Result<Arc<ClientConfig>, String> {
        if let Some(tls) = &self.tls {
            return Ok(Arc::clone(tls));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots::of_system()?)
            .with_no_client_auth();
        Ok(Arc::clone(self.tls.insert(Arc::new(config))))
    }

    fn exchange(&mut self, mut wire: Wire, body: &[u8]) -> Result<CollectorAnswer, Broken> {
        let head = self.head(body.len());
        let sent =
            wire.write_all(head.as_bytes()).and_then(|()| wire.write_all(body)).and_then(|()| wire.flush());
        // A collector that refuses a body early has perhaps said why.
        let mut reader = AnswerReader { wire: &mut wire, bytes: Vec::new(), is_silent: true };
        let (head, keeps, body) = match (reader.answer(), sent) {
            (Ok(answer), _) => answer,
            (Err(Broken { is_silent: true, .. }), Err(error)) => {
                return Err(Broken { fault: PostFault::Unreachable(told(&error)), is_silent: true });
            }
            (Err(broken), _) => return Err(broken),
        };
        if keeps {
            self.kept = Some(wire);
        }
        let retry_after = head.fields.get("Retry-After");
        let retry_after = retry_after.map(|value| String::from_utf8_lossy(value).into_owned());
        Ok(CollectorAnswer { status: head.status, retry_after, body })
    }

    fn head(&self, length: usize) -> String {
        // Where the collector is behind a proxy that records, this one perhaps: no spans of sending spans.
        let quiet = TraceParent { trace: super::new_trace(), span: super::new_id(), flags: 0 };
        format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: balancer/{}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\ntraceparent: {quiet}\r\n\r\n",
            self.url.path,
            self.url.authority(),
            env!("CARGO_PKG_VERSION"),
        )
    }
}

/// Connects to the first address that can be. One that does not answer leaves those after it their share of the time.
pub(super) fn connect_to_one(
    addresses: &[SocketAddr],
    deadline: Nanos,
    clock: &Clock,
) -> Result<TcpStream, String> {
    let mut failed = "there is no address of that name".to_owned();
    for (address, to_try) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let left = left_until(deadline, clock).map_err(|error| told(&error))?;
        let share = left.div_f64(to_try as f64);
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = told(&error),
        }
    }
    Err(failed)
}

/// In plain words.
fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            "it closed the connection without an answer".into()
        }
        _ => error.to_string(),
    }
}

impl Wire {
    fn socket_mut(&mut self) -> &mut TimedStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &mut stream.sock,
        }
    }

    /// It is open, and nothing has come that nobody asked for: that would pass for the next answer.
    fn is_quiet(&mut self) -> bool {
        let stream = &self.socket_mut().stream;
        let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
        let is_empty = peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        is_empty && stream.set_nonblocking(false).is_ok()
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Reads one answer.
struct AnswerReader<'a> {
    wire: &'a mut Wire,
    /// What came and was not used yet.
    bytes: Vec<u8>,
    is_silent: bool,
}

impl AnswerReader<'_> {
    /// The final head, whether the connection can be used again, and what was read of the body.
    fn answer(&mut self) -> Result<(Head, bool, Vec<u8>), Broken> {
        let mut interim = 0;
        let head = loop {
            match response::parse(&self.bytes, &HeadRules::SHIPPED) {
                Ok(Some((head, used))) => {
                    self.bytes.drain(..used);
                    if !head.is_interim() {
                        break head;
                    }
                    interim += 1;
                    if interim > MAX_INTERIM {
                        return Err(self.not_http("too many interim answers"));
                    }
                }
                Ok(None) => {
                    if self.more()? == 0 {
                        return Err(self.broken(&io::ErrorKind::UnexpectedEof.into()));
                    }
                }
                Err(fault) => return Err(self.not_http(fault.0)),
            }
        };
        let (body, is_whole) = match head.body_length(false) {
            BodyLength::Empty => (Vec::new(), true),
            BodyLength::Known(length) => self.known(usize::try_from(length).unwrap_or(usize::MAX)),
            BodyLength::Chunked => self.chunked(),
            BodyLength::UntilClose => (self.known(usize::MAX).0, false),
        };
        // More than one answer is one too many.
        let keeps = is_whole && head.keep_alive && self.bytes.is_empty();
        Ok((head, keeps, body))
    }

    /// Of a body, and whether that is all of it. The status counts, whatever becomes of the rest.
    fn known(&mut self, length: usize) -> (Vec<u8>, bool) {
        while self.bytes.len() < length.min(MAX_BODY) && self.more().is_ok_and(|count| count > 0) {}
        let here = self.bytes.len().min(length);
        (self.bytes.drain(..here).collect(), here == length)
    }

    /// The same.
    fn chunked(&mut self) -> (Vec<u8>, bool) {
        let (mut decoder, mut body) = (ChunkDecoder::of_answer(), Vec::new());
        while body.len() < MAX_BODY {
            match decoder.step(&self.bytes) {
                Ok(ChunkStep::Data { start, end }) => {
                    body.extend_from_slice(&self.bytes[start..end]);
                    self.bytes.drain(..end);
                }
                Ok(ChunkStep::End { used }) => {
                    self.bytes.drain(..used);
                    return (body, true);
                }
                Ok(ChunkStep::More) => {
                    self.bytes.clear();
                    if !self.more().is_ok_and(|count| count > 0) {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        (body, false)
    }

    /// Reads on; 0: the other side has ended.
    fn more(&mut self) -> Result<usize, Broken> {
        let mut buffer = [0; 4_096];
        loop {
            match self.wire.read(&mut buffer) {
                Ok(count) => {
                    self.is_silent &= count == 0;
                    self.bytes.extend_from_slice(&buffer[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    fn broken(&self, error: &io::Error) -> Broken {
        Broken { fault: PostFault::Unreachable(told(error)), is_silent: self.is_silent }
    }

    fn not_http(&self, why: &str) -> Broken {
        let text =
            format!("what it answers is not HTTP/1.1 ({why}): is this its port of OTLP over HTTP, 4318?");
        Broken { fault: PostFault::NotHttp(text), is_silent: self.is_silent }
    }
}
