//! Connections: each has a thread and answers one request after another. Every read is bounded in size and time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use balancer_http::framing::chunk::{ChunkDecoder, ChunkStep};
use balancer_http::framing::request::{Bounds, HeadVerdict, parse};
use balancer_http::message::{BodyLength, RequestHead};

use crate::answer::{Answer, Behaviour, Body, echo, refusal};

/// Most connections at once, each with a thread; more are closed as they come.
const MAX_CONNECTIONS: usize = 8192;
/// The stack of such a thread. What it reads is on the heap.
const STACK_BYTES: usize = 256 * 1024;
/// Largest body that is echoed; a larger one is answered 413.
const MAX_BODY_BYTES: u64 = 64 * 1024 * 1024;
/// Longest silence of a client, between requests too.
const SILENCE: Duration = Duration::from_secs(60);
/// How long accepting rests when there is no descriptor or thread left.
const REST: Duration = Duration::from_millis(50);
/// How often a connection is still read after its last answer, so that the answer is not lost by a reset.
const LINGER_READS: u32 = 128;
/// The longest silence during those reads.
const LINGER_SILENCE: Duration = Duration::from_secs(1);

const BOUNDS: Bounds = Bounds {
    max_head_bytes: 64 * 1024,
    max_headers: 1000,
    max_target_bytes: 32 * 1024,
    accept_invalid: true,
};

/// What all connections share.
#[derive(Debug)]
pub struct Server {
    behaviour: Behaviour,
    /// Whether the health path fails.
    pub failing: AtomicBool,
    connections: AtomicUsize,
}

impl Server {
    /// A server that behaves so.
    pub fn new(behaviour: Behaviour, failing: bool) -> Self {
        Self { behaviour, failing: AtomicBool::new(failing), connections: AtomicUsize::new(0) }
    }

    /// Accepts for ever. Nothing that a client or the system does ends it.
    pub fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            match listener.accept() {
                Ok((socket, peer)) => {
                    if self.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                        self.connections.fetch_sub(1, Ordering::Relaxed);
                        continue;
                    }
                    let counted = Counted(Arc::clone(self));
                    let started = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
                        // A client that breaks off is no concern of ours.
                        let _ = counted.0.converse(socket, peer);
                    });
                    if started.is_err() {
                        thread::sleep(REST);
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(_) => thread::sleep(REST),
            }
        }
    }

    /// Answers one request after another until the connection ends.
    fn converse(&self, socket: TcpStream, peer: SocketAddr) -> io::Result<()> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.set_write_timeout(Some(SILENCE))?;
        let mut connection = Connection { socket, received: Vec::new(), head: RequestHead::blank(peer) };
        loop {
            match connection.read_request()? {
                Request::End => return Ok(()),
                Request::Refused(answer) => {
                    connection.answer(&answer, &self.behaviour, true)?;
                    return connection.linger();
                }
                Request::Whole { body, keep_alive } => {
                    let answer = self.respond(&connection.head, &body);
                    let close = self.behaviour.close || !keep_alive;
                    connection.answer(&answer, &self.behaviour, close)?;
                    if close {
                        return connection.linger();
                    }
                }
            }
        }
    }

    fn respond(&self, head: &RequestHead, body: &[u8]) -> Answer {
        let Behaviour { delay, health_path, status, size, .. } = &self.behaviour;
        let is_health = head.path() == health_path;
        if is_health && self.failing.load(Ordering::Relaxed) {
            return refusal(503, "failing, as asked");
        }
        if !is_health {
            thread::sleep(*delay);
        }
        let status = if is_health { 200 } else { *status };
        match size {
            Some(bytes) => Answer { status, media_type: "text/plain", body: Body::Text(*bytes) },
            None => {
                let body = Body::Bytes(echo(&head.method, &head.target, body));
                Answer { status, media_type: "application/json", body }
            }
        }
    }
}

/// A connection that is counted until its thread ends, in whatever way.
struct Counted(Arc<Server>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Request {
    Whole {
        body: Vec<u8>,
        keep_alive: bool,
    },
    Refused(Answer),
    /// The client is done.
    End,
}

struct Connection {
    socket: TcpStream,
    /// Read from the socket and not used yet.
    received: Vec<u8>,
    head: RequestHead,
}

impl Connection {
    fn read_request(&mut self) -> io::Result<Request> {
        let keep_alive = loop {
            match parse(&self.received, &BOUNDS, &mut self.head) {
                HeadVerdict::Complete { consumed, keep_alive } => {
                    self.received.drain(..consumed);
                    break keep_alive;
                }
                HeadVerdict::Refused(why) => {
                    return Ok(Request::Refused(refusal(why.reason.status().0, why.detail)));
                }
                HeadVerdict::Incomplete if self.read_more()? == 0 => return Ok(Request::End),
                HeadVerdict::Incomplete => {}
            }
        };
        if matches!(self.head.length, BodyLength::Known(length) if length > MAX_BODY_BYTES) {
            return Ok(Request::Refused(too_large()));
        }
        if self.head.expects_continue && self.head.length != BodyLength::Empty {
            self.socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = match self.head.length {
            BodyLength::Known(length) => self.read_known(length)?,
            BodyLength::Chunked => match self.read_chunked()? {
                Ok(body) => body,
                Err(answer) => return Ok(Request::Refused(answer)),
            },
            BodyLength::Empty | BodyLength::UntilClose => Vec::new(),
        };
        Ok(Request::Whole { body, keep_alive })
    }

    /// Reads a body of known length. Its memory grows with what comes, not with what was announced.
    fn read_known(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let here = usize::try_from(length).unwrap_or(usize::MAX).min(self.received.len());
        let mut body: Vec<u8> = self.received.drain(..here).collect();
        let left = length - here as u64;
        if (&mut self.socket).take(left).read_to_end(&mut body)? as u64 != left {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(body)
    }

    fn read_chunked(&mut self) -> io::Result<Result<Vec<u8>, Answer>> {
        let mut decoder = ChunkDecoder::new();
        let mut body = Vec::new();
        loop {
            let mut at = 0;
            loop {
                match decoder.step(&self.received[at..]) {
                    Ok(ChunkStep::Data { start, end }) => {
                        body.extend_from_slice(&self.received[at + start..at + end]);
                        at += end;
                    }
                    Ok(ChunkStep::More) => break,
                    Ok(ChunkStep::End { used }) => {
                        self.received.drain(..at + used);
                        return Ok(Ok(body));
                    }
                    Err(fault) => return Ok(Err(refusal(400, &fault.to_string()))),
                }
                if body.len() as u64 > MAX_BODY_BYTES {
                    return Ok(Err(too_large()));
                }
            }
            self.received.clear();
            if self.read_more()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn read_more(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn answer(&mut self, answer: &Answer, behaviour: &Behaviour, close: bool) -> io::Result<()> {
        answer.write(&mut self.socket, behaviour, &self.head, close)
    }

    /// Ends the connection so that the client gets the answer even when it is still sending (RFC 9112 §9.6).
    fn linger(mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)?;
        self.socket.set_read_timeout(Some(LINGER_SILENCE))?;
        for _ in 0..LINGER_READS {
            self.received.clear();
            if self.read_more()? == 0 {
                break;
            }
        }
        Ok(())
    }
}

fn too_large() -> Answer {
    refusal(413, "bodies are echoed up to 64 MiB")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
