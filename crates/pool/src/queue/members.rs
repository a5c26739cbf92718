//! Who is in line, and what is shown of them.

use std::sync::Arc;

use super::{QueueOrder, Waker};
use crate::fair::{Joining, LineRefusal, LineTicket, Turn, Who};
use balancer_importance::Priority;
use balancer_time::Nanos;

/// A request that wants to wait.
#[derive(Clone, Debug)]
pub struct LineMember {
    /// Whose it is.
    pub who: Who,
    /// The client's part of its priority's places, relative to other clients, 1 to 1000.
    pub weight: u32,
    /// When it first came. A request that is sent again keeps it, and so its place before what came later.
    pub arrived: Nanos,
    /// What its client is called, for those who look at the line.
    pub name: Arc<str>,
}

/// Under [`QueueOrder::Fifo`] all are one client, whose requests go in the order of their coming. When the line is full, who comes
/// has to go.
const ANYBODY: Who = Who { client: 0, priority: Priority::Normal };

impl LineMember {
    /// As a line of that order knows it. `straight`: see [`Joining::straight`].
    pub(super) fn joining(&self, order: QueueOrder, straight: impl FnOnce(Who) -> u32) -> Joining {
        let Self { who, weight, arrived, .. } = *self;
        match order {
            QueueOrder::Fair => Joining { who, weight, arrived, straight: straight(who) },
            QueueOrder::Fifo => Joining { who: ANYBODY, weight: 1, arrived, straight: 0 },
        }
    }
}

/// A request in line, or refused and not told so yet.
pub(super) struct HeldPlace {
    pub member: LineMember,
    pub ticket: LineTicket,
    /// When it joined.
    pub since: Nanos,
    pub state: PlaceState,
    /// The last of [`super::line::LineState`]'s changes before it looked for room.
    pub looked: u64,
}

pub(super) enum PlaceState {
    Asleep(Waker),
    /// `None`: the order that gave it its turn is no longer in force.
    Trying(Option<Turn>),
    Refused(LineRefusal),
}

/// The line at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineView {
    /// How many are in it.
    pub waiting: usize,
    /// As [`super::Queue::clients`] says.
    pub clients: usize,
    /// How long the one that has waited longest has.
    pub oldest: Option<Nanos>,
    /// The clients with requests asleep that have the most places, those with the most first; under [`QueueOrder::Fifo`],
    /// which nobody's places are counted by, those of the first in line.
    pub busiest: Vec<BusyClient>,
}

/// A client in line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusyClient {
    /// What it is called.
    pub name: Arc<str>,
    /// Its requests' priority.
    pub priority: Priority,
    /// Its requests in flight. `None`: nobody counts them, as under [`QueueOrder::Fifo`].
    pub in_flight: Option<u32>,
    /// Its requests asleep; under [`QueueOrder::Fifo`], of the first in line.
    pub waiting: usize,
}
