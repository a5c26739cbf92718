//! The body of an answer, read from the socket into the buffer of whoever relays it, its framing taken off in place
//! (RFC 9112 §6.3, §7.1). Nothing is held but what came together with the head.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::call::Limits;
use super::connection::Connection;
use super::pool::Stack;
use super::spare;
use crate::clock::Clock;
use crate::proxy::exchange::{Awaitable, Pull, Stream, Wait};
use balancer_http::framing::chunk::{ChunkDecoder, ChunkFault, Step};
use balancer_http::message::BodyLength;
use balancer_time::Nanos;

/// Bodies' beginnings up to this many bytes are copied out of the thread's buffer; larger ones take it along.
const SMALL_BYTES: usize = 4 * 1024;

/// Why a body ends that is not there in time.
const LATE: &str = "the answer was not over in time (upstream.request_timeout)";

/// An answer's body.
pub(super) struct Body {
    framing: Framing,
    early: Early,
    /// `None` once the connection was given back or closed.
    source: Option<Source>,
    limits: Limits,
}

/// Where the body comes from, and where its connection goes when it is read.
pub(super) struct Source {
    pub connection: Connection,
    /// `None`: closed after this answer.
    pub home: Option<Arc<Stack>>,
    pub clock: Clock,
}

enum Framing {
    /// Bytes to come, of how many.
    Known {
        left: u64,
        of: u64,
    },
    Chunked(ChunkDecoder),
    UntilClose,
    Done,
    Broken(String),
}

/// What came together with the head.
#[derive(Default)]
struct Early {
    bytes: Vec<u8>,
    at: usize,
}

impl Early {
    fn rest(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Moves bytes into `buffer`; the memory goes back when there are no more.
    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let taken = self.rest().min(buffer.len());
        buffer[..taken].copy_from_slice(&self.bytes[self.at..self.at + taken]);
        self.at += taken;
        if self.rest() == 0 {
            self.give_back();
        }
        taken
    }

    fn give_back(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        self.at = 0;
        if bytes.capacity() > SMALL_BYTES {
            bytes.clear();
            spare::give_back_input(bytes);
        }
    }
}

impl Body {
    /// A body of that length whose first bytes are `input[at..]`; `input` is left empty. No read waits longer
    /// than `limits` allow. When everything is there already, or nothing is to come, the connection goes home at once.
    pub fn new(length: BodyLength, input: &mut Vec<u8>, at: usize, source: Source, limits: Limits) -> Self {
        let framing = match length {
            BodyLength::Empty => Framing::Known { left: 0, of: 0 },
            BodyLength::Known(bytes) => Framing::Known { left: bytes, of: bytes },
            BodyLength::Chunked => Framing::Chunked(ChunkDecoder::of_answer()),
            BodyLength::UntilClose => Framing::UntilClose,
        };
        let mut body = Self { framing, early: Early::default(), source: Some(source), limits };
        let here = input.len() - at;
        if let Framing::Known { left, .. } = body.framing
            && left <= here as u64
        {
            // It fits: it is at most what is here.
            input.truncate(at + left as usize);
            body.let_go(left == here as u64);
            if left == 0 {
                body.framing = Framing::Done;
            }
        }
        if here <= SMALL_BYTES {
            body.early.bytes = input[at..].to_vec();
            input.clear();
        } else {
            body.early = Early { bytes: std::mem::take(input), at };
        }
        body
    }

    /// The answer is read. Its connection goes home if it may and if nothing came behind the answer.
    fn let_go(&mut self, is_clean: bool) {
        let Some(source) = self.source.take() else { return };
        if let Some(home) = source.home
            && is_clean
        {
            home.put(source.connection, source.clock.now());
        }
    }

    fn break_off(&mut self, why: impl std::fmt::Display) -> Pull {
        self.source = None;
        let why = why.to_string();
        self.framing = Framing::Broken(why.clone());
        Pull::Broken(why)
    }

    /// Bytes as they came, still framed; `Err` is the pull's answer.
    fn receive(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, Pull> {
        if self.early.rest() > 0 {
            return Ok(self.early.take(buffer));
        }
        let mut silence = self.limits.timeout;
        let mut is_deadline = false;
        if let (Some(_), Some(source)) = (self.limits.deadline, &self.source) {
            (silence, is_deadline) = self.limits.left(silence, &source.clock);
            if silence.is_zero() {
                return Err(self.break_off(LATE));
            }
        }
        let received = match &mut self.source {
            None => Err(Errno::NOTCONN),
            Some(source) => {
                if wait == Wait::Block && source.connection.set_recv_timeout(silence).is_err() {
                    return Err(self.break_off("the socket takes no time-out"));
                }
                source.connection.receive(buffer, wait)
            }
        };
        match received {
            Ok(0) => Err(self.end_of_stream()),
            Ok(read) => Ok(read),
            Err(Errno::AGAIN) if wait == Wait::Poll => Err(Pull::Pending),
            Err(Errno::AGAIN) => {
                let name = Limits::name(is_deadline);
                Err(self.break_off(format!("silent for {silence:?} inside the body ({name})")))
            }
            Err(error) => Err(self.break_off(format!("broke off inside the body: {error}"))),
        }
    }

    /// The backend has closed its side: the end of a body that ends so, and of no other (RFC 9112 §8).
    fn end_of_stream(&mut self) -> Pull {
        match &self.framing {
            Framing::UntilClose => {
                self.let_go(false);
                self.framing = Framing::Done;
                Pull::End
            }
            Framing::Known { left, of } => {
                let why = format!("closed after {} of {of} bytes of the body", of - left);
                self.break_off(why)
            }
            _ => self.break_off("closed before the last chunk of the body"),
        }
    }

    fn pull_known(&mut self, left: u64, of: u64, buffer: &mut [u8], wait: Wait) -> Pull {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match self.receive(&mut buffer[..most], wait) {
            Err(pull) => pull,
            Ok(read) => {
                let left = left - read as u64;
                self.framing = Framing::Known { left, of };
                if left == 0 {
                    // What may stand behind it was never read, and shows when the connection is taken again.
                    self.let_go(true);
                    self.framing = Framing::Done;
                }
                Pull::Bytes(read)
            }
        }
    }

    fn pull_chunked(&mut self, buffer: &mut [u8], wait: Wait) -> Pull {
        loop {
            let received = match self.receive(buffer, wait) {
                Err(pull) => return pull,
                Ok(read) => read,
            };
            let Framing::Chunked(decoder) = &mut self.framing else { return Pull::End };
            match decode_in_place(decoder, &mut buffer[..received]) {
                Err(fault) => return self.break_off(fault),
                Ok((0, None)) => {}
                Ok((body, None)) => return Pull::Bytes(body),
                Ok((body, Some(used))) => {
                    let is_clean = used == received && self.early.rest() == 0;
                    self.let_go(is_clean);
                    self.framing = Framing::Done;
                    return if body > 0 { Pull::Bytes(body) } else { Pull::End };
                }
            }
        }
    }
}

/// Moves the body's bytes to the front of `buffer`: how many there are, and, at the body's end, how many bytes of the
/// buffer belonged to it with its framing.
fn decode_in_place(
    decoder: &mut ChunkDecoder,
    buffer: &mut [u8],
) -> Result<(usize, Option<usize>), ChunkFault> {
    let (mut at, mut body) = (0, 0);
    loop {
        match decoder.step(&buffer[at..])? {
            Step::Data { start, end } => {
                buffer.copy_within(at + start..at + end, body);
                body += end - start;
                at += end;
            }
            Step::More => return Ok((body, None)),
            Step::End { used } => return Ok((body, Some(at + used))),
        }
    }
}

impl Stream for Body {
    fn pull(&mut self, buffer: &mut [u8], wait: Wait) -> Pull {
        if buffer.is_empty() {
            return Pull::Pending;
        }
        match &self.framing {
            Framing::Done => Pull::End,
            Framing::Broken(why) => Pull::Broken(why.clone()),
            &Framing::Known { left, of } => self.pull_known(left, of, buffer, wait),
            Framing::Chunked(_) => self.pull_chunked(buffer, wait),
            Framing::UntilClose => match self.receive(buffer, wait) {
                Ok(read) => Pull::Bytes(read),
                Err(pull) => pull,
            },
        }
    }

    fn socket(&self) -> Option<Awaitable<'_>> {
        self.source.as_ref().map(|source| source.connection.awaitable())
    }

    fn silence_limit(&self) -> Duration {
        let limit = self.limits.timeout;
        self.source.as_ref().map_or(limit, |source| self.limits.left(limit, &source.clock).0)
    }

    fn deadline(&self) -> Option<Nanos> {
        // What is read to its end keeps nobody waiting but its client.
        self.limits.deadline.filter(|_| self.source.is_some())
    }

    fn too_late(&self) -> String {
        let passed = |source: &Source| self.limits.left(Duration::MAX, &source.clock).0.is_zero();
        if self.source.as_ref().is_some_and(passed) {
            return LATE.to_owned();
        }
        let (limit, name) = (self.limits.timeout, Limits::name(false));
        format!("the backend was silent for {limit:?} in the middle of its answer ({name})")
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.early.give_back();
    }
}
