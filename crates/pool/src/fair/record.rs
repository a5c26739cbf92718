//! What the line keeps of one client, and of one priority.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::share::{UseKey, UseShare};
use balancer_importance::Priority;
use balancer_time::Nanos;

/// A place in an order by key. The number, which only grows, keeps equal keys in the order in which they came.
pub(super) type ByKey = (UseKey, u64);

/// A place among the requests of a client: by arrival, then by number.
type Place = (Nanos, u64);

/// The requests of a client that could not use a free place. They are its oldest ones.
#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    /// The number of the free place.
    chain: u64,
    /// How many of the client's requests in line could not use it.
    count: u32,
    /// The last of these; meaningless if there is none.
    last: Place,
}

/// A client with requests in line or in flight, or with debts.
#[derive(Debug)]
pub(super) struct Record {
    pub share: UseShare,
    /// Its own line, the oldest request first, and since when each waits.
    pub waiting: BTreeMap<Place, Nanos>,
    /// Since when its own line has not been empty.
    pub since: Nanos,
    /// Requests in flight that had waited.
    pub sent: u32,
    /// Requests in flight that never waited. They count as long as the client has requests in line.
    pub straight: u32,
    passed: Passed,
    /// Its place in [`Level::ready`], while it has requests in line.
    pub ready: Option<ByKey>,
    /// Its place in the line's `heavy`.
    pub load: Option<u64>,
    /// Its place in the line's `busy`.
    pub busy: Option<(u32, usize)>,
    /// Its place in [`Level::lone`].
    pub lone: Option<u64>,
    /// Its place in [`Level::debts`].
    pub debt: Option<UseKey>,
}

impl Record {
    pub fn new(share: UseShare) -> Self {
        Self {
            share,
            waiting: BTreeMap::new(),
            since: 0,
            sent: 0,
            straight: 0,
            passed: Passed::default(),
            ready: None,
            load: None,
            busy: None,
            lone: None,
            debt: None,
        }
    }

    /// Its requests in flight that are counted.
    pub fn in_flight(&self) -> u32 {
        self.sent + self.straight
    }

    /// How many of its requests in line could not use that free place.
    pub fn passed_in(&self, chain: u64) -> u32 {
        if self.passed.chain == chain { self.passed.count } else { 0 }
    }

    /// The oldest request that has not tried that free place, and since when it waits.
    pub fn next_to_try(&self, chain: u64) -> Option<(Place, Nanos)> {
        let tried = self.passed_in(chain) > 0;
        let from = if tried { Bound::Excluded(self.passed.last) } else { Bound::Unbounded };
        self.waiting.range((from, Bound::Unbounded)).next().map(|(place, joined)| (*place, *joined))
    }

    /// A request, which is not in line at the moment, could not use that free place. It is counted only if all older
    /// ones have tried: otherwise the oldest of those is next, and this one tries again later.
    pub fn pass(&mut self, chain: u64, place: Place) {
        if self.passed.chain != chain {
            self.passed = Passed { chain, ..Passed::default() };
        }
        if self.has_passed(place) {
            self.passed.count += 1;
        } else if self.next_to_try(chain).is_none_or(|(next, _)| next > place) {
            self.passed.count += 1;
            self.passed.last = place;
        }
    }

    /// Whether a request is among those that could not use the free place.
    fn has_passed(&self, place: Place) -> bool {
        self.passed.count > 0 && place <= self.passed.last
    }

    /// Takes a request out of its line. False: it was not there.
    pub fn stand_up(&mut self, place: Place) -> bool {
        let waited = self.waiting.remove(&place).is_some();
        self.passed.count -= u32::from(waited && self.has_passed(place));
        waited
    }

    /// A request joins in front of some that could not use a free place. Then it is not known any more which ones
    /// have tried, so all may try again.
    pub fn forget_passed_behind(&mut self, place: Place) {
        if self.has_passed(place) {
            self.passed = Passed::default();
        }
    }

    /// Its oldest request, if that has waited for longer than `target`, and its line was not empty for longer than
    /// `standing`. Never its only one, which waits for the backends and not for other requests of its client.
    pub fn overdue(&self, target: Nanos, standing: Nanos, now: Nanos) -> Option<Place> {
        let (place, joined) = self.waiting.first_key_value().filter(|_| self.waiting.len() > 1)?;
        let too_long = now.saturating_sub(self.since) > standing && now.saturating_sub(*joined) > target;
        too_long.then_some(*place)
    }

    /// Its load, if it had so many requests in line: their number divided by weight.
    pub fn load_of(&self, waiting: usize, priority: Priority) -> u64 {
        load(waiting, u64::from(self.share.weight()) * u64::from(priority.weight()))
    }

    /// Sets how many requests of the client are in flight, and updates its priority.
    pub fn count(&mut self, level: &mut Level, (sent, straight): (u32, u32), mean: Nanos, now: Nanos) {
        let others = level.share.in_flight().saturating_sub(self.share.in_flight());
        (self.sent, self.straight) = (sent, straight);
        self.share.count(sent + straight, mean, now);
        level.share.count(others + sent + straight, mean, now);
    }
}

/// One priority.
#[derive(Debug)]
pub(super) struct Level {
    pub share: UseShare,
    /// Number of requests in line.
    pub waiting: usize,
    /// The greatest key of a client that was served. Newcomers start with it.
    pub served: UseKey,
    /// Clients with requests in line, by their keys, which may be out of date.
    pub ready: BTreeSet<(UseKey, u64, u64)>,
    /// Clients with one request in line, by its number, so that the newest is the last.
    pub lone: BTreeMap<u64, u64>,
    /// Clients without requests in line or in flight that have used more than newcomers start with, by what they have
    /// used.
    pub debts: BTreeSet<(UseKey, u64)>,
}

impl Level {
    pub fn new(priority: Priority) -> Self {
        Self {
            share: UseShare::new(priority.weight(), 0, 0),
            waiting: 0,
            served: 0,
            ready: BTreeSet::new(),
            lone: BTreeMap::new(),
            debts: BTreeSet::new(),
        }
    }

    /// Its load, if it had so many more requests in line: their number divided by weight.
    pub fn load_with(&self, more: usize) -> u64 {
        load(self.waiting + more, self.share.weight().into())
    }
}

/// The number of waiting requests divided by weight. Exact enough: different loads of up to a million requests stay
/// different.
fn load(waiting: usize, weight: u64) -> u64 {
    waiting as u64 * (1 << 40) / weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_comes_in_front_makes_all_try_the_free_place_again() {
        let mut record = Record::new(UseShare::new(1, 0, 0));
        record.waiting.insert((9, 0), 9);
        // Each tries, and waits again.
        for arrived in [2, 5] {
            record.pass(7, (arrived, 0));
            record.waiting.insert((arrived, 0), arrived);
        }
        // Behind those that have tried: nothing is forgotten.
        record.waiting.insert((6, 0), 6);
        record.forget_passed_behind((6, 0));
        assert_eq!((record.passed_in(7), record.next_to_try(7)), (2, Some(((6, 0), 6))));
        // Between them.
        record.waiting.insert((3, 0), 3);
        record.forget_passed_behind((3, 0));
        assert_eq!((record.passed_in(7), record.next_to_try(7)), (0, Some(((2, 0), 2))));
    }

    #[test]
    fn who_leaves_the_line_is_not_among_those_that_tried() {
        let mut record = Record::new(UseShare::new(1, 0, 0));
        record.waiting.insert((9, 0), 9);
        for arrived in [2, 5] {
            record.pass(7, (arrived, 0));
            record.waiting.insert((arrived, 0), arrived);
        }
        for (place, was_there, passed) in [(5, true, 1), (5, false, 1), (9, true, 1), (2, true, 0)] {
            assert_eq!((record.stand_up((place, 0)), record.passed_in(7)), (was_there, passed), "{place}");
        }
    }
}
