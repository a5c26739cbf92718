//! Every client's token buckets, in shards behind one mutex each. Every function here takes a shard's lock for a bounded
//! piece of work in memory, never two at once.
//!
//! A bucket belongs to a client, whatever entry decides about it, and remembers the numbers that are in force. It is
//! made full and forgotten when it is full again: such a bucket is in no way different from a new one. At the bound on
//! clients, new ones share a fixed set of overflow buckets; a bucket that still holds somebody back is never pushed out,
//! nor is a client with a request under way.
//!
//! Shards, places and overflow buckets are chosen by a hash that is keyed per process, so that no client can choose
//! whom it meets. A client with one bucket takes at most 112 bytes of row and 22 of index; each further one 64.

mod change;
mod decision;
mod levels;
mod seat;
mod slots;
mod table;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use siphasher::sip::SipHasher13;

use crate::rules::Moment;
use crate::rules::identity::ClientKey;
use crate::rules::terms::Terms;

pub use change::{Change, Shared};
pub use decision::{Ask, Decision, Grant, Granted, MAX_ASKED, Verdict};
pub use levels::Levels;
pub use seat::Seat;
pub use slots::{Saved, Slot};

use decision::decide;
use seat::Place;
use slots::Slots;
use table::{Row, Table};

/// With a million clients a shard holds some 4,000, whose index is rebuilt in microseconds.
const SHARDS: usize = 256;

/// Buckets that clients share when there is no room for one of their own.
pub const OVERFLOW_BUCKETS: usize = 1024;

/// Rows that are looked at for full buckets whenever a client is added: more than one, so that the table shrinks
/// faster than it grows.
const SWEEP_PER_INSERT: usize = 2;

/// The same when there is no room.
const SWEEP_FOR_ROOM: usize = 16;

/// Rows that a walk over the whole table handles under one lock.
const STEP: usize = 256;

/// How many calls of [`Limiter::sweep`] make a round.
const SWEEP_CALLS: usize = 16;

/// The table of buckets.
pub struct Limiter {
    shards: Box<[Shard]>,
    overflow: Box<[Mutex<Crowd>]>,
    /// What overflow buckets are made of.
    default: RwLock<Option<Grant>>,
    hasher: SipHasher13,
    max_clients: usize,
    clients: AtomicUsize,
    overflowed: AtomicU64,
    /// Raised by [`Limiter::changed_since`], written into every row that changes.
    epoch: AtomicU32,
    /// Raised when buckets are forgotten that were not full, which [`Limiter::changed_since`] does not tell.
    fills: AtomicU64,
    /// The shard that [`Limiter::sweep`] looks at next.
    next_sweep: AtomicUsize,
}

/// A shard has its cache lines to itself, so that neighbours don't wait for each other's locks.
#[repr(align(128))]
struct Shard(Mutex<Rows>);

/// Clients that share their buckets.
#[derive(Default)]
struct Crowd {
    slots: Slots,
    in_flight: u32,
}

struct Rows {
    table: Table,
    /// The row that is looked at next for full buckets.
    cursor: usize,
}

impl Rows {
    /// Forgets clients with nothing but full buckets among the next `rows` rows; returns how many.
    fn sweep(&mut self, rows: usize, when: Moment) -> usize {
        let before = self.table.len();
        for _ in 0..rows.min(before) {
            if self.cursor >= self.table.len() {
                self.cursor = 0;
            }
            match self.table.len() {
                0 => break,
                // Another row takes that number: it is next.
                _ if self.table.row(self.cursor).is_idle(when) => self.table.remove(self.cursor),
                _ => self.cursor += 1,
            }
        }
        before - self.table.len()
    }
}

impl Limiter {
    /// An empty table for at most `max_clients` clients, with the default that overflow buckets are made of.
    pub fn new(max_clients: usize, default: Option<Terms>) -> Self {
        let shard = || Shard(Mutex::new(Rows { table: Table::new(), cursor: 0 }));
        // The process's own random keys: `RandomState` is keyed by the operating system.
        let random = RandomState::new();
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            overflow: (0..OVERFLOW_BUCKETS).map(|_| Mutex::default()).collect(),
            default: RwLock::new(default.map(Grant::of_default)),
            hasher: SipHasher13::new_with_keys(random.hash_one(0u8), random.hash_one(1u8)),
            max_clients,
            clients: AtomicUsize::new(0),
            overflowed: AtomicU64::new(0),
            epoch: AtomicU32::new(1),
            fills: AtomicU64::new(0),
            next_sweep: AtomicUsize::new(0),
        }
    }

    /// Takes the tokens that a request needs of every bucket, or of none if an enforced one refuses. Other numbers than a
    /// bucket had are put in force first; a request that was still under way with numbers that have been replaced does
    /// so for itself alone, since the next one brings the new ones back. Allocates nothing for a client that is known.
    /// Takes one shard's lock.
    pub fn acquire(&self, client: ClientKey, ask: Ask<'_>, when: Moment) -> Decision {
        self.decide(client, ask, when, false).0
    }

    /// What [`Limiter::acquire`] would say, without taking anything. Takes one shard's lock.
    pub fn preview(&self, client: ClientKey, ask: Ask<'_>, when: Moment) -> Decision {
        let hash = self.hash(client);
        let rows = self.lock(hash);
        let row = rows.table.find(hash as u32, &client).map(|row| rows.table.row(row));
        let (mut slots, in_flight) =
            row.map_or_else(Default::default, |row| (row.slots.clone(), row.in_flight));
        drop(rows);
        decide(&mut slots, in_flight, ask, when)
    }

    /// Takes tokens of a limit's buckets whether they are there or not: what other instances admitted. Takes one shard's
    /// lock.
    pub fn charge(&self, client: ClientKey, grant: &Grant, tokens: u64, when: Moment) {
        self.with_slots(client, Ask::of(grant), when, |slots, _, ask| slots.charge(ask, tokens, when));
    }

    /// Forgets clients with nothing but full buckets in one sixteenth of the table. Meant to be called about once a
    /// second, so that the memory of a flood is given back when nobody new comes. Takes one shard's lock after another,
    /// for `STEP` rows each.
    pub fn sweep(&self, when: Moment) {
        let first = self.next_sweep.fetch_add(SHARDS / SWEEP_CALLS, Ordering::Relaxed);
        for number in first..first + SHARDS / SWEEP_CALLS {
            self.walk(&self.shards[number % SHARDS], |row| {
                if row.is_idle(when) {
                    return Fate::Forgotten;
                }
                row.slots.trim(when);
                Fate::Kept
            });
        }
    }

    /// How many clients have buckets of their own.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// How many requests an overflow bucket decided.
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Memory of the table in bytes, by capacities. Takes each shard's lock once.
    pub fn memory_bytes(&self) -> usize {
        let shards: usize = self.shards.iter().map(|shard| shard.0.lock().table.memory_bytes()).sum();
        shards + SHARDS * size_of::<Shard>() + OVERFLOW_BUCKETS * size_of::<Mutex<Crowd>>()
    }

    fn decide(&self, client: ClientKey, ask: Ask<'_>, when: Moment, enter: bool) -> (Decision, Place) {
        let (mut decision, instead, place) = self.with_slots(client, ask, when, |slots, in_flight, ask| {
            let decision = decide(slots, *in_flight, ask, when);
            *in_flight += u32::from(enter && decision.allowed);
            decision
        });
        decision.overflow = matches!(place, Place::Overflow(_));
        decision.instead = instead;
        (decision, place)
    }

    /// Hands over a client's buckets and the number of its requests under way, or those of the crowd that it is in, with
    /// what is to be asked for there.
    fn with_slots<R>(
        &self,
        client: ClientKey,
        ask: Ask<'_>,
        when: Moment,
        act: impl FnOnce(&mut Slots, &mut u32, Ask<'_>) -> R,
    ) -> (R, Option<Grant>, Place) {
        let hash = self.hash(client);
        let mut rows = self.lock(hash);
        let row = match rows.table.find(hash as u32, &client) {
            Some(row) => row,
            None if self.make_room(&mut rows, when) => {
                rows.table.insert(Row::new(client, hash, Slots::default()))
            }
            None => {
                drop(rows);
                return self.overflow(hash, ask, act);
            }
        };
        let row = rows.table.row_mut(row);
        // Read under the lock: see `changed_since`.
        row.stamp = self.epoch.load(Ordering::Relaxed);
        if let Some(grant) = ask.grant {
            (row.entry, row.plan) = (grant.entry, grant.plan);
        }
        (act(&mut row.slots, &mut row.in_flight, ask), None, Place::Row { client, hash })
    }

    /// Counts one more client, or finds that there is no room even after looking for full buckets in this shard.
    fn make_room(&self, rows: &mut Rows, when: Moment) -> bool {
        let at_bound = self.clients() >= self.max_clients;
        let freed = rows.sweep(if at_bound { SWEEP_FOR_ROOM } else { SWEEP_PER_INSERT }, when);
        if freed > 0 {
            self.clients.fetch_sub(freed, Ordering::Relaxed);
        }
        let one_more = |clients| (clients < self.max_clients).then_some(clients + 1);
        self.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Lets shared buckets decide, by the default's numbers. Without a default it is the client's own numbers: a table
    /// that was filled on purpose must not lift the limits of those that have one.
    fn overflow<R>(
        &self,
        hash: u64,
        ask: Ask<'_>,
        act: impl FnOnce(&mut Slots, &mut u32, Ask<'_>) -> R,
    ) -> (R, Option<Grant>, Place) {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        let instead = ask.grant.and_then(|_| self.default.read().clone());
        // Bits that chose neither the shard nor the place.
        let number = (hash >> 32) as usize % OVERFLOW_BUCKETS;
        let mut crowd = self.overflow[number].lock();
        let Crowd { slots, in_flight } = &mut *crowd;
        let result = act(slots, in_flight, Ask { grant: instead.as_ref().or(ask.grant), ..ask });
        (result, instead, Place::Overflow(number))
    }

    /// A request is over.
    fn leave(&self, place: Place) {
        match place {
            Place::Overflow(number) => {
                let mut crowd = self.overflow[number].lock();
                crowd.in_flight = crowd.in_flight.saturating_sub(1);
            }
            Place::Row { client, hash } => {
                let mut rows = self.lock(hash);
                // It is there: a row with requests under way is never taken out.
                if let Some(row) = rows.table.find(hash as u32, &client) {
                    let row = rows.table.row_mut(row);
                    row.in_flight = row.in_flight.saturating_sub(1);
                }
            }
        }
    }

    fn hash(&self, client: ClientKey) -> u64 {
        let (value, tag) = client.words();
        let mut hasher = self.hasher;
        hasher.write_u64(value as u64);
        hasher.write_u64((value >> 64) as u64);
        hasher.write_u8(tag);
        hasher.finish()
    }

    /// The shard is chosen by the hash's top bits.
    fn lock(&self, hash: u64) -> MutexGuard<'_, Rows> {
        self.shards[(hash >> 56) as usize % SHARDS].0.lock()
    }

    /// Hands every row of a shard to `each`, [`STEP`] rows a lock. From the end: a removal moves only the last row, which
    /// was seen already, so none is missed in between; a row may be seen twice.
    fn walk(&self, shard: &Shard, mut each: impl FnMut(&mut Row) -> Fate) {
        let mut end = usize::MAX;
        loop {
            let mut rows = shard.0.lock();
            let last = end.min(rows.table.len());
            end = last.saturating_sub(STEP);
            for number in (end..last).rev() {
                match each(rows.table.row_mut(number)) {
                    Fate::Kept => {}
                    Fate::Forgotten => {
                        rows.table.remove(number);
                        self.clients.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            }
            if end == 0 {
                return;
            }
        }
    }
}

/// What becomes of a row.
enum Fate {
    Kept,
    Forgotten,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter")
            .field("clients", &self.clients())
            .field("overflowed", &self.overflowed())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
