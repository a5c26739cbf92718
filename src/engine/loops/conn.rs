//! A client's connection: what it is in the middle of, and what is left over of its last read. An idle one takes a few
//! hundred bytes, since buffers belong to the loop.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::io::Errno;

use super::counts::Counted;
use super::exchange::Exchange;
use super::handshake::Handshake;
use super::http2::{Http2, Stream};
use super::keys::{BackSlot, ClientSlot};
use super::pace::Pace;
use super::secure::Secure;
use super::wire::{Got, Socket};
use crate::engine::render::{self, Framing, Persistence};
use crate::proxy::exchange::Answer;
use balancer_http::fields::Fields;
use balancer_http::framing::write;
use balancer_http::message::{ClientConnection, RequestHead, TlsSession, Version};
use balancer_time::Nanos;

/// A client: its connection and what that does.
pub(super) struct Client {
    pub conn: Conn,
    pub stage: Stage,
}

/// What a connection is in the middle of.
pub(super) enum Stage {
    /// Between two requests, or in a request's head.
    Head,
    /// A TLS handshake.
    Handshake(Handshake),
    /// Frames of HTTP/2, whose requests are clients of their own.
    Http2(Box<Http2>),
    /// A request.
    Busy(Box<Exchange>),
    /// Closing: what the client still sends is dropped.
    Linger { dropped: usize, since: Nanos },
}

/// A client's connection.
pub(super) struct Conn {
    pub key: ClientSlot,
    pub socket: Arc<Socket>,
    pub transport: Transport,
    /// What the TLS handshake settled, for requests' heads.
    pub secured: Option<Arc<TlsSession>>,
    pub counted: Counted,
    /// The TCP peer, or the client that a trusted peer's PROXY header named.
    pub peer: SocketAddr,
    /// A PROXY header has come.
    pub is_proxied: bool,
    /// Its first bytes must be a PROXY header.
    pub expects_proxy: bool,
    /// No request was answered on it yet.
    pub fresh: bool,
    /// There may be something to read.
    pub readable: bool,
    /// The kernel was asked for an event when there is room to write.
    pub tells_room: bool,
    /// The client sends no more.
    pub ended: bool,
    /// Reset, or dead otherwise.
    pub broken: bool,
    /// Received and not yet parsed; no memory while idle.
    pub inbox: Vec<u8>,
    /// The inbox may hold a whole request: parse it before reading more.
    pub look_first: bool,
    /// Bytes of the inbox that the parser has found to be a proper beginning of a head.
    pub judged: usize,
    /// When the time for the head began: with its first byte, or with the connection for the first head. 0: it has not
    /// begun.
    pub head_since: Nanos,
    /// When something last happened on it: bytes went in or out, the client ended its side, or a request was over.
    pub moved_at: Nanos,
    /// Written and not yet taken by the kernel.
    pub out: Vec<u8>,
    pub out_at: usize,
    /// How fast the client takes what is written. `None` while it has taken everything.
    pub pace: Option<Pace>,
    /// When the loop has to look at it even if no event comes.
    pub due: Nanos,
    /// The time of its earliest entry among the loop's timers.
    pub timer: Nanos,
    /// The backend connection that serves this client alone, since the client's credentials belong to it.
    pub pinned: Option<BackSlot>,
}

/// What lies between a client's socket and HTTP.
pub(super) enum Transport {
    Plain,
    Tls(Box<Secure>),
    /// It is one request of an HTTP/2 connection.
    Stream(Box<Stream>),
}

/// The client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// Sends pieces. Returns how many of their bytes were taken, and how many bytes the kernel took.
fn send(transport: &mut Transport, socket: &Socket, pieces: &[IoSlice<'_>]) -> Result<(usize, usize), Errno> {
    match transport {
        Transport::Plain => {
            let sent = match pieces {
                [one] => socket.send(one)?,
                several => socket.send_pieces(several)?,
            };
            Ok((sent, sent))
        }
        Transport::Tls(secure) => {
            let taken = secure.send_pieces(socket, pieces)?;
            Ok((taken, secure.take_moved()))
        }
        Transport::Stream(stream) => {
            let taken = stream.send_pieces(pieces)?;
            Ok((taken, taken))
        }
    }
}

/// Up to this many bytes, pieces are copied together and sent by the cheaper call.
const TOGETHER: usize = 4096;

impl Conn {
    /// Writes into a head which connection it came on.
    pub fn sign(&self, head: &mut RequestHead) {
        head.peer = self.peer;
        head.is_proxied = self.is_proxied;
        head.secure.clone_from(&self.secured);
        if self.is_stream() {
            head.version = Version::Http2;
        }
        // Weak, so that a head that is kept for later does not keep the connection open. The clone changes the type.
        let socket: Arc<dyn ClientConnection> = self.socket.clone();
        head.connection = Some(Arc::downgrade(&socket));
    }

    /// Reads what the client sent, and notes whether there may be more. `cipher` is lent memory.
    pub fn receive(&mut self, buffer: &mut [u8], cipher: &mut [u8]) -> Got {
        let (got, more) = match &mut self.transport {
            Transport::Plain => self.socket.receive_or_drain(buffer),
            Transport::Tls(secure) => secure.receive(&self.socket, self.ended, buffer, cipher),
            Transport::Stream(stream) => stream.receive(buffer),
        };
        match got {
            // After a hang-up, reading goes on until the socket says so: no further event tells of it.
            Got::Bytes(_) => self.readable = more || self.ended,
            Got::Nothing => self.readable = false,
            Got::End => self.ended = true,
            Got::Broken(_) => {}
        }
        got
    }

    /// Whether the kernel has taken everything that was written.
    pub fn is_flushed(&self) -> bool {
        self.out_at == self.out.len() && self.is_transported()
    }

    fn is_transported(&self) -> bool {
        match &self.transport {
            Transport::Plain | Transport::Stream(_) => true,
            Transport::Tls(secure) => secure.is_flushed(),
        }
    }

    /// Sends what is left over; true when nothing is.
    pub fn flush(&mut self, now: Nanos) -> Result<bool, Gone> {
        if let Transport::Tls(secure) = &mut self.transport
            && !secure.is_flushed()
        {
            let pushed = secure.push(&self.socket);
            let moved = secure.take_moved();
            self.took(moved, now);
            if !pushed.map_err(|error| self.lost(error))? {
                return Ok(false);
            }
        }
        while self.out_at < self.out.len() {
            let sent = {
                let left = [IoSlice::new(&self.out[self.out_at..])];
                send(&mut self.transport, &self.socket, &left)
            };
            match sent.map_err(|error| self.lost(error))? {
                (0, _) => return Ok(false),
                (sent, moved) => {
                    self.out_at += sent;
                    self.took(moved, now);
                }
            }
        }
        if self.out_at > 0 {
            // Large ones give their memory back.
            (self.out, self.out_at) = (Vec::new(), 0);
        }
        let is_flushed = self.is_transported();
        if is_flushed {
            self.pace = None;
        }
        Ok(is_flushed)
    }

    /// Sends pieces in one call and keeps what the kernel doesn't take. `together` is lent memory.
    pub fn emit(&mut self, pieces: &[&[u8]], together: &mut Vec<u8>, now: Nanos) -> Result<(), Gone> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if total == 0 {
            return Ok(());
        }
        let sent = if !self.is_flushed() { Ok((0, 0)) } else { self.send_all(pieces, total, together) };
        let (mut sent, moved) = sent.map_err(|error| self.lost(error))?;
        self.took(moved, now);
        if sent < total || !self.is_transported() {
            self.pace.get_or_insert(Pace::new(now));
            for piece in pieces {
                let skip = sent.min(piece.len());
                sent -= skip;
                self.out.extend_from_slice(&piece[skip..]);
            }
        }
        Ok(())
    }

    fn send_all(
        &mut self,
        pieces: &[&[u8]],
        total: usize,
        together: &mut Vec<u8>,
    ) -> Result<(usize, usize), Errno> {
        const MOST: usize = 5;
        let mut slices = [IoSlice::new(&[]); MOST];
        let mut count = 0;
        if total <= TOGETHER && pieces.len() > 1 {
            together.clear();
            pieces.iter().for_each(|piece| together.extend_from_slice(piece));
            slices[0] = IoSlice::new(together);
            count = 1;
        } else {
            for piece in pieces.iter().filter(|piece| !piece.is_empty()).take(MOST) {
                slices[count] = IoSlice::new(piece);
                count += 1;
            }
        }
        send(&mut self.transport, &self.socket, &slices[..count])
    }

    /// Ends our direction. The client reads to the end of what was sent.
    pub fn end_writing(&mut self) {
        self.say_end();
        self.socket.shutdown_write();
    }

    /// Says that nothing more comes, if the transport has a message for it (TLS close_notify).
    pub fn say_end(&mut self) {
        if let Transport::Tls(secure) = &mut self.transport {
            secure.end(&self.socket);
        }
    }

    /// Writes an answer's head to `out`, to be sent before the body. That of HTTP/2 goes to the stream at once.
    pub fn write_head(
        &mut self,
        out: &mut Vec<u8>,
        answer: &Answer,
        framing: Framing,
        persistence: Persistence,
    ) {
        match &mut self.transport {
            // If the client has reset the stream, the next step ends it.
            Transport::Stream(stream) => {
                self.broken |= stream.begin(answer.status, &answer.fields, framing).is_err()
            }
            _ => render::head(out, answer, framing, persistence),
        }
    }

    /// The framing for this client of a body that has `framing` over HTTP/1.1. HTTP/2 needs no chunks: its frames say
    /// where a body ends.
    pub fn framing(&self, framing: Framing) -> Framing {
        if self.is_stream() && framing == Framing::Chunked { Framing::UntilClose } else { framing }
    }

    /// Sends the head of an interim answer (RFC 9110 §15.2).
    pub fn inform(
        &mut self,
        (status, reason, fields): (u16, &[u8], &Fields),
        together: &mut Vec<u8>,
        now: Nanos,
    ) -> Result<(), Gone> {
        if let Transport::Stream(stream) = &mut self.transport {
            return stream.inform(status, fields).map_err(|error| self.lost(error));
        }
        let mut head = Vec::with_capacity(256);
        let lines = write::AnswerLines { status, reason: Some(reason), fields };
        write::head(&mut head, lines, Framing::None(None), Persistence::Kept);
        self.emit(&[&head], together, now)
    }

    /// Whether it is one request of an HTTP/2 connection.
    pub fn is_stream(&self) -> bool {
        matches!(self.transport, Transport::Stream(_))
    }

    /// The HTTP/2 connection that it belongs to.
    pub fn parent(&self) -> Option<ClientSlot> {
        match &self.transport {
            Transport::Stream(stream) => Some(stream.parent),
            _ => None,
        }
    }

    /// Gives it text that was received already, as if it had just been read.
    pub fn take_text(&mut self, text: Vec<u8>, now: Nanos) {
        self.inbox = text;
        self.look_first = true;
        self.head_since = now;
    }

    /// The kernel took that many bytes. None is no sign of life: a client that takes nothing is tried again and again.
    fn took(&mut self, bytes: usize, now: Nanos) {
        if bytes == 0 {
            return;
        }
        self.moved_at = now;
        if let Some(pace) = &mut self.pace {
            pace.moved(bytes, now);
        }
    }

    fn lost(&mut self, _: Errno) -> Gone {
        self.broken = true;
        Gone
    }

    /// Makes it ready for its next request.
    pub fn begin_next(&mut self, now: Nanos) {
        self.fresh = false;
        self.judged = 0;
        // What came behind the last request is the beginning of the next one.
        self.head_since = if self.inbox.is_empty() { 0 } else { now };
        self.moved_at = now;
        self.look_first = !self.inbox.is_empty();
    }
}
