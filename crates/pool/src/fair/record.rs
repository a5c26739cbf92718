//! What the line remembers of one client, and of one priority.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::share::{UseKey, UseShare};
use balancer_importance::Priority;
use balancer_time::Nanos;

/// A place in an order by key; the number, which only grows, keeps those with the same key in the order that they came in.
pub(super) type ByKey = (UseKey, u64);

/// A place among the requests of a client: by arrival, then by number.
type Place = (Nanos, u64);

/// Which of a client's requests could not use a free place: its oldest.
#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    /// The free place, by number.
    chain: u64,
    /// How many of those that wait.
    count: u32,
    /// The last of them. Of no meaning without any.
    last: Place,
}

/// One client with requests in line or in flight, or with debts.
#[derive(Debug)]
pub(super) struct Record {
    pub share: UseShare,
    /// Its own line, the oldest first; and since when each waits.
    pub waiting: BTreeMap<Place, Nanos>,
    /// Since when its own line was never empty.
    pub since: Nanos,
    /// Requests in flight that came out of the line.
    pub sent: u32,
    /// Requests in flight that never waited. They count for as long as the client waits.
    pub straight: u32,
    passed: Passed,
    /// Where it stands in [`Level::ready`], while it waits.
    pub ready: Option<ByKey>,
    /// Where it stands among those with the most in line.
    pub load: Option<u64>,
    /// Where it stands among those with the most in flight.
    pub busy: Option<(u32, usize)>,
    /// Where it stands in [`Level::lone`].
    pub lone: Option<u64>,
    /// Where it stands in [`Level::debts`].
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

    /// Its requests in flight, as far as they are counted.
    pub fn in_flight(&self) -> u32 {
        self.sent + self.straight
    }

    /// How many of its oldest could not use that free place.
    pub fn passed_in(&self, chain: u64) -> u32 {
        if self.passed.chain == chain { self.passed.count } else { 0 }
    }

    /// The oldest that has not tried that free place, and since when it waits.
    pub fn next_to_try(&self, chain: u64) -> Option<(Place, Nanos)> {
        let tried = self.passed_in(chain) > 0;
        let from = if tried { Bound::Excluded(self.passed.last) } else { Bound::Unbounded };
        self.waiting.range((from, Bound::Unbounded)).next().map(|(place, joined)| (*place, *joined))
    }

    /// One that does not wait at the moment could not use that free place. It counts unless one in front of it has not
    /// tried, which is next then; it tries once more after that.
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

    /// Whether a place is among those of its oldest that could not use the free place.
    fn has_passed(&self, place: Place) -> bool {
        self.passed.count > 0 && place <= self.passed.last
    }

    /// A request waits no longer; false: it did not.
    pub fn stand_up(&mut self, place: Place) -> bool {
        let waited = self.waiting.remove(&place).is_some();
        self.passed.count -= u32::from(waited && self.has_passed(place));
        waited
    }

    /// A request comes in front of some that could not use a free place: who has not tried it can't be told any more.
    pub fn forget_passed_behind(&mut self, place: Place) {
        if self.has_passed(place) {
            self.passed = Passed::default();
        }
    }

    /// Its oldest request, if that has waited for longer than `target` in a line that was not empty for `standing`. Never
    /// its only one: that waits for the backends, not for others of its client.
    pub fn overdue(&self, target: Nanos, standing: Nanos, now: Nanos) -> Option<Place> {
        let (place, joined) = self.waiting.first_key_value().filter(|_| self.waiting.len() > 1)?;
        let too_long = now.saturating_sub(self.since) > standing && now.saturating_sub(*joined) > target;
        too_long.then_some(*place)
    }

    /// How much it has in line by weight, if there were so many.
    pub fn load_of(&self, waiting: usize, priority: Priority) -> u64 {
        load(waiting, u64::from(self.share.weight()) * u64::from(priority.weight()))
    }

    /// So many are in flight from now on, of the client and of its priority.
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
    /// Requests in line.
    pub waiting: usize,
    /// The greatest key that was served: where a newcomer starts.
    pub served: UseKey,
    /// Clients with requests in line, by a key that is theirs or was.
    pub ready: BTreeSet<(UseKey, u64, u64)>,
    /// Clients with one request in line, by its number: the newest last.
    pub lone: BTreeMap<u64, u64>,
    /// Clients with nothing in line or in flight that have used more than newcomers start with, by what they have used.
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
    /// Its requests in line by weight, if there were so many more.
    pub fn load_with(&self, more: usize) -> u64 {
        load(self.waiting + more, self.share.weight().into())
    }
}

/// Exact enough: two loads of up to a million requests differ by more than what is cut off.
fn load(waiting: usize, weight: u64) -> u64 {
    waiting as u64 * (1 << 40) / weight
}
