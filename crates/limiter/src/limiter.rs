//! The token buckets of all clients, in shards with one mutex each. Functions hold a shard's lock for a bounded amount
//! of work in memory, and never hold two.
//!
//! A bucket belongs to a client, whichever entry decides about that, and remembers the numbers that are in force. It is
//! full when it is made, and forgotten when it is full again, since it then equals a new one. A client is never removed
//! to make room while one of its buckets is not full, or a request of it is under way.
//!
//! When the table is full, a new client counts with a crowd: some of the members of a range, or of the clients without
//! an entry, share one row, with the numbers that each of them would have. A client that an entry names always has a
//! row of its own. A client that leaves its crowd starts with the level that the crowd has, so a full table gives no
//! client more than a table with room.
//!
//! Keyed hashes choose shards, index places and crowds, so that no client can choose with which others it shares one. A
//! client with one bucket takes at most 112 bytes of row and 22 of index; each further bucket takes 64.

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
pub use change::Shared;
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

/// With a million clients a shard holds about 4,000, whose index is rebuilt in microseconds.
const SHARDS: usize = 256;

/// How many rows are checked for full buckets whenever a client is added. More than one, so that the table can shrink
/// faster than it grows.
const SWEEP_PER_INSERT: usize = 2;

/// How many rows are checked for full buckets when a client is added to a full table.
const SWEEP_FOR_ROOM: usize = 16;

/// How many rows a walk over the whole table handles under one lock.
const STEP: usize = 256;

/// How many calls of [`Limiter::sweep`] look at the whole table once.
const SWEEP_CALLS: usize = 16;

/// The table of buckets.
pub struct Limiter {
    shards: Box<[Shard]>,
    hasher: SipHasher13,
    /// Chooses crowds, see [`Limiter::spread_by`].
    spread: OnceLock<SipHasher13>,
    max_clients: usize,
    clients: AtomicUsize,
    crowds: AtomicUsize,
    overflowed: AtomicU64,
    /// Raised by [`Limiter::changed_since`]; a row that changes gets the current value as its stamp.
    epoch: AtomicU32,
    /// Counts how often buckets were forgotten that were not full, which [`Limiter::changed_since`] does not show.
    fills: AtomicU64,
    /// The shard that [`Limiter::sweep`] looks at next.
    next_sweep: AtomicUsize,
    /// The other instances.
    link: PeerLink,
    counts: HotCounts,
    not_hot: AtomicU64,
}

/// Aligned, so that the locks of two shards are in different cache lines.
#[repr(align(128))]
struct Shard(Mutex<Rows>);

struct Rows {
    table: ClientTable,
    /// The hot buckets among those of `table`.
    hot: HotTable,
    /// The row that is checked next for full buckets.
    cursor: usize,
}

impl Rows {
    /// Forgets clients with only full buckets among the next `rows` rows, and calls `gone` with each.
    fn sweep(&mut self, rows: usize, when: Moment, mut gone: impl FnMut(ClientKey)) {
        for _ in 0..rows.min(self.table.len()) {
            if self.cursor >= self.table.len() {
                self.cursor = 0;
            }
            if self.table.row(self.cursor).is_idle(when) {
                gone(self.table.row(self.cursor).client);
                // The last row takes the number of the removed one, so the cursor stays.
                self.table.remove(self.cursor);
            } else {
                self.cursor += 1;
            }
        }
    }

    /// Whether a sweep of `rows` rows would forget a client (and not only a crowd).
    fn can_spare(&self, rows: usize, when: Moment) -> bool {
        let len = self.table.len();
        let numbers = (self.cursor..len).chain(0..self.cursor.min(len)).take(rows);
        numbers.map(|number| self.table.row(number)).any(|row| !row.client.is_crowd() && row.is_idle(when))
    }
}

impl Limiter {
    /// An empty table for at most `max_clients` clients. Clients that entries name may come on top of these.
    pub fn new(max_clients: usize) -> Self {
        let shard =
            || Shard(Mutex::new(Rows { table: ClientTable::new(), hot: HotTable::default(), cursor: 0 }));
        // Random keys of this process: `RandomState` gets them from the operating system.
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

    /// Takes the tokens that a request needs from every bucket, or from none if an enforced one refuses. Puts the
    /// numbers of the [`Ask`] in force first. (A request that still comes with replaced numbers does so too, until the
    /// next request brings the new ones back.) Allocates nothing for a client that is in the table. Takes one shard's
    /// lock; for a client that is not in the table also its crowd's, one after the other.
    pub fn acquire(&self, client: ClientKey, ask: Ask<'_>, when: Moment) -> Decision {
        self.decide(client, ask, when, false).0
    }

    /// Forgets clients with only full buckets in one sixteenth of the table. To be called about once a second, so that
    /// the memory of a flood is given back even if no new clients come. Takes one shard's lock after another, for a
    /// bounded number of rows each time.
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

    /// How many requests were decided by the buckets of a crowd.
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Memory of the table in bytes, as allocated. Takes each shard's lock once.
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

    /// Calls `act` with the row of a client, or of its crowd if the table is full: its buckets, the number of its
    /// requests under way, and the shard's hot buckets. Makes the row if there is none.
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

    /// Calls `act` with that row. The shard's lock must be held.
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

    /// Counts one more client, after a look for full buckets in this shard. False: there is no room.
    fn make_room(&self, rows: &mut Rows, when: Moment) -> bool {
        let at_bound = self.clients() >= self.max_clients;
        let looked_at = if at_bound { SWEEP_FOR_ROOM } else { SWEEP_PER_INSERT };
        rows.sweep(looked_at, when, |client| self.uncount(client));
        let one_more = |clients| (clients < self.max_clients).then_some(clients + 1);
        self.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Counts a row that was made.
    fn count(&self, client: ClientKey) {
        self.counter(client).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a row that was removed.
    fn uncount(&self, client: ClientKey) {
        self.counter(client).fetch_sub(1, Ordering::Relaxed);
    }

    fn counter(&self, client: ClientKey) -> &AtomicUsize {
        if client.is_crowd() { &self.crowds } else { &self.clients }
    }

    /// A request has ended.
    fn leave(&self, CountedRow { client, hash }: CountedRow) {
        let mut rows = self.lock(hash);
        // The row is always there: one with requests under way is never removed.
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

    /// Locks the shard of that hash.
    fn lock(&self, hash: u64) -> MutexGuard<'_, Rows> {
        self.shards[shard_of(hash)].0.lock()
    }

    /// Calls `each` with every row of a shard, at most [`STEP`] rows under one lock. Walks from the end: a removal
    /// moves only the last row, which was seen before, so none is missed. A row may be seen twice.
    fn walk(&self, shard: &Shard, mut each: impl FnMut(&mut TableRow) -> Fate) {
        let mut end = usize::MAX;
        loop {
            let mut rows = shard.0.lock();
            let last = end.min(rows.table.len());
            let next = last.checked_sub(STEP);
            for number in (next.unwrap_or(0)..last).rev() {
                match each(rows.table.row_mut(number)) {
                    Fate::Kept => {}
                    Fate::Forgotten => {
                        self.uncount(rows.table.row(number).client);
                        rows.table.remove(number);
                    }
                }
            }
            match next {
                Some(next) => end = next,
                None => return,
            }
        }
    }
}

/// The shard of that hash, by its top bits.
fn shard_of(hash: u64) -> usize {
    (hash >> 56) as usize % SHARDS
}

/// What happens to a row after a look at it.
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
