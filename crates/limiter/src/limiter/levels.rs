//! Levels of buckets: shown, filled by hand, saved and restored.

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

/// Restored clients, and clients that other instances report, may exceed twice the bound on clients by so many rows: it
/// is not known which of them are named by entries, or are crowds.
const MADE_BEYOND: usize = 1 << 17;

/// What a client has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLevels {
    /// Whole tokens left in each bucket of the [`Ask`], in the order of [`Ask::buckets`].
    pub buckets: Vec<u32>,
    /// For each of these buckets: tokens that other instances spent, since it was last idle.
    pub spent_elsewhere: Vec<u64>,
    /// The client's requests under way in this process.
    pub in_flight: u32,
}

impl Limiter {
    /// What a client has left in the buckets of a request, as the request would find them. Changes nothing. Takes one
    /// shard's lock.
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

    /// One bucket of a client as it is at that instant; `None` if there is none: it was never asked, or it was full and
    /// forgotten. Takes one shard's lock.
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

    /// How often buckets were made full by a call, not by time.
    pub fn fills(&self) -> u64 {
        self.fills.load(Ordering::Relaxed)
    }

    /// Makes the buckets of all clients full for which `chosen` is true. For a client that has sent no request here, it
    /// is not known which kind of entry decides: `chosen` is asked as if it were its range, and its buckets are made
    /// full later, if that turns out to be true. Takes one shard's lock after another, for a bounded number of rows
    /// each time, and calls `chosen` under it.
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

    /// Forgets the buckets of a client that has no limit any more; buckets of rules stay. Takes one shard's lock.
    pub(super) fn forget(&self, client: ClientKey) {
        self.forget_slots(client, Slots::forget_limits);
    }

    /// `forget` must return whether any bucket is left.
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

    /// What `look` returns for a client's row, or the default value if it has none. Takes one shard's lock.
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

    /// Calls `each` with every bucket of the clients that changed after `seq`; 0: with all buckets. Returns the number
    /// to give as `seq` the next time. A bucket that was full and forgotten is left out. `each` is called without any
    /// lock, and may see a bucket twice.
    ///
    /// Each call begins a new epoch before it looks into any shard, and rows get their stamps under the shard's lock.
    /// So a row that changes after the look has the stamp of the new epoch, and is shown the next time.
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

    /// Whether there is room for a client that is restored or reported, and that an entry may name.
    pub(super) fn has_room_beyond(&self) -> bool {
        self.clients() + self.crowds() < self.max_clients.saturating_mul(2) + MADE_BEYOND
    }

    /// Restores a bucket that was saved `age` nanoseconds ago, with what flowed in since. If there is such a bucket,
    /// the lower level counts. A full one is not made. False: there is no room, not even beyond the bound on clients.
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
