//! Who shares the budget: the instances that were heard lately.

use crate::limiter::HearingSince;
use crate::reports::InstanceId;
use balancer_time::Nanos;

use super::{DEAD_AFTER, GAP, MAX_PEERS, MISSED_FOR, TICK};

/// Another instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub id: InstanceId,
    /// Names it within this process; never used again, so that counts of one that is gone meet no other.
    pub number: u32,
    pub heard: Nanos,
    /// It was not heard for too long: it is gone, or it is there and can't make itself heard.
    pub is_missed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Peers {
    own: InstanceId,
    /// When a message of its own came back last.
    own_heard: Nanos,
    list: Vec<Peer>,
    next_number: u32,
    /// When it began to hear the others, after a silence or at first.
    began: Nanos,
}

impl Peers {
    /// None yet. That its own messages come back counts as shown for a while.
    pub fn new(own: InstanceId, now: Nanos) -> Self {
        Self { own, own_heard: now, list: Vec::new(), next_number: 0, began: now }
    }

    /// A message came; the peer that sent it, `None` for an own one. Beyond [`MAX_PEERS`] nobody is known.
    ///
    /// # Errors
    /// There is no room for another.
    pub fn heard(&mut self, from: InstanceId, now: Nanos) -> Result<Option<u32>, NoRoom> {
        if from == self.own {
            self.own_heard = self.own_heard.max(now);
            return Ok(None);
        }
        if let Some(peer) = self.list.iter_mut().find(|peer| peer.id == from) {
            (peer.heard, peer.is_missed) = (peer.heard.max(now), false);
            return Ok(Some(peer.number));
        }
        if self.list.len() >= MAX_PEERS {
            let missed = (0..self.list.len()).filter(|at| self.list[*at].is_missed);
            let longest = missed.min_by_key(|at| self.list[*at].heard).ok_or(NoRoom)?;
            self.list.swap_remove(longest);
        }
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        self.list.push(Peer { id: from, number, heard: now, is_missed: false });
        Ok(Some(number))
    }

    /// Until when the others are taken to hear this one: its own messages come back.
    pub fn heard_until(&self) -> Nanos {
        self.own_heard + DEAD_AFTER
    }

    /// A silence has ended: whoever was there before has as long as before to be heard again.
    pub fn begin_again(&mut self, now: Nanos) {
        self.began = now;
        for peer in self.list.iter_mut().filter(|peer| !peer.is_missed) {
            peer.heard = now;
        }
    }

    /// A newcomer takes the first counters that it hears for where counting begins: what they say was spent before it came, of
    /// which saved levels tell. One that comes back does the same, since it was held to its part meanwhile. What a report calls
    /// fresh was spent within a tick, and so afterwards where that is longer ago.
    ///
    /// `last`: when anything was heard before; `is_silent`: nothing that is heard ends the silence yet.
    pub fn hearing_since(&self, last: Nanos, is_silent: bool, now: Nanos) -> HearingSince {
        let is_new = now.saturating_sub(self.began) <= TICK + GAP;
        HearingSince { began: self.began, is_new, is_silent, last }
    }

    /// Forgets one that said that it leaves.
    pub fn remove(&mut self, gone: InstanceId) {
        self.list.retain(|peer| peer.id != gone);
    }

    /// Misses those that were not heard for too long, and forgets those that are missed for too long.
    pub fn miss_dead(&mut self, now: Nanos) {
        self.list.retain(|peer| now.saturating_sub(peer.heard) <= MISSED_FOR);
        for peer in &mut self.list {
            peer.is_missed = now.saturating_sub(peer.heard) > DEAD_AFTER;
        }
    }

    /// How many there are, this one included.
    pub fn members(&self) -> usize {
        self.list.iter().filter(|peer| !peer.is_missed).count() + 1
    }

    /// Whether one is missed.
    pub fn misses_one(&self) -> bool {
        self.list.iter().any(|peer| peer.is_missed)
    }

    /// The others, those that are missed among them.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.list.iter()
    }
}

/// There are as many as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;
