//! All ranges that have a limit, as one snapshot that answers: which is the longest range that holds this address?
//!
//! When a snapshot is made, the nested ranges of each family become a sorted list of the addresses at which the answer
//! changes. A look-up is then one binary search, however many prefix lengths there are. A snapshot never changes; its
//! owner replaces it as a whole.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::identity::{ClientKey, Crowds, canonical_range};
use crate::terms::ClientLimit;

/// Most ranges that a snapshot holds. At about 150 bytes each they stay below 16 MB.
pub const MAX_RANGES: usize = 100_000;

/// A range and its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its network in canonical form: host bits 0, v4-mapped ones as IPv4.
    pub net: IpNet,
    /// The limit. Each address of the range (IPv6: each prefix) has buckets of its own, unless the limit is shared.
    pub limit: Arc<ClientLimit>,
    /// The range's id, as it was given.
    pub id: Arc<str>,
    /// The version of the stored row.
    pub version: u64,
    /// The key of a shared range. Kept, because its digest takes longer than a decision.
    shared_key: Option<ClientKey>,
    /// The crowds of its members. Kept for the same reason.
    crowds: Crowds,
}

impl Range {
    /// A range. The network need not be in canonical form.
    pub fn new(net: IpNet, limit: Arc<ClientLimit>, id: Arc<str>, version: u64) -> Self {
        let net = canonical_range(net);
        let shared_key = limit.shared.then(|| ClientKey::digest(net.to_string().as_bytes()));
        Self { net, limit, id, version, shared_key, crowds: Crowds::of_range(net) }
    }

    /// The key by which an address of the range is counted.
    pub fn client(&self, address: IpAddr, ipv6_prefix: u8) -> ClientKey {
        self.shared_key.unwrap_or_else(|| ClientKey::in_range(address, ipv6_prefix, self.net))
    }

    /// The crowds with which its members count when the table is full, as many as one range can have. See
    /// [`Ranges::crowds`].
    pub fn crowds(&self) -> Crowds {
        self.crowds
    }

    /// The key of the whole range if its limit is shared, else `None`. Equals [`ClientKey::of_id`] of its id.
    pub fn shared_key(&self) -> Option<ClientKey> {
        self.shared_key
    }
}

/// Most crowds of all ranges together: at 112 bytes each, below 120 MB. Up to 1,024 ranges may have all their crowds;
/// if there are more ranges, each has fewer.
const MAX_CROWDS: usize = 1 << 20;

/// There are more than [`MAX_RANGES`] different ranges; holds their number.
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
    /// In order of family, first address and prefix length, so that a range comes before those inside it.
    list: Vec<Range>,
    /// For each range in `list`, the smallest other one that holds it.
    parents: Vec<Option<u32>>,
    v4: Flat<u32>,
    v6: Flat<u128>,
}

/// The addresses at which the answer changes: from `starts[i]` up to the next start, the range `owners[i]` decides.
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
    /// Makes a snapshot. Of several entries for one range, the newest version counts.
    ///
    /// # Errors
    /// There are too many.
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

    /// A snapshot with one range added or replaced. Takes time linear in the number of ranges.
    ///
    /// # Errors
    /// There are too many.
    pub fn with(&self, range: Range) -> Result<Self, TooManyRanges> {
        let mut list = self.list.clone();
        match self.position(range.net) {
            Ok(at) => list[at] = range,
            Err(at) => list.insert(at, range),
        }
        Self::of_sorted(list)
    }

    /// A snapshot without one range. Takes time linear in the number of ranges.
    pub fn without(&self, net: IpNet) -> Self {
        let mut list = self.list.clone();
        if let Ok(at) = self.position(canonical_range(net)) {
            list.remove(at);
        }
        // Can't fail: the list only became shorter.
        Self::of_sorted(list).unwrap_or_default()
    }

    /// The longest range that holds an address; a v4-mapped one counts as its IPv4 address.
    pub fn longest(&self, address: IpAddr) -> Option<&Range> {
        self.owner(address).map(|at| &self.list[at as usize])
    }

    /// The longest range that holds a whole network, such as the prefix by which IPv6 clients are counted.
    pub fn holding(&self, net: IpNet) -> Option<&Range> {
        let mut at = self.owner(net.network())?;
        while !self.list[at as usize].net.contains(&net) {
            at = self.parents[at as usize]?;
        }
        Some(&self.list[at as usize])
    }

    /// The crowds with which the members of one of these ranges count when the table is full.
    pub fn crowds(&self, range: &Range) -> Crowds {
        range.crowds.at_most(MAX_CROWDS / self.len().max(1))
    }

    /// The range of that network, which need not be in canonical form.
    pub fn get(&self, net: IpNet) -> Option<&Range> {
        self.position(canonical_range(net)).ok().map(|at| &self.list[at])
    }

    /// All ranges, in order of family, first address and prefix length.
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

    /// `list` must be sorted by `net` and hold no `net` twice.
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

/// Builds a [`Flat`]: ranges are opened in order, and closed when a range comes that begins behind their end.
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
            // Behind the highest address there is none.
            if let Some(next) = last.next() {
                let around = self.open.last().map(|(range, _)| *range);
                self.from(next, around);
            }
        }
    }

    /// Notes that `owner` decides from this address on. A second call with the same address replaces the first.
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
