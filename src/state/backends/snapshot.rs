//! The pool at one moment, and how one of it is picked.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::endpoint::{Endpoint, Lease};
use crate::rules::Nanos;
use crate::rules::health::Status;
use crate::rules::strategy::{Candidate, Draw, Strategy};

/// How often a pick begins anew because the count that it was based on had changed; then it stands as it is.
const MAX_REPICKS: usize = 4;

#[derive(Debug)]
pub(super) struct Picker {
    pub strategy: Strategy,
    /// Held while a strategy that keeps turns reads, decides and writes them; over no I/O.
    pub turns: Mutex<()>,
}

/// What a request asks of a pick.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Ids of endpoints that it must not be.
    pub tried: &'a [u64],
    /// What the request is hashed on ([`crate::rules::strategy::key_of`]); only `hash` looks at it.
    pub key: u64,
    /// The present.
    pub now: Nanos,
}

/// Who comes before whom: nobody of a later rank is picked while somebody of an earlier one can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Passed its health checks.
    Regular,
    /// The same, and meant for when nobody else is left.
    Backup,
    /// Was never checked.
    Unknown,
}

/// The pool at one moment. Its list never changes; counters and health in it do.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) picker: Arc<Picker>,
}

impl Snapshot {
    /// All endpoints, whatever their state, in the order of the configuration and then by address.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Picks an endpoint that was not tried and counts the request on it. Those that passed their health checks come
    /// first, then backups; one that was never checked is used when there is no other; one that is down, never.
    /// `None`: nobody. Takes the lock of the turns under round robin, else none.
    pub fn pick(&self, wanted: &Wanted<'_>) -> Option<Lease> {
        thread_local!(static SCRATCH: Cell<Vec<Candidate>> = const { Cell::new(Vec::new()) });
        let mut candidates = SCRATCH.take();
        let lease = if self.picker.strategy.keeps_turns() {
            self.pick_by_turn(wanted, &mut candidates)
        } else {
            self.pick_by_load(wanted, &mut candidates)
        };
        SCRATCH.set(candidates);
        lease
    }

    fn pick_by_turn(&self, wanted: &Wanted<'_>, candidates: &mut Vec<Candidate>) -> Option<Lease> {
        let _turns = self.picker.turns.lock();
        self.gather(wanted, candidates);
        let index = self.choose(wanted, candidates)?;
        for candidate in candidates.iter() {
            self.at(candidate).turn.store(candidate.turn, Ordering::Relaxed);
        }
        Some(Lease::take(self.at(&candidates[index])))
    }

    fn pick_by_load(&self, wanted: &Wanted<'_>, candidates: &mut Vec<Candidate>) -> Option<Lease> {
        for _ in 0..MAX_REPICKS {
            self.gather(wanted, candidates);
            let index = self.choose(wanted, candidates)?;
            let chosen = candidates[index];
            // Another pick may have come between looking and counting: look again, or a burst piles up on one.
            if let Some(lease) = Lease::take_at(self.at(&chosen), chosen.in_flight) {
                return Some(lease);
            }
        }
        let index = self.choose(wanted, candidates)?;
        Some(Lease::take(self.at(&candidates[index])))
    }

    fn choose(&self, wanted: &Wanted<'_>, candidates: &mut [Candidate]) -> Option<usize> {
        self.picker.strategy.pick(candidates, Draw { random: fastrand::u64(..), key: wanted.key })
    }

    /// Fills `candidates` with those of the best rank that anybody has.
    fn gather(&self, wanted: &Wanted<'_>, candidates: &mut Vec<Candidate>) {
        candidates.clear();
        let mut best = Rank::Unknown;
        for (position, endpoint) in (0u32..).zip(&self.endpoints) {
            let Some(rank) = rank(endpoint, wanted) else { continue };
            if rank > best {
                continue;
            }
            if rank < best {
                candidates.clear();
                best = rank;
            }
            let in_flight = endpoint.in_flight();
            candidates.push(Candidate {
                position,
                weight: endpoint.effective_weight(wanted.now),
                in_flight,
                turn: endpoint.turn.load(Ordering::Relaxed),
                identity: endpoint.identity,
                latency_ns: if self.picker.strategy.needs_latency() {
                    endpoint.pace().expected_ns(in_flight, wanted.now)
                } else {
                    0
                },
            });
        }
    }

    fn at(&self, candidate: &Candidate) -> &Arc<Endpoint> {
        &self.endpoints[candidate.position as usize]
    }

    /// Takes into account how an attempt at an endpoint ended: how long it took to the answer's head, or to its failure.
    pub fn observe(&self, endpoint: &Endpoint, took: Nanos, failed: bool, now: Nanos) {
        if self.picker.strategy.needs_latency() {
            endpoint.observe_latency(took, failed, now);
        }
    }
}

/// Where an endpoint stands for this request; `None`: it is none for it.
fn rank(endpoint: &Endpoint, wanted: &Wanted<'_>) -> Option<Rank> {
    if !endpoint.in_service() || wanted.tried.contains(&endpoint.id) {
        return None;
    }
    match endpoint.health() {
        Status::Up if endpoint.group.backup => Some(Rank::Backup),
        Status::Up => Some(Rank::Regular),
        Status::Unknown => Some(Rank::Unknown),
        Status::Down => None,
    }
}
