//! Charges the reports of other instances, and collects the reports for them. Takes one shard's lock at a time.

use std::sync::atomic::Ordering;

use super::hot::HotBucket;
use super::hot_table::{HotPlace, MAX_HOT};
use super::others::{Heard, HearingSince};
use super::shares::TICK;
use super::slots::{Sharing, Slot};
use super::table::{ClientTable, TableRow};
use super::{Limiter, Rows, SHARDS, shard_of};
use crate::identity::ClientKey;
use crate::reports::SpentReport;
use balancer_time::{Moment, Nanos};

/// How many hot buckets are removed when there is room for fewer than that.
const DRAINED: usize = MAX_HOT / 16;

/// What was done with a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charged {
    /// Its tokens were charged, or there was nothing new in it.
    Counted,
    /// It is older than the last one, and was ignored.
    WentBack,
    /// There is no room for the client, or for another hot bucket.
    NoRoom,
}

/// Which buckets are to be reported.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Round<'a> {
    /// Those that have become urgent.
    Urgent,
    /// All that changed. Also forgets instances that are not `known`, and hot buckets that are over.
    All {
        /// Numbers of the other instances, and whether each is missed.
        known: &'a [(u32, bool)],
    },
    /// All with untold tokens.
    Last,
}

/// A hot bucket that is to be reported.
struct Candidate {
    /// Untold tokens as a part of the capacity.
    urgency: f64,
    shard: usize,
    place: HotPlace,
}

impl Limiter {
    /// Charges a report of `peer`. Takes one shard's lock.
    pub(crate) fn charge_reported(
        &self,
        peer: u32,
        report: &SpentReport,
        since: HearingSince,
        when: Moment,
    ) -> Charged {
        let Some(link) = self.link.at(when.now) else { return Charged::Counted };
        let client = report.client;
        let hash = self.hash(client);
        let mut rows = self.lock(hash);
        let number = match rows.table.find(hash as u32, &client) {
            Some(number) => number,
            None if self.make_room(&mut rows, when) => rows.table.insert(TableRow::heard_of(client, hash)),
            // It will have a row of its own when it sends a request here.
            None if report.has_own_row && self.has_room_beyond() => {
                self.count(client);
                rows.table.insert(TableRow::heard_of(client, hash))
            }
            None => return Charged::NoRoom,
        };
        let Rows { table, hot, .. } = &mut *rows;
        let row = table.row_mut(number);
        row.begin_after_fill();
        // Gets no stamp, so that it is not saved: the instance that spends saves the level, and the lowest saved one
        // counts.
        let mut sharing = Sharing::new(link, client, hot, &self.counts);
        match row.slots.hear(peer, report, since, &mut sharing, when) {
            None => Charged::NoRoom,
            Some(Heard::WentBack) => Charged::WentBack,
            Some(Heard::New(_) | Heard::CaughtUp(_) | Heard::Baseline) => Charged::Counted,
        }
    }

    /// A silence is over: all hot buckets begin another episode. Untold tokens that have flowed in since are not
    /// reported. Takes one shard's lock after another.
    pub(crate) fn begin_episodes(&self, now: Nanos) {
        for shard in self.shards.iter().filter(|_| self.counts.hot() > 0) {
            let mut rows = shard.0.lock();
            let places: Vec<HotPlace> = rows.hot.places().collect();
            for place in places {
                let Rows { table, hot, .. } = &mut *rows;
                let Some(bucket) = hot.get_mut(place) else { continue };
                let slot = self.slot_of(table, bucket, place);
                // If the client's bucket was forgotten, the next round removes the hot one.
                let missing = slot.map_or(0, |slot| slot.settle_silence(bucket, now));
                bucket.begin_again(self.counts.next_episode(), missing, now);
            }
        }
    }

    /// The others hear this instance again: drops untold tokens that have flowed in while they did not. Takes one
    /// shard's lock after another.
    pub(crate) fn leak_untold(&self, when: Moment) {
        let Some(link) = self.link.at(when.now).filter(|_| self.counts.hot() > 0) else { return };
        for shard in &self.shards {
            let mut rows = shard.0.lock();
            let places: Vec<HotPlace> = rows.hot.places().collect();
            for place in places {
                let Rows { table, hot, .. } = &mut *rows;
                let Some(bucket) = hot.get(place) else { continue };
                let client = bucket.client;
                if let Some(slot) = self.slot_of(table, bucket, place) {
                    slot.catch_up(&mut Sharing::new(link, client, hot, &self.counts), when);
                }
            }
        }
    }

    /// Appends at most `most` reports, the most urgent first. True: there are more. [`Round::All`] also forgets hot
    /// buckets that are over. Takes one shard's lock after another.
    pub(crate) fn collect_reports(
        &self,
        round: Round<'_>,
        most: usize,
        when: Moment,
        reports: &mut Vec<SpentReport>,
    ) -> bool {
        if self.counts.hot() == 0 {
            return false;
        }
        if matches!(round, Round::All { .. }) && self.counts.hot() > MAX_HOT - DRAINED {
            self.drain();
        }
        let mut candidates = Vec::new();
        for shard in 0..SHARDS {
            if !matches!(round, Round::Urgent) || self.link.is_loud(shard) {
                self.look_for_reports(shard, round, when, &mut candidates);
            }
        }
        candidates.sort_by(|one: &Candidate, other| other.urgency.total_cmp(&one.urgency));
        for (at, candidate) in candidates.iter().enumerate() {
            if at < most {
                reports.extend(self.report(candidate, when));
            } else {
                // Those without a place are urgent, so that the next flush looks at them.
                self.link.set_loud(candidate.shard);
            }
        }
        candidates.len() > most
    }

    /// Makes room in a table that is almost full: removes the hot buckets with the least to report, so that clients
    /// that spend much are reported, however many there are. Takes one shard's lock after another.
    fn drain(&self) {
        let mut all = Vec::with_capacity(MAX_HOT);
        for (number, shard) in self.shards.iter().enumerate() {
            let rows = shard.0.lock();
            let weight = |place| rows.hot.get(place).map(|bucket| (bucket.weight(), number, place));
            all.extend(rows.hot.places().filter_map(weight));
        }
        all.sort_unstable_by(|one: &(f64, usize, HotPlace), other| one.0.total_cmp(&other.0));
        for (_, shard, place) in all.into_iter().take(DRAINED) {
            let mut rows = self.shards[shard].0.lock();
            let Rows { table, hot, .. } = &mut *rows;
            // It is still the same bucket, since only this thread removes any.
            let Some(bucket) = hot.get(place) else { continue };
            self.not_hot.fetch_add(u64::from(bucket.untold() > 0), Ordering::Relaxed);
            if let Some(slot) = self.slot_of(table, bucket, place) {
                slot.cool();
            }
            hot.remove(place, &self.counts);
        }
    }

    /// Appends the hot buckets of a shard that are to be reported. [`Round::All`] also removes those that are over.
    fn look_for_reports(&self, shard: usize, round: Round<'_>, when: Moment, found: &mut Vec<Candidate>) {
        let mut rows = self.shards[shard].0.lock();
        self.link.take_loud(shard);
        let link = self.link.at(when.now);
        let tells = link.is_some_and(|link| link.members > 1 && !link.cut_off);
        let places: Vec<HotPlace> = rows.hot.places().collect();
        for place in places {
            let Rows { table, hot, .. } = &mut *rows;
            let Some(bucket) = hot.get_mut(place) else { continue };
            let Some(slot) = self.slot_of(table, bucket, place) else {
                // The client's bucket was forgotten: it was filled by hand, or its client has no limit any more.
                hot.remove(place, &self.counts);
                continue;
            };
            if let Round::All { known } = round {
                bucket.keep_peers(known);
                if bucket.is_over(link, when.now) {
                    slot.cool();
                    hot.remove(place, &self.counts);
                    continue;
                }
            }
            if tells && !slot.is_parted() && is_due(bucket, round, when.now) {
                let capacity = slot.bucket().limit().capacity.max(1);
                let urgency = bucket.untold() as f64 / f64::from(capacity);
                found.push(Candidate { urgency, shard, place });
            }
        }
    }

    /// Makes the report of a candidate, which counts as sent.
    fn report(&self, candidate: &Candidate, when: Moment) -> Option<SpentReport> {
        let mut rows = self.shards[candidate.shard].0.lock();
        let Rows { table, hot, .. } = &mut *rows;
        let bucket = hot.get_mut(candidate.place)?;
        let row = self.row_of(table, bucket.client)?;
        let has_own_row = row.is_named();
        let slot = row.slots.hot_mut(bucket.id, candidate.place)?;
        Some(bucket.report(when.now, slot.told(has_own_row)))
    }

    /// A client's row. The shard's lock is held.
    fn row_of<'t>(&self, table: &'t mut ClientTable, client: ClientKey) -> Option<&'t mut TableRow> {
        let row = table.find(self.hash(client) as u32, &client)?;
        Some(table.row_mut(row))
    }

    /// The slot of the hot bucket at that place. `None`: the client's bucket was forgotten.
    fn slot_of<'t>(
        &self,
        table: &'t mut ClientTable,
        bucket: &HotBucket,
        place: HotPlace,
    ) -> Option<&'t mut Slot> {
        self.row_of(table, bucket.client)?.slots.hot_mut(bucket.id, place)
    }

    /// These reports could not be sent: their tokens will be reported again. Takes one shard's lock after another.
    pub(crate) fn take_back_reports(&self, reports: &[SpentReport]) {
        for report in reports {
            let hash = self.hash(report.client);
            let mut rows = self.lock(hash);
            let Rows { table, hot, .. } = &mut *rows;
            let place = self.row_of(table, report.client).and_then(|row| row.slots.hot_place(report.bucket));
            if let Some(bucket) = place.and_then(|place| hot.get_mut(place)) {
                bucket.take_back(report);
                self.link.set_loud(shard_of(hash));
            }
        }
    }

    /// Notes what a decision found. True: something has to be reported soon. The shard's lock must be held.
    pub(super) fn note(&self, sharing: &Sharing<'_>, hash: u64) -> bool {
        if sharing.no_room {
            self.not_hot.fetch_add(1, Ordering::Relaxed);
        }
        if sharing.loud {
            self.link.set_loud(shard_of(hash));
        }
        sharing.loud
    }

    /// How many buckets are hot.
    pub(crate) fn hot_buckets(&self) -> usize {
        self.counts.hot()
    }

    /// How many clients have hot buckets.
    pub(crate) fn hot_clients(&self) -> usize {
        self.counts.clients()
    }

    /// How often a bucket could not become hot, or stay hot with untold tokens, because too many were.
    pub(crate) fn not_hot(&self) -> u64 {
        self.not_hot.load(Ordering::Relaxed)
    }
}

/// Whether a bucket is to be reported in that round.
fn is_due(bucket: &HotBucket, round: Round<'_>, now: Nanos) -> bool {
    match round {
        Round::Urgent => bucket.loud,
        Round::Last => bucket.untold() > 0,
        // One that was urgent and just reported has to wait for the next round.
        Round::All { .. } => {
            bucket.loud || bucket.is_changed() && now.saturating_sub(bucket.told_at()) >= TICK / 2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Limit, Rate};
    use crate::limiter::hot::ToldBucket;
    use crate::terms::BucketId;

    #[test]
    fn each_round_has_its_buckets() {
        let limit = Limit { capacity: 100, rate: Rate::per_second(50_000_000) };
        let told = ToldBucket { limit, of_rule: false, has_own_row: false, reset: None };
        let now = 100 * TICK;
        let new = || HotBucket::new(ClientKey::digest(b"a"), BucketId(1), 5, now);
        // Nothing to tell; something; all told half a tick ago, and a little less, and spent since; urgent.
        let untold = || {
            let mut bucket = new();
            bucket.heat(3, now);
            bucket
        };
        let spent_since = |ago| {
            let mut bucket = untold();
            bucket.report(now - ago, told);
            bucket.heat(0, now);
            bucket
        };
        let urgent = |mut bucket: HotBucket| {
            bucket.loud = true;
            bucket
        };
        let all = Round::All { known: &[] };
        for (what, bucket, due) in [
            ("nothing", new(), [false, false, false]),
            ("something", untold(), [false, true, true]),
            ("told lately, and goes on", spent_since(TICK / 2 - 1), [false, false, false]),
            ("told a while ago, and goes on", spent_since(TICK / 2), [false, true, false]),
            ("urgent, and told lately", urgent(spent_since(0)), [true, true, false]),
        ] {
            let rounds = [Round::Urgent, all, Round::Last];
            assert_eq!(rounds.map(|round| is_due(&bucket, round, now)), due, "{what}");
        }
    }
}
