//! The instances that were heard: what each one last said about itself, and the number of its last message.

use std::collections::HashMap;

use balancer_limiter::budget::DEAD_AFTER;
use balancer_limiter::message::{BudgetMessage, MAX_HEARD};
use balancer_time::Nanos;

use super::shown::{InstanceShown, shown_id};

/// Most instances that are remembered. Instances that are gone are remembered, too, so that an old message of theirs
/// that somebody sends again does not bring them back.
const MAX_KNOWN: usize = 1024;

/// What was heard of one instance.
#[derive(Clone, Debug)]
struct KnownInstance {
    epoch: u64,
    sequence: u64,
    heard: Nanos,
    has_left: bool,
    lag_ms: u32,
    cut_off: bool,
    hot_clients: u32,
    address: String,
}

/// Most instances that were heard and have not shown yet that they hear this one.
const MAX_STRANGERS: usize = 256;

/// Whether a message of another instance counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// It counts. True for the first of its instance.
    Counts(bool),
    /// It does not count: its instance has not shown yet that it hears this one, so the message may be an old one that
    /// somebody sends again. True for the first of its instance.
    Stranger(bool),
    /// It does not count: it or a later one was heard before, or there is no room for another instance.
    Dropped,
}

/// See the module.
#[derive(Debug)]
pub(super) struct KnownInstances {
    own: u64,
    known: HashMap<u64, KnownInstance>,
    /// Instances that have not shown yet that they hear this one, and when they were heard.
    strangers: HashMap<u64, Nanos>,
    /// How often [`KnownInstances::heard`] was called.
    asked: usize,
}

impl KnownInstances {
    /// No instance was heard yet. `own`: the id of this one.
    pub fn new(own: u64) -> Self {
        Self { own, known: HashMap::new(), strangers: HashMap::new(), asked: 0 }
    }

    /// Notes a message of another instance and says whether it counts.
    pub fn note(&mut self, message: &BudgetMessage, now: Nanos) -> Noted {
        let known = self.known.get(&message.instance);
        if known.is_some_and(|known| !message.is_after(known.epoch, known.sequence)) {
            return Noted::Dropped;
        }
        let is_first = known.is_none();
        if is_first && !message.heard.contains(&self.own) {
            return self.note_stranger(message, now);
        }
        if is_first && self.known.len() >= MAX_KNOWN && !self.make_room(now) {
            return Noted::Dropped;
        }
        self.strangers.remove(&message.instance);
        let note = KnownInstance {
            epoch: message.epoch,
            sequence: message.sequence,
            heard: now,
            has_left: message.leaving,
            lag_ms: message.lag_ms,
            cut_off: message.cut_off,
            hot_clients: message.hot_clients,
            address: message.address.clone(),
        };
        self.known.insert(message.instance, note);
        Noted::Counts(is_first)
    }

    fn note_stranger(&mut self, message: &BudgetMessage, now: Nanos) -> Noted {
        self.strangers.retain(|_, heard| now.saturating_sub(*heard) <= DEAD_AFTER);
        if message.leaving || self.strangers.len() >= MAX_STRANGERS {
            return Noted::Dropped;
        }
        Noted::Stranger(self.strangers.insert(message.instance, now).is_none())
    }

    /// The instances that were heard lately, to be told to them. Where a message has no room for all, each call returns
    /// the next ones.
    pub fn heard(&mut self, now: Nanos) -> Vec<u64> {
        let there = self.known.iter().filter(|(_, known)| known.is_there(now)).map(|(id, _)| *id);
        let lately = self.strangers.iter().filter(|(_, heard)| now.saturating_sub(**heard) <= DEAD_AFTER);
        let mut heard: Vec<u64> = there.chain(lately.map(|(id, _)| *id)).collect();
        if heard.len() > MAX_HEARD {
            heard.sort_unstable();
            let first = self.asked * MAX_HEARD % heard.len();
            heard.rotate_left(first);
            heard.truncate(MAX_HEARD);
        }
        self.asked = self.asked.wrapping_add(1) % (MAX_KNOWN + MAX_STRANGERS);
        heard
    }

    /// Forgets the instance that has been gone for longest; false when none is gone.
    fn make_room(&mut self, now: Nanos) -> bool {
        let gone = self.known.iter().filter(|(_, known)| !known.is_there(now));
        let longest = gone.min_by_key(|(_, known)| known.heard).map(|(id, _)| *id);
        longest.and_then(|id| self.known.remove(&id)).is_some()
    }

    /// Whether any other instance was heard lately.
    pub fn is_anyone_there(&self, now: Nanos) -> bool {
        self.known.values().any(|known| known.is_there(now))
    }

    /// The instances that were heard lately, by their ids.
    pub fn shown(&self, now: Nanos) -> Vec<InstanceShown> {
        let mut there: Vec<_> = self.known.iter().filter(|(_, known)| known.is_there(now)).collect();
        there.sort_unstable_by_key(|(id, _)| **id);
        there.into_iter().map(|(id, known)| known.shown(*id, now)).collect()
    }
}

impl KnownInstance {
    fn is_there(&self, now: Nanos) -> bool {
        !self.has_left && now.saturating_sub(self.heard) <= DEAD_AFTER
    }

    fn shown(&self, id: u64, now: Nanos) -> InstanceShown {
        InstanceShown {
            id: shown_id(id),
            address: self.address.clone(),
            age: rounded(now.saturating_sub(self.heard) as f64 / 1e9),
            lag: (self.lag_ms != BudgetMessage::NO_LAG).then(|| rounded(f64::from(self.lag_ms) / 1e3)),
            cut_off: self.cut_off,
            hot_clients: self.hot_clients,
        }
    }
}

/// Seconds, rounded to whole milliseconds.
pub(super) fn rounded(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 1 << 40;

    fn counts(known: &mut KnownInstances, message: &BudgetMessage, now: Nanos) -> bool {
        matches!(known.note(message, now), Noted::Counts(_))
    }

    fn message(instance: u64, sequence: u64) -> BudgetMessage {
        BudgetMessage {
            instance,
            epoch: 1,
            sequence,
            lag_ms: BudgetMessage::NO_LAG,
            hot_clients: 0,
            cut_off: false,
            leaving: false,
            address: String::new(),
            heard: vec![OWN],
            reports: Vec::new(),
        }
    }

    #[test]
    fn a_message_counts_once_and_late_ones_do_not() {
        let mut known = KnownInstances::new(OWN);
        for (sequence, expected) in [(5, true), (5, false), (4, false), (6, true)] {
            assert_eq!(counts(&mut known, &message(1, sequence), 0), expected, "{sequence}");
        }
        assert!(counts(&mut known, &BudgetMessage { epoch: 2, ..message(1, 1) }, 0), "it begins anew");
        assert!(!counts(&mut known, &message(1, 7), 0));
    }

    #[test]
    fn the_dead_and_those_who_left_are_not_shown_and_their_messages_do_not_bring_them_back() {
        let mut known = KnownInstances::new(OWN);
        assert!(counts(&mut known, &message(2, 1), 0) && counts(&mut known, &message(1, 1), DEAD_AFTER));
        let ids = |known: &KnownInstances, now| -> Vec<String> {
            known.shown(now).into_iter().map(|one| one.id).collect()
        };
        assert_eq!(ids(&known, DEAD_AFTER), ["0000000000000001", "0000000000000002"]);
        assert_eq!(ids(&known, DEAD_AFTER + 1), ["0000000000000001"]);
        assert!(counts(&mut known, &BudgetMessage { leaving: true, ..message(1, 2) }, DEAD_AFTER));
        assert!(ids(&known, DEAD_AFTER + 1).is_empty());
        assert!(
            !counts(&mut known, &message(1, 2), DEAD_AFTER)
                && !counts(&mut known, &message(2, 1), DEAD_AFTER)
        );
    }

    #[test]
    fn what_is_remembered_is_bounded_and_nobody_who_is_there_is_forgotten() {
        let mut known = KnownInstances::new(OWN);
        for instance in 0..MAX_KNOWN as u64 {
            assert!(counts(&mut known, &message(instance, 1), instance));
        }
        assert!(!counts(&mut known, &message(u64::MAX, 1), 0), "all of them are there");
        assert!(counts(&mut known, &message(u64::MAX, 1), DEAD_AFTER + 1));
        assert!(counts(&mut known, &message(0, 1), DEAD_AFTER + 1_000_000), "the oldest was forgotten");
    }

    #[test]
    fn what_was_signed_before_this_process_began_counts_for_nothing() {
        let mut known = KnownInstances::new(OWN);
        let before = |instance| BudgetMessage { heard: vec![7, 8], ..message(instance, 5) };
        assert_eq!(known.note(&before(1), 0), Noted::Stranger(true));
        assert_eq!(known.note(&before(1), 1), Noted::Stranger(false));
        assert_eq!((known.shown(1).len(), known.heard(1)), (0, vec![1]));
        assert!(known.heard(DEAD_AFTER + 2).is_empty());
        // It has heard this one.
        assert_eq!(known.note(&message(1, 6), 2), Noted::Counts(true));
        assert_eq!(known.note(&before(1), 2), Noted::Dropped);
        assert_eq!(known.note(&BudgetMessage { heard: vec![], ..message(1, 7) }, 2), Noted::Counts(false));
        // Many of them are bounded, and in the end every instance is told that it was heard.
        let strangers = (100..).take_while(|id| known.note(&before(*id), 3) == Noted::Stranger(true)).count();
        assert_eq!(strangers, MAX_STRANGERS);
        let told: std::collections::HashSet<u64> = (0..6).flat_map(|_| known.heard(3)).collect();
        assert_eq!(told.len(), MAX_STRANGERS + 1);
        assert_eq!(known.note(&before(9_999), DEAD_AFTER + 4), Noted::Stranger(true));
    }
}
