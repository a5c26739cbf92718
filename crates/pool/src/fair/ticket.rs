//! The words of the line: who waits, with what, and what becomes of it.

use balancer_importance::Priority;
use balancer_time::Nanos;

/// Whose use is counted together. A client with requests of two priorities counts as two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// The limiter's client key as a keyed hash: nobody can choose a number that is another's.
    pub client: u64,
    /// The request's priority.
    pub priority: Priority,
}

/// A request that wants to wait.
#[derive(Clone, Copy, Debug)]
pub struct Joining {
    /// Whose it is.
    pub who: Who,
    /// The client's part of its priority's places, relative to other clients, 1 to 1000.
    pub weight: u32,
    /// When it first came. A request that is sent again keeps it, and so its place before what came later.
    pub arrived: Nanos,
    /// Requests of the same client in flight that never waited: see [`super::StraightCounts`].
    pub straight: u32,
}

/// A request in line. The caller keeps its waker beside it, by [`LineTicket::number`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineTicket {
    /// Whose it is.
    pub who: Who,
    pub(super) arrived: Nanos,
    pub(super) number: u64,
}

impl LineTicket {
    /// Of no other request that ever stood in this line.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Its priority's index.
    pub(super) const fn level(&self) -> usize {
        self.who.priority as usize
    }

    /// Its place among the requests of its client.
    pub(super) const fn place(&self) -> (Nanos, u64) {
        (self.arrived, self.number)
    }
}

/// A place got free, and it is this request's turn. It counts as in flight from now on: what follows is
/// [`super::FairLine::pass`] when it can't use the place, [`super::FairLine::put_back`] when there is none after all, else
/// [`super::FairLine::end`] once it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it counts as in flight until its end is told"]
pub struct Turn {
    /// Whose turn it is.
    pub ticket: LineTicket,
    pub(super) joined: Nanos,
    /// Since when it counts as in flight.
    pub(super) began: Nanos,
    /// Its client's place among those with the same key.
    pub(super) order: u64,
    /// The free place that it was woken for, by number.
    pub(super) chain: u64,
    /// How many requests were woken for that place, this one included.
    pub(super) tries: u8,
}

/// Why a request that waited is refused before its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineRefusal {
    /// The line is full, and its client has the most in it.
    Full,
    /// Its client's own line stands, and it has waited for longer than `queue_target`.
    Target,
}

/// A client that waits, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingClient {
    /// Its oldest request in line.
    pub first: LineTicket,
    /// Its requests in flight, as far as they are counted.
    pub in_flight: u32,
    /// Its requests in line.
    pub waiting: usize,
}
