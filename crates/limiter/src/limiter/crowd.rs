//! Crowds: which clients share a row when the table is full, and the levels with which a client leaves its crowd.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::decision::{decide, refused_by_full};
use super::hot_table::HotTable;
use super::seat::CountedRow;
use super::slots::Slots;
use super::table::TableRow;
use super::{Ask, Decision, Limiter, Room, SWEEP_FOR_ROOM, SWEEP_PER_INSERT};
use crate::identity::ClientKey;
use balancer_time::Moment;

impl Limiter {
    /// Sets the key by which clients' crowds are chosen. With the same key they are the same after a restart; otherwise
    /// a restart could give a full bucket to a client whose crowd's is empty. Has no effect once a crowd was chosen.
    pub fn spread_by(&self, key: u64) {
        let _ = self.spread.set(SipHasher13::new_with_keys(key, key.rotate_left(32)));
    }

    /// What [`Limiter::acquire`] would decide; takes no tokens. Takes one shard's lock at a time.
    pub fn preview(&self, client: ClientKey, ask: Ask<'_>, when: Moment) -> Decision {
        let (mut slots, in_flight, overflow) = self.look(client, ask, when);
        decide(&mut slots, in_flight, ask, when, None).told_by(overflow)
    }

    /// Like [`Limiter::preview`], and with it the whole tokens that each bucket of the request holds.
    pub fn foresee(&self, client: ClientKey, ask: Ask<'_>, when: Moment) -> (Decision, Vec<u32>) {
        let (mut slots, in_flight, overflow) = self.look(client, ask, when);
        let levels = slots.clone().levels(ask.buckets().map(|(spec, ..)| spec), when);
        (decide(&mut slots, in_flight, ask, when, None).told_by(overflow), levels)
    }

    /// A copy of the buckets that would decide, the number of requests under way, and whether they are a crowd's.
    fn look(&self, client: ClientKey, ask: Ask<'_>, when: Moment) -> (Slots, u32, bool) {
        let link = self.link.at(when.now);
        let own = self
            .read(client, |row, hot| Some((row.slots_of(ask).foreseen(ask, hot, link, when), row.in_flight)));
        if let Some((slots, in_flight)) = own {
            return (slots, in_flight, false);
        }
        let made = |start: Slots| (start.foreseen(ask, &HotTable::default(), link, when), 0, false);
        let Room::Shared(crowds) = ask.room else { return made(Slots::default()) };
        if refused_by_full(ask, when).is_some() {
            return Default::default();
        }
        let crowd = crowds.key(self.spread(client));
        let (start, stays) = self.left_of(crowd, ask);
        let full = self.clients() >= self.max_clients;
        if !stays && (!full || self.lock(self.hash(client)).can_spare(SWEEP_FOR_ROOM, when)) {
            return made(start);
        }
        self.read(crowd, |row, _| Some((row.slots.clone(), row.in_flight, true))).unwrap_or((start, 0, true))
    }

    /// Like [`Limiter::with_slots`], for a crowd, which has a row as a client has.
    pub(super) fn in_crowd<R>(
        &self,
        crowd: ClientKey,
        ask: Ask<'_>,
        when: Moment,
        act: impl FnOnce(&mut Slots, &mut u32, Option<&mut HotTable>) -> R,
    ) -> (R, CountedRow) {
        let hash = self.hash(crowd);
        let mut rows = self.lock(hash);
        let row = match rows.table.find(hash as u32, &crowd) {
            Some(row) => row,
            None => {
                rows.sweep(SWEEP_PER_INSERT, when, |client| self.uncount(client));
                self.count(crowd);
                rows.table.insert(TableRow::new(crowd, hash, Slots::default()))
            }
        };
        // No hot buckets: each process chooses crowds by itself, so what a crowd spends means nothing to other
        // instances.
        (self.act_on(rows.table.row_mut(row), None, ask, act), CountedRow { client: crowd, hash })
    }

    /// The levels of a crowd, with which a client leaves it, and whether the client has to stay: the members' requests
    /// under way are counted together, so it stays while there are some and its limit bounds them. Takes one shard's
    /// lock.
    pub(super) fn left_of(&self, crowd: ClientKey, ask: Ask<'_>) -> (Slots, bool) {
        if self.crowds() == 0 {
            return Default::default();
        }
        let bounded = ask.max_in_flight().is_some();
        self.read(crowd, |row, _| (row.slots.starting_over(), bounded && row.in_flight > 0))
    }

    /// The hash by which a client's crowd is chosen.
    pub(super) fn spread(&self, client: ClientKey) -> u64 {
        let random = || SipHasher13::new_with_keys(fastrand::u64(..), fastrand::u64(..));
        let mut hasher = *self.spread.get_or_init(random);
        hasher.write(&client.to_bytes());
        hasher.finish()
    }
}

#[cfg(test)]
mod tests;
