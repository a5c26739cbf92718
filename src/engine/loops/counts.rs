//! How many connections there are: in all, in each loop, of each kind, and from each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// All counts of an engine.
pub(super) struct Counts {
    /// By loop. A connection in a loop's mail counts for that loop.
    loops: Box<[OfLoop]>,
    connections: AtomicUsize,
    /// Most connections that there may be.
    most: usize,
    /// Those of all connections that are requests of HTTP/2.
    streams: AtomicUsize,
    addresses: Addresses,
}

#[derive(Default)]
struct OfLoop {
    connections: AtomicUsize,
    kinds: [AtomicUsize; KINDS],
}

impl Counts {
    pub fn new(loops: usize, most: usize, most_per_address: usize, ipv6_prefix: u8) -> Self {
        Self {
            loops: (0..loops).map(|_| OfLoop::default()).collect(),
            connections: AtomicUsize::new(0),
            most,
            streams: AtomicUsize::new(0),
            addresses: Addresses::new(most_per_address, ipv6_prefix),
        }
    }

    /// All connections.
    pub fn all(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Most connections that there may be.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Takes one of the places that there are for connections. False: none is free.
    fn take_place(&self) -> bool {
        let one_more = |all: usize| (all < self.most).then_some(all + 1);
        self.connections.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }

    /// Requests of HTTP/2.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Those of one loop.
    pub fn of_loop(&self, number: usize) -> usize {
        self.loops[number].connections.load(Ordering::Relaxed)
    }

    /// Those of one kind in one loop.
    pub fn of_kind_in(&self, number: usize, kind: Kind) -> usize {
        self.loops[number].kinds[kind as usize].load(Ordering::Relaxed)
    }

    /// Those of one kind.
    pub fn of_kind(&self, kind: Kind) -> usize {
        (0..self.loops.len()).map(|number| self.of_kind_in(number, kind)).sum()
    }
}

/// What a connection is doing, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing has come on it yet.
    Silent,
    /// A head or a body is being received.
    Reading,
    /// Kept for the next request.
    Idle,
    /// It waits for a backend with room, for the store or for the lane.
    Parked,
    /// It waits for a backend's answer.
    Calling,
    /// An answer is on its way, and waits for its client or its backend.
    Answering,
    /// It is closing.
    Closing,
    /// Upgraded.
    Tunnel,
    /// HTTP/2 with requests under way, each of which is counted, too.
    Http2,
    /// HTTP/2 without requests.
    IdleHttp2,
}

const KINDS: usize = 10;

/// Why one more connection is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// There are as many as there may be.
    All,
    /// Its address has as many as it may have.
    Address,
}

/// A connection as it is counted; dropping it takes it out of every count.
pub(super) struct Counted {
    counts: Arc<Counts>,
    number: usize,
    kind: Kind,
    /// The TCP peer as the bound per address sees it.
    address: IpAddr,
}

impl Counted {
    /// Counts a new connection in that loop, if its address and all together may have one more.
    pub fn enter(counts: &Arc<Counts>, number: usize, address: IpAddr) -> Result<Self, Full> {
        if !counts.addresses.enter(address) {
            return Err(Full::Address);
        }
        if !counts.take_place() {
            counts.addresses.leave(address);
            return Err(Full::All);
        }
        let counted = Self { counts: Arc::clone(counts), number, kind: Kind::Silent, address };
        counted.change(1);
        Ok(counted)
    }

    fn change(&self, by: isize) {
        let of_loop = &self.counts.loops[self.number];
        for count in [&of_loop.connections, &of_loop.kinds[self.kind as usize]] {
            // Wraps: adding -1 takes one away.
            count.fetch_add(by as usize, Ordering::Relaxed);
        }
    }

    /// The connection goes to another loop.
    pub fn move_to(&mut self, number: usize) {
        self.change(-1);
        self.number = number;
        self.change(1);
    }

    /// Counts it as another kind.
    pub fn set_kind(&mut self, kind: Kind) {
        if self.kind != kind {
            let kinds = &self.counts.loops[self.number].kinds;
            kinds[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
            kinds[kind as usize].fetch_add(1, Ordering::Relaxed);
            self.kind = kind;
        }
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.change(-1);
        self.counts.addresses.leave(self.address);
        self.counts.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts a request of HTTP/2 until it is dropped.
pub(super) struct CountedStream(Arc<Counts>);

impl CountedStream {
    pub fn enter(counts: &Arc<Counts>) -> Self {
        counts.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many connections each address has; an IPv6 client counts by its prefix.
struct Addresses {
    most: usize,
    ipv6_prefix: u8,
    shards: Box<[Mutex<HashMap<IpAddr, usize>>]>,
}

const SHARDS: usize = 16;

impl Addresses {
    fn new(most: usize, ipv6_prefix: u8) -> Self {
        Self { most, ipv6_prefix, shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn group(&self, address: IpAddr) -> IpAddr {
        balancer_limiter::identity::group(address, self.ipv6_prefix).addr()
    }

    fn shard(&self, group: IpAddr) -> &Mutex<HashMap<IpAddr, usize>> {
        let last = match group {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets().iter().fold(0, |sum, byte| sum ^ byte),
        };
        &self.shards[last as usize % SHARDS]
    }

    /// Counts one more, if that is allowed. Takes the shard's lock.
    fn enter(&self, address: IpAddr) -> bool {
        let group = self.group(address);
        let mut shard = self.shard(group).lock();
        let count = shard.entry(group).or_insert(0);
        if *count >= self.most {
            return false;
        }
        *count += 1;
        true
    }

    /// Counts one less. Takes the shard's lock.
    fn leave(&self, address: IpAddr) {
        let group = self.group(address);
        let mut shard = self.shard(group).lock();
        if let Some(count) = shard.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&group);
            }
        }
    }
}
