//! One request of an HTTP/2 connection, as the transport of a client of its own: its body is read and its answer is
//! written by the same functions as those of a socket.

use std::io::IoSlice;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::head;
use crate::engine::loops::counts::CountedStream;
use crate::engine::loops::keys::ClientSlot;
use crate::engine::loops::wire::Got;
use crate::engine::render::{Framing, LAST_CHUNK, chunk_size};
use balancer_http::fields::Fields;

/// Clients that the `h2` crate woke since the loop last looked.
#[derive(Clone, Default)]
pub(in crate::engine::loops) struct WokenClients(Arc<Mutex<Vec<ClientSlot>>>);

impl WokenClients {
    /// Takes all of them. The lock is never waited for, since only this loop's thread wakes.
    pub fn take(&self) -> Vec<ClientSlot> {
        std::mem::take(&mut *self.0.lock())
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// A waker for that client.
    pub fn waker(&self, key: ClientSlot) -> Waker {
        Waker::from(Arc::new(Bell { key, woken: self.clone() }))
    }
}

struct Bell {
    key: ClientSlot,
    woken: WokenClients,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.0.lock().push(self.key);
    }
}

/// See the module.
pub(in crate::engine::loops) struct Stream {
    /// The connection that it belongs to.
    pub parent: ClientSlot,
    waker: Waker,
    body: Body,
    answer: Answering,
    _counted: CountedStream,
    /// Bytes of the answer's body that are still to come, where its length is known.
    left: Option<u64>,
}

/// A request's body.
struct Body {
    stream: RecvStream,
    /// Bytes that were taken from the stream and not read yet.
    rest: Bytes,
    /// Its length is not known: it is read in chunks (RFC 9112 §7.1).
    is_chunked: bool,
    has_ended: bool,
    /// What is still to come, where its length is known.
    left: Option<u64>,
}

enum Answering {
    Awaited(SendResponse<Bytes>),
    Begun(SendStream<Bytes>),
    /// The crate has its last byte, or it was reset.
    Over,
}

/// Room for the size line of a chunk and the line end behind its data.
const CHUNK_FRAME: usize = 20;
/// If no more bytes than these are missing of a body that is not wanted, they are read and dropped instead of refused.
const MOST_DROPPED: u64 = 64 * 1024;

impl Stream {
    pub fn new(
        parent: ClientSlot,
        waker: Waker,
        stream: RecvStream,
        answer: SendResponse<Bytes>,
        (is_chunked, length): (bool, Option<u64>),
        counted: CountedStream,
    ) -> Box<Self> {
        let body = Body { stream, rest: Bytes::new(), is_chunked, has_ended: false, left: length };
        let answer = Answering::Awaited(answer);
        let mut own = Box::new(Self { parent, waker, body, answer, _counted: counted, left: None });
        // Registers the waker, so that a reset wakes the client.
        own.is_reset();
        own
    }

    /// Whether the client has reset it, or its connection is gone. If not, the client is woken when that happens.
    pub fn is_reset(&mut self) -> bool {
        let context = &mut Context::from_waker(&self.waker);
        let asked = match &mut self.answer {
            Answering::Awaited(answer) => answer.poll_reset(context),
            Answering::Begun(stream) => stream.poll_reset(context),
            Answering::Over => return false,
        };
        asked.is_ready()
    }

    /// Reads what came of the body, and says whether there may be more. The end of the body is never told as the end of
    /// the connection: the client waits for its answer.
    pub fn receive(&mut self, buffer: &mut [u8]) -> (Got, bool) {
        let body = &mut self.body;
        while body.rest.is_empty() && !body.has_ended {
            match body.stream.poll_data(&mut Context::from_waker(&self.waker)) {
                Poll::Pending => return (Got::Nothing, false),
                // An empty last frame brings no bytes: the loop goes on to the end behind it, of which nothing would
                // wake us.
                Poll::Ready(Some(Ok(bytes))) => body.rest = bytes,
                Poll::Ready(Some(Err(_))) => return (Got::Broken(Errno::CONNRESET), false),
                Poll::Ready(None) => {
                    body.has_ended = true;
                    if body.is_chunked && buffer.len() >= LAST_CHUNK.len() {
                        buffer[..LAST_CHUNK.len()].copy_from_slice(LAST_CHUNK);
                        return (Got::Bytes(LAST_CHUNK.len()), false);
                    }
                }
            }
        }
        if body.rest.is_empty() {
            return (Got::Nothing, false);
        }
        let (taken, written) = body.read(buffer);
        body.left = body.left.map(|left| left.saturating_sub(taken as u64));
        // The client may send as much again.
        let _ = body.stream.flow_control().release_capacity(taken);
        (Got::Bytes(written), true)
    }

    /// Begins the answer.
    pub fn begin(&mut self, status: u16, fields: &Fields, framing: Framing) -> Result<(), Errno> {
        let Answering::Awaited(answer) = &mut self.answer else { return Err(Errno::PIPE) };
        let is_over = matches!(framing, Framing::None(_) | Framing::Length(0));
        if let Framing::Length(bytes) = framing {
            self.left = Some(bytes);
        }
        let begun = answer.send_response(head::answer(status, fields, framing), is_over);
        self.answer = match begun {
            Ok(_) if is_over => Answering::Over,
            Ok(stream) => Answering::Begun(stream),
            Err(_) => return Err(Errno::PIPE),
        };
        Ok(())
    }

    /// Sends an interim answer (RFC 9113 §8.1).
    pub fn inform(&mut self, status: u16, fields: &Fields) -> Result<(), Errno> {
        let Answering::Awaited(answer) = &mut self.answer else { return Err(Errno::PIPE) };
        answer.send_informational(head::answer(status, fields, Framing::None(None))).map_err(|_| Errno::PIPE)
    }

    /// Sends as much of the answer's body as the client's windows allow. Returns how many bytes; 0 when the windows are
    /// used up.
    pub fn send_pieces(&mut self, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let Answering::Begun(stream) = &mut self.answer else { return Err(Errno::PIPE) };
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        stream.reserve_capacity(total);
        let mut room = stream.capacity();
        if room == 0 {
            match stream.poll_capacity(&mut Context::from_waker(&self.waker)) {
                Poll::Ready(Some(Ok(now))) => room = now,
                Poll::Pending => return Ok(0),
                Poll::Ready(_) => return Err(Errno::PIPE),
            }
        }
        let sent = room.min(total);
        let mut bytes = Vec::with_capacity(sent);
        for piece in pieces {
            bytes.extend_from_slice(&piece[..piece.len().min(sent - bytes.len())]);
        }
        self.left = self.left.map(|left| left.saturating_sub(sent as u64));
        let is_last = self.left == Some(0);
        stream.send_data(bytes.into(), is_last).map_err(|_| Errno::PIPE)?;
        if is_last {
            self.answer = Answering::Over;
        }
        Ok(sent)
    }

    /// The answer is whole.
    pub fn finish(&mut self) {
        if let Answering::Begun(stream) = &mut self.answer {
            // Fails only if the stream is gone already.
            let _ = stream.send_data(Bytes::new(), true);
            self.answer = Answering::Over;
        }
    }

    /// Ends it. Returns the rest of the request's body if the answer is whole and little of the body is missing,
    /// perhaps only its end. If that were dropped, the crate would take what still comes for an error, and several of
    /// those for a flood.
    pub fn end(mut self) -> Option<RecvStream> {
        let is_answered = matches!(self.answer, Answering::Over);
        self.reset();
        let Body { stream, left, has_ended, .. } = self.body;
        let is_little = left.is_some_and(|left| left <= MOST_DROPPED);
        (is_answered && is_little && !has_ended && !stream.is_end_stream()).then_some(stream)
    }

    /// Resets an answer that is not whole, so that the client sees that something is missing.
    fn reset(&mut self) {
        match &mut self.answer {
            Answering::Awaited(answer) => answer.send_reset(Reason::INTERNAL_ERROR),
            Answering::Begun(stream) => stream.send_reset(Reason::INTERNAL_ERROR),
            Answering::Over => return,
        }
        self.answer = Answering::Over;
    }
}

impl Body {
    /// Moves bytes of `rest` into the buffer, as a chunk where the body is chunked. Returns how many, and how many
    /// bytes the buffer holds then. The buffer must have room for more than [`CHUNK_FRAME`].
    fn read(&mut self, buffer: &mut [u8]) -> (usize, usize) {
        let frame = if self.is_chunked { CHUNK_FRAME } else { 0 };
        // A chunk without a byte would be the end of the body.
        assert!(!self.is_chunked || buffer.len() > frame, "no room for a chunk");
        let taken = self.rest.len().min(buffer.len() - frame);
        if !self.is_chunked {
            buffer[..taken].copy_from_slice(&self.rest[..taken]);
            self.rest.advance(taken);
            return (taken, taken);
        }
        let mut at = 0;
        for part in [chunk_size(taken, &mut [0; 18]), &self.rest[..taken], b"\r\n"] {
            buffer[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.rest.advance(taken);
        (taken, at)
    }
}
