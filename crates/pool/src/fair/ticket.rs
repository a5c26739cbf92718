//! Types of the line: clients, requests that join, tickets, turns and refusals.

use balancer_importance::Priority;
use balancer_time::Nanos;

/// A client as the line counts it. With requests of two priorities it counts as two clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// A keyed hash of the limiter's client key, so that no client can choose to have another one's number.
    pub client: u64,
    /// The request's priority.
    pub priority: Priority,
}

/// A request that wants to wait.
#[derive(Clone, Copy, Debug)]
pub struct Joining {
    /// Its client and priority.
    pub who: Who,
    /// The client's part of its priority's places, relative to other clients, 1 to 1000.
    pub weight: u32,
    /// When it first came. A request that is sent again keeps this time, and so goes before later ones of its client.
    pub arrived: Nanos,
    /// How many requests of the client are in flight that never waited, see [`super::StraightCounts`].
    pub straight: u32,
}

/// A request in line. The caller keeps its waker beside it, by [`LineTicket::number`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineTicket {
    /// Its client and priority.
    pub who: Who,
    pub(super) arrived: Nanos,
    pub(super) number: u64,
}

impl LineTicket {
    /// Its number, which no other request of this line ever has.
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

/// The turn of a request: a place is free. The request counts as in flight from now on. Then follows one of these
/// calls: [`super::FairLine::pass`] if it can't use the place, [`super::FairLine::put_back`] if there is no place
/// after all, else [`super::FairLine::end`] when it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it counts as in flight until its end is told"]
pub struct Turn {
    /// The request that has its turn.
    pub ticket: LineTicket,
    /// When it joined the line.
    pub(super) joined: Nanos,
    /// Since when it counts as in flight.
    pub(super) began: Nanos,
    /// The number that its client had among clients with equal keys.
    pub(super) order: u64,
    /// The number of the free place for which it was woken.
    pub(super) chain: u64,
    /// How many requests were woken for that place, this one included.
    pub(super) tries: u8,
}

/// Why a request is refused by the line before its time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineRefusal {
    /// The line is full, and the request has to go: its client, or its priority, has the most in line by weight.
    Full,
    /// The request has waited for longer than `queue_target`, in a line of its client that stands.
    Target,
}

/// A client with requests in line, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingClient {
    /// Its oldest request in line.
    pub first: LineTicket,
    /// Its requests in flight that are counted.
    pub in_flight: u32,
    /// Its requests in line.
    pub waiting: usize,
}
