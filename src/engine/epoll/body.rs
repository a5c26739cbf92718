//! A request's body as the service reads it: from memory when it was read ahead, else from the client while the worker
//! waits.

use std::io;

use rustix::event::PollFlags;

use super::conn::{Link, Pending};
use super::core::Core;
use super::timers::Pace;
use super::wire::{Received, Sent, Waited};
use crate::proxy::exchange::{BodyFault, RequestBody};
use balancer_http::framing::chunk::{ChunkDecoder, Step};
use balancer_http::message::BodyLength;

/// A whole body in memory.
pub(super) struct Buffered<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Buffered<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl RequestBody for Buffered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.bytes[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }

    fn buffered(&self) -> Option<&[u8]> {
        Some(self.bytes)
    }

    fn consumed(&self) -> bool {
        false
    }
}

/// What taking a chunked body's framing off brought.
pub(super) enum Decoded {
    /// All input is used up and the body goes on.
    More,
    /// The body is whole; that many bytes of the input belong to it.
    End(usize),
    /// The body is longer than allowed.
    TooLarge,
    /// Framing that breaks RFC 9112 §7.1.
    Malformed,
}

/// Takes the framing off `input` and appends the body to `body`, at most `max_bytes` of it in all.
pub(super) fn decode(
    decoder: &mut ChunkDecoder,
    input: &[u8],
    body: &mut Vec<u8>,
    max_bytes: u64,
) -> Decoded {
    let mut at = 0;
    loop {
        match decoder.step(&input[at..]) {
            Ok(Step::Data { start, end }) => {
                if (body.len() + end - start) as u64 > max_bytes {
                    return Decoded::TooLarge;
                }
                body.extend_from_slice(&input[at + start..at + end]);
                at += end;
            }
            Ok(Step::More) => return Decoded::More,
            Ok(Step::End { used }) => return Decoded::End(at + used),
            Err(_) => return Decoded::Malformed,
        }
    }
}

/// A body that streams. Its worker waits for the client, within `frontend.body_timeout` and the minimum rate.
pub(super) struct Streaming<'a> {
    core: &'a Core,
    link: &'a Link,
    /// Read ahead, framing taken off.
    ahead: &'a [u8],
    ahead_at: usize,
    /// Bytes of the body still on the way; for a chunked one what may still come.
    left: u64,
    chunks: Option<Chunks<'a>>,
    owes_continue: bool,
    pace: Pace,
    taken: bool,
    ended: bool,
    fault: Option<BodyFault>,
}

/// The wire side of a chunked body.
struct Chunks<'a> {
    decoder: ChunkDecoder,
    wire_bytes: &'a mut [u8],
    at: usize,
    end: usize,
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl<'a> Streaming<'a> {
    /// `wire_bytes` is a buffer for chunked framing.
    pub fn new(core: &'a Core, link: &'a Link, pending: &'a Pending, wire_bytes: &'a mut [u8]) -> Self {
        let (total, chunked) = match pending.head.length {
            BodyLength::Known(bytes) => (bytes, false),
            _ => (core.max_body_bytes, true),
        };
        Self {
            core,
            link,
            ahead: &pending.body,
            ahead_at: 0,
            left: total.saturating_sub(pending.body.len() as u64),
            chunks: chunked.then(|| Chunks { decoder: pending.decoder.clone(), wire_bytes, at: 0, end: 0 }),
            owes_continue: pending.head.expects_continue && pending.body.is_empty(),
            pace: Pace::new(core.clock.now()),
            taken: false,
            ended: false,
            fault: None,
        }
    }

    /// Whether the whole body was read, so that the next request can follow.
    pub fn is_whole(&self) -> bool {
        self.ended && self.fault.is_none()
    }

    /// What was read behind the body.
    pub fn behind(&self) -> &[u8] {
        self.chunks.as_ref().map_or(&[], |chunks| &chunks.wire_bytes[chunks.at..chunks.end])
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, BodyFault> {
        if self.ahead_at < self.ahead.len() {
            let rest = &self.ahead[self.ahead_at..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            self.ahead_at += count;
            return Ok(count);
        }
        self.send_continue()?;
        if self.chunks.is_some() {
            return self.next_of_chunks(buffer);
        }
        if self.left == 0 {
            self.ended = true;
            return Ok(0);
        }
        // Never more than the body, so that nothing of the next request is taken.
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = receive(self.core, self.link, &mut self.pace, &mut buffer[..room])?;
        self.left -= count as u64;
        self.ended = self.left == 0;
        Ok(count)
    }

    fn next_of_chunks(&mut self, buffer: &mut [u8]) -> Result<usize, BodyFault> {
        let Some(chunks) = &mut self.chunks else { return Ok(0) };
        loop {
            // No more than the caller has room for: the rest of the input stays as it came.
            let end = chunks.end.min(chunks.at + buffer.len());
            match chunks.decoder.step(&chunks.wire_bytes[chunks.at..end]) {
                Ok(Step::Data { start, end }) => {
                    let count = end - start;
                    if count as u64 > self.left {
                        return Err(BodyFault::TooLarge);
                    }
                    self.left -= count as u64;
                    buffer[..count].copy_from_slice(&chunks.wire_bytes[chunks.at + start..chunks.at + end]);
                    chunks.at += end;
                    return Ok(count);
                }
                Ok(Step::End { used }) => {
                    chunks.at += used;
                    self.ended = true;
                    return Ok(0);
                }
                Ok(Step::More) => chunks.at = end,
                Err(_) => return Err(BodyFault::Malformed),
            }
            if chunks.at == chunks.end {
                chunks.at = 0;
                chunks.end = receive(self.core, self.link, &mut self.pace, chunks.wire_bytes)?;
            }
        }
    }

    /// RFC 9110 §10.1.1: once, and only when the body is wanted.
    fn send_continue(&mut self) -> Result<(), BodyFault> {
        if !std::mem::take(&mut self.owes_continue) {
            return Ok(());
        }
        let mut rest = CONTINUE;
        while !rest.is_empty() {
            match self.link.wire.send(rest) {
                Sent::Broken => return Err(BodyFault::ClientGone),
                Sent::Bytes(0) => {
                    if self.link.wire.wait(PollFlags::OUT, self.core.spans.write) == Waited::TimedOut {
                        return Err(BodyFault::ClientGone);
                    }
                }
                Sent::Bytes(bytes) => rest = &rest[bytes..],
            }
        }
        Ok(())
    }
}

/// Reads from the client and waits for it. A worker that streams does not count at the gate.
fn receive(core: &Core, link: &Link, pace: &mut Pace, buffer: &mut [u8]) -> Result<usize, BodyFault> {
    loop {
        match link.wire.recv(buffer) {
            Received::Bytes(bytes) => {
                pace.moved(bytes, core.clock.now());
                return Ok(bytes);
            }
            Received::End | Received::Broken => return Err(BodyFault::ClientGone),
            Received::Nothing => {}
        }
        let now = core.clock.now();
        let due = pace.due(core.spans.body, &core.spans);
        if due <= now {
            return Err(BodyFault::TimedOut);
        }
        let _ = link.wire.wait(PollFlags::IN, due - now);
    }
}

impl RequestBody for Streaming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(fault) = self.fault {
            return Err(io::Error::other(fault));
        }
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        match self.next(buffer) {
            Ok(count) => {
                self.taken |= count > 0;
                Ok(count)
            }
            Err(fault) => {
                self.fault = Some(fault);
                Err(io::Error::other(fault))
            }
        }
    }

    fn buffered(&self) -> Option<&[u8]> {
        None
    }

    fn consumed(&self) -> bool {
        self.taken
    }
}
