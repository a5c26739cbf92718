use super::*;
use crate::limit::Rate;
use crate::limiter::link::PeerLinkState;

mod kept;

const SEC: Nanos = 1_000_000_000;

const MS: Nanos = 1_000_000;

/// 100 tokens, 50 a second.
const USUAL: Limit = Limit { capacity: 100, rate: Rate::per_second(50_000_000) };

const LINK: PeerLinkState =
    PeerLinkState { members: 3, cut_off: false, unheard: false, returns: 0, returned_at: 0 };

const TOLD: ToldBucket = ToldBucket { limit: USUAL, of_rule: false, has_own_row: false, reset: None };

const LONG_AGO: HearingSince = HearingSince { began: 1, is_new: false, is_silent: false, last: 1 };

fn hot(now: Nanos) -> HotBucket {
    let mut bucket = HotBucket::new(ClientKey::digest(b"a"), BucketId(1), 5, now);
    bucket.heat(9, now);
    // Every decision does this first.
    bucket.foresee(USUAL, LINK, 0, now);
    bucket
}

fn told(episode: u32, spent: u64, fresh: u64, rate: u64) -> SpentReport {
    SpentReport {
        client: ClientKey::digest(b"a"),
        bucket: BucketId(1),
        of_rule: false,
        has_own_row: false,
        limit: USUAL,
        reset: None,
        episode,
        spent,
        fresh,
        rate_micro: rate * 1_000_000,
    }
}

/// Episode, spent and fresh of a report; since when the others are heard; the result.
type Step = ((u32, u64, u64), HearingSince, Heard);

#[test]
fn what_is_new_in_a_report_is_charged_once() {
    use Heard::{Baseline, CaughtUp, New, WentBack};
    let new = HearingSince { began: SEC, is_new: true, ..LONG_AGO };
    let old = HearingSince { began: SEC, ..LONG_AGO };
    let back = HearingSince { began: 20 * SEC, is_new: true, ..LONG_AGO };
    let long_back = HearingSince { is_new: false, ..back };
    // Nothing was heard since half a second before the first report.
    let silent = HearingSince { is_silent: true, last: SEC / 2, ..LONG_AGO };
    let rows: &[(&str, &[Step])] = &[
        ("counters grow", &[((1, 8, 8), LONG_AGO, New(8)), ((1, 20, 12), LONG_AGO, New(12))]),
        ("a report is lost", &[((1, 8, 8), LONG_AGO, New(8)), ((1, 30, 5), LONG_AGO, New(22))]),
        ("one comes twice", &[((1, 8, 8), LONG_AGO, New(8)), ((1, 8, 8), LONG_AGO, New(0))]),
        ("one is overtaken", &[((1, 20, 12), LONG_AGO, New(12)), ((1, 8, 8), LONG_AGO, WentBack)]),
        ("a new episode", &[((1, 900, 8), LONG_AGO, New(8)), ((2, 9, 9), LONG_AGO, New(9))]),
        ("an old episode", &[((2, 9, 9), LONG_AGO, New(9)), ((1, 999, 99), LONG_AGO, WentBack)]),
        ("episodes go round", &[((u32::MAX, 9, 9), LONG_AGO, New(9)), ((0, 7, 7), LONG_AGO, New(7))]),
        (
            "its beginning was missed",
            &[((1, 10_000, 6), LONG_AGO, New(6)), ((1, 10_001, 1), LONG_AGO, New(1))],
        ),
        ("a newcomer", &[((1, 10_000, 6), new, Baseline), ((1, 10_003, 3), new, New(3))]),
        ("a newcomer, and what only begins", &[((1, 9, 9), new, New(9))]),
        ("a newcomer of a second ago", &[((1, 10_000, 6), old, New(6)), ((1, 10_003, 3), old, New(3))]),
        // In half a second 25 have flowed in.
        ("after a silence", &[((1, 8, 8), LONG_AGO, New(8)), ((1, 99, 9), back, CaughtUp(66))]),
        ("after a silence, little", &[((1, 8, 8), LONG_AGO, New(8)), ((1, 30, 9), back, CaughtUp(0))]),
        ("after a silence, of another", &[((1, 99, 9), back, Baseline), ((1, 100, 1), back, CaughtUp(0))]),
        ("a second after a silence", &[((1, 8, 8), LONG_AGO, New(8)), ((1, 30, 9), long_back, CaughtUp(9))]),
        ("the same, and it is known", &[((1, 8, 8), LONG_AGO, New(8)), ((1, 9, 9), long_back, CaughtUp(1))]),
        (
            "in a silence, several at once",
            &[
                ((1, 8, 8), LONG_AGO, New(8)),
                ((1, 30, 20), silent, CaughtUp(0)),
                ((1, 70, 9), silent, CaughtUp(12)),
            ],
        ),
        ("in a silence, of another", &[((1, 200, 190), silent, CaughtUp(115))]),
        ("after a silence it begins", &[((1, 8, 8), LONG_AGO, New(8)), ((2, 9, 9), back, New(9))]),
        ("after a silence another begins", &[((2, 9, 9), back, New(9))]),
    ];
    for (what, reports) in rows {
        let mut bucket = hot(SEC);
        for (at, ((episode, spent, fresh), since, expected)) in reports.iter().enumerate() {
            let now = 2 * SEC + at as Nanos * 500 * MS;
            let heard = bucket.hear(7, &told(*episode, *spent, *fresh, 0), *since, now);
            assert_eq!(heard, *expected, "{what}");
        }
    }
}

#[test]
fn it_is_urgent_when_as_much_is_untold_as_may_be() {
    // A quarter of a third of 100 is 8.3; a third of the rate, 8.3 in half a second, does not count.
    let mut bucket = hot(SEC);
    bucket.report(SEC, TOLD);
    let spent = |bucket: &mut HotBucket, now| (1..).find(|_| bucket.spend(1, now)).unwrap();
    assert_eq!(spent(&mut bucket, SEC), 9);
    assert!(!bucket.spend(50, SEC), "it is said once");
    bucket.report(SEC, TOLD);
    assert_eq!(spent(&mut bucket, SEC + 240 * MS), 13);
    bucket.report(2 * SEC, TOLD);
    assert_eq!(spent(&mut bucket, 60 * SEC), 17);
    assert!(bucket.is_hot(70 * SEC - 1) && !bucket.is_hot(70 * SEC));
}

#[test]
fn what_is_hidden_is_published_once() {
    let mut bucket = hot(SEC);
    bucket.heat(100, 2 * SEC);
    let report = bucket.report(2 * SEC, TOLD);
    assert_eq!((report.episode, report.spent, report.fresh), (5, 9, 9));
    assert!(!bucket.is_hot(12 * SEC));
    bucket.heat(4, 12 * SEC);
    let report = bucket.report(12 * SEC, TOLD);
    assert_eq!((report.spent, report.fresh), (13, 4));
}

#[test]
fn a_rate_follows_what_is_told_and_ends_at_nothing() {
    let mut bucket = HotBucket::new(ClientKey::digest(b"a"), BucketId(1), 5, SEC);
    bucket.heat(0, SEC);
    let mut rates = Vec::new();
    for tick in 1..20 {
        let now = SEC + tick * TICK;
        if tick < 8 {
            bucket.spend(20, now);
        }
        assert_eq!(bucket.is_changed(), tick < 8 || *rates.last().unwrap() > 0, "{tick}");
        rates.push(bucket.report(now, TOLD).rate_micro);
    }
    let whole: Vec<u64> = rates.iter().map(|micro| micro / 1_000_000).collect();
    assert_eq!(whole[..7], [17, 31, 36, 38, 39, 39, 39]);
    assert_eq!(rates[18], 0);
    assert!(rates[7..].is_sorted_by(|one, next| one >= next), "{rates:?}");
}

#[test]
fn a_report_that_was_not_sent_is_told_again_as_if_it_had_not_been_made() {
    let mut bucket = hot(SEC);
    let first = bucket.report(SEC, TOLD);
    bucket.take_back(&first);
    bucket.take_back(&first);
    assert!(bucket.loud);
    assert_eq!(bucket.report(SEC, TOLD), first);
    bucket.spend(3, SEC);
    let second = bucket.report(SEC + TICK, TOLD);
    // The first can't be taken back any more, since the second was made after it.
    bucket.take_back(&first);
    assert_eq!((second.spent, second.fresh, bucket.untold()), (12, 3, 0));
}

#[test]
fn others_go_on_for_three_ticks_and_leave_this_instance_its_part() {
    let after = |rates: &[u64], elapsed: Nanos, link| {
        let mut bucket = hot(SEC);
        for (peer, rate) in (0..).zip(rates) {
            bucket.hear(peer, &told(1, 1, 1, *rate), LONG_AGO, 2 * SEC);
        }
        bucket.foresee(USUAL, link, 0, 2 * SEC + elapsed) / 1_000
    };
    let rows: &[(&[u64], Nanos, i64)] = &[
        (&[], SEC, 0),
        (&[10], 0, 0),
        (&[10], 500 * MS, 5_000),
        (&[10, 20], 500 * MS, 15_000),
        (&[10], 1_500 * MS, 15_000),
        (&[10], 3 * SEC, 15_000),
        // An instance that goes on reports each tick, so an old report says nothing.
        (&[10], 3 * SEC + 1, 0),
        (&[10], 9 * SEC, 0),
        // At most two thirds of 50 a second.
        (&[100], 300 * MS, 10_000),
        (&[20, 80], 300 * MS, 10_000),
    ];
    for (rates, elapsed, expected) in rows {
        assert_eq!(after(rates, *elapsed, LINK), *expected, "{rates:?} {elapsed}");
    }
    let returned = PeerLinkState { returns: 1, returned_at: 2 * SEC + 1, ..LINK };
    assert_eq!(after(&[10], 500 * MS, returned), 0);
    let mut bucket = hot(SEC);
    bucket.hear(3, &told(1, 1, 1, 10), LONG_AGO, 2 * SEC);
    // Asked several times, as decisions do.
    let mut ahead = |ms| bucket.foresee(USUAL, LINK, 0, 2 * SEC + ms * MS) / 1_000;
    let ahead = [1_400, 2_900, 3_000, 3_001, 4_000].map(&mut ahead);
    assert_eq!(ahead, [14_000, 15_000, 15_000, 0, 0]);
    bucket.hear(3, &told(1, 1, 0, 10), LONG_AGO, 6 * SEC);
    assert!(bucket.foresee(USUAL, LINK, 0, 7 * SEC) > 0);
    bucket.keep_peers(&[(4, false)]);
    assert_eq!(bucket.foresee(USUAL, LINK, 0, 7 * SEC), 0);
}

#[test]
fn one_that_cools_says_at_the_end_that_it_does_not_go_on() {
    let mut bucket = hot(SEC);
    assert!(bucket.report(2 * SEC, TOLD).rate_micro > 0);
    assert!(!bucket.is_hot(11 * SEC) && bucket.is_changed() && !bucket.is_over(Some(LINK), 11 * SEC));
    let last = bucket.report(11 * SEC, TOLD);
    assert_eq!((last.fresh, last.rate_micro), (0, 0));
    assert!(!bucket.is_changed() && bucket.is_over(Some(LINK), 11 * SEC));
    // It is not kept forever if the report can't be sent.
    bucket.take_back(&last);
    assert!(!bucket.is_over(Some(LINK), 21 * SEC - 1) && bucket.is_over(Some(LINK), 21 * SEC));
}

#[test]
fn a_part_is_what_was_told_lately_and_half_of_an_even_one_at_least() {
    let part = |own: u32, others: &[u64]| {
        let mut bucket = HotBucket::new(ClientKey::digest(b"a"), BucketId(1), 5, SEC);
        bucket.heat(0, SEC);
        if own > 0 {
            bucket.spend(own, SEC);
            bucket.report(SEC, TOLD);
        }
        for (peer, spent) in (0..).zip(others) {
            bucket.hear(peer, &told(1, *spent, *spent, 0), LONG_AGO, SEC);
        }
        (bucket.part(USUAL, 3, SEC) * 100.0).round()
    };
    let rows: &[(u32, &[u64], f64)] = &[
        (0, &[], 33.0),
        (10, &[], 100.0),
        (10, &[10], 50.0),
        (10, &[10, 20], 25.0),
        (1, &[99], 17.0),
        (0, &[10], 17.0),
    ];
    for (own, others, expected) in rows {
        assert_eq!(part(*own, others), *expected, "{own} {others:?}");
    }
    // Ten seconds later another one's tokens weigh 37 %.
    let mut bucket = hot(SEC);
    bucket.report(SEC, TOLD);
    bucket.hear(0, &told(1, 9, 9, 0), LONG_AGO, 11 * SEC);
    assert_eq!((bucket.part(USUAL, 3, 11 * SEC) * 100.0).round(), 27.0);
    assert_eq!(tau_s(Limit { capacity: 5, rate: Rate::per_second(0) }), 60.0);
    assert_eq!(tau_s(Limit { capacity: 1_500, rate: Rate::per_second(50_000_000) }), 30.0);
}

#[test]
fn what_was_spent_in_the_period_before_is_told_to_nobody() {
    let mut bucket = hot(SEC);
    bucket.hear(0, &told(1, 1, 1, 10), LONG_AGO, SEC);
    let told_before = bucket.report(SEC, TOLD);
    bucket.spend(3, SEC);
    bucket.begin_period(6, 1);
    // It does not matter any more that this report could not be sent.
    bucket.take_back(&told_before);
    assert_eq!((bucket.untold(), bucket.foresee(USUAL, LINK, 0, 2 * SEC)), (0, 0));
    bucket.spend(2, 2 * SEC);
    let report = bucket.report(2 * SEC, TOLD);
    assert_eq!((report.episode, report.spent, report.fresh), (6, 2, 2));
}

#[test]
fn what_found_no_room_pays_for_what_others_tell_for_a_short_while_and_once() {
    // A larger bucket has room for what others spend until they tell.
    let small = Limit { capacity: 10, ..USUAL };
    let mut bucket = hot(SEC);
    let mut pay = |tokens, over, now| bucket.pay_with_spare(tokens, small, 3, over, now);
    assert_eq!(pay(0, 2_000_000, SEC), 0);
    assert_eq!(pay(1, 0, SEC + 1), 0);
    assert_eq!(pay(3, 0, SEC + SPARE_FOR), 2_000_000, "one token was left of it");
    assert_eq!(pay(3, 0, SEC + SPARE_FOR), 3_000_000);
    assert_eq!(pay(0, 2_000_000, 2 * SEC), 0);
    assert_eq!(pay(3, 0, 2 * SEC + SPARE_FOR + 1), 3_000_000, "too long ago");
}
