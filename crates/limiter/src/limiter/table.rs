//! The clients of one shard: rows without gaps, in chunks, and an index of them by hash.
//!
//! Rows without gaps can be walked by number, a few at a time, to find full buckets. Chunks do not move when the table
//! grows, so an insert copies at most the index, which has 8 bytes a place.

use super::ask::{Ask, Grant};
use super::slots::Slots;
use crate::answer::EntryKind;
use crate::identity::ClientKey;
use crate::plans::PlanNumber;
use balancer_time::Moment;

/// What decides about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decider {
    /// An entry of that kind.
    Entry(EntryKind),
    /// Not known: the client was restored, or another instance reported it, and it has sent no request here. No change
    /// of ranges or of the default may touch it.
    Unknown,
    /// Not known, and its range was filled meanwhile: if that decides, the buckets are full.
    UnknownFilled,
}

/// One client. 112 bytes, with one bucket inside.
#[derive(Debug)]
pub(super) struct TableRow {
    pub slots: Slots,
    pub client: ClientKey,
    /// What decided about the client at its last request or change.
    pub decider: Decider,
    /// The plan that it had then.
    pub plan: Option<PlanNumber>,
    /// Its requests under way.
    pub in_flight: u32,
    /// The limiter's epoch when the row last changed.
    pub stamp: u32,
    /// The lower half of the client's hash; the upper one chose the shard.
    pub hash: u32,
}

impl TableRow {
    /// A client that sends its first request.
    pub fn new(client: ClientKey, hash: u64, slots: Slots) -> Self {
        // The lower half.
        let hash = hash as u32;
        let decider = Decider::Entry(EntryKind::Default);
        Self { slots, client, decider, plan: None, in_flight: 0, stamp: 0, hash }
    }

    /// A client that is restored or reported, and has sent no request here.
    pub fn heard_of(client: ClientKey, hash: u64) -> Self {
        Self { decider: Decider::Unknown, ..Self::new(client, hash, Slots::default()) }
    }

    /// Notes what decides about the client. Makes its buckets full if its range does, and that was filled.
    pub fn decide_by(&mut self, grant: &Grant) {
        if self.is_filled_for(grant) {
            self.slots.forget();
        }
        (self.decider, self.plan) = (Decider::Entry(grant.entry), grant.plan);
    }

    /// Another instance reports tokens of the client. If its range was filled since the last ones, these are spent from
    /// full buckets. (If another entry decides about the client, it gains what it had spent before.)
    pub fn begin_after_fill(&mut self) {
        if self.decider == Decider::UnknownFilled {
            self.slots.forget();
            self.decider = Decider::Unknown;
        }
    }

    /// Whether it has a row of its own even when the table is full: an entry names it, or it is a shared range.
    pub fn is_named(&self) -> bool {
        match self.decider {
            Decider::Entry(EntryKind::Client) => true,
            Decider::Entry(EntryKind::Range) => self.client.network().is_none() && !self.client.is_crowd(),
            Decider::Entry(EntryKind::Default) | Decider::Unknown | Decider::UnknownFilled => false,
        }
    }

    /// A copy of its buckets as a request would find them.
    pub fn slots_of(&self, ask: Ask<'_>) -> Slots {
        let is_filled = ask.grant.is_some_and(|grant| self.is_filled_for(grant));
        if is_filled { Slots::default() } else { self.slots.clone() }
    }

    fn is_filled_for(&self, grant: &Grant) -> bool {
        self.decider == Decider::UnknownFilled && grant.entry == EntryKind::Range
    }

    /// Whether it can be forgotten: all its buckets are full, and no request is under way.
    pub fn is_idle(&self, when: Moment) -> bool {
        self.in_flight == 0 && self.slots.are_full(when)
    }
}

/// Rows in a chunk: 7.5 KiB, so that a table of few clients stays small.
const CHUNK: usize = 64;

/// Places in the smallest index.
const MIN_PLACES: usize = 8;

/// A place of the index, which uses linear probing and backward-shift deletion and is at most 3/4 full. `row` is the
/// number of a row, or `u32::MAX` for an empty place.
#[derive(Clone, Copy)]
struct IndexPlace {
    hash: u32,
    row: u32,
}

const EMPTY: IndexPlace = IndexPlace { hash: 0, row: u32::MAX };

/// The rows of one shard, and their index.
pub(super) struct ClientTable {
    /// Each holds [`CHUNK`] rows, the last one 1 to [`CHUNK`].
    chunks: Vec<Vec<TableRow>>,
    /// Its length is a power of two.
    index: Vec<IndexPlace>,
    len: usize,
}

impl ClientTable {
    pub fn new() -> Self {
        Self { chunks: Vec::new(), index: vec![EMPTY; MIN_PLACES], len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The row with that number, which must be below [`ClientTable::len`].
    pub fn row(&self, row: usize) -> &TableRow {
        &self.chunks[row / CHUNK][row % CHUNK]
    }

    pub fn row_mut(&mut self, row: usize) -> &mut TableRow {
        &mut self.chunks[row / CHUNK][row % CHUNK]
    }

    /// The number of a client's row, which is valid until the next removal.
    pub fn find(&self, hash: u32, client: &ClientKey) -> Option<usize> {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let place = self.index[at];
            if place.row == EMPTY.row {
                return None;
            }
            if place.hash == hash && self.row(place.row as usize).client == *client {
                return Some(place.row as usize);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a client that is not in the table. Returns the number of its row.
    pub fn insert(&mut self, row: TableRow) -> usize {
        if (self.len + 1) * 4 > self.index.len() * 3 {
            self.rebuild(self.index.len() * 2);
        }
        let number = self.len;
        self.place(IndexPlace { hash: row.hash, row: number as u32 });
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(row),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(row);
                self.chunks.push(chunk);
            }
        }
        self.len += 1;
        number
    }

    /// Removes a row. The last row gets its number.
    pub fn remove(&mut self, number: usize) {
        let gone = self.place_of(self.row(number).hash, number as u32);
        self.vacate(gone);
        self.len -= 1;
        let Some(last) = self.chunks.last_mut().and_then(Vec::pop) else { return };
        if number != self.len {
            let moved = self.place_of(last.hash, self.len as u32);
            self.index[moved].row = number as u32;
            *self.row_mut(number) = last;
        }
        if self.chunks.last().is_some_and(Vec::is_empty) {
            self.chunks.pop();
        }
        if self.index.len() > MIN_PLACES && self.len * 8 < self.index.len() {
            self.rebuild(self.index.len() / 2);
        }
    }

    /// Heap memory in bytes, as allocated, without the allocator's own overhead (16 bytes an allocation).
    pub fn memory_bytes(&self) -> usize {
        let rows: usize = self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<TableRow>()).sum();
        let more: usize = self.chunks.iter().flatten().map(|row| row.slots.heap_bytes()).sum();
        rows + more
            + self.chunks.capacity() * size_of::<Vec<TableRow>>()
            + self.index.capacity() * size_of::<IndexPlace>()
    }

    /// The index place of that row, which must be in the table.
    fn place_of(&self, hash: u32, row: u32) -> usize {
        let mask = self.index.len() - 1;
        let mut at = hash as usize & mask;
        while self.index[at].row != row {
            at = (at + 1) & mask;
        }
        at
    }

    fn place(&mut self, place: IndexPlace) {
        let mask = self.index.len() - 1;
        let mut at = place.hash as usize & mask;
        while self.index[at].row != EMPTY.row {
            at = (at + 1) & mask;
        }
        self.index[at] = place;
    }

    /// Empties a place, and moves places behind it that were pushed past it.
    fn vacate(&mut self, mut hole: usize) {
        let mask = self.index.len() - 1;
        let mut at = (hole + 1) & mask;
        while self.index[at].row != EMPTY.row {
            let home = self.index[at].hash as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.index[hole] = self.index[at];
                hole = at;
            }
            at = (at + 1) & mask;
        }
        self.index[hole] = EMPTY;
    }

    /// Makes an index with that many places. Places hold hashes, so rows are not touched.
    fn rebuild(&mut self, places: usize) {
        let old = std::mem::replace(&mut self.index, vec![EMPTY; places]);
        for place in old.into_iter().filter(|place| place.row != EMPTY.row) {
            self.place(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn row(id: u16, hash: u32) -> TableRow {
        let client = ClientKey::digest(&id.to_be_bytes());
        TableRow { stamp: u32::from(id), ..TableRow::new(client, hash.into(), Slots::default()) }
    }

    #[test]
    fn a_row_keeps_to_120_bytes() {
        assert_eq!(size_of::<TableRow>(), 112);
    }

    #[test]
    fn memory_is_given_back() {
        let mut table = ClientTable::new();
        let empty = table.memory_bytes();
        assert_eq!(empty, MIN_PLACES * 8);
        for id in 0..10_000 {
            table.insert(row(id, u32::from(id).wrapping_mul(0x9e37_79b9)));
        }
        // Chunks of 64 rows, their list of at most 256, and 16,384 places for at most 12,288 rows.
        let least = 157 * CHUNK * 112 + 157 * 24 + 16_384 * 8;
        assert!((least..=least + 99 * 24).contains(&table.memory_bytes()), "{}", table.memory_bytes());
        while table.len() > 0 {
            table.remove(table.len() / 2);
        }
        assert!(table.memory_bytes() < empty + 10_000, "{}", table.memory_bytes());
    }

    proptest! {
        /// Many equal hashes, also at the ends of the index, so that runs of places are long and wrap around.
        #[test]
        fn it_agrees_with_a_plain_map(steps in prop::collection::vec((0u16..200, any::<bool>(), 0u8..3), 1..600)) {
            let mut table = ClientTable::new();
            let mut plain: HashMap<u16, u32> = HashMap::new();
            let hash = |id: u16| match id % 4 {
                0 => u32::from(id),
                1 => u32::MAX,
                2 => u32::MAX - u32::from(id % 16),
                _ => u32::from(id).wrapping_mul(0x9e37_79b9),
            };
            for (id, insert, bump) in steps {
                let places = table.index.len();
                let found = table.find(hash(id), &row(id, 0).client);
                prop_assert_eq!(found.map(|at| table.row(at).stamp), plain.get(&id).copied());
                match found {
                    None if insert => {
                        table.insert(row(id, hash(id)));
                        plain.insert(id, u32::from(id));
                    }
                    Some(at) if insert => {
                        table.row_mut(at).stamp += u32::from(bump);
                        *plain.get_mut(&id).unwrap() += u32::from(bump);
                    }
                    Some(at) => {
                        table.remove(at);
                        plain.remove(&id);
                    }
                    None => {}
                }
                prop_assert_eq!(table.len(), plain.len());
                // At most three quarters full, at least an eighth, and no larger before it has to be.
                let (len, now) = (table.len(), table.index.len());
                prop_assert!(len * 4 <= now * 3 && (now == MIN_PLACES || len * 8 >= now), "{len} in {now}");
                prop_assert!(now <= places || (now == places * 2 && len * 4 > places * 3), "{len}: {places} to {now}");
                prop_assert!(now >= places || (now == places / 2 && len * 8 < places), "{len}: {places} to {now}");
            }
            for (id, stamp) in plain {
                let at = table.find(hash(id), &row(id, 0).client);
                prop_assert_eq!(at.map(|at| table.row(at).stamp), Some(stamp));
            }
        }
    }
}
