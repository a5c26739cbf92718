//! Every client's token bucket, in shards behind one mutex each. Every function here takes a shard's lock for a bounded
//! piece of work in memory, never two at once.
//!
//! A bucket belongs to a client, whatever entry decides about it, and remembers the numbers that are in force. It is
//! made full and forgotten when it is full again: such a bucket is in no way different from a new one. At the bound on
//! clients, new ones share a fixed set of overflow buckets; a bucket that still holds somebody back is never pushed out.
//!
//! Shards, places and overflow buckets are chosen by a hash that is keyed per process, so that no client can choose
//! whom it meets. A client takes at most 88 bytes of row and 22 of index.

mod change;
mod table;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use siphasher::sip::SipHasher13;

use crate::rules::Nanos;
use crate::rules::answer::{DEFAULT_BUCKET, Entry, Standing, policy_name};
use crate::rules::bucket::{Bucket, Outcome};
use crate::rules::identity::ClientKey;
use crate::rules::limit::Limit;

pub use change::{Change, Shared};
use table::{Row, Table};

/// With a million clients a shard holds some 4,000, whose index is rebuilt in microseconds.
const SHARDS: usize = 256;

/// Buckets that clients share when there is no room for one of their own.
pub const OVERFLOW_BUCKETS: usize = 1024;

/// Rows that are looked at for a full bucket whenever a client is added: more than one, so that the table shrinks
/// faster than it grows.
const SWEEP_PER_INSERT: usize = 2;

/// The same when there is no room.
const SWEEP_FOR_ROOM: usize = 16;

/// Rows that a walk over the whole table handles under one lock.
const STEP: usize = 256;

/// How many calls of [`Limiter::sweep`] make a round.
const SWEEP_CALLS: usize = 16;

/// The numbers that are in force for a client, and what decided so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The bucket's numbers.
    pub limit: Limit,
    /// Which kind of entry they come from.
    pub entry: Entry,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Allowed or refused, what is left, how long to wait.
    pub outcome: Outcome,
    /// The numbers that decided: the grant's, or the default's in an overflow bucket.
    pub grant: Grant,
    /// A shared overflow bucket decided.
    pub overflow: bool,
}

impl Decision {
    /// Whether the request may go on.
    pub fn allowed(&self) -> bool {
        self.outcome.allowed
    }

    /// What the answer's fields say about it.
    pub fn standing(&self) -> Standing<'static> {
        let policy = policy_name(DEFAULT_BUCKET, self.grant.entry);
        Standing { policy, limit: self.grant.limit, outcome: self.outcome }
    }
}

/// The table of buckets.
pub struct Limiter {
    shards: Box<[Shard]>,
    overflow: Box<[Mutex<Option<Bucket>>]>,
    /// What overflow buckets are made of.
    default: RwLock<Option<Limit>>,
    hasher: SipHasher13,
    max_clients: usize,
    clients: AtomicUsize,
    overflowed: AtomicU64,
    /// Raised by [`Limiter::changed_since`], written into every row that changes.
    epoch: AtomicU32,
    /// The shard that [`Limiter::sweep`] looks at next.
    next_sweep: AtomicUsize,
}

/// A shard has its cache lines to itself, so that neighbours don't wait for each other's locks.
#[repr(align(128))]
struct Shard(Mutex<Rows>);

struct Rows {
    table: Table,
    /// The row that is looked at next for a full bucket.
    cursor: usize,
}

impl Rows {
    /// Forgets full buckets among the next `rows` rows; returns how many.
    fn sweep(&mut self, rows: usize, now: Nanos) -> usize {
        let before = self.table.len();
        for _ in 0..rows.min(before) {
            if self.cursor >= self.table.len() {
                self.cursor = 0;
            }
            match self.table.len() {
                0 => break,
                // Another row takes that number: it is next.
                _ if self.table.row(self.cursor).bucket.is_full(now) => self.table.remove(self.cursor),
                _ => self.cursor += 1,
            }
        }
        before - self.table.len()
    }
}

impl Limiter {
    /// An empty table for at most `max_clients` clients, with the default that overflow buckets are made of.
    pub fn new(max_clients: usize, default: Option<Limit>) -> Self {
        let shard = || Shard(Mutex::new(Rows { table: Table::new(), cursor: 0 }));
        // The process's own random keys: `RandomState` is keyed by the operating system.
        let random = RandomState::new();
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            overflow: (0..OVERFLOW_BUCKETS).map(|_| Mutex::new(None)).collect(),
            default: RwLock::new(default),
            hasher: SipHasher13::new_with_keys(random.hash_one(0u8), random.hash_one(1u8)),
            max_clients,
            clients: AtomicUsize::new(0),
            overflowed: AtomicU64::new(0),
            epoch: AtomicU32::new(1),
            next_sweep: AtomicUsize::new(0),
        }
    }

    /// Takes `cost` tokens from a client's bucket if they are there. Other numbers than the bucket had are put in force
    /// first; a request that was still under way with numbers that have been replaced does so for itself alone, since the
    /// next one brings the new ones back. Allocates nothing for a client that is known. Takes one shard's lock.
    pub fn acquire(&self, client: ClientKey, grant: Grant, cost: u32, now: Nanos) -> Decision {
        self.with_bucket(client, grant, now, |bucket| bucket.acquire(cost, now))
    }

    /// Takes tokens whether they are there or not: what other instances admitted. Takes one shard's lock.
    pub fn charge(&self, client: ClientKey, grant: Grant, tokens: u64, now: Nanos) {
        self.with_bucket(client, grant, now, |bucket| {
            bucket.charge(tokens, now);
            Outcome { allowed: true, left: bucket.whole(), wait_ns: None }
        });
    }

    /// A client's bucket as it is at `now`; `None` for one that was never asked, or was forgotten because it was full.
    /// Takes one shard's lock.
    pub fn peek(&self, client: ClientKey, now: Nanos) -> Option<Bucket> {
        let hash = self.hash(client);
        let rows = self.lock(hash);
        let row = rows.table.find(hash as u32, &client)?;
        Some(rows.table.row(row).bucket.refilled(now))
    }

    /// Forgets a client's bucket: it starts full again. Takes one shard's lock.
    pub fn forget(&self, client: ClientKey) {
        let hash = self.hash(client);
        let mut rows = self.lock(hash);
        if let Some(row) = rows.table.find(hash as u32, &client) {
            rows.table.remove(row);
            self.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Forgets full buckets in one sixteenth of the table. Meant to be called about once a second, so that the memory of
    /// a flood is given back when nobody new comes. Takes one shard's lock after another, for `STEP` rows each.
    pub fn sweep(&self, now: Nanos) {
        let first = self.next_sweep.fetch_add(SHARDS / SWEEP_CALLS, Ordering::Relaxed);
        for number in first..first + SHARDS / SWEEP_CALLS {
            self.walk(&self.shards[number % SHARDS], |row| {
                if row.bucket.is_full(now) { Fate::Forgotten } else { Fate::Kept }
            });
        }
    }

    /// How many clients have a bucket of their own.
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
        shards + SHARDS * size_of::<Shard>() + OVERFLOW_BUCKETS * size_of::<Mutex<Option<Bucket>>>()
    }

    fn with_bucket(
        &self,
        client: ClientKey,
        grant: Grant,
        now: Nanos,
        act: impl FnOnce(&mut Bucket) -> Outcome,
    ) -> Decision {
        let hash = self.hash(client);
        let mut rows = self.lock(hash);
        let row = match rows.table.find(hash as u32, &client) {
            Some(row) => row,
            None if self.make_room(&mut rows, now) => {
                rows.table.insert(new_row(client, hash, Bucket::full(grant.limit, now)))
            }
            None => {
                drop(rows);
                return self.overflow(hash, grant, now, act);
            }
        };
        let row = rows.table.row_mut(row);
        // Read under the lock: see `changed_since`.
        row.stamp = self.epoch.load(Ordering::Relaxed);
        put_in_force(row, grant, now);
        Decision { outcome: act(&mut row.bucket), grant, overflow: false }
    }

    /// Counts one more client, or finds that there is no room even after looking for full buckets in this shard.
    fn make_room(&self, rows: &mut Rows, now: Nanos) -> bool {
        let at_bound = self.clients() >= self.max_clients;
        let freed = rows.sweep(if at_bound { SWEEP_FOR_ROOM } else { SWEEP_PER_INSERT }, now);
        if freed > 0 {
            self.clients.fetch_sub(freed, Ordering::Relaxed);
        }
        let one_more = |clients| (clients < self.max_clients).then_some(clients + 1);
        self.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Lets a shared bucket decide, at the default's numbers. Without a default it is the client's own numbers: a table
    /// that was filled on purpose must not lift the limits of those that have one.
    fn overflow(
        &self,
        hash: u64,
        grant: Grant,
        now: Nanos,
        act: impl FnOnce(&mut Bucket) -> Outcome,
    ) -> Decision {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        let default = *self.default.read();
        let grant = default.map_or(grant, |limit| Grant { limit, entry: Entry::Default });
        // Bits that chose neither the shard nor the place.
        let mut shared = self.overflow[(hash >> 32) as usize % OVERFLOW_BUCKETS].lock();
        let bucket = shared.get_or_insert(Bucket::full(grant.limit, now));
        if bucket.limit() != grant.limit {
            bucket.retune(grant.limit, now);
        }
        Decision { outcome: act(bucket), grant, overflow: true }
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

fn new_row(client: ClientKey, hash: u64, bucket: Bucket) -> Row {
    Row { bucket, client, entry: Entry::Default, stamp: 0, hash: hash as u32 }
}

fn put_in_force(row: &mut Row, grant: Grant, now: Nanos) {
    row.entry = grant.entry;
    if row.bucket.limit() != grant.limit {
        row.bucket.retune(grant.limit, now);
    }
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
