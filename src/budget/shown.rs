//! What there is to see of the shared budget: in `/v1/status`, on the dashboard, in metrics.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

/// One instance, as this one knows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstanceShown {
    /// As in `Via`.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// Seconds since it was last heard; 0 for this one.
    pub age: f64,
    /// Seconds that its own messages take to come back to it; `None`: none did yet, or it tells nobody anything.
    pub lag: Option<f64>,
    /// It hears nobody and counts alone.
    pub cut_off: bool,
    /// Clients of which it tells.
    pub hot_clients: u32,
}

/// What is counted, and what the driver last knew. One in an `Arc`, also where the budget is not shared.
#[derive(Debug)]
pub struct SharedBudget {
    own: u64,
    state: Mutex<BudgetState>,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) other_versions: AtomicU64,
}

/// What the driver last knew.
#[derive(Clone, Debug, Default)]
pub struct BudgetState {
    /// Other instances that are heard.
    pub peers: usize,
    /// Clients of which this instance tells.
    pub hot_clients: u32,
    /// What its own messages take; longer while one is overdue.
    pub lag: Option<Duration>,
    /// It hears nobody.
    pub cut_off: bool,
    /// This one first, the others by their ids.
    pub instances: Vec<InstanceShown>,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageCounts {
    /// Messages that this instance told.
    pub sent: u64,
    /// Messages of others that were read.
    pub received: u64,
    /// Whatever came and was no such message.
    pub dropped: u64,
    /// What of that was of another version.
    pub other_versions: u64,
}

impl SharedBudget {
    /// Of an instance that has told nobody anything. `address`: where it listens.
    pub fn new(own: u64, address: String) -> Self {
        let alone =
            InstanceShown { id: shown_id(own), address, age: 0.0, lag: None, cut_off: false, hot_clients: 0 };
        let state = BudgetState { instances: vec![alone], ..BudgetState::default() };
        let [sent, received, dropped, other_versions] = [const { AtomicU64::new(0) }; 4];
        Self { own, state: Mutex::new(state), sent, received, dropped, other_versions }
    }

    /// This instance's id.
    pub fn own(&self) -> u64 {
        self.own
    }

    /// What is known now. Takes a lock for a copy.
    pub fn state(&self) -> BudgetState {
        self.state.lock().clone()
    }

    /// What was counted.
    pub fn counts(&self) -> MessageCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MessageCounts {
            sent: count(&self.sent),
            received: count(&self.received),
            dropped: count(&self.dropped),
            other_versions: count(&self.other_versions),
        }
    }

    pub(super) fn show(&self, state: BudgetState) {
        *self.state.lock() = state;
    }
}

/// An instance's id as it stands in `Via`.
pub fn shown_id(id: u64) -> String {
    format!("{id:016x}")
}

/// Where people find this instance: one that listens on every address is where the database sees it come from.
pub(super) fn shown_address(listen: SocketAddr, seen_from: Option<IpAddr>) -> String {
    let ip = seen_from.filter(|_| listen.ip().is_unspecified()).unwrap_or(listen.ip());
    SocketAddr::new(ip, listen.port()).to_string()
}
