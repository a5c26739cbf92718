//! The state and the counts of the shared budget, as `/v1/status`, the dashboard and the metrics show them.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

/// One instance, as this one knows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstanceShown {
    /// Its id: 16 hexadecimal digits, as in the `Via` fields that it writes.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// Seconds since it was last heard; 0 for this one.
    pub age: f64,
    /// Seconds that its own messages take to come back to it; `None` when none has yet.
    pub lag: Option<f64>,
    /// It has heard no instance for too long, or its own messages do not come back.
    pub cut_off: bool,
    /// Clients whose spending it tells the others.
    pub hot_clients: u32,
}

/// What is counted, and the state that the driver showed last. There is one, in an `Arc`, also where the budget is not
/// shared.
#[derive(Debug)]
pub struct SharedBudget {
    own: u64,
    state: Mutex<BudgetState>,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) other_versions: AtomicU64,
}

/// The state of the shared budget as this instance sees it.
#[derive(Clone, Debug, Default)]
pub struct BudgetState {
    /// Other instances that are heard.
    pub peers: usize,
    /// Clients whose spending this instance tells the others.
    pub hot_clients: u32,
    /// How long its own messages take to come back; longer while one is overdue.
    pub lag: Option<Duration>,
    /// It has heard no instance for too long, or its own messages do not come back.
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
    /// Messages that did not count, reports that there was no room for, and requests that no other instance was told
    /// of.
    pub dropped: u64,
    /// Those of the dropped messages that came from instances of another version.
    pub other_versions: u64,
}

impl SharedBudget {
    /// For an instance that has not told anything yet. `address`: where it listens.
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

    /// The state that the driver showed last. Takes a lock for a copy.
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

/// An instance's id as 16 hexadecimal digits.
pub fn shown_id(id: u64) -> String {
    format!("{id:016x}")
}

/// The address by which people find this instance. For one that listens on every address, it is the address that the
/// database sees it connect from.
pub(super) fn shown_address(listen: SocketAddr, seen_from: Option<IpAddr>) -> String {
    let ip = seen_from.filter(|_| listen.ip().is_unspecified()).unwrap_or(listen.ip());
    SocketAddr::new(ip, listen.port()).to_string()
}
