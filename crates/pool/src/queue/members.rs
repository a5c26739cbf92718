//! Requests in line, and what is shown of them.

use std::sync::Arc;

use super::{QueueOrder, Waker};
use crate::fair::{Joining, LineRefusal, LineTicket, Turn, Who};
use balancer_importance::Priority;
use balancer_time::Nanos;

/// A request that wants to wait.
#[derive(Clone, Debug)]
pub struct LineMember {
    /// Its client and priority.
    pub who: Who,
    /// The client's part of its priority's places, relative to other clients, 1 to 1000.
    pub weight: u32,
    /// When it first came. A request that is sent again keeps this time, and so goes before later ones of its client.
    pub arrived: Nanos,
    /// The client's name, to be shown.
    pub name: Arc<str>,
}

/// Under [`QueueOrder::Fifo`] all requests count as those of one client, and so go in the order in which they came.
/// When the line is full, a newcomer is refused.
const ANYBODY: Who = Who { client: 0, priority: Priority::Normal };

impl LineMember {
    /// How it joins a line of that order. `straight`: see [`Joining::straight`].
    pub(super) fn joining(&self, order: QueueOrder, straight: impl FnOnce(Who) -> u32) -> Joining {
        let Self { who, weight, arrived, .. } = *self;
        match order {
            QueueOrder::Fair => Joining { who, weight, arrived, straight: straight(who) },
            QueueOrder::Fifo => Joining { who: ANYBODY, weight: 1, arrived, straight: 0 },
        }
    }
}

/// A request in line, or one that is refused and has not noticed yet.
pub(super) struct HeldPlace {
    pub member: LineMember,
    pub ticket: LineTicket,
    /// When it joined.
    pub since: Nanos,
    pub state: PlaceState,
    /// The number of the last change ([`super::line::LineState`]) before it looked for room.
    pub looked: u64,
    /// Why it got its turn, while it has one.
    pub cause: TurnCause,
}

/// Why a request gets a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnCause {
    /// A place was freed.
    Freed,
    /// There may be room, as there may be for others behind it.
    Perhaps,
    /// There may have been room, and since then a place was freed. So there may be room for one more request.
    FreedToo,
}

pub(super) enum PlaceState {
    Asleep(Waker),
    /// `None`: it got its turn under an order that is not in force any more.
    Trying(Option<Turn>),
    Refused(LineRefusal),
}

/// The line at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineView {
    /// How many requests are in line.
    pub waiting: usize,
    /// Number of clients, see [`super::Queue::clients`].
    pub clients: usize,
    /// How long the request that joined first has waited.
    pub oldest: Option<Nanos>,
    /// The clients with requests asleep that have the most requests in flight, the most first. Under
    /// [`QueueOrder::Fifo`], which does not count these, the clients with the most among the first requests in line.
    pub busiest: Vec<BusyClient>,
}

/// A client in line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusyClient {
    /// Its name.
    pub name: Arc<str>,
    /// The priority of its requests.
    pub priority: Priority,
    /// Its requests in flight; `None` under [`QueueOrder::Fifo`], which does not count them.
    pub in_flight: Option<u32>,
    /// Its requests asleep; under [`QueueOrder::Fifo`], those among the first in line.
    pub waiting: usize,
}
