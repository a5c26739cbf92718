//! The other instances that share the budget: those that were heard lately.

use crate::limiter::HearingSince;
use crate::reports::InstanceId;
use balancer_time::Nanos;

use super::{DEAD_AFTER, GAP, MAX_PEERS, MISSED_FOR, TICK};

/// Another instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub id: InstanceId,
    /// Its number within this process. No other instance ever gets it, so old counts are never taken for another
    /// instance's.
    pub number: u32,
    /// When it was heard last.
    pub heard: Nanos,
    /// It was not heard for [`DEAD_AFTER`]: it is dead, or only can't send.
    pub is_missed: bool,
}

/// The other instances.
#[derive(Debug)]
pub(super) struct Peers {
    own: InstanceId,
    /// When a message of this process came back last.
    own_heard: Nanos,
    list: Vec<Peer>,
    next_number: u32,
    /// When this process began to hear the others: at first, or after the last silence.
    began: Nanos,
}

impl Peers {
    /// No other instance. Counts as if a message of this process had come back at `now`.
    pub fn new(own: InstanceId, now: Nanos) -> Self {
        Self { own, own_heard: now, list: Vec::new(), next_number: 0, began: now }
    }

    /// A message came. Returns the number of its sender; `None` for this process. If there are [`MAX_PEERS`], a new
    /// instance takes the place of the one that is missed for longest.
    ///
    /// # Errors
    /// There are [`MAX_PEERS`] others, and none is missed.
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

    /// Until when the others are assumed to hear this process, since its own messages came back.
    pub fn heard_until(&self) -> Nanos {
        self.own_heard + DEAD_AFTER
    }

    /// A silence has ended: all instances that are not missed count as heard at `now`.
    pub fn begin_again(&mut self, now: Nanos) {
        self.began = now;
        for peer in self.list.iter_mut().filter(|peer| !peer.is_missed) {
            peer.heard = now;
        }
    }

    /// Since when this process hears the others, for [`crate::limiter::Limiter`] to judge reports by. A process that
    /// has just started takes the first counter that it hears of a bucket as the base: what was spent before is in the
    /// saved levels. So does one after a silence, in which it was held to its part. Tokens that a report calls fresh
    /// were spent within a tick; a tick later they are new in any case.
    ///
    /// `last`: when anything was heard before; `is_silent`: the silence has not ended yet.
    pub fn hearing_since(&self, last: Nanos, is_silent: bool, now: Nanos) -> HearingSince {
        let is_new = now.saturating_sub(self.began) <= TICK + GAP;
        HearingSince { began: self.began, is_new, is_silent, last }
    }

    /// Forgets an instance that said that it ends.
    pub fn remove(&mut self, gone: InstanceId) {
        self.list.retain(|peer| peer.id != gone);
    }

    /// Marks the instances as missed that were not heard for [`DEAD_AFTER`], and forgets those not heard for
    /// [`MISSED_FOR`].
    pub fn miss_dead(&mut self, now: Nanos) {
        self.list.retain(|peer| now.saturating_sub(peer.heard) <= MISSED_FOR);
        for peer in &mut self.list {
            peer.is_missed = now.saturating_sub(peer.heard) > DEAD_AFTER;
        }
    }

    /// Number of instances that are not missed, this one included.
    pub fn members(&self) -> usize {
        self.list.iter().filter(|peer| !peer.is_missed).count() + 1
    }

    /// Whether one is missed.
    pub fn misses_one(&self) -> bool {
        self.list.iter().any(|peer| peer.is_missed)
    }

    /// The others, the missed ones included.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.list.iter()
    }
}

/// There are [`MAX_PEERS`] others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;
