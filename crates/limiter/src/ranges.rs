//! All ranges that have a limit, as one snapshot that answers "the longest range that holds this address".
//!
//! The nested ranges of each family are laid flat once, when the snapshot is made: a sorted list of the addresses where
//! the answer changes. A look-up is one binary search, however many prefix lengths there are. A snapshot never changes;
//! its owner swaps it whole.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::identity::{ClientKey, Crowds, canonical_range};
use crate::terms::ClientLimit;

/// Most ranges that a snapshot holds. At about 150 bytes each they stay below 16 MB.
pub const MAX_RANGES: usize = 100_000;

/// A range and what its addresses get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// By value: host bits 0, v4-mapped ones as IPv4.
    pub net: IpNet,
    /// Each address in it (IPv6: each prefix) has buckets of its own, unless it says that they are shared.
    pub limit: Arc<ClientLimit>,
    /// The id as it was given.
    pub id: Arc<str>,
    /// Of the stored row.
    pub version: u64,
    /// Made once: a digest takes longer than the decision that it is for.
    shared_key: Option<ClientKey>,
    /// Where its members count that find no room. Made once, too.
    crowds: Crowds,
}

impl Range {
    /// A range by any writing of its network.
    pub fn new(net: IpNet, limit: Arc<ClientLimit>, id: Arc<str>, version: u64) -> Self {
        let net = canonical_range(net);
        let shared_key = limit.shared.then(|| ClientKey::digest(net.to_string().as_bytes()));
        Self { net, limit, id, version, shared_key, crowds: Crowds::of_range(net) }
    }

    /// Whose buckets an address in it counts with.
    pub fn client(&self, address: IpAddr, ipv6_prefix: u8) -> ClientKey {
        self.shared_key.unwrap_or_else(|| ClientKey::in_range(address, ipv6_prefix, self.net))
    }

    /// Where its members count that find no room, in as many crowds as there can be.
    pub fn crowds(&self) -> Crowds {
        self.crowds
    }

    /// The owner of the buckets that all of it shares, as [`ClientKey::of_id`] of its id; `None`: it shares none.
    pub fn shared_key(&self) -> Option<ClientKey> {
        self.shared_key
    }
}

/// Crowds of all ranges together: at 120 bytes each they stay below 130 MB, however they are filled. Up to 1,024 ranges have as
/// many as there can be, more ranges fewer each.
const MAX_CROWDS: usize = 1 << 20;

/// More than [`MAX_RANGES`] different ranges; holds how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRanges(pub usize);

impl std::fmt::Display for TooManyRanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ranges have a limit; at most {MAX_RANGES} are allowed", self.0)
    }
}

impl std::error::Error for TooManyRanges {}

/// A snapshot of all ranges.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    /// In order of family, first address, prefix length: a range comes before what lies inside it.
    list: Vec<Range>,
    /// For each range, the next longer-reaching one that holds it.
    parents: Vec<Option<u32>>,
    v4: Flat<u32>,
    v6: Flat<u128>,
}

/// Where the answer changes: from `starts[i]` up to the next start, the range `owners[i]` decides.
#[derive(Clone, Debug)]
struct Flat<A> {
    starts: Vec<A>,
    owners: Vec<Option<u32>>,
}

impl<A> Default for Flat<A> {
    fn default() -> Self {
        Self { starts: Vec::new(), owners: Vec::new() }
    }
}

impl Ranges {
    /// Makes a snapshot. Of several entries for one range the newest version counts.
    pub fn new(ranges: impl IntoIterator<Item = Range>) -> Result<Self, TooManyRanges> {
        let mut by_net: BTreeMap<IpNet, Range> = BTreeMap::new();
        for range in ranges {
            match by_net.get(&range.net) {
                Some(known) if known.version > range.version => {}
                _ => drop(by_net.insert(range.net, range)),
            }
        }
        Self::of_sorted(by_net.into_values().collect())
    }

    /// The same with one range added or replaced. Rebuilds: linear in the number of ranges.
    pub fn with(&self, range: Range) -> Result<Self, TooManyRanges> {
        let mut list = self.list.clone();
        match self.position(range.net) {
            Ok(at) => list[at] = range,
            Err(at) => list.insert(at, range),
        }
        Self::of_sorted(list)
    }

    /// The same without one range.
    pub fn without(&self, net: IpNet) -> Self {
        let mut list = self.list.clone();
        if let Ok(at) = self.position(canonical_range(net)) {
            list.remove(at);
        }
        // It only became shorter.
        Self::of_sorted(list).unwrap_or_default()
    }

    /// The longest range that holds an address; a v4-mapped one counts as its IPv4 address.
    pub fn longest(&self, address: IpAddr) -> Option<&Range> {
        self.owner(address).map(|at| &self.list[at as usize])
    }

    /// The longest range that holds a whole network: what decides about a client group.
    pub fn holding(&self, net: IpNet) -> Option<&Range> {
        let mut at = self.owner(net.network())?;
        while !self.list[at as usize].net.contains(&net) {
            at = self.parents[at as usize]?;
        }
        Some(&self.list[at as usize])
    }

    /// Where the members of one of these ranges count that find no room.
    pub fn crowds(&self, range: &Range) -> Crowds {
        range.crowds.at_most(MAX_CROWDS / self.len().max(1))
    }

    /// One range by value.
    pub fn get(&self, net: IpNet) -> Option<&Range> {
        self.position(canonical_range(net)).ok().map(|at| &self.list[at])
    }

    /// All of them, in order of family, first address and prefix length.
    pub fn iter(&self) -> impl Iterator<Item = &Range> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn position(&self, net: IpNet) -> Result<usize, usize> {
        self.list.binary_search_by(|range| range.net.cmp(&net))
    }

    fn owner(&self, address: IpAddr) -> Option<u32> {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.owner(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.owner(v6.to_bits()),
        }
    }

    /// `list` is sorted by `net`, whose order is family, address, prefix length, and holds no `net` twice.
    fn of_sorted(list: Vec<Range>) -> Result<Self, TooManyRanges> {
        if list.len() > MAX_RANGES {
            return Err(TooManyRanges(list.len()));
        }
        let mut parents = vec![None; list.len()];
        let mut v4 = Layer::default();
        let mut v6 = Layer::default();
        for (at, range) in (0u32..).zip(&list) {
            parents[at as usize] = match range.net {
                IpNet::V4(net) => v4.open(at, net.network().to_bits(), net.broadcast().to_bits()),
                IpNet::V6(net) => v6.open(at, net.network().to_bits(), net.broadcast().to_bits()),
            };
        }
        Ok(Self { list, parents, v4: v4.finish(), v6: v6.finish() })
    }
}

impl<A: Ord + Copy> Flat<A> {
    fn owner(&self, address: A) -> Option<u32> {
        let behind = self.starts.partition_point(|start| *start <= address);
        behind.checked_sub(1).and_then(|at| self.owners[at])
    }
}

/// A [`Flat`] in the making: ranges are opened in order, and closed when one comes that lies behind their end.
struct Layer<A> {
    flat: Flat<A>,
    /// The ranges around the current address, innermost last, with their last addresses.
    open: Vec<(u32, A)>,
}

impl<A> Default for Layer<A> {
    fn default() -> Self {
        Self { flat: Flat::default(), open: Vec::new() }
    }
}

impl<A: Address> Layer<A> {
    /// Opens a range and returns the one around it.
    fn open(&mut self, range: u32, first: A, last: A) -> Option<u32> {
        self.close(|end| end < first);
        let around = self.open.last().map(|(range, _)| *range);
        self.open.push((range, last));
        self.from(first, Some(range));
        around
    }

    fn finish(mut self) -> Flat<A> {
        self.close(|_| true);
        self.flat
    }

    /// Ends the innermost ranges for whose last address `ended` holds.
    fn close(&mut self, ended: impl Fn(A) -> bool) {
        while let Some((_, last)) = self.open.pop_if(|(_, last)| ended(*last)) {
            // Behind the highest address there is nothing to say.
            if let Some(next) = last.next() {
                let around = self.open.last().map(|(range, _)| *range);
                self.from(next, around);
            }
        }
    }

    /// From this address on, `owner` decides. A later word about the same address replaces an earlier one.
    fn from(&mut self, start: A, owner: Option<u32>) {
        if self.flat.starts.last() == Some(&start) {
            self.flat.owners.pop();
        } else {
            self.flat.starts.push(start);
        }
        self.flat.owners.push(owner);
    }
}

/// An address as a number.
trait Address: Ord + Copy {
    /// The one behind it; `None` for the highest.
    fn next(self) -> Option<Self>;
}

impl Address for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

#[cfg(test)]
mod tests;
