//! Limits that were looked up. For each client group (an IPv4 address, or an IPv6 prefix) the cache holds every stored
//! limit inside it, so that a new connection from a known address is not a miss; and for each opaque id its limit. That a
//! group or an id has no limit is remembered, too.
//!
//! A load is a [`LoadTicket`] on the shard's list of loads. A request that finds one there gets a [`Pending`] to wait for
//! it. So a group is loaded only once, however many requests ask for it, and no lock is held meanwhile. Nothing here waits.
//! A write takes the load off the list; then what that load brings is not kept, because it may be older than the write.

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

/// Why something is loaded, which decides in which lane the load waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The client is not in the cache. It may be one of a flood of clients.
    Unknown,
    /// The client is in the cache, and its entry grows old.
    Refresh,
}

/// Where loads come from. Called outside every lock.
pub trait Loader {
    /// Whether loads may be started now; false while the database is in doubt or down.
    fn ready(&self) -> bool;
    /// Starts a load on another thread and returns at once. A load whose ticket is dropped has failed.
    fn start(&self, ticket: LoadTicket, urgency: Urgency);
    /// A caller has waited for as long as it may, and the load had not ended.
    fn gave_up(&self);
}

/// Counts that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Answered from memory.
    pub hits: u64,
    /// Not in memory, or too old.
    pub misses: u64,
    /// Entries that were dropped because there was no room.
    pub evictions: u64,
    /// Callers that waited for as long as they may, for a load that had not ended.
    pub timeouts: u64,
    /// Loads that failed.
    pub failures: u64,
}

/// The limits of clients, by group. Unless it says otherwise, a function takes the lock of one shard, for a look-up in memory.
pub struct Cache {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    ipv6_prefix: u8,
    /// Most entries of a shard; all shards together hold at most `cache.max_entries`.
    room: usize,
    ttl_ns: Nanos,
    changes: AtomicU64,
    clock: Clock,
}

struct Shard {
    groups: LruCache<Key, Group, AsHashed>,
    /// Loads that are under way: at most as many as the store threads work on and their lanes hold.
    loads: HashMap<Key, Arc<Load>, AsHashed>,
    /// In each shard, so that counting a hit touches no memory that other shards write.
    counters: Counters,
}

/// A group or an opaque id, and its keyed hash, which is computed once and chooses the shard and the place in its table.
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

/// Passes on the hash that a [`Key`] has already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    /// Not called: a [`Key`] writes its hash, and nothing else is hashed.
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

struct Group {
    /// Sorted by [`Entry::place`]; `None` when there is none.
    entries: Entries,
    /// From then on a look-up waits for a new load. The group stays in force while that fails.
    stale_at: Nanos,
    /// From then on a look-up starts a new load in the background.
    refresh_at: Nanos,
}

/// Most shards; with more of them, threads would hardly meet less often.
const MAX_SHARDS: usize = 64;
/// Fewest entries of a shard. With smaller shards, entries would be dropped long before the whole cache is full.
const MIN_ROOM: usize = 64;
/// Least time between two loads of a stale entry.
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

    /// The most specific entry for a client: that of its `ip:port`, else that of its address. For a group that is fresh,
    /// this takes the lock of one shard and allocates nothing. In the last quarter of a group's time, one caller starts a
    /// load and does not wait for it.
    ///
    /// # Errors
    /// When the group is stale or not in the cache: a load is under way, which the caller has to wait for.
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

    /// As [`Cache::find`], for an opaque id by its canonical text.
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
            // A stale group whose load failed a moment ago waits for a load that is under way, but starts none.
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
        // A load for which the store had no slot has failed already.
        if pending.has_ended() { Ok(pending.known(loader)) } else { Err(pending) }
    }

    /// What is known of a client now, for a look that is none of its requests: nothing is counted, loaded or kept longer for it.
    pub fn peek(&self, address: IpAddr, port: Option<u16>) -> Known {
        let address = address.to_canonical();
        self.peek_at(self.key(ClientKey::group(address, self.ipv6_prefix)), (address, port))
    }

    /// The same for an opaque id, by its canonical text.
    pub fn peek_id(&self, id: &str) -> Known {
        self.peek_at(self.key(ClientKey::digest(id.as_bytes())), (NOWHERE, None))
    }

    fn peek_at(&self, key: Key, client: (IpAddr, Option<u16>)) -> Known {
        let shard = self.shard(key).lock();
        shard.groups.peek(&key).map_or(Known::Unknown, |group| pick(&group.entries, client.0, client.1))
    }

    /// Whether a place is held, or being loaded.
    pub fn holds(&self, place: &CacheGroup) -> bool {
        let key = self.key_of(place);
        let shard = self.shard(key).lock();
        shard.groups.contains(&key) || shard.loads.contains_key(&key)
    }

    /// Calls `each` with the id and the limit of every entry that is held, outside of every lock.
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

    /// A number that changes whenever a load or a write adds, changes or removes entries.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// A write has been committed: these are all entries of the place, read in the transaction of the write. They are in
    /// force from here on. The writes of a process must be given in the order in which they were committed.
    pub fn put(&self, place: impl Into<CacheGroup>, entries: Vec<Entry>) {
        let key = self.key_of(&place.into());
        let entries = sorted(entries);
        let mut shard = self.shard(key).lock();
        let overtaken = shard.loads.remove(&key);
        self.keep(&mut shard, key, entries.clone());
        drop(shard);
        if let Some(load) = overtaken {
            // Requests that wait for that load have their answer now.
            load.settle(LoadOutcome::Loaded(entries));
        }
    }

    /// A write may or may not have been committed. What is held stays in force until it is loaded again, and a load that is
    /// under way is not kept.
    pub fn doubt(&self, place: impl Into<CacheGroup>) {
        let key = self.key_of(&place.into());
        let mut shard = self.shard(key).lock();
        shard.loads.remove(&key);
        if let Some(group) = shard.groups.peek_mut(&key) {
            group.stale_at = 0;
            group.refresh_at = 0;
        }
    }

    /// Another instance has changed something in a place. If the place is held, or being loaded, it must be loaded again,
    /// which the owner of the returned ticket has to do. Requests wait for that as for any load.
    pub fn renew(self: &Arc<Self>, place: CacheGroup) -> Option<LoadTicket> {
        let key = self.key_of(&place);
        let mut shard = self.shard(key).lock();
        let held = shard.groups.contains(&key) || shard.loads.contains_key(&key);
        if let Some(group) = shard.groups.peek_mut(&key) {
            group.stale_at = 0;
            group.refresh_at = 0;
        }
        // A load that is under way may have begun before the change. The new one replaces it on the list, so it is not kept.
        held.then(|| LoadTicket::open(self, &mut shard, place, key).0)
    }

    /// Everything that is held may be out of date. Each group stays in force until it is loaded again, and loads that are
    /// under way are not kept. Takes each shard's lock in turn, for a walk over it.
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
        // Not the bits that choose the place in the shard's table (the lowest) or the tag there (the highest).
        &self.shards[(key.hash >> 40) as usize % self.shards.len()]
    }

    /// Keeps a group. When there is no room, drops the one that was not asked for for the longest time. The shard's lock is
    /// held.
    fn keep(&self, shard: &mut Shard, key: Key, entries: Entries) {
        let before = shard.groups.peek(&key).and_then(|group| group.entries.as_ref());
        if entries.as_ref() != before {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        let now = self.clock.now();
        let group = Group {
            entries,
            stale_at: now.saturating_add(self.ttl_ns),
            refresh_at: now.saturating_add(self.ttl_ns / 4 * 3),
        };
        // Anybody can make up keys. An opaque id without a limit is the next to be dropped, until it is asked for again, so
        // that made-up ids drive out each other and no client.
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
