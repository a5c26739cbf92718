//! Requests that wait for something other than their client, without a worker.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Answer, Exchange};
use balancer_http::message::RequestHead;
use balancer_pool::queue::Waker;
use balancer_time::Nanos;

/// What a service makes of an exchange.
pub enum Served {
    /// An answer.
    Answer(Answer),
    /// None yet, and nothing to do until something happens elsewhere. Only where [`Exchange::may_park`] allows it.
    Parked(Box<dyn Parked>),
}

impl From<Answer> for Served {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// A socket to wait on. Whoever does reads first until there is nothing more: it may hear of what comes from then on alone.
#[derive(Clone, Copy)]
pub struct Awaitable<'a> {
    /// The socket.
    pub socket: BorrowedFd<'a>,
    /// Who waits on it in which way is told to the kernel once.
    pub registration: &'a Registration,
}

/// Which frontend has told the kernel of a socket. Lives and dies with the socket.
#[derive(Debug, Default)]
pub struct Registration(AtomicU64);

impl Registration {
    /// Registers the socket with a frontend, whose number is not 0. False: it is already.
    pub fn claim(&self, frontend: u64) -> bool {
        self.0.load(Ordering::Relaxed) != frontend && self.0.swap(frontend, Ordering::Relaxed) != frontend
    }

    /// Takes it back.
    pub fn release(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// All that is needed to go on with a request, by value, except its head and its body, which the frontend keeps. Dropped,
/// the request is forgotten: only when the frontend itself fails.
pub trait Parked: Send {
    /// When it has waited long enough.
    fn until(&self) -> Nanos;

    /// The socket whose readiness it waits for, instead of being told. It goes on then, and when it has waited long enough.
    fn socket(&self) -> Option<Awaitable<'_>> {
        None
    }

    /// Names whom to tell. False: it can go on already, and nobody will be told.
    fn on_wake(&mut self, waker: Waker) -> bool;

    /// Goes on, on a worker. May come too early, and then parks again.
    fn resume(self: Box<Self>, exchange: Exchange<'_>) -> Served;

    /// The end of a request that has waited long enough, that no worker is free for, or (`client_gone`) whose answer nobody
    /// will read: then only its ticket is of use. Never waits.
    fn give_up(self: Box<Self>, head: &RequestHead, client_gone: bool) -> Answer;
}
