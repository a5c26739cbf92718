//! Charges the reports of other instances to a bucket.

use super::super::others::{Heard, HearingSince};
use super::mark::Mark;
use super::share::{Sharing, debt_of};
use super::{Slot, Slots};
use crate::bucket::Bucket;
use crate::reports::SpentReport;
use balancer_time::Moment;

/// The period in which reported tokens were spent, by this instance's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpentIn {
    /// One that is over, so its tokens do not count any more.
    Past,
    /// The current one; also for a bucket without a reset.
    Present,
    /// The one with that number, which has not begun here: the other instance's clock is ahead.
    Future(u32),
}

impl Slot {
    /// A new bucket for a report, of which no request was seen here.
    fn reported(report: &SpentReport, when: Moment) -> Self {
        let reset = report.reset.map(|(reset, _)| reset);
        Self {
            id: report.bucket,
            bucket: Bucket::full(report.limit, when.now),
            mark: Mark::QUIET,
            turn: reset.map_or(0, |reset| reset.turn(when.wall_s)),
            hot: None,
            reset,
            of_rule: report.of_rule,
        }
    }

    fn spent_in(&self, report: &SpentReport) -> SpentIn {
        match (self.reset, report.reset) {
            (Some(own), Some((theirs, turn))) if own == theirs && turn < self.turn => SpentIn::Past,
            (Some(own), Some((theirs, turn))) if own == theirs && turn > self.turn => SpentIn::Future(turn),
            _ => SpentIn::Present,
        }
    }

    /// Charges a report of another instance. `None`: there is no room for another hot bucket.
    fn hear(
        &mut self,
        peer: u32,
        report: &SpentReport,
        since: HearingSince,
        sharing: &mut Sharing<'_>,
        when: Moment,
    ) -> Option<Heard> {
        let (now, link) = (when.now, sharing.link);
        self.rejoin(link, true, now);
        let over = self.catch_up(sharing, when);
        let spent_in = self.spent_in(report);
        let full = self.bucket.limit();
        let hot = self.heat(sharing, now)?;
        // Only an instance that spends of this period is assumed to go on.
        let rate_micro = if spent_in == SpentIn::Present { report.rate_micro } else { 0 };
        let heard = hot.hear(peer, &SpentReport { rate_micro, ..*report }, since, now);
        let new = match heard {
            Heard::New(tokens) => tokens,
            // While the bucket was held to a part, the parts of the others were taken off with each token.
            Heard::CaughtUp(tokens) => hot.less_presumed(tokens),
            Heard::Baseline | Heard::WentBack => 0,
        };
        match spent_in {
            SpentIn::Past => {}
            SpentIn::Present => {
                hot.elsewhere = hot.elsewhere.saturating_add(new);
                // `catch_up` has settled the bucket.
                let micro = hot.pay_with_spare(new, full, link.members, over, now);
                self.bucket.lower(micro, debt_of(full, link.members));
            }
            SpentIn::Future(turn) => hot.keep_early(turn, new),
        }
        Some(heard)
    }

    /// Brings it to `when` without a request. Returns what flowed in and found no room, in millionths.
    pub(in super::super) fn catch_up(&mut self, sharing: &mut Sharing<'_>, when: Moment) -> u64 {
        let flow = self.settle_shared(sharing, when);
        self.leak(flow, sharing);
        flow.over()
    }
}

impl Slots {
    /// Charges a report of another instance, for whose bucket a slot is made if there is none. `None`: there is no room
    /// for another hot bucket.
    pub fn hear(
        &mut self,
        peer: u32,
        report: &SpentReport,
        since: HearingSince,
        sharing: &mut Sharing<'_>,
        when: Moment,
    ) -> Option<Heard> {
        if self.find_mut(report.bucket).is_none() {
            self.make_room(report.of_rule, |_| false, when);
            self.0.push(Slot::reported(report, when));
        }
        self.find_mut(report.bucket)?.hear(peer, report, since, sharing, when)
    }
}
