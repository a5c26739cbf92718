//! Who was heard: what each instance said of itself last, and up to which of its messages it was heard.

use std::collections::HashMap;

use balancer_limiter::budget::DEAD_AFTER;
use balancer_limiter::message::BudgetMessage;
use balancer_time::Nanos;

use super::shown::{InstanceShown, shown_id};

/// Most instances that are remembered, those that are long gone among them: a message of theirs that somebody sends again
/// must not bring them back.
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

/// See the module.
#[derive(Debug, Default)]
pub(super) struct KnownInstances(HashMap<u64, KnownInstance>);

impl KnownInstances {
    /// Takes note of a message of another instance; false: it has been heard before, or a later one has, or there is no room
    /// for another instance.
    pub fn note(&mut self, message: &BudgetMessage, now: Nanos) -> bool {
        let known = self.0.get(&message.instance);
        if known.is_some_and(|known| !message.is_after(known.epoch, known.sequence)) {
            return false;
        }
        if known.is_none() && self.0.len() >= MAX_KNOWN && !self.make_room(now) {
            return false;
        }
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
        self.0.insert(message.instance, note);
        true
    }

    /// Forgets the one that has been gone for longest.
    fn make_room(&mut self, now: Nanos) -> bool {
        let gone = self.0.iter().filter(|(_, known)| !known.is_there(now));
        let longest = gone.min_by_key(|(_, known)| known.heard).map(|(id, _)| *id);
        longest.and_then(|id| self.0.remove(&id)).is_some()
    }

    /// Those that are there, by their ids.
    pub fn shown(&self, now: Nanos) -> Vec<InstanceShown> {
        let mut there: Vec<_> = self.0.iter().filter(|(_, known)| known.is_there(now)).collect();
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

/// To whole milliseconds.
pub(super) fn rounded(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

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
            reports: Vec::new(),
        }
    }

    #[test]
    fn a_message_counts_once_and_late_ones_do_not() {
        let mut known = KnownInstances::default();
        for (sequence, counts) in [(5, true), (5, false), (4, false), (6, true)] {
            assert_eq!(known.note(&message(1, sequence), 0), counts, "{sequence}");
        }
        assert!(known.note(&BudgetMessage { epoch: 2, ..message(1, 1) }, 0), "it begins anew");
        assert!(!known.note(&message(1, 7), 0));
    }

    #[test]
    fn the_dead_and_those_who_left_are_not_shown_and_their_messages_do_not_bring_them_back() {
        let mut known = KnownInstances::default();
        assert!(known.note(&message(2, 1), 0) && known.note(&message(1, 1), DEAD_AFTER));
        let ids = |known: &KnownInstances, now| -> Vec<String> {
            known.shown(now).into_iter().map(|one| one.id).collect()
        };
        assert_eq!(ids(&known, DEAD_AFTER), ["0000000000000001", "0000000000000002"]);
        assert_eq!(ids(&known, DEAD_AFTER + 1), ["0000000000000001"]);
        assert!(known.note(&BudgetMessage { leaving: true, ..message(1, 2) }, DEAD_AFTER));
        assert!(ids(&known, DEAD_AFTER + 1).is_empty());
        assert!(!known.note(&message(1, 2), DEAD_AFTER) && !known.note(&message(2, 1), DEAD_AFTER));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_nobody_who_is_there_is_forgotten() {
        let mut known = KnownInstances::default();
        for instance in 0..MAX_KNOWN as u64 {
            assert!(known.note(&message(instance, 1), instance));
        }
        assert!(!known.note(&message(u64::MAX, 1), 0), "all of them are there");
        assert!(known.note(&message(u64::MAX, 1), DEAD_AFTER + 1));
        assert!(known.note(&message(0, 1), DEAD_AFTER + 1_000_000), "the oldest was forgotten");
    }
}
