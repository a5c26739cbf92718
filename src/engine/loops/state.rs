//! What loops know of each other: how busy each is, whether it is stuck, and its letter box.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fd::OwnedFd;

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
    /// It was asked to end a connection, and has not read that yet.
    is_to_evict: AtomicBool,
}

/// What a loop is told.
pub(super) enum Letter {
    /// A connection belongs to it from now on.
    Welcome(Newcomer),
    /// What a request waits for may have come.
    Woken(ClientSlot),
    /// The lane has answered.
    Answered(ClientSlot, Answer),
    /// A connection that another loop, the one of that number, has accepted at the bound: it gets its place in this
    /// loop, where one that does nothing can end for it.
    Arrived(Arrival, usize),
    /// The loop of that number has decided about the connection that it was sent.
    Decided(usize),
    /// Room is needed: the oldest silent connection ends, or else the one that was idle for longest.
    Evict,
    /// Something in [`LoopsShared`] changed.
    Look,
}

/// A connection that was accepted and has no place yet.
pub(super) struct Arrival {
    pub socket: OwnedFd,
    /// The index of its listener.
    pub listener: usize,
    pub peer: SocketAddr,
}

/// A connection that is new, or moves from one loop to another.
pub(super) struct Newcomer {
    pub socket: Arc<Socket>,
    pub transport: Transport,
    pub secured: Option<Arc<TlsSession>>,
    pub counted: Counted,
    pub peer: SocketAddr,
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
            is_to_evict: AtomicBool::new(false),
        })
    }

    /// Posts a letter. There are at most as many as what they are about: one for a connection, one for a request that
    /// waits, one for another loop's arrival and one for its decision, one that asks for room. Blocks only for the
    /// moment in which another letter is posted or letters are taken.
    pub fn post(&self, letter: Letter) {
        let mut mail = self.mail.lock();
        mail.push(letter);
        let is_first = mail.len() == 1;
        drop(mail);
        if is_first {
            self.wake.wake();
        }
    }

    /// Asks it to end a connection, once until it has read that.
    pub fn ask_for_room(&self) {
        if !self.is_to_evict.swap(true, Ordering::Relaxed) {
            self.post(Letter::Evict);
        }
    }

    /// It has read that it was asked to end a connection.
    pub fn was_asked_for_room(&self) {
        self.is_to_evict.store(false, Ordering::Relaxed);
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
