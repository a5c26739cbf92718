//! Requests as they are counted on endpoints. A count goes up only when every bound that holds for it has room, each taken
//! by compare-and-swap, and comes down again however the request ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::endpoint::Endpoint;
use super::measured::{BoundPlace, is_half};
use crate::queue::Passage;
use balancer_time::Nanos;

/// A bound on the requests of the whole pool, and their number.
#[derive(Clone, Debug)]
pub(super) struct Total {
    pub most: u32,
    pub count: Arc<AtomicU32>,
}

/// Why a request was not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Things are not as they were seen: look again.
    Moved,
    /// A bound has no room.
    Full,
}

/// What a lease is taken with.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseTerms<'a> {
    /// The count that the decision was based on; `None`: whatever it is.
    pub seen: Option<u32>,
    /// Most workers that the backend may hold.
    pub most_workers: u32,
    /// What that is while there is another backend to go to.
    pub share: u32,
    pub total: Option<&'a Total>,
    /// The endpoint is half open: only as its probe.
    pub as_probe: bool,
    /// The present.
    pub now: Nanos,
}

/// One request on one endpoint, counted for as long as this lives. The only way that in-flight counts change.
#[derive(Debug)]
#[must_use = "a dropped lease is a request that has ended"]
pub struct Lease {
    /// Where the request goes.
    pub endpoint: Arc<Endpoint>,
    holds_worker: bool,
    share: u32,
    /// Its endpoint is out, and this request tells whether it may come back.
    pub(super) is_probe: bool,
    total: Option<Total>,
    passage: Passage,
    began: Nanos,
    ended: Option<Nanos>,
    /// Of a bound that is measured, up to the answer's head.
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
        // From here on dropping it undoes what was done.
        let mut lease = Self {
            endpoint: Arc::clone(endpoint),
            holds_worker: false,
            share: terms.share,
            is_probe: false,
            total: None,
            passage: Passage::Uncounted,
            began: 0,
            ended: None,
            place: None,
        };
        if let Some(measured) = group.bound.measured() {
            lease.place = Some(measured.enter(terms.now).ok_or(Refused::Full)?);
        }
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

    /// Whether places are short: half of those of its backend or of the pool are taken. Before that no line is near, and it is not
    /// worth counting whose requests have them.
    pub fn is_of_few(&self) -> bool {
        let group = &self.endpoint.group;
        let count = |of: &AtomicU32| of.load(Ordering::Relaxed);
        group.bound.is_half_full(count(&group.in_flight))
            || self.total.as_ref().is_some_and(|total| is_half(count(&total.count), total.most))
    }

    /// Says how the request came past the line, and that it goes to its endpoint now.
    pub fn came_by(&mut self, passage: Passage, now: Nanos) {
        (self.passage, self.began) = (passage, now);
    }

    /// Whether the request tells if its endpoint may come back: one that no request would have waited for.
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// The request has ended now. One that is only dropped has ended at an unknown time.
    pub fn end(mut self, now: Nanos) {
        self.ended = Some(now);
    }

    /// The worker has the answer's head and waits for this backend no longer. Wakes who waits for that, if it was all that
    /// they wait for.
    pub fn free_worker(&mut self) {
        if self.give_worker_back() {
            self.endpoint.group.queue.freed();
        }
    }

    /// The answer's head came. Where the backend's bound is measured, the request holds no place of it any more: its client is
    /// charged no further, and whoever waits for a place is woken.
    pub fn answered(&mut self, now: Nanos) {
        if let Some(place) = self.place.take() {
            place.answered(now);
            let passage = std::mem::replace(&mut self.passage, Passage::Uncounted);
            let held = now.saturating_sub(self.began);
            self.endpoint.group.queue.ended(passage, Some(held), Some(now));
        }
    }

    /// Whether the backend is below its share again.
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
        // Sequentially consistent before this: a request that is not seen waiting sees that there is room.
        let held = self.ended.map(|now| now.saturating_sub(self.began));
        group.queue.ended(self.passage, held, self.ended);
    }
}

/// One more, unless there are so many already.
fn raise(count: &AtomicU32, most: u32) -> bool {
    if most == u32::MAX {
        count.fetch_add(1, Ordering::Relaxed);
        return true;
    }
    let next = |now: u32| (now < most).then(|| now + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
}
