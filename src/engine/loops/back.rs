//! A loop's connections to backends: kept after an answer and used again, the one used last first.

use std::collections::HashMap;
use std::io::{self, IoSlice};

use rustix::io::Errno;
use slotmap::SlotMap;

use super::keys::{BackSlot, ClientSlot};
use super::secure::{MOST_HANDSHAKE_BYTES, Secure};
use super::wire::{Got, Socket};
use crate::proxy::story::Call;
use crate::proxy::{Phase, Reuse, UpstreamError};
use balancer_http::framing::chunk::{ChunkDecoder, ChunkFault, ChunkStep};
use balancer_http::message::BodyLength;
use balancer_time::Nanos;

/// A backend connection.
pub(super) struct Back {
    pub socket: Socket,
    /// Its TLS session, where the backend speaks that.
    pub secure: Option<Box<Secure>>,
    /// Bytes of the handshake that the backend sent so far.
    pub shaken: usize,
    /// [`crate::tls::upstream::BackendTls::generation`] when it was made.
    pub tls_generation: u64,
    /// [`balancer_pool::backends::Endpoint::id`].
    pub endpoint: u64,
    /// `upstream.idle_timeout` as it was when this was last asked for.
    pub idle: Nanos,
    /// The client whose request it has; `None`: it is kept.
    pub client: Option<ClientSlot>,
    pub is_connecting: bool,
    /// There may be something to read.
    pub readable: bool,
    /// The backend sends no more.
    pub ended: bool,
    /// It was kept: another request was answered on it before.
    pub kept: bool,
    /// A byte of this request's answer came.
    pub answered: bool,
    /// Written and not yet taken by the kernel.
    pub out: Vec<u8>,
    pub out_at: usize,
    /// The beginning of an answer's head.
    pub head: Vec<u8>,
    pub coding: Coding,
    /// It may be used again after this answer.
    pub may_keep: bool,
    /// It serves one client alone.
    pub is_pinned: bool,
}

/// How an answer's body is read.
pub(super) enum Coding {
    /// `left` bytes are to come, `of` in all.
    Length {
        left: u64,
        of: u64,
    },
    Chunked(ChunkDecoder),
    UntilClose,
    Done,
}

impl Coding {
    pub fn of(length: BodyLength) -> Self {
        match length {
            BodyLength::Empty | BodyLength::Known(0) => Self::Done,
            BodyLength::Known(bytes) => Self::Length { left: bytes, of: bytes },
            BodyLength::Chunked => Self::Chunked(ChunkDecoder::of_answer()),
            BodyLength::UntilClose => Self::UntilClose,
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Moves the body's bytes to the front of `bytes`. Returns how many these are, and how many bytes of the input the
    /// body and its framing took.
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<(usize, usize), ChunkFault> {
        match self {
            Self::Done => Ok((0, 0)),
            Self::UntilClose => Ok((bytes.len(), bytes.len())),
            Self::Length { left, .. } => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok((taken, taken))
            }
            Self::Chunked(decoder) => {
                let (mut at, mut body) = (0, 0);
                loop {
                    match decoder.step(&bytes[at..])? {
                        ChunkStep::Data { start, end } => {
                            bytes.copy_within(at + start..at + end, body);
                            body += end - start;
                            at += end;
                        }
                        ChunkStep::More => return Ok((body, bytes.len())),
                        ChunkStep::End { used } => {
                            *self = Self::Done;
                            return Ok((body, at + used));
                        }
                    }
                }
            }
        }
    }

    /// The backend has closed its side. `Err`: the body is not whole (RFC 9112 §8).
    pub fn end(&mut self) -> Result<(), String> {
        match self {
            Self::Done => Ok(()),
            Self::UntilClose => {
                *self = Self::Done;
                Ok(())
            }
            Self::Length { left, of } => {
                Err(format!("closed after {} of {of} bytes of the body", *of - *left))
            }
            Self::Chunked(_) => Err("closed before the last chunk of the body".to_owned()),
        }
    }
}

impl Back {
    /// Whether the kernel has taken all that was written.
    pub fn is_flushed(&self) -> bool {
        self.out_at == self.out.len() && self.secure.as_ref().is_none_or(|secure| secure.is_flushed())
    }

    /// Sends what is left over. `Err`: the backend takes no more.
    pub fn flush(&mut self) -> Result<(), Errno> {
        if let Some(secure) = &mut self.secure
            && !secure.push(&self.socket)?
        {
            return Ok(());
        }
        while self.out_at < self.out.len() {
            match write(&self.socket, self.secure.as_deref_mut(), &self.out[self.out_at..])? {
                0 => return Ok(()),
                sent => self.out_at += sent,
            }
        }
        self.out.clear();
        self.out_at = 0;
        if self.out.capacity() > 16 * 1024 {
            self.out = Vec::new();
        }
        Ok(())
    }

    /// Sends, behind what is left over, and keeps what the kernel does not take.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if !self.is_flushed() || self.is_connecting {
            self.out.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = write(&self.socket, self.secure.as_deref_mut(), bytes)?;
        self.out.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Reads on.
    pub fn receive(&mut self, buffer: &mut [u8], cipher: &mut [u8]) -> Got {
        let (got, more) = match &mut self.secure {
            Some(secure) => secure.receive(&self.socket, self.ended, buffer, cipher),
            None => self.socket.receive_or_drain(buffer),
        };
        match got {
            // After an end was told, reading goes on until the socket says so: no further event tells of it.
            Got::Bytes(_) => {
                self.answered = true;
                self.readable = more || self.ended;
            }
            Got::Nothing => self.readable = false,
            Got::End | Got::Broken(_) => {}
        }
        got
    }

    /// Whether the TLS settings that verified it are still in force.
    pub fn is_of(&self, generation: u64) -> bool {
        self.secure.is_none() || self.tls_generation == generation
    }

    /// Whether nothing has come that was not asked for.
    pub fn is_quiet(&mut self) -> bool {
        self.secure.as_deref_mut().is_none_or(|secure| !secure.has_more()) && self.socket.is_quiet()
    }

    /// Goes on with the TLS handshake, if there is one; true when it is over. `cipher` is lent memory.
    pub fn shake_hands(&mut self, cipher: &mut [u8]) -> Result<bool, UpstreamError> {
        let Some(secure) = &mut self.secure else { return Ok(true) };
        let failed = |cause: &dyn std::fmt::Display| UpstreamError {
            phase: Phase::Connect,
            cause: format!("the TLS handshake failed: {cause}"),
        };
        loop {
            secure.push(&self.socket).map_err(|error| failed(&io::Error::from(error)))?;
            if !secure.is_shaking_hands() {
                self.readable |= secure.has_more();
                return Ok(true);
            }
            if !self.readable {
                return Ok(false);
            }
            match self.socket.receive(cipher) {
                Got::Bytes(bytes) => {
                    self.readable = bytes == cipher.len() || self.ended;
                    self.shaken += bytes;
                    if self.shaken > MOST_HANDSHAKE_BYTES {
                        return Err(failed(&"the backend says too much"));
                    }
                    secure.shake_hands(&self.socket, &cipher[..bytes]).map_err(|error| failed(&error))?;
                }
                Got::Nothing => self.readable = false,
                Got::End => return Err(failed(&"the backend closed the connection")),
                Got::Broken(error) => return Err(failed(&io::Error::from(error))),
            }
        }
    }

    /// Ends our direction.
    pub fn end_writing(&mut self) {
        if let Some(secure) = &mut self.secure {
            secure.end(&self.socket);
        }
        self.socket.shutdown_write();
    }

    /// The error for a connection that broke before the answer's head was whole.
    pub fn broke(&self, cause: impl std::fmt::Display) -> UpstreamError {
        let phase = if self.kept && !self.answered { Phase::Stale } else { Phase::Reset };
        UpstreamError { phase, cause: self.fault().unwrap_or_else(|| cause.to_string()) }
    }

    /// Why its TLS session failed.
    pub fn fault(&self) -> Option<String> {
        let fault = self.secure.as_ref()?.fault()?;
        Some(format!("TLS: {fault}"))
    }
}

/// Writes as much as is taken now; how many bytes.
fn write(socket: &Socket, secure: Option<&mut Secure>, bytes: &[u8]) -> Result<usize, Errno> {
    match secure {
        Some(secure) => secure.send_pieces(socket, &[IoSlice::new(bytes)]),
        None => socket.send(bytes),
    }
}

/// Kept connections of one endpoint, the one used last at the end.
#[derive(Default)]
pub(super) struct KeptConnections {
    idle: Vec<(BackSlot, Nanos)>,
    /// `upstream.idle_timeout` as it was last seen.
    most: Nanos,
}

/// All backend connections of a loop.
#[derive(Default)]
pub(super) struct Backs {
    pub by_key: SlotMap<BackSlot, Box<Back>>,
    kept: HashMap<u64, KeptConnections>,
    swept_at: Nanos,
}

/// Most kept connections of one endpoint and loop.
const MAX_KEPT: usize = 512;
/// [`Reuse::Recent`] takes connections that were idle for less.
const RECENT: Nanos = 1_000_000_000;
/// How often old ones are looked for.
const SWEEP: Nanos = 1_000_000_000;

impl Backs {
    pub fn get(&mut self, key: BackSlot) -> Option<&mut Back> {
        self.by_key.get_mut(key).map(|back| &mut **back)
    }

    /// Closes one. Closing takes it out of epoll: no other descriptor refers to it.
    pub fn close(&mut self, key: BackSlot) {
        self.by_key.remove(key);
    }

    /// Takes a kept connection that is open and quiet. Closes those that it finds to be otherwise.
    pub fn take(&mut self, call: &Call, reuse: Reuse, generation: u64, now: Nanos) -> Option<BackSlot> {
        let most = match reuse {
            Reuse::Any => call.policy.idle,
            Reuse::Recent => call.policy.idle.min(RECENT),
            Reuse::Never => return None,
        };
        let kept = self.kept.get_mut(&call.endpoint.id)?;
        kept.most = call.policy.idle;
        loop {
            let (key, since) = *kept.idle.last()?;
            // The newest is last: when it is too old, so are all.
            if now.saturating_sub(since) >= most {
                return None;
            }
            kept.idle.pop();
            let Some(back) = self.by_key.get_mut(key) else { continue };
            if back.is_of(generation) && back.is_quiet() {
                back.kept = true;
                return Some(key);
            }
            self.by_key.remove(key);
        }
    }

    /// The answer was read, or is not wanted: keeps the connection if it may be used again, and closes it otherwise.
    pub fn release(&mut self, key: BackSlot, now: Nanos) {
        let Some(back) = self.by_key.get_mut(key) else { return };
        let is_clean = back.may_keep && back.coding.is_done() && !back.ended && back.is_flushed();
        if !is_clean || (back.readable && !back.is_quiet()) {
            self.by_key.remove(key);
            return;
        }
        back.readable = false;
        back.client = None;
        if back.is_pinned {
            return;
        }
        let kept = self.kept.entry(back.endpoint).or_default();
        if kept.idle.len() >= MAX_KEPT {
            self.by_key.remove(key);
            return;
        }
        kept.most = back.idle;
        kept.idle.push((key, now));
    }

    /// Closes kept connections that are too old, and forgets endpoints that have none. Does so at most once a second.
    pub fn sweep(&mut self, now: Nanos) {
        if now.saturating_sub(self.swept_at) < SWEEP {
            return;
        }
        self.swept_at = now;
        let by_key = &mut self.by_key;
        self.kept.retain(|_, kept| {
            let most = kept.most;
            // The oldest is first. The time-out of the last call is the one in force.
            let old = kept.idle.iter().take_while(|(_, since)| now.saturating_sub(*since) >= most).count();
            for (key, _) in kept.idle.drain(..old) {
                by_key.remove(key);
            }
            // Those that the backend has closed meanwhile are gone from `by_key` already.
            kept.idle.retain(|(key, _)| by_key.contains_key(*key));
            !kept.idle.is_empty()
        });
    }

    /// Whether any is kept, so that there is something to sweep.
    pub fn has_kept(&self) -> bool {
        !self.kept.is_empty()
    }
}
