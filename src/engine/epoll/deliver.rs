//! An answer on its way: what the kernel takes goes out at once, what it does not take waits in a bounded buffer, and
//! so does the connection, without a worker.

use std::io::IoSlice;

use super::conn::Next;
use super::gather::Gather;
use super::timers::{Pace, Spans};
use super::wire::{Sent, Wire};
use crate::engine::render::{Framing, LAST_CHUNK, Persistence};
use crate::proxy::exchange::{Delivery as Outcome, Pull, Stream, Ticket, Wait};
use balancer_time::Nanos;

/// An answer that is not yet delivered. On a worker's stack as long as it need not wait, boxed when it must.
pub(super) struct Delivery {
    /// What produces the rest of the body; gone once it ended.
    pub stream: Option<Box<dyn Stream>>,
    pub framing: Framing,
    /// Written and not yet taken by the kernel; at most a head and `response_buffer_bytes`.
    pub pending: Vec<u8>,
    pub pending_at: usize,
    /// Body bytes that went to `pending` or to the kernel.
    pub body_bytes: u64,
    pub ticket: Option<Box<dyn Ticket>>,
    pub after: After,
    /// The client's pace, from when it first did not take everything.
    pub pace: Option<Pace>,
    /// The head is not decided yet: the body's length is being found out.
    pub gathering: Option<Box<Gather>>,
}

/// What becomes of the connection behind a whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The next request.
    Keep,
    /// The end.
    Close,
    /// The end, though the client may still be sending.
    Linger,
}

/// How far a push got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// Every byte is with the kernel.
    Done,
    /// The kernel's buffer is full.
    ClientFull,
    /// The backend has nothing for now, and everything it sent is with the kernel.
    UpstreamEmpty,
    /// There is more of everything; others shall have their turn.
    Yield,
    /// The client is gone.
    ClientGone,
    /// The backend broke off.
    Broke(String),
}

/// Most reads from a backend in one go, so that one fast download doesn't keep a worker: 8 MiB. More than the kernel
/// buffers for a client by default (tcp_wmem), so that a client which does not read shows at once.
const MAX_ROUNDS: usize = 128;

/// Whether a stream has more.
pub(super) enum Filled {
    More,
    Empty,
    End,
    Broke(String),
}

impl After {
    /// What an answer's `Connection` means. `unread`: the client may still be sending.
    pub fn of(persistence: Persistence, unread: bool) -> Self {
        match persistence {
            Persistence::Kept | Persistence::KeptAsAsked => Self::Keep,
            Persistence::Closed if unread => Self::Linger,
            Persistence::Closed => Self::Close,
        }
    }

    /// What the connection does next; `None` for the next request.
    pub fn next(self) -> Option<Next> {
        match self {
            Self::Keep => None,
            Self::Close => Some(Next::Close),
            Self::Linger => Some(Next::Linger),
        }
    }
}

impl Delivery {
    pub fn new(framing: Framing, ticket: Option<Box<dyn Ticket>>, after: After) -> Self {
        Self {
            stream: None,
            framing,
            pending: Vec::new(),
            pending_at: 0,
            body_bytes: 0,
            ticket,
            after,
            pace: None,
            gathering: None,
        }
    }

    /// Sends a head and a body that is whole.
    pub fn push_whole(&mut self, wire: &Wire, head: &[u8], body: &[u8], now: Nanos) -> Pushed {
        self.emit(wire, &[head, body], body.len(), now).unwrap_or(Pushed::Done)
    }

    /// Sends what can be sent now. `head` goes first and counts as sent afterwards, here or in `pending`.
    pub fn push(&mut self, wire: &Wire, head: &[u8], scratch: &mut [u8], now: Nanos) -> Pushed {
        if self.gathering.is_some()
            && let Some(stop) = self.gather(scratch)
        {
            return stop;
        }
        if let Some(stop) = self.flush(wire, now) {
            return stop;
        }
        let mut head = head;
        for _ in 0..MAX_ROUNDS {
            let Some(stream) = &mut self.stream else { return Pushed::Done };
            let (filled, bytes) = fill(stream.as_mut(), scratch);
            let filled = self.check_length(filled, bytes);
            if matches!(filled, Filled::End) {
                self.stream = None;
            }
            let stop = self.emit_body(wire, head, &scratch[..bytes], self.stream.is_none(), now);
            head = &[];
            match (filled, stop) {
                (Filled::Broke(cause), _) => return Pushed::Broke(cause),
                (_, Some(stop)) => return stop,
                (Filled::End, None) => return Pushed::Done,
                (Filled::Empty, None) => {
                    self.pace = None;
                    return Pushed::UpstreamEmpty;
                }
                (Filled::More, None) => {}
            }
        }
        // The kernel may not call the socket writable again before the client reads: that counts as its time.
        self.pace.get_or_insert(Pace::new(now));
        Pushed::Yield
    }

    /// Sends what is left over. `None`: nothing is left.
    pub fn flush(&mut self, wire: &Wire, now: Nanos) -> Option<Pushed> {
        while self.pending_at < self.pending.len() {
            match wire.send(&self.pending[self.pending_at..]) {
                Sent::Broken => return Some(Pushed::ClientGone),
                Sent::Bytes(0) => {
                    self.pace.get_or_insert(Pace::new(now));
                    return Some(Pushed::ClientFull);
                }
                Sent::Bytes(bytes) => {
                    self.pending_at += bytes;
                    if let Some(pace) = &mut self.pace {
                        pace.moved(bytes, now);
                    }
                }
            }
        }
        self.pending.clear();
        self.pending_at = 0;
        None
    }

    /// A body longer or shorter than its Content-Length is a broken one.
    fn check_length(&self, filled: Filled, bytes: usize) -> Filled {
        let Framing::Length(declared) = self.framing else { return filled };
        let so_far = self.body_bytes + bytes as u64;
        match filled {
            Filled::End if so_far < declared => {
                Filled::Broke(format!("{so_far} of {declared} bytes, then the end"))
            }
            Filled::Broke(_) => filled,
            _ if so_far > declared => Filled::Broke(format!("more than the declared {declared} bytes")),
            _ => filled,
        }
    }

    fn emit_body(&mut self, wire: &Wire, head: &[u8], body: &[u8], last: bool, now: Nanos) -> Option<Pushed> {
        if self.framing != Framing::Chunked {
            return self.emit(wire, &[head, body], body.len(), now);
        }
        let end = if last { LAST_CHUNK } else { b"" };
        if body.is_empty() {
            return self.emit(wire, &[head, end], 0, now);
        }
        let mut size = [0; 18];
        let size = chunk_size(body.len(), &mut size);
        self.emit(wire, &[head, size, body, b"\r\n", end], body.len(), now)
    }

    /// Sends pieces in one call and keeps what the kernel doesn't take.
    fn emit(&mut self, wire: &Wire, pieces: &[&[u8]], body_bytes: usize, now: Nanos) -> Option<Pushed> {
        const MAX_PIECES: usize = 5;
        self.body_bytes += body_bytes as u64;
        let mut slices = [IoSlice::new(&[]); MAX_PIECES];
        let mut count = 0;
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            slices[count] = IoSlice::new(piece);
            count += 1;
        }
        if count == 0 {
            return None;
        }
        let Sent::Bytes(mut sent) = send_together(wire, &slices[..count]) else {
            return Some(Pushed::ClientGone);
        };
        if let Some(pace) = &mut self.pace
            && sent > 0
        {
            pace.moved(sent, now);
        }
        for piece in pieces {
            let skip = sent.min(piece.len());
            sent -= skip;
            self.pending.extend_from_slice(&piece[skip..]);
        }
        if self.pending.is_empty() {
            return None;
        }
        self.pace.get_or_insert(Pace::new(now));
        Some(Pushed::ClientFull)
    }

    /// When the client is too slow in taking what is pending, or all of the answer has to be over.
    pub fn client_due(&self, spans: &Spans, now: Nanos) -> Nanos {
        let slow = self.pace.map_or(now.saturating_add(spans.write), |pace| pace.due(spans.write, spans));
        let deadline = self.stream.as_ref().and_then(|stream| stream.deadline());
        deadline.map_or(slow, |deadline| slow.min(deadline))
    }

    /// Tells the ticket how it ended.
    pub fn settle(&mut self, outcome: Outcome) {
        let unsent = (self.pending.len() - self.pending_at) as u64;
        if let Some(ticket) = self.ticket.take() {
            // Framing among the unsent bytes may make this a few bytes too small, never too large.
            ticket.settle(self.body_bytes.saturating_sub(unsent), outcome);
        }
    }
}

/// Sends pieces in one call. Small ones are put together first, which costs less than telling the kernel of each.
fn send_together(wire: &Wire, pieces: &[IoSlice<'_>]) -> Sent {
    const SMALL: usize = 2048;
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    if pieces.len() < 2 || total > SMALL {
        return wire.send_pieces(pieces);
    }
    let mut together = [0; SMALL];
    let mut at = 0;
    for piece in pieces {
        together[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    wire.send(&together[..at])
}

/// Reads until the buffer is full or nothing more is there.
pub(super) fn fill(stream: &mut dyn Stream, buffer: &mut [u8]) -> (Filled, usize) {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.pull(&mut buffer[filled..], Wait::Poll) {
            Pull::Bytes(bytes) => filled += bytes,
            Pull::End => return (Filled::End, filled),
            Pull::Pending => return (Filled::Empty, filled),
            Pull::Broken(cause) => return (Filled::Broke(cause), filled),
        }
    }
    (Filled::More, filled)
}

/// Writes `SIZE CRLF` (RFC 9112 §7.1) to the end of the buffer and returns it.
fn chunk_size(mut size: usize, buffer: &mut [u8; 18]) -> &[u8] {
    let mut at = buffer.len() - 2;
    buffer[at..].copy_from_slice(b"\r\n");
    loop {
        at -= 1;
        buffer[at] = b"0123456789abcdef"[size & 15];
        size >>= 4;
        if size == 0 {
            return &buffer[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes() {
        for (size, text) in [
            (1, "1\r\n"),
            (15, "f\r\n"),
            (16, "10\r\n"),
            (65536, "10000\r\n"),
            (usize::MAX, "ffffffffffffffff\r\n"),
        ] {
            assert_eq!(chunk_size(size, &mut [0; 18]), text.as_bytes());
        }
    }
}
