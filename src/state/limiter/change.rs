//! Changes of the numbers in force, and what changed since.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use ipnet::IpNet;

use super::{Fate, Grant, Limiter, SHARDS, new_row, put_in_force};
use crate::rules::Nanos;
use crate::rules::answer::Entry;
use crate::rules::bucket::Bucket;
use crate::rules::identity::{ClientId, ClientKey, IdForm};
use crate::rules::limit::Limit;
use crate::state::ranges::Ranges;

/// What [`Limiter::retune_where`] does with a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Keep,
    /// Other numbers are in force.
    To(Grant),
    /// The client is unlimited now, which counts as full.
    Unlimited,
}

impl Change {
    fn of(grant: Option<Grant>) -> Self {
        grant.map_or(Self::Unlimited, Self::To)
    }
}

/// What decides about clients that no entry names.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// Every range that has a limit.
    pub ranges: &'a Ranges,
    /// `rate_limit.default`.
    pub default: Option<Limit>,
    /// `rate_limit.ipv6_prefix`.
    pub ipv6_prefix: u8,
}

impl Shared<'_> {
    /// Who an address counts as, and its numbers, `None` for unlimited.
    pub fn of_address(&self, address: IpAddr) -> (ClientKey, Option<Grant>) {
        match self.ranges.longest(address) {
            Some(range) => {
                let client = ClientKey::in_range(address, self.ipv6_prefix, range.net);
                (client, Some(Grant { limit: range.limit, entry: Entry::Range }))
            }
            None => (ClientKey::group(address, self.ipv6_prefix), self.of_default()),
        }
    }

    /// The numbers of a whole client group.
    fn of_group(&self, group: IpNet) -> Option<Grant> {
        let range = self.ranges.holding(group);
        range.map(|range| Grant { limit: range.limit, entry: Entry::Range }).or_else(|| self.of_default())
    }

    fn of_default(&self) -> Option<Grant> {
        self.default.map(|limit| Grant { limit, entry: Entry::Default })
    }
}

impl Limiter {
    /// Puts other numbers in force for one client; `None`: it is unlimited now. Needed although [`Limiter::acquire`]
    /// does the same: tokens flow in at the old rate until a change is told. Takes one shard's lock.
    pub fn retune(&self, client: ClientKey, grant: Option<Grant>, now: Nanos) {
        let Some(grant) = grant else { return self.forget(client) };
        let hash = self.hash(client);
        let mut rows = self.lock(hash);
        if let Some(row) = rows.table.find(hash as u32, &client) {
            let row = rows.table.row_mut(row);
            row.stamp = self.epoch.load(Ordering::Relaxed);
            put_in_force(row, grant, now);
        }
    }

    /// Asks `change` about every bucket: its client and what is in force. Takes one shard's lock after another, for a
    /// bounded number of rows, and calls `change` under it. A row may be asked about twice.
    pub fn retune_where(&self, now: Nanos, mut change: impl FnMut(ClientKey, Grant) -> Change) {
        for shard in &self.shards {
            self.walk(shard, |row| {
                let grant = Grant { limit: row.bucket.limit(), entry: row.entry };
                match change(row.client, grant) {
                    Change::Keep => Fate::Kept,
                    Change::Unlimited => Fate::Forgotten,
                    Change::To(grant) => {
                        row.stamp = self.epoch.load(Ordering::Relaxed);
                        put_in_force(row, grant, now);
                        Fate::Kept
                    }
                }
            });
        }
    }

    /// The ranges or the default have changed: puts the new numbers in force for every client that no entry names, and
    /// for the overflow buckets. Takes every lock, one after another.
    pub fn shared_changed(&self, shared: Shared<'_>, now: Nanos) {
        *self.default.write() = shared.default;
        self.retune_where(now, |client, grant| match client.network() {
            Some(group) if grant.entry != Entry::Client => {
                let new = shared.of_group(group);
                if new == Some(grant) { Change::Keep } else { Change::of(new) }
            }
            _ => Change::Keep,
        });
        for bucket in &self.overflow {
            let mut bucket = bucket.lock();
            match (&mut *bucket, shared.default) {
                (Some(bucket), Some(limit)) if bucket.limit() != limit => bucket.retune(limit, now),
                _ => {}
            }
        }
    }

    /// One entry was created, updated (`limit`) or deleted (`None`). `shared` is what holds after the change.
    ///
    /// An entry that gives a client a bucket of its own (an `ip:port`; an IPv6 address out of its prefix) starts from
    /// the bucket that the client had until now, moved like at any other change of its numbers. After such an entry is
    /// deleted the client counts with the others again.
    ///
    /// Takes one lock at a time; for a range all of them.
    pub fn entry_changed(&self, id: &ClientId, limit: Option<Limit>, shared: Shared<'_>, now: Nanos) {
        let own = ClientKey::of_id(id);
        let named = limit.map(|limit| Grant { limit, entry: Entry::Client });
        match id.form() {
            IdForm::Range(_) => self.shared_changed(shared, now),
            IdForm::Opaque => self.retune(own, named, now),
            IdForm::Address(address) => {
                let (client, grant) = shared.of_address(address);
                match named {
                    _ if client == own => self.retune(own, named.or(grant), now),
                    Some(named) => self.adopt(own, &[client], named, now),
                    None => self.forget(own),
                }
            }
            IdForm::AddressPort(peer) => match named {
                Some(named) => {
                    let (client, _) = shared.of_address(peer.ip());
                    self.adopt(own, &[ClientKey::address(peer.ip()), client], named, now);
                }
                None => self.forget(own),
            },
        }
    }

    /// Gives a client a bucket of its own that starts from the first of `before` that there is. If it has one, that is
    /// retuned instead.
    fn adopt(&self, own: ClientKey, before: &[ClientKey], grant: Grant, now: Nanos) {
        let start = before.iter().find_map(|client| self.peek(*client, now));
        let hash = self.hash(own);
        let mut rows = self.lock(hash);
        let row = match (rows.table.find(hash as u32, &own), start) {
            (Some(row), _) => row,
            // Full before, full now, and made when it is first asked. Where there is no room, likewise.
            (None, Some(start)) if self.make_room(&mut rows, now) => {
                rows.table.insert(new_row(own, hash, start.starting_over()))
            }
            (None, _) => return,
        };
        let row = rows.table.row_mut(row);
        row.stamp = self.epoch.load(Ordering::Relaxed);
        put_in_force(row, grant, now);
    }

    /// Hands over every client whose bucket changed after `seq`, and returns the sequence to ask for next. 0 asks for
    /// everything. A bucket that was forgotten, because it was full, is not told. `each` is called outside of every
    /// lock; it may see a client twice.
    ///
    /// Each call begins a new epoch before it looks into any shard, and rows are stamped under the shard's lock: who
    /// comes after the look stamps the new epoch, and is told next time.
    pub fn changed_since(&self, seq: u32, mut each: impl FnMut(ClientKey, &Bucket)) -> u32 {
        let told = self.epoch.fetch_add(1, Ordering::SeqCst);
        let mut changed = Vec::new();
        for number in 0..SHARDS {
            self.walk(&self.shards[number], |row| {
                if row.stamp > seq {
                    changed.push((row.client, row.bucket));
                }
                Fate::Kept
            });
            changed.drain(..).for_each(|(client, bucket)| each(client, &bucket));
        }
        told
    }
}

#[cfg(test)]
mod tests;
