//! What loops know of each other: how busy each is, how many connections it has, and its letter box.

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
    /// Thousandths of one processor that it used lately.
    pub busy: AtomicU64,
    /// When it began to handle the events that it handles now; 0 while it waits for some.
    pub turn_since: AtomicU64,
    /// It was found to spin, and gets no new connections.
    pub is_stuck: AtomicBool,
}

/// What a loop is told.
pub(super) enum Letter {
    /// A connection is its own from now on.
    Welcome(Newcomer),
    /// What a request waited for may be there.
    Woken(ClientSlot),
    /// The lane has answered.
    Answered(ClientSlot, Answer),
    /// Room is needed: the connection that never said anything and is oldest ends, or the one that was idle for longest.
    Evict,
    /// Something in [`LoopsShared`] changed.
    Look,
}

/// A connection between two loops, or new.
pub(super) struct Newcomer {
    pub socket: Arc<Socket>,
    pub transport: Transport,
    pub secured: Option<Arc<TlsSession>>,
    pub counted: Counted,
    pub peer: std::net::SocketAddr,
    pub is_proxied: bool,
    pub expects_proxy: bool,
    /// Nothing was ever answered on it.
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

    /// Posts a letter. Bounded by what letters are about: one a connection, one a request that waits. Never blocks but for
    /// the moment in which another letter is posted.
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
