use proptest::prelude::*;

use super::*;
use crate::identity::ClientKey;
use crate::limit::{Limit, Rate};
use crate::terms::BucketId;

const LONG_AGO: HearingSince = HearingSince { began: 1, is_new: false, is_silent: false, last: 1 };

fn told(spent: u64, fresh: u64, rate_micro: u64) -> SpentReport {
    SpentReport {
        client: ClientKey::digest(b"a"),
        bucket: BucketId(1),
        of_rule: false,
        has_own_row: false,
        limit: Limit { capacity: 100, rate: Rate::per_second(50_000_000) },
        reset: None,
        episode: 1,
        spent,
        fresh,
        rate_micro,
    }
}

#[test]
fn all_rates_together_count_and_end_when_they_are_to() {
    let mut others = Others::default();
    others.hear(1, &told(4, 4, 2_000_000), LONG_AGO, TICK);
    others.hear(2, &told(9, 6, 500_000), LONG_AGO, TICK);
    assert_eq!((others.rate(), others.lately(TICK, 10.0)), (2.5, 10.0));
    // Its counter is known when it comes back; what it spent lately is not.
    others.keep(&[(1, false), (2, true)]);
    assert_eq!((others.rate(), others.lately(TICK, 10.0)), (2.0, 4.0));
    assert_eq!(others.hear(2, &told(12, 3, 0), LONG_AGO, TICK), Heard::New(3));
    others.stop();
    assert_eq!((others.rate(), others.lately(TICK, 10.0)), (0.0, 7.0));
    others.keep(&[(2, false)]);
    assert_eq!(others.lately(TICK, 10.0), 3.0);
}

#[test]
fn of_two_episodes_the_later_one_is_known_also_where_numbers_begin_anew() {
    for (one, other, is_one) in
        [(2, 1, true), (1, 2, false), (1, 1, false), (0, u32::MAX, true), (u32::MAX, 0, false)]
    {
        assert_eq!(is_later(one, other), is_one, "{one} {other}");
    }
}

/// All times are multiples of this, so that each bound is met exactly, too.
const STEP: Nanos = TICK / 2;

proptest! {
    #[test]
    fn the_line_says_what_adding_up_says(
        peers in prop::collection::vec((0..12u64, prop::sample::select(vec![0, 10_000_000, 30_500_000])), 0..4),
        most in prop::sample::select(vec![5.0, 20.0, 1_000.0]),
        heard_since in 0..12u64,
        begins in 0..12u64,
        looks in prop::collection::vec(0..4u64, 1..20),
    ) {
        let mut others = Others::default();
        for (number, (heard, rate_micro)) in (0..).zip(&peers) {
            others.hear(number, &told(1, 1, *rate_micro), LONG_AGO, heard * STEP);
        }
        let (heard_since, mut now) = (heard_since * STEP, begins * STEP);
        for wait in looks {
            now += wait * STEP;
            let sum: f64 = peers.iter().map(|(heard, rate_micro)| {
                let heard = (heard * STEP).max(1);
                let counts = heard >= heard_since && now.saturating_sub(heard) <= VOID;
                if counts { *rate_micro as f64 * now.saturating_sub(heard).min(FORESEEN) as f64 / 1e9 } else { 0.0 }
            }).sum();
            let total: f64 = peers.iter().map(|(heard, rate_micro)| {
                let heard = (heard * STEP).max(1);
                let counts = heard >= heard_since && now.saturating_sub(heard) <= VOID;
                if counts { *rate_micro as f64 / 1e6 } else { 0.0 }
            }).sum();
            let expected = sum * (most / total).min(1.0);
            let expected = if total == 0.0 { 0.0 } else { expected };
            let ahead = others.ahead(most, heard_since, now);
            prop_assert!((ahead as f64 - expected).abs() < 2.0, "{ahead} for {expected}");
            // A decision may be from before the last report came: what it finds is what it says then.
            let foreseen = others.foresee(most, heard_since, now);
            prop_assert!((foreseen - ahead).abs() < 2, "{foreseen} for {ahead}");
        }
    }
}
