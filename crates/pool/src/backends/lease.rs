//! Leases count requests on endpoints. A count goes up only if every bound has room, each taken by compare-and-swap,
//! and goes down again however the request ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::endpoint::Endpoint;
use super::measured::{BoundPlace, is_half};
use crate::queue::Passage;
use balancer_time::Nanos;

/// The bound on requests of the whole pool, and their number.
#[derive(Clone, Debug)]
pub(super) struct Total {
    pub most: u32,
    pub count: Arc<AtomicU32>,
}

/// Why a request was not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Something has changed since the decision: look again.
    Moved,
    /// A bound has no room.
    Full,
}

/// The conditions on which a lease is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseTerms<'a> {
    /// The endpoint's requests in flight by which it was picked; `None`: any number.
    pub seen: Option<u32>,
    /// Most workers that the backend may hold.
    pub most_workers: u32,
    /// Most workers that it may hold while there is another backend.
    pub share: u32,
    /// The bound of the whole pool.
    pub total: Option<&'a Total>,
    /// The endpoint is half open: the request must be its probe.
    pub as_probe: bool,
    /// The present.
    pub now: Nanos,
}

/// One request on one endpoint, counted until this is dropped. In-flight counts change in no other way.
#[derive(Debug)]
#[must_use = "a dropped lease is a request that has ended"]
pub struct Lease {
    /// The endpoint that gets the request.
    pub endpoint: Arc<Endpoint>,
    holds_worker: bool,
    share: u32,
    /// Its endpoint is out, and this request decides whether it comes back.
    pub(super) is_probe: bool,
    total: Option<Total>,
    passage: Passage,
    began: Nanos,
    ended: Option<Nanos>,
    /// A place of the backend's bound, if that is measured; held up to the answer's head.
    place: Option<BoundPlace>,
}

impl Lease {
    pub(super) fn take(endpoint: &Arc<Endpoint>, terms: LeaseTerms<'_>) -> Result<Self, Refused> {
        let group = &endpoint.group;
        match terms.seen {
            None => {
                endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
            }
            Some(seen) => {
                let next = seen.checked_add(1).ok_or(Refused::Full)?;
                let swapped =
                    endpoint.in_flight.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed);
                swapped.map_err(|_| Refused::Moved)?;
            }
        }
        if !raise(&group.in_flight, group.bound.number()) {
            endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        let place = group.bound.measured().map(|measured| measured.enter(terms.now));
        if place.as_ref().is_some_and(Option::is_none) {
            // Undone here and not by dropping a lease, which would give those in line a turn for nothing.
            endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
            group.in_flight.fetch_sub(1, Ordering::SeqCst);
            return Err(Refused::Full);
        }
        // From here on, dropping the lease undoes everything.
        let mut lease = Self {
            endpoint: Arc::clone(endpoint),
            holds_worker: false,
            share: terms.share,
            is_probe: false,
            total: None,
            passage: Passage::Uncounted,
            began: 0,
            ended: None,
            place: place.flatten(),
        };
        lease.holds_worker = raise(&group.calling, terms.most_workers);
        if !lease.holds_worker {
            return Err(Refused::Full);
        }
        if let Some(total) = terms.total {
            if !raise(&total.count, total.most) {
                return Err(Refused::Full);
            }
            lease.total = Some(total.clone());
        }
        lease.is_probe = endpoint.standing.begin_probe();
        if terms.as_probe && !lease.is_probe {
            return Err(Refused::Moved);
        }
        Ok(lease)
    }

    /// Whether half of the places of its backend or of the pool are taken. Before that a line is not to be expected,
    /// so it is not worth counting which clients hold places.
    pub fn is_of_few(&self) -> bool {
        let group = &self.endpoint.group;
        let count = |of: &AtomicU32| of.load(Ordering::Relaxed);
        group.bound.is_half_full(count(&group.in_flight))
            || self.total.as_ref().is_some_and(|total| is_half(count(&total.count), total.most))
    }

    /// Notes how the request came past the line, and that it is sent at `now`.
    pub fn came_by(&mut self, passage: Passage, now: Nanos) {
        (self.passage, self.began) = (passage, now);
    }

    /// Whether the request is a probe: it decides whether its endpoint comes back.
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Ends the request at `now`. A lease that is only dropped ends at an unknown time.
    pub fn end(mut self, now: Nanos) {
        self.ended = Some(now);
    }

    /// The worker does not wait for this backend any more: the answer's head came. Wakes the line, if the backend
    /// held its share of the workers until now.
    pub fn free_worker(&mut self) {
        if self.give_worker_back() {
            self.endpoint.group.queue.freed();
        }
    }

    /// The answer's head came at `now`. If the backend's bound is measured, the request gives its place back: the line
    /// is woken, and its client is not charged any more, unless the request goes on to hold a place of the pool.
    pub fn answered(&mut self, now: Nanos) {
        let Some(place) = self.place.take() else { return };
        place.answered(now);
        let queue = &self.endpoint.group.queue;
        if self.total.is_some() {
            queue.freed();
        } else {
            let passage = std::mem::take(&mut self.passage);
            queue.ended(passage, Some(now.saturating_sub(self.began)), Some(now));
        }
    }

    /// Returns whether the backend has just come below its share.
    fn give_worker_back(&mut self) -> bool {
        let group = &self.endpoint.group;
        std::mem::take(&mut self.holds_worker) && group.calling.fetch_sub(1, Ordering::SeqCst) == self.share
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_worker_back();
        if self.is_probe {
            self.endpoint.standing.end_probe();
        }
        if let Some(total) = &self.total {
            total.count.fetch_sub(1, Ordering::SeqCst);
        }
        drop(self.place.take());
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        let group = &self.endpoint.group;
        group.in_flight.fetch_sub(1, Ordering::SeqCst);
        // The counts above go down with sequential consistency: a request that joins the line unseen by this sees the
        // room.
        let held = self.ended.map(|now| now.saturating_sub(self.began));
        group.queue.ended(self.passage, held, self.ended);
    }
}

/// Raises a count by one, unless it is at `most`.
fn raise(count: &AtomicU32, most: u32) -> bool {
    if most == u32::MAX {
        count.fetch_add(1, Ordering::Relaxed);
        return true;
    }
    let next = |now: u32| (now < most).then(|| now + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
}
