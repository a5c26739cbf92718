//! One request on one connection: bytes out, the answer's head in, and an eye on answers that come too early.
//!
//! Output is gathered until the answer is awaited or the buffer is full, so that a head and a small body leave in one
//! system call. While a body streams, the socket is read between writes and whenever it takes no more, because a
//! backend may answer before it has read everything (RFC 9112 §9.5): an early refusal ends the sending. An early
//! success does not, since it may be an echo that goes on as long as the request does; only when that sender and we
//! have both been stuck for [`STUCK`] is the answer taken as it is.

use std::time::Duration;

use rustix::io::Errno;

use super::connection::Connection;
use super::spare::{Buffers, MIN_ROOM};
use crate::clock::Clock;
use crate::proxy::exchange::Wait;
use crate::proxy::{Phase, UpstreamError};
use balancer_http::framing::response::{Fault, Finder, Found, Head};
use balancer_time::Nanos;
use balancer_time::nanos;

/// How long a backend that has answered already may take nothing of the request before its answer is taken.
const STUCK: Duration = Duration::from_secs(1);

const CLOSED_EARLY: &str = "closed before the answer's head was whole";

fn malformed(fault: Fault) -> UpstreamError {
    UpstreamError { phase: Phase::Malformed, cause: fault.to_string() }
}

/// Sending is over before the request is: the answer, or the error, is there or can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopped;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For the head, counted from the end of sending, and for each wait while sending.
    pub timeout: Duration,
    /// When all must be over.
    pub deadline: Option<Nanos>,
}

impl Limits {
    /// What is left of `limit` at most; whether the deadline made it shorter.
    pub fn left(&self, limit: Duration, clock: &Clock) -> (Duration, bool) {
        let Some(deadline) = self.deadline else { return (limit, false) };
        let left = Duration::from_nanos(deadline.saturating_sub(clock.now()));
        (limit.min(left), left < limit)
    }

    /// The words for an operator who looks for the key.
    pub fn name(is_deadline: bool) -> &'static str {
        if is_deadline { "upstream.request_timeout" } else { "upstream.response_timeout" }
    }
}

/// The state of one call.
#[derive(Debug)]
pub(super) struct Call {
    pub connection: Connection,
    pub buffers: Buffers,
    pub clock: Clock,
    pub limits: Limits,
    finder: Finder,
    /// Bytes of the output buffer that wait to be sent.
    filled: usize,
    /// The field lines have been put behind what ureq wrote of the head.
    head_is_whole: bool,
    /// Pieces of the body are sent as they come: the client is waited for between them.
    pub streaming: bool,
    /// The head has been written; what follows is body.
    pub in_body: bool,
    sent_any: bool,
    received_any: bool,
    /// The request was not sent to its end; the connection can't be used again.
    pub cut_short: bool,
    early: Option<Head>,
    /// Where the body begins in the input, once the head was found.
    pub body_at: usize,
    /// Nobody waits for the answer: the call ends when the request is sent.
    pub leaves: bool,
    /// It has been, to its end, and the answer is still to come.
    pub is_sent: bool,
    /// What became of it.
    pub outcome: Option<Result<Head, UpstreamError>>,
}

impl Call {
    /// `timeout`: for the answer's head, counted from the end of sending, and for each wait while sending.
    pub fn new(
        connection: Connection,
        buffers: Buffers,
        clock: Clock,
        limits: Limits,
        finder: Finder,
    ) -> Self {
        Self {
            connection,
            buffers,
            clock,
            limits,
            finder,
            filled: 0,
            head_is_whole: false,
            streaming: false,
            in_body: false,
            sent_any: false,
            received_any: false,
            cut_short: false,
            early: None,
            body_at: 0,
            leaves: false,
            is_sent: false,
            outcome: None,
        }
    }

    /// Buffers with room for the head that is looked for.
    pub fn lend_buffers(&self) -> Buffers {
        Buffers::lend(self.finder.rules().max_head_bytes)
    }

    /// The part of the output buffer that is free: room for the head, later [`MIN_ROOM`] at least.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffers.output[self.filled..]
    }

    /// The buffer for unframed body bytes, and the free part of the output buffer.
    pub fn chunk_and_room(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut self.buffers.chunk, &mut self.buffers.output[self.filled..])
    }

    /// Takes over `bytes` more of the output buffer; sends when it has to.
    pub fn written(&mut self, bytes: usize) -> Result<(), Stopped> {
        self.filled += bytes;
        if !self.head_is_whole {
            self.finish_head()?;
        }
        let room = self.buffers.output.len() - self.filled;
        if room < MIN_ROOM || (self.in_body && self.streaming) { self.flush() } else { Ok(()) }
    }

    /// Puts the field lines before the empty line of the head that ureq wrote.
    fn finish_head(&mut self) -> Result<(), Stopped> {
        let Buffers { output, lines, .. } = &mut self.buffers;
        let end = self.filled + lines.len();
        if !output[..self.filled].ends_with(b"\r\n\r\n") || end > output.len() {
            return Err(self.fail(Phase::Malformed, "the request's head was not written at once"));
        }
        output[self.filled - 2..end - 2].copy_from_slice(lines);
        output[end - 2..end].copy_from_slice(b"\r\n");
        self.filled = end;
        self.head_is_whole = true;
        Ok(())
    }

    /// Sends what was gathered.
    pub fn flush(&mut self) -> Result<(), Stopped> {
        if self.sent_any && self.filled > 0 {
            self.look_for_answer()?;
        }
        if self.limits.deadline.is_some_and(|deadline| self.clock.now() >= deadline) {
            return Err(
                self.fail(Phase::TimedOut, "the request was not sent in time (upstream.request_timeout)")
            );
        }
        let mut at = 0;
        while at < self.filled {
            match self.connection.send(&self.buffers.output[at..self.filled]) {
                Ok(sent) => {
                    at += sent;
                    self.sent_any = true;
                }
                Err(Errno::AGAIN) => self.wait_for_room()?,
                // The peer has closed or reset its side. It may have said why before.
                Err(_) => return Err(self.stop()),
            }
        }
        self.filled = 0;
        Ok(())
    }

    fn stop(&mut self) -> Stopped {
        self.cut_short = true;
        Stopped
    }

    fn fail(&mut self, phase: Phase, cause: impl std::fmt::Display) -> Stopped {
        self.outcome = Some(Err(UpstreamError { phase, cause: cause.to_string() }));
        self.stop()
    }

    fn wait_for_room(&mut self) -> Result<(), Stopped> {
        let (left, is_deadline) = self.limits.left(self.limits.timeout, &self.clock);
        let patience = if self.early.is_some() { STUCK.min(left) } else { left };
        match self.connection.wait_writable(self.early.is_none(), patience) {
            Ok(Some(ready)) if ready.readable && self.early.is_none() => self.look_for_answer(),
            Ok(Some(_)) => Ok(()),
            Ok(None) if self.early.is_some() => Err(self.stop()),
            Ok(None) => {
                let name = Limits::name(is_deadline);
                let cause = format!("nothing of the request was taken for {left:?} ({name})");
                Err(self.fail(Phase::TimedOut, cause))
            }
            Err(error) => Err(self.fail(Phase::Reset, error)),
        }
    }

    /// Reads what the backend has sent while we are still sending.
    fn look_for_answer(&mut self) -> Result<(), Stopped> {
        if self.early.is_some() {
            return Ok(());
        }
        match self.connection.receive_more(&mut self.buffers.input, Wait::Poll) {
            Err(Errno::AGAIN) => Ok(()),
            // Closed or broken: `conclude` says how.
            Ok(0) | Err(_) => Err(self.stop()),
            Ok(_) => match self.find() {
                Err(fault) => Err(self.fail(Phase::Malformed, fault)),
                Ok(None) => Ok(()),
                Ok(Some(head)) => {
                    let wants_no_more = head.status >= 400 || !head.keep_alive;
                    self.early = Some(head);
                    if wants_no_more { Err(self.stop()) } else { Ok(()) }
                }
            },
        }
    }

    /// Looks for the final head in the input; drops what is done with.
    fn find(&mut self) -> Result<Option<Head>, Fault> {
        self.received_any = true;
        match self.finder.find(&self.buffers.input)? {
            Found::More { used } => {
                self.buffers.input.drain(..used);
                Ok(None)
            }
            Found::Final { head, used } => {
                self.body_at = used;
                Ok(Some(head))
            }
        }
    }

    /// Sends what is left and waits for the answer's head; afterwards `outcome` is set, and the input buffer holds from
    /// `body_at` on what came behind the head.
    pub fn conclude(&mut self) {
        if !self.cut_short && self.flush().is_err() && self.outcome.is_some() {
            return;
        }
        self.outcome = Some(match self.early.take() {
            Some(head) => Ok(head),
            None => self.await_head(),
        });
    }

    /// Sends what is left. Afterwards it is sent and its answer is awaited by others, or `outcome` is set.
    pub fn leave(&mut self) {
        if !self.cut_short && self.flush().is_ok() && self.early.is_none() {
            self.is_sent = true;
        } else {
            self.conclude();
        }
    }

    /// When the answer's head must be there, from now on; whether that is the request's own deadline.
    pub fn head_due(&self) -> (Nanos, bool) {
        let (limit, is_deadline) = self.limits.left(self.limits.timeout, &self.clock);
        (self.clock.now().saturating_add(nanos(limit)), is_deadline)
    }

    /// Reads what has come of the head, without waiting. `None`: it is not whole.
    pub fn poll_head(&mut self) -> Result<Option<Head>, UpstreamError> {
        loop {
            match self.connection.receive_more(&mut self.buffers.input, Wait::Poll) {
                Ok(0) => return Err(self.broke(CLOSED_EARLY)),
                Ok(_) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(self.broke(error)),
            }
            let found = self.find().map_err(malformed)?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// No head in time.
    pub fn late(&self, is_deadline: bool) -> UpstreamError {
        let cause = format!("no answer's head in time ({})", Limits::name(is_deadline));
        UpstreamError { phase: Phase::TimedOut, cause }
    }

    fn await_head(&mut self) -> Result<Head, UpstreamError> {
        let (limit, is_deadline) = self.limits.left(self.limits.timeout, &self.clock);
        let deadline = self.clock.now().saturating_add(nanos(limit));
        let mut remaining = limit;
        let timed_out = || {
            let cause = format!("no answer's head within {limit:?} ({})", Limits::name(is_deadline));
            UpstreamError { phase: Phase::TimedOut, cause }
        };
        loop {
            self.connection.set_recv_timeout(remaining).map_err(|error| self.broke(error))?;
            match self.connection.receive_more(&mut self.buffers.input, Wait::Block) {
                Ok(0) => return Err(self.broke(CLOSED_EARLY)),
                Ok(_) => {}
                Err(Errno::AGAIN) => return Err(timed_out()),
                Err(error) => return Err(self.broke(error)),
            }
            match self.find().map_err(malformed)? {
                Some(head) => return Ok(head),
                None => match deadline.saturating_sub(self.clock.now()) {
                    0 => return Err(timed_out()),
                    left => remaining = Duration::from_nanos(left),
                },
            }
        }
    }

    /// The connection is gone before the head came.
    fn broke(&self, cause: impl std::fmt::Display) -> UpstreamError {
        let phase = if self.connection.kept && !self.received_any { Phase::Stale } else { Phase::Reset };
        UpstreamError { phase, cause: cause.to_string() }
    }
}
