//! Puts in force what other instances changed. The watch goes on reading the database's list of changes where it stopped.
//! Only when a part of that list was pruned before it was read, everything is read again, and all of the cache counts as
//! stale.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::core::{Core, entries, parsed, range};
use super::ops::{self, Followed};
use super::v1::LimitRow;
use crate::metrics::StoreOp;
use crate::store::StoreError;
use crate::store::cache::{CacheGroup, EntryKind, LoadTicket};
use balancer_limiter::identity::{ClientId, ClientKey, IdForm};
use balancer_limiter::ranges::Ranges;

/// How often something is read again because this process wrote meanwhile. After that, the next round reads everything.
const TRIES: u32 = 5;

impl Core {
    /// Brings memory up to date with the database. Called only on the thread of the watch.
    pub fn follow(&self) -> Result<(), StoreError> {
        loop {
            let from = self.book.lock().followed;
            let Some(seen) = from else { return self.read_all() };
            match self.ask(StoreOp::Changes, |store| ops::changes(store, self.within, seen))? {
                None => {
                    log::warn!("store: too many changes were missed; every limit is looked up anew");
                    self.doubt_all();
                }
                Some(followed) => {
                    let (last, more) = (followed.last, followed.more);
                    self.follow_page(followed)?;
                    self.book.lock().reached(from, last);
                    if !more {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn follow_page(&self, mut page: Followed) -> Result<(), StoreError> {
        {
            let book = self.book.lock();
            let lists =
                [&mut page.limits, &mut page.ranges, &mut page.plans, &mut page.resets, &mut page.backends];
            for list in lists {
                list.retain(|(_, seq)| !book.is_mine(*seq));
            }
        }
        // Plans first, since a new limit or range may name a new plan.
        if !page.plans.is_empty() {
            self.read_plans()?;
        }
        if !page.ranges.is_empty() {
            self.follow_ranges(&page.ranges)?;
        }
        if !page.backends.is_empty() {
            self.read_backends()?;
        }
        self.follow_limits(&page.limits)?;
        ids(&page.resets).for_each(|id| self.fill(&id));
        Ok(())
    }

    /// Fills the buckets of a stored limit. For a range that is not shared, those are the buckets of all clients that it
    /// decides about.
    pub fn fill(&self, id: &ClientId) {
        let ranges = self.ranges();
        match id.form() {
            IdForm::Range(net) if !ranges.get(net).is_some_and(|range| range.limit.shared) => {
                self.limiter.fill_where(|client, entry| {
                    let group = client.network().filter(|_| entry == EntryKind::Range);
                    group.and_then(|group| ranges.holding(group)).is_some_and(|holding| holding.net == net)
                });
            }
            _ => self.limiter.fill(ClientKey::of_id(id)),
        }
    }

    /// Reads changed ranges and puts them in force together.
    fn follow_ranges(&self, changed: &[(String, i64)]) -> Result<(), StoreError> {
        let nets: BTreeMap<IpNet, String> = ids(changed)
            .filter_map(|id| match id.form() {
                IdForm::Range(net) => Some((net, id.canonical().into_owned())),
                _ => None,
            })
            .collect();
        let canonicals: Vec<String> = nets.values().cloned().collect();
        let read = || self.ask(StoreOp::Ranges, |store| ops::named(store, self.within, &canonicals));
        self.reading(read, |rows| {
            let mut now: BTreeMap<IpNet, Option<LimitRow>> = nets.keys().map(|net| (*net, None)).collect();
            for row in rows {
                if let Some(IdForm::Range(net)) = parsed(&row).map(|id| id.form()) {
                    now.insert(net, Some(row));
                }
            }
            self.change_ranges(now);
            Ok(())
        })?;
        self.tell_shared();
        Ok(())
    }

    /// Reads all plans, of which there are few. False when this process wrote in between each time.
    fn read_plans(&self) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let writes = self.book.lock().writes;
            let rows = self.ask(StoreOp::Ranges, |store| ops::all_plans(store, self.within))?;
            if self.replace_plans(rows.into_iter().map(|row| row.plan).collect(), writes) {
                return Ok(true);
            }
        }
        self.book.lock().followed = None;
        Ok(false)
    }

    /// Reads all backends. False as in [`Core::read_plans`].
    fn read_backends(&self) -> Result<bool, StoreError> {
        let read = || self.ask(StoreOp::Ranges, |store| ops::backends(store, self.within));
        self.reading(read, |rows| {
            self.backends.replace(rows);
            Ok(())
        })
    }

    /// Loads those changed limits again that the cache holds. Two questions are enough unless groups have very many limits.
    fn follow_limits(&self, changed: &[(String, i64)]) -> Result<(), StoreError> {
        let mut places: BTreeMap<CacheGroup, Vec<ClientId>> = BTreeMap::new();
        for id in ids(changed) {
            if let Some(place) = CacheGroup::of(&id, self.ipv6_prefix) {
                places.entry(place).or_default().push(id);
            }
        }
        // If there is no answer, the tickets are dropped: what is held stays in force, and the next request loads it.
        let mut held: BTreeMap<CacheGroup, LoadTicket> = places
            .keys()
            .filter_map(|place| Some((place.clone(), self.cache.renew(place.clone())?)))
            .collect();
        for (place, rows) in self.read_places(held.keys())? {
            self.tell(places.get(&place).map_or(&[], Vec::as_slice), &rows);
            if let Some(ticket) = held.remove(&place) {
                ticket.finish(entries(rows));
            }
        }
        Ok(())
    }

    /// Tells the limiter what these ids have now.
    fn tell(&self, ids: &[ClientId], rows: &[LimitRow]) {
        for id in ids {
            let row = rows.iter().find(|row| parsed(row).as_ref() == Some(id));
            self.tell_entry(id, row.map(|row| &row.limit));
        }
    }

    fn read_places<'a>(
        &self,
        places: impl Iterator<Item = &'a CacheGroup>,
    ) -> Result<Vec<(CacheGroup, Vec<LimitRow>)>, StoreError> {
        let (mut networks, mut texts) = (Vec::new(), Vec::new());
        for place in places {
            match place {
                CacheGroup::Group(network) => networks.push(*network),
                CacheGroup::Id(id) => texts.push(id.to_string()),
            }
        }
        let mut all = Vec::with_capacity(networks.len() + texts.len());
        let mut left = networks.as_slice();
        while !left.is_empty() {
            let groups = self.ask(StoreOp::Load, |store| ops::load_all(store, self.within, left))?;
            let (read, rest) = left.split_at(groups.len().clamp(1, left.len()));
            all.extend(read.iter().copied().map(CacheGroup::Group).zip(groups));
            left = rest;
        }
        if !texts.is_empty() {
            let rows = self.ask(StoreOp::Load, |store| ops::named(store, self.within, &texts))?;
            let of = |text: &String| rows.iter().filter(|row| row.client_id == *text).cloned().collect();
            all.extend(texts.iter().map(|text| (CacheGroup::Id(text.as_str().into()), of(text))));
        }
        Ok(all)
    }

    /// Reads everything that memory holds as a whole: plans, ranges and backends.
    fn read_all(&self) -> Result<(), StoreError> {
        // The number is read before the rows, so that changes in between are followed later, and none is missed.
        let last = self.ask(StoreOp::Changes, |store| ops::last_change(store, self.within))?;
        let planned = self.read_plans()?;
        let read = || self.ask(StoreOp::Ranges, |store| ops::ranges(store, self.within));
        let ranged = self.reading(read, |rows| {
            let list = rows.into_iter().filter_map(|row| match parsed(&row)?.form() {
                IdForm::Range(net) => Some(range(net, row)),
                _ => None,
            });
            let next = Ranges::new(list).map_err(|error| StoreError::Schema(error.to_string()))?;
            self.put_ranges(next);
            Ok(())
        })?;
        let backends = self.read_backends()?;
        if planned && ranged && backends {
            self.book.lock().reached(None, last);
        }
        self.tell_shared();
        Ok(())
    }

    /// Reads something and puts it in force under the book's lock. It is read again if this process wrote in between, since
    /// that write may be missing in it. False after [`TRIES`] such attempts; then the next round reads everything.
    fn reading<T>(
        &self,
        read: impl Fn() -> Result<T, StoreError>,
        put: impl Fn(T) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let writes = self.book.lock().writes;
            let rows = read()?;
            let book = self.book.lock();
            if book.writes == writes {
                put(rows)?;
                return Ok(true);
            }
        }
        self.book.lock().followed = None;
        Ok(false)
    }
}

fn ids(changed: &[(String, i64)]) -> impl Iterator<Item = ClientId> {
    // A row that somebody wrote by hand may have an id that can't be read; it is left out.
    changed.iter().filter_map(|(text, _)| ClientId::parse(text).ok())
}

#[cfg(test)]
mod tests;
