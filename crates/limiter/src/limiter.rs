//! Every client's token buckets, in shards behind one mutex each. Every function here takes a shard's lock for a bounded
//! piece of work in memory, never two at once.
//!
//! A bucket belongs to a client, whatever entry decides about it, and remembers the numbers that are in force. It is
//! made full and forgotten when it is full again: such a bucket is in no way different from a new one. A bucket that still
//! holds somebody back is never pushed out, nor is a client with a request under way.
//!
//! At the bound on clients a new one counts with a crowd: some of the members of its range, or of those that nothing names,
//! share a row at the numbers that each of them would have. Whom an entry names has a row of its own always. A client that
//! leaves its crowd starts from what that has left, so a full table gives no client more than a table with room.
//!
//! Shards, places and crowds are chosen by keyed hashes, so that no client can choose whom it meets. A client with one bucket takes at most 120 bytes of row and 22 of index; each further one 72.

mod ask;
mod change;
mod crowd;
mod decision;
mod hot;
mod hot_table;
mod levels;
mod link;
mod others;
mod reporting;
mod seat;
mod shares;
mod slots;
mod table;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use siphasher::sip::SipHasher13;

use crate::identity::ClientKey;
use balancer_time::Moment;

pub(crate) use others::HearingSince;
pub(crate) use reporting::{Charged, Round};
pub(crate) use shares::TICK;

pub use ask::{Ask, Grant, Granted, MAX_ASKED, Room, Verdict};
pub use change::{EntryChange, Shared};
pub use decision::Decision;
pub use levels::ClientLevels;
pub use seat::Seat;
pub use slots::{Saved, Slot};

use decision::{decide, refused_by_full};
use hot_table::{HotCounts, HotTable};
use link::PeerLink;
use seat::CountedRow;
use slots::{Sharing, Slots};
use table::{ClientTable, TableRow};

/// With a million clients a shard holds some 4,000, whose index is rebuilt in microseconds.
const SHARDS: usize = 256;

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
    hasher: SipHasher13,
    /// Chooses crowds: see [`Limiter::spread_by`].
    spread: OnceLock<SipHasher13>,
    max_clients: usize,
    clients: AtomicUsize,
    crowds: AtomicUsize,
    overflowed: AtomicU64,
    /// Raised by [`Limiter::changed_since`], written into every row that changes.
    epoch: AtomicU32,
    /// Raised when buckets are forgotten that were not full, which [`Limiter::changed_since`] does not tell.
    fills: AtomicU64,
    /// The shard that [`Limiter::sweep`] looks at next.
    next_sweep: AtomicUsize,
    /// The other instances.
    link: PeerLink,
    counts: HotCounts,
    not_hot: AtomicU64,
}

/// A shard has its cache lines to itself, so that neighbours don't wait for each other's locks.
#[repr(align(128))]
struct Shard(Mutex<Rows>);

struct Rows {
    table: ClientTable,
    /// What those of its buckets have to tell that are spent fast.
    hot: HotTable,
    /// The row that is looked at next for full buckets.
    cursor: usize,
}

impl Rows {
    /// Forgets clients with nothing but full buckets among the next `rows` rows, and tells which.
    fn sweep(&mut self, rows: usize, when: Moment, mut gone: impl FnMut(ClientKey)) {
        for _ in 0..rows.min(self.table.len()) {
            if self.cursor >= self.table.len() {
                self.cursor = 0;
            }
            match self.table.len() {
                0 => break,
                // Another row takes that number: it is next.
                _ if self.table.row(self.cursor).is_idle(when) => {
                    gone(self.table.row(self.cursor).client);
                    self.table.remove(self.cursor);
                }
                _ => self.cursor += 1,
            }
        }
    }

    /// Whether such a sweep would forget a client.
    fn can_spare(&self, rows: usize, when: Moment) -> bool {
        let len = self.table.len();
        let numbers = (self.cursor..len).chain(0..self.cursor.min(len)).take(rows);
        numbers.map(|number| self.table.row(number)).any(|row| !row.client.is_crowd() && row.is_idle(when))
    }
}

impl Limiter {
    /// An empty table for at most `max_clients` clients, those that entries name aside.
    pub fn new(max_clients: usize) -> Self {
        let shard =
            || Shard(Mutex::new(Rows { table: ClientTable::new(), hot: HotTable::default(), cursor: 0 }));
        // The process's own random keys: `RandomState` is keyed by the operating system.
        let random = RandomState::new();
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: SipHasher13::new_with_keys(random.hash_one(0u8), random.hash_one(1u8)),
            spread: OnceLock::new(),
            max_clients,
            clients: AtomicUsize::new(0),
            crowds: AtomicUsize::new(0),
            overflowed: AtomicU64::new(0),
            epoch: AtomicU32::new(1),
            fills: AtomicU64::new(0),
            next_sweep: AtomicUsize::new(0),
            link: PeerLink::alone(),
            counts: HotCounts::default(),
            not_hot: AtomicU64::new(0),
        }
    }

    /// Takes the tokens that a request needs of every bucket, or of none if an enforced one refuses. Other numbers than a
    /// bucket had are put in force first; a request that was still under way with numbers that have been replaced does
    /// so for itself alone, since the next one brings the new ones back. Allocates nothing for a client that is known.
    /// Takes one shard's lock.
    pub fn acquire(&self, client: ClientKey, ask: Ask<'_>, when: Moment) -> Decision {
        self.decide(client, ask, when, false).0
    }

    /// Forgets clients with nothing but full buckets in one sixteenth of the table. Meant to be called about once a
    /// second, so that the memory of a flood is given back when no new client comes. Takes one shard's lock after another,
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

    /// How many crowds there are.
    pub fn crowds(&self) -> usize {
        self.crowds.load(Ordering::Relaxed)
    }

    /// How many requests a crowd's buckets decided.
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Memory of the table in bytes, by capacities. Takes each shard's lock once.
    pub fn memory_bytes(&self) -> usize {
        let memory = |shard: &Shard| {
            let rows = shard.0.lock();
            rows.table.memory_bytes() + rows.hot.memory_bytes()
        };
        self.shards.iter().map(memory).sum::<usize>() + SHARDS * size_of::<Shard>()
    }

    /// How this instance stands to the others.
    pub(crate) fn link(&self) -> &PeerLink {
        &self.link
    }

    fn decide(&self, client: ClientKey, ask: Ask<'_>, when: Moment, enter: bool) -> (Decision, CountedRow) {
        let hash = self.hash(client);
        let mut loud = false;
        let act = |slots: &mut Slots, in_flight: &mut u32, hot: Option<&mut HotTable>| {
            let link = self.link.at(when.now);
            let mut sharing = link.zip(hot).map(|(link, hot)| Sharing::new(link, client, hot, &self.counts));
            let decision = decide(slots, *in_flight, ask, when, sharing.as_mut());
            if let Some(sharing) = sharing {
                loud = self.note(&sharing, hash);
            }
            *in_flight += u32::from(enter && decision.allowed);
            decision
        };
        let place = CountedRow { client, hash };
        let mut rows = self.lock(hash);
        let known = rows.table.find(hash as u32, &client);
        let decided = match known {
            Some(row) => {
                let Rows { table, hot, .. } = &mut *rows;
                let decision = self.act_on(table.row_mut(row), Some(hot), ask, act);
                drop(rows);
                (decision, place)
            }
            None => {
                drop(rows);
                if let Some(refused) = refused_by_full(ask, when) {
                    return (refused, place);
                }
                let (decision, place) = self.with_slots(client, ask, when, act);
                (decision.told_by(place.client.is_crowd()), place)
            }
        };
        if loud {
            self.link.ask();
        }
        decided
    }

    /// Hands over a client's buckets and the number of its requests under way, or those of its crowd. Makes the row that
    /// is not there.
    fn with_slots<R>(
        &self,
        client: ClientKey,
        ask: Ask<'_>,
        when: Moment,
        act: impl FnOnce(&mut Slots, &mut u32, Option<&mut HotTable>) -> R,
    ) -> (R, CountedRow) {
        let hash = self.hash(client);
        let crowd = match ask.room {
            Room::Own => None,
            Room::Shared(crowds) => Some(crowds.key(self.spread(client))),
        };
        let (start, stays) = crowd.map_or_else(Default::default, |crowd| self.left_of(crowd, ask));
        let mut rows = self.lock(hash);
        let found = rows.table.find(hash as u32, &client);
        match (found, crowd) {
            (Some(row), _) => {
                let Rows { table, hot, .. } = &mut *rows;
                return (self.act_on(table.row_mut(row), Some(hot), ask, act), CountedRow { client, hash });
            }
            (None, Some(crowd)) if stays || !self.make_room(&mut rows, when) => {
                drop(rows);
                self.overflowed.fetch_add(1, Ordering::Relaxed);
                return self.in_crowd(crowd, ask, when, act);
            }
            (None, Some(_)) => {}
            (None, None) => self.count(client),
        }
        let Rows { table, hot, .. } = &mut *rows;
        let row = table.insert(TableRow::new(client, hash, start));
        (self.act_on(table.row_mut(row), Some(hot), ask, act), CountedRow { client, hash })
    }

    /// The shard's lock is held.
    fn act_on<R>(
        &self,
        row: &mut TableRow,
        hot: Option<&mut HotTable>,
        ask: Ask<'_>,
        act: impl FnOnce(&mut Slots, &mut u32, Option<&mut HotTable>) -> R,
    ) -> R {
        // Read under the lock: see `changed_since`.
        row.stamp = self.epoch.load(Ordering::Relaxed);
        if let Some(grant) = ask.grant {
            row.decide_by(grant);
        }
        act(&mut row.slots, &mut row.in_flight, hot)
    }

    /// Counts one more client, or finds that there is no room even after looking for full buckets in this shard.
    fn make_room(&self, rows: &mut Rows, when: Moment) -> bool {
        let at_bound = self.clients() >= self.max_clients;
        let looked_at = if at_bound { SWEEP_FOR_ROOM } else { SWEEP_PER_INSERT };
        rows.sweep(looked_at, when, |client| self.uncount(client));
        let one_more = |clients| (clients < self.max_clients).then_some(clients + 1);
        self.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// A row was made.
    fn count(&self, client: ClientKey) {
        self.counter(client).fetch_add(1, Ordering::Relaxed);
    }

    /// A row was taken out.
    fn uncount(&self, client: ClientKey) {
        self.counter(client).fetch_sub(1, Ordering::Relaxed);
    }

    fn counter(&self, client: ClientKey) -> &AtomicUsize {
        if client.is_crowd() { &self.crowds } else { &self.clients }
    }

    /// A request is over.
    fn leave(&self, CountedRow { client, hash }: CountedRow) {
        let mut rows = self.lock(hash);
        // It is there: a row with requests under way is never taken out.
        if let Some(row) = rows.table.find(hash as u32, &client) {
            let row = rows.table.row_mut(row);
            row.in_flight = row.in_flight.saturating_sub(1);
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
        self.shards[shard_of(hash)].0.lock()
    }

    /// Hands every row of a shard to `each`, [`STEP`] rows a lock. From the end: a removal moves only the last row, which
    /// was seen already, so none is missed in between; a row may be seen twice.
    fn walk(&self, shard: &Shard, mut each: impl FnMut(&mut TableRow) -> Fate) {
        let mut end = usize::MAX;
        loop {
            let mut rows = shard.0.lock();
            let last = end.min(rows.table.len());
            end = last.saturating_sub(STEP);
            for number in (end..last).rev() {
                match each(rows.table.row_mut(number)) {
                    Fate::Kept => {}
                    Fate::Forgotten => {
                        self.uncount(rows.table.row(number).client);
                        rows.table.remove(number);
                    }
                }
            }
            if end == 0 {
                return;
            }
        }
    }
}

fn shard_of(hash: u64) -> usize {
    (hash >> 56) as usize % SHARDS
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
            .field("crowds", &self.crowds())
            .field("overflowed", &self.overflowed())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
