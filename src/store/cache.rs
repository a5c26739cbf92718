//! Limits that were looked up: one entry for each client group (an IPv4 address, or an IPv6 prefix) with every stored
//! limit inside it, so that a new connection from a known address is no miss, and one for each opaque id. Groups and ids
//! without any are remembered too.
//!
//! A load is a [`LoadTicket`] on the shard's list of loads. A request that finds one there is given a [`Pending`] to wait for it, so a
//! group is loaded once however many ask, and outside every lock. Nothing here waits. A write takes the ticket off the list: what that load brings, which may be
//! older than the write, is not kept. So the list is the generation of each key, and costs nothing for idle ones.

mod load;
mod words;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;

use crate::clock::Clock;
pub use balancer_limiter::answer::EntryKind;
use balancer_limiter::identity::{ClientKey, group};
use balancer_limiter::terms::ClientLimit;
use balancer_time::Nanos;
use balancer_time::nanos;

use load::{Load, LoadOutcome};
pub use load::{LoadTicket, Pending};
pub use words::{CacheGroup, Entry, Found, Hit, Known};
use words::{Entries, NOWHERE, pick, sorted};

/// How a load ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The client is not in the cache: may be one of a flood.
    Unknown,
    /// The client is, and its entry grows old.
    Refresh,
}

/// Where loads come from. Called outside every lock.
pub trait Loader {
    /// Whether it makes sense to ask at all; a store that is down is not asked.
    fn ready(&self) -> bool;
    /// Starts a load somewhere else and returns at once. A ticket that is dropped has failed.
    fn start(&self, ticket: LoadTicket, urgency: Urgency);
    /// A caller has waited that long for nothing.
    fn gave_up(&self);
}

/// How often what happened; monotone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Answered from memory.
    pub hits: u64,
    /// Not in memory, or too old.
    pub misses: u64,
    /// Thrown out for want of room.
    pub evictions: u64,
    /// Callers that waited in vain for as long as they may.
    pub timeouts: u64,
    /// Loads that failed.
    pub failures: u64,
}

/// The limits of clients, by group. Every function takes one shard's lock, for the time of a look-up in memory.
pub struct Cache {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    ipv6_prefix: u8,
    /// Entries a shard; all shards together hold at most `cache.max_entries`.
    room: usize,
    ttl_ns: Nanos,
    changes: AtomicU64,
    clock: Clock,
}

struct Shard {
    groups: LruCache<Key, Group, AsHashed>,
    /// At most as many as there are threads that wait and jobs in the store's queues.
    loads: HashMap<Key, Arc<Load>, AsHashed>,
    /// Here and not in atomics, so that counting a hit touches nothing that other shards do.
    counters: Counters,
}

/// A group or an opaque id, and its keyed hash: reckoned once for a look-up, it chooses the shard and the place in it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    of: ClientKey,
    hash: u64,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

type AsHashed = BuildHasherDefault<Hashed>;

/// Passes on a hash that a [`Key`] has already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // No key of ours comes here; right all the same.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

struct Group {
    /// Sorted by [`Entry::place`]; `None` when there is none.
    entries: Entries,
    /// Must be loaded again from then on; stays in force while that fails.
    stale_at: Nanos,
    /// May be loaded again from then on, in the background.
    refresh_at: Nanos,
}

/// More shards than this bring nothing.
const MAX_SHARDS: usize = 64;
/// Fewer entries than this in a shard would make the bound of the whole cache too coarse.
const MIN_ROOM: usize = 64;
/// A stale entry whose load failed is not loaded again before that.
const RETRY: Duration = Duration::from_secs(1);

impl Cache {
    /// An empty cache for at most `max_entries` groups (at least 1), each good for `ttl`.
    pub fn new(max_entries: usize, ttl: Duration, ipv6_prefix: u8, clock: Clock) -> Arc<Self> {
        let shards = (max_entries / MIN_ROOM).clamp(1, MAX_SHARDS);
        let shard = || {
            Mutex::new(Shard {
                groups: LruCache::unbounded_with_hasher(AsHashed::default()),
                loads: HashMap::default(),
                counters: Counters::default(),
            })
        };
        Arc::new(Self {
            shards: (0..shards).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            ipv6_prefix,
            room: (max_entries / shards).max(1),
            ttl_ns: nanos(ttl),
            changes: AtomicU64::new(0),
            clock,
        })
    }

    /// The counters, added up. Takes each shard's lock in turn.
    pub fn counters(&self) -> Counters {
        self.shards.iter().map(|shard| shard.lock().counters).fold(Counters::default(), |sum, one| Counters {
            hits: sum.hits + one.hits,
            misses: sum.misses + one.misses,
            evictions: sum.evictions + one.evictions,
            timeouts: sum.timeouts + one.timeouts,
            failures: sum.failures + one.failures,
        })
    }

    /// How many groups are held. Takes each shard's lock in turn.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().groups.len()).sum()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most specific entry for a client: its `ip:port`, then its address. A group that is fresh costs one shard's
    /// lock and allocates nothing. In the last quarter of its time one caller starts a load and does not wait for it.
    ///
    /// # Errors
    /// Past its time, or if the group is not here, the answer is that of a load which has not ended yet.
    pub fn find(
        self: &Arc<Self>,
        address: IpAddr,
        port: Option<u16>,
        now: Nanos,
        loader: &impl Loader,
    ) -> Result<Known, Pending> {
        let address = address.to_canonical();
        let network = group(address, self.ipv6_prefix);
        let key = self.key(ClientKey::group(address, self.ipv6_prefix));
        self.look(key, || CacheGroup::Group(network), (address, port), now, loader)
    }

    /// The same for an opaque id, by its canonical text.
    pub fn find_id(self: &Arc<Self>, id: &str, now: Nanos, loader: &impl Loader) -> Result<Known, Pending> {
        let key = self.key(ClientKey::digest(id.as_bytes()));
        self.look(key, || CacheGroup::Id(id.into()), (NOWHERE, None), now, loader)
    }

    fn look(
        self: &Arc<Self>,
        key: Key,
        place: impl FnOnce() -> CacheGroup,
        client: (IpAddr, Option<u16>),
        now: Nanos,
        loader: &impl Loader,
    ) -> Result<Known, Pending> {
        let ready = loader.ready();
        let (known, load, ticket) = {
            let mut shard = self.shard(key).lock();
            let (known, fresh, due) = match shard.groups.get_mut(&key) {
                Some(group) => {
                    let due = ready && now >= group.refresh_at;
                    if due {
                        group.refresh_at = now.saturating_add(nanos(RETRY));
                    }
                    (pick(&group.entries, client.0, client.1), now < group.stale_at, due)
                }
                None => (Known::Unknown, false, ready),
            };
            // A stale group whose load failed a moment ago joins one that is under way, but begins none.
            let (load, ticket) = match shard.loads.get(&key) {
                Some(load) => (Some(Arc::clone(load)), None),
                None if due => {
                    let (ticket, load) = LoadTicket::open(self, &mut shard, place(), key);
                    (Some(load), Some(ticket))
                }
                None => (None, None),
            };
            let load = load.filter(|_| !fresh && ready);
            let hit = load.is_none() && !matches!(known, Known::Unknown);
            shard.counters.hits += u64::from(hit);
            shard.counters.misses += u64::from(!hit);
            (known, load, ticket)
        };
        let urgency = if matches!(known, Known::Unknown) { Urgency::Unknown } else { Urgency::Refresh };
        if let Some(ticket) = ticket {
            loader.start(ticket, urgency);
        }
        let Some(load) = load else { return Ok(known) };
        let pending = Pending { cache: Arc::clone(self), load, key, client, before: known };
        // One that found no slot has failed at once.
        if pending.has_ended() { Ok(pending.known(loader)) } else { Err(pending) }
    }

    /// Whether a place is held, or being loaded.
    pub fn holds(&self, place: &CacheGroup) -> bool {
        let key = self.key_of(place);
        let shard = self.shard(key).lock();
        shard.groups.contains(&key) || shard.loads.contains_key(&key)
    }

    /// Hands over every entry that is held. `each` is called outside of every lock.
    pub fn each(&self, mut each: impl FnMut(&str, &ClientLimit)) {
        for shard in &self.shards {
            let held: Vec<Arc<[Entry]>> =
                shard.lock().groups.iter().filter_map(|(_, group)| group.entries.clone()).collect();
            for entry in held.iter().flat_map(|entries| entries.iter()) {
                let hit = entry.hit();
                each(&hit.id, &hit.limit);
            }
        }
    }

    /// Changes whenever something other is kept than before.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// A write has been committed: these are all entries of the place, read in the write's own transaction. Writes of one
    /// process must be told in the order in which they were committed. In force from here on.
    pub fn put(&self, place: impl Into<CacheGroup>, entries: Vec<Entry>) {
        let key = self.key_of(&place.into());
        let entries = sorted(entries);
        let mut shard = self.shard(key).lock();
        let overtaken = shard.loads.remove(&key);
        self.keep(&mut shard, key, entries.clone());
        drop(shard);
        if let Some(load) = overtaken {
            // Requests that wait for it have their answer now.
            load.settle(LoadOutcome::Loaded(entries));
        }
    }

    /// A write may or may not have been committed: what is here stays in force until it could be loaded again, and no
    /// load that is under way counts.
    pub fn doubt(&self, place: impl Into<CacheGroup>) {
        let key = self.key_of(&place.into());
        let mut shard = self.shard(key).lock();
        shard.loads.remove(&key);
        if let Some(group) = shard.groups.peek_mut(&key) {
            group.stale_at = 0;
            group.refresh_at = 0;
        }
    }

    /// Somebody else has changed something in a place: if it is held, or being loaded, it must be loaded again, which is the ticket's
    /// owner's duty. Requests wait for that as for any load.
    pub fn renew(self: &Arc<Self>, place: CacheGroup) -> Option<LoadTicket> {
        let key = self.key_of(&place);
        let mut shard = self.shard(key).lock();
        let held = shard.groups.contains(&key) || shard.loads.contains_key(&key);
        if let Some(group) = shard.groups.peek_mut(&key) {
            group.stale_at = 0;
            group.refresh_at = 0;
        }
        // A load that is under way may have begun before the change: its place on the list is taken, and it is not kept.
        held.then(|| LoadTicket::open(self, &mut shard, place, key).0)
    }

    /// Nothing that is held is known to be current: each group stays in force until it could be loaded again, and no
    /// load that is under way counts. Takes each shard's lock in turn, for a walk over it.
    pub fn doubt_all(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.loads.clear();
            for (_, group) in shard.groups.iter_mut() {
                group.stale_at = 0;
                group.refresh_at = 0;
            }
        }
    }

    fn key(&self, of: ClientKey) -> Key {
        Key { of, hash: self.hasher.hash_one(of.words()) }
    }

    fn key_of(&self, place: &CacheGroup) -> Key {
        self.key(match place {
            CacheGroup::Group(network) => ClientKey::group(network.addr(), self.ipv6_prefix),
            CacheGroup::Id(id) => ClientKey::digest(id.as_bytes()),
        })
    }

    fn shard(&self, key: Key) -> &Mutex<Shard> {
        // Bits that choose neither the place in the shard's table (the lowest) nor its tag (the highest).
        &self.shards[(key.hash >> 40) as usize % self.shards.len()]
    }

    /// Keeps a group and throws out the one that was not asked for longest when there is no room. The shard's lock is
    /// held.
    fn keep(&self, shard: &mut Shard, key: Key, entries: Entries) {
        let before = shard.groups.peek(&key).and_then(|group| group.entries.as_ref());
        if entries.is_some() || before.is_some() {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        let now = self.clock.now();
        let group = Group {
            entries,
            stale_at: now.saturating_add(self.ttl_ns),
            refresh_at: now.saturating_add(self.ttl_ns / 4 * 3),
        };
        // Anybody can make up keys: one that nobody knows takes the place of another such, and no client's, until it is
        // asked for again.
        let is_made_up = group.entries.is_none() && key.of.network().is_none();
        shard.groups.put(key, group);
        if shard.groups.len() > self.room {
            shard.groups.pop_lru();
            shard.counters.evictions += 1;
        }
        if is_made_up {
            shard.groups.demote(&key);
        }
    }
}

#[cfg(test)]
mod tests;
