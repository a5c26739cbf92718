//! What loops know of each other: how busy each is, whether it is stuck, and its letter box.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::conn::Transport;
use super::counts::Counted;
use super::keys::ClientSlot;
use super::wire::{Socket, Wake};
use crate::proxy::exchange::Answer;
use balancer_http::message::TlsSession;
use balancer_time::Nanos;

/// One loop, as the others see it.
pub(super) struct LoopState {
    mail: Mutex<Vec<Letter>>,
    wake: Wake,
    /// How much of one processor it used lately, in thousandths.
    pub busy: AtomicU64,
    /// When its turn began, in nanoseconds of the clock; 0 while it waits for events.
    pub turn_since: AtomicU64,
    /// Its turn takes too long: it gets no new connections.
    pub is_stuck: AtomicBool,
}

/// What a loop is told.
pub(super) enum Letter {
    /// A connection belongs to it from now on.
    Welcome(Newcomer),
    /// What a request waits for may have come.
    Woken(ClientSlot),
    /// The lane has answered.
    Answered(ClientSlot, Answer),
    /// Room is needed: the oldest silent connection ends, or else the one that was idle for longest.
    Evict,
    /// Something in [`LoopsShared`] changed.
    Look,
}

/// A connection that is new, or moves from one loop to another.
pub(super) struct Newcomer {
    pub socket: Arc<Socket>,
    pub transport: Transport,
    pub secured: Option<Arc<TlsSession>>,
    pub counted: Counted,
    pub peer: std::net::SocketAddr,
    pub is_proxied: bool,
    pub expects_proxy: bool,
    /// No request was answered on it yet.
    pub fresh: bool,
}

impl LoopState {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            mail: Mutex::default(),
            wake: Wake::new()?,
            busy: AtomicU64::new(0),
            turn_since: AtomicU64::new(0),
            is_stuck: AtomicBool::new(false),
        })
    }

    /// Posts a letter. There are at most as many as what they are about: one for a connection, one for a request that waits.
    /// Blocks only for the moment in which another letter is posted or letters are taken.
    pub fn post(&self, letter: Letter) {
        let mut mail = self.mail.lock();
        mail.push(letter);
        let is_first = mail.len() == 1;
        drop(mail);
        if is_first {
            self.wake.wake();
        }
    }

    /// Takes all letters.
    pub fn open_mail(&self) -> Vec<Letter> {
        std::mem::take(&mut *self.mail.lock())
    }

    /// What to wait on for letters.
    pub fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Whether it has been at the same turn for longer than `most`.
    pub fn is_late(&self, now: Nanos, most: Nanos) -> bool {
        let since = self.turn_since.load(Ordering::Relaxed);
        since != 0 && now.saturating_sub(since) > most
    }
}
