//! Levels, as they are: to be shown, saved and put back.

use std::sync::atomic::Ordering;

use super::hot_table::HotTable;
use super::slots::{Saved, Slot, Slots};
use super::table::{Decider, TableRow};
use super::{Ask, Fate, Limiter, SHARDS};
use crate::answer::EntryKind;
use crate::bucket::Bucket;
use crate::identity::ClientKey;
use crate::terms::BucketId;
use balancer_time::{Moment, Nanos};

/// Rows that are made beyond twice the bound on clients, of whom is put back or told of: those that entries have, and crowds.
const MADE_BEYOND: usize = 1 << 17;

/// What a client has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLevels {
    /// Whole tokens of each bucket that was asked about, in that order.
    pub buckets: Vec<u32>,
    /// Tokens that other instances reported of each since it was last idle.
    pub spent_elsewhere: Vec<u64>,
    /// Its requests under way in this process.
    pub in_flight: u32,
}

impl Limiter {
    /// What a client has left of the buckets of a request, as that would find them. Takes nothing, and changes nothing. Takes
    /// one shard's lock.
    pub fn levels(&self, client: ClientKey, ask: Ask<'_>, when: Moment) -> ClientLevels {
        let link = self.link.at(when.now);
        let look = |row: &TableRow, hot: &HotTable| {
            let elsewhere = ask.buckets().map(|(spec, ..)| row.slots.spent_elsewhere(spec.id, hot)).collect();
            (row.slots_of(ask).foreseen(ask, hot, link, when), row.in_flight, elsewhere)
        };
        let nobody = || {
            let slots = Slots::default().foreseen(ask, &HotTable::default(), link, when);
            (slots, 0, vec![0; ask.buckets().count()])
        };
        let (slots, in_flight, spent_elsewhere): (Slots, u32, Vec<u64>) =
            self.read(client, |row, hot| Some(look(row, hot))).unwrap_or_else(nobody);
        let buckets = slots.levels(ask.buckets().map(|(spec, ..)| spec), when);
        ClientLevels { buckets, spent_elsewhere, in_flight }
    }

    /// One bucket of a client as it is at that moment; `None` for one that was never asked, or was forgotten because it
    /// was full. Takes one shard's lock.
    pub fn peek(&self, client: ClientKey, bucket: BucketId, when: Moment) -> Option<Bucket> {
        self.read(client, |row, _| row.slots.get(bucket, when)).map(|slot| *slot.bucket())
    }

    /// Makes a client's buckets full. Takes one shard's lock.
    pub fn fill(&self, client: ClientKey) {
        self.forget_slots(client, |slots| {
            slots.forget();
            false
        });
    }

    /// How often buckets were made full otherwise than by time.
    pub fn fills(&self) -> u64 {
        self.fills.load(Ordering::Relaxed)
    }

    /// Makes the buckets of every client full for which `chosen` is true. Of one that nobody has asked about it is not known what
    /// decides: it is full if that turns out to be its range. Takes one shard's lock after another, for a bounded number of
    /// rows, and calls `chosen` under it.
    pub fn fill_where(&self, chosen: impl Fn(ClientKey, EntryKind) -> bool) {
        self.fills.fetch_add(1, Ordering::Relaxed);
        for shard in &self.shards {
            self.walk(shard, |row| {
                let entry = match row.decider {
                    Decider::Entry(entry) => entry,
                    Decider::Unknown | Decider::UnknownFilled => EntryKind::Range,
                };
                if !chosen(row.client, entry) {
                    return Fate::Kept;
                }
                if row.decider != Decider::Entry(entry) {
                    row.decider = Decider::UnknownFilled;
                    return Fate::Kept;
                }
                row.stamp = self.epoch.load(Ordering::Relaxed);
                row.slots.forget();
                if row.in_flight > 0 { Fate::Kept } else { Fate::Forgotten }
            });
        }
    }

    /// A client has no limit any more, which counts as full; buckets of rules stay. Takes one shard's lock.
    pub(super) fn forget(&self, client: ClientKey) {
        self.forget_slots(client, Slots::forget_limits);
    }

    /// `forget` says whether anything is left.
    fn forget_slots(&self, client: ClientKey, forget: impl FnOnce(&mut Slots) -> bool) {
        let hash = self.hash(client);
        let mut rows = self.lock(hash);
        let Some(number) = rows.table.find(hash as u32, &client) else { return };
        self.fills.fetch_add(1, Ordering::Relaxed);
        let row = rows.table.row_mut(number);
        row.stamp = self.epoch.load(Ordering::Relaxed);
        let is_left = forget(&mut row.slots);
        if !is_left && row.in_flight == 0 {
            rows.table.remove(number);
            self.uncount(client);
        }
    }

    /// What `look` says of a client's row, or the default where there is none.
    pub(super) fn read<R: Default>(
        &self,
        client: ClientKey,
        look: impl FnOnce(&TableRow, &HotTable) -> R,
    ) -> R {
        let hash = self.hash(client);
        let rows = self.lock(hash);
        let row = rows.table.find(hash as u32, &client).map(|row| rows.table.row(row));
        row.map_or_else(R::default, |row| look(row, &rows.hot))
    }

    /// Hands over every bucket of the clients that changed after `seq`, and returns the sequence to ask for next. 0 asks
    /// for everything. A bucket that was forgotten, because it was full, is not told. `each` is called outside of every
    /// lock; it may see a bucket twice.
    ///
    /// Each call begins a new epoch before it looks into any shard, and rows are stamped under the shard's lock: who
    /// comes after the look stamps the new epoch, and is told next time.
    pub fn changed_since(&self, seq: u32, mut each: impl FnMut(ClientKey, &Slot)) -> u32 {
        let told = self.epoch.fetch_add(1, Ordering::SeqCst);
        let mut changed = Vec::new();
        for number in 0..SHARDS {
            self.walk(&self.shards[number], |row| {
                if row.stamp > seq {
                    changed.extend(row.slots.iter().map(|slot| (row.client, *slot)));
                }
                Fate::Kept
            });
            changed.drain(..).for_each(|(client, slot)| each(client, &slot));
        }
        told
    }

    /// Whether there is room for one who was saved, or told of, and whom an entry may name.
    pub(super) fn has_room_beyond(&self) -> bool {
        self.clients() + self.crowds() < self.max_clients.saturating_mul(2) + MADE_BEYOND
    }

    /// Puts back a bucket that was saved `age` ago, with what flowed in since; of two levels for one bucket the lower
    /// counts. Full ones are left out. False: there was no room, not even beyond the bound (other instances have clients too).
    /// Takes one shard's lock.
    pub fn restore(&self, client: ClientKey, saved: &Saved, age: Nanos, when: Moment) -> bool {
        let slot = Slot::restored(saved, age, when);
        if slot.until_full(when) == Some(0) {
            return true;
        }
        let hash = self.hash(client);
        let mut rows = self.lock(hash);
        let number = match rows.table.find(hash as u32, &client) {
            Some(number) => number,
            None if self.has_room_beyond() => {
                self.count(client);
                rows.table.insert(TableRow::heard_of(client, hash))
            }
            None => return false,
        };
        let row = rows.table.row_mut(number);
        row.stamp = self.epoch.load(Ordering::Relaxed);
        row.slots.restore(slot, when);
        true
    }
}

#[cfg(test)]
mod tests;
