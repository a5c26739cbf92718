//! A client's connection: what it is in the middle of, and what is left over of its last read. Idle it is a few hundred
//! bytes; buffers belong to the loop.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::io::Errno;

use super::counts::Counted;
use super::exchange::Exchange;
use super::keys::{BackSlot, ClientSlot};
use super::pace::Pace;
use super::wire::Socket;
use balancer_http::message::{ClientConnection, RequestHead};
use balancer_time::Nanos;

/// A client, whole.
pub(super) struct Client {
    pub conn: Conn,
    pub stage: Stage,
}

/// What a connection is in the middle of.
pub(super) enum Stage {
    /// A request's head, or nothing.
    Head,
    /// A request.
    Busy(Box<Exchange>),
    /// Closing: what the client still sends is dropped.
    Linger { dropped: usize, since: Nanos },
}

/// A client's connection.
pub(super) struct Conn {
    pub key: ClientSlot,
    pub socket: Arc<Socket>,
    pub counted: Counted,
    /// The TCP peer, or the client that a trusted peer's PROXY header named.
    pub peer: SocketAddr,
    /// A PROXY header has come.
    pub is_proxied: bool,
    /// Its first bytes must be a PROXY header.
    pub expects_proxy: bool,
    /// Nothing was ever answered on it.
    pub fresh: bool,
    /// There may be something to read.
    pub readable: bool,
    /// The kernel was asked to tell when there is room to write again.
    pub tells_room: bool,
    /// The client sends no more.
    pub ended: bool,
    /// Reset, or dead otherwise.
    pub broken: bool,
    /// Received and not yet parsed; no memory while idle.
    pub inbox: Vec<u8>,
    /// The inbox may hold a whole request: look before reading.
    pub look_first: bool,
    /// Bytes of the inbox that a parser has judged to be a proper beginning.
    pub judged: usize,
    /// When the first byte of the head in the inbox came; 0 before.
    pub head_since: Nanos,
    /// When it last did something for us or we for it.
    pub moved_at: Nanos,
    /// Written and not yet taken by the kernel.
    pub out: Vec<u8>,
    pub out_at: usize,
    /// The client's pace, from when it first did not take everything.
    pub pace: Option<Pace>,
    /// When something has to happen by itself.
    pub due: Nanos,
    /// The earliest entry among the loop's timers.
    pub timer: Nanos,
    /// The backend connection that is this client's alone, since its credentials belong to it.
    pub pinned: Option<BackSlot>,
}

/// The client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// Most bytes that are copied together to be sent by the cheaper call.
const TOGETHER: usize = 4096;

impl Conn {
    /// Says in a head where it came from.
    pub fn sign(&self, head: &mut RequestHead) {
        head.peer = self.peer;
        head.is_proxied = self.is_proxied;
        // Weak: a head that is kept for later must not keep the connection open. The clone is the type that is wanted.
        let socket: Arc<dyn ClientConnection> = self.socket.clone();
        head.connection = Some(Arc::downgrade(&socket));
    }

    /// Whether everything that was written is with the kernel.
    pub fn is_flushed(&self) -> bool {
        self.out_at == self.out.len()
    }

    /// Sends what is left over; true when nothing is.
    pub fn flush(&mut self, now: Nanos) -> Result<bool, Gone> {
        while self.out_at < self.out.len() {
            match self.socket.send(&self.out[self.out_at..]) {
                Ok(0) => return Ok(false),
                Ok(sent) => {
                    self.out_at += sent;
                    self.took(sent, now);
                }
                Err(error) => return Err(self.lost(error)),
            }
        }
        if self.out_at > 0 {
            // Large ones give their memory back.
            (self.out, self.out_at) = (Vec::new(), 0);
            self.pace = None;
        }
        Ok(true)
    }

    /// Sends pieces in one call and keeps what the kernel doesn't take. `together` is lent memory.
    pub fn emit(&mut self, pieces: &[&[u8]], together: &mut Vec<u8>, now: Nanos) -> Result<(), Gone> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if total == 0 {
            return Ok(());
        }
        let sent = if !self.is_flushed() { Ok(0) } else { self.send_all(pieces, total, together) };
        let mut sent = sent.map_err(|error| self.lost(error))?;
        if sent > 0 {
            self.took(sent, now);
        }
        if sent < total {
            self.pace.get_or_insert(Pace::new(now));
            for piece in pieces {
                let skip = sent.min(piece.len());
                sent -= skip;
                self.out.extend_from_slice(&piece[skip..]);
            }
        }
        Ok(())
    }

    fn send_all(&self, pieces: &[&[u8]], total: usize, together: &mut Vec<u8>) -> Result<usize, Errno> {
        const MOST: usize = 5;
        if let [one] = pieces {
            return self.socket.send(one);
        }
        if total <= TOGETHER {
            together.clear();
            pieces.iter().for_each(|piece| together.extend_from_slice(piece));
            return self.socket.send(together);
        }
        let mut slices = [IoSlice::new(&[]); MOST];
        let mut count = 0;
        for piece in pieces.iter().filter(|piece| !piece.is_empty()).take(MOST) {
            slices[count] = IoSlice::new(piece);
            count += 1;
        }
        self.socket.send_pieces(&slices[..count])
    }

    fn took(&mut self, bytes: usize, now: Nanos) {
        self.moved_at = now;
        if let Some(pace) = &mut self.pace {
            pace.moved(bytes, now);
        }
    }

    fn lost(&mut self, _: Errno) -> Gone {
        self.broken = true;
        Gone
    }

    /// Turns it to its next request.
    pub fn begin_next(&mut self, now: Nanos) {
        self.fresh = false;
        self.judged = 0;
        // What came behind the last request is the beginning of the next.
        self.head_since = if self.inbox.is_empty() { 0 } else { now };
        self.moved_at = now;
        self.look_first = !self.inbox.is_empty();
    }
}
