//! What a hot bucket keeps, gives up and begins with.

use super::*;

#[test]
fn its_weight_is_what_the_others_would_not_know() {
    let mut bucket = hot(SEC);
    assert_eq!(bucket.weight(), 9.0);
    bucket.hear(0, &told(1, 1, 1, 10), LONG_AGO, SEC);
    assert_eq!(bucket.weight(), 9.0 + 10.0 / 2.0, "a tick is half a second");
    let own = bucket.report(2 * SEC, TOLD).rate_micro as f64 / MICRO;
    assert!(own > 1.0 && (bucket.weight() - (own + 10.0) / 2.0).abs() < 1e-3, "{own} {}", bucket.weight());
}

#[test]
fn what_others_have_to_know_or_this_one_still_needs_is_kept() {
    let cut_off = PeerLinkState { cut_off: true, ..LINK };
    let alone = PeerLinkState { members: 1, ..LINK };
    // It is hot up to 11 s.
    let unreported = || hot(SEC);
    let reported = || {
        let mut bucket = hot(SEC);
        bucket.report(11 * SEC, TOLD);
        bucket
    };
    let awaits = || {
        let mut bucket = reported();
        bucket.keep_early(1, 5);
        bucket
    };
    let presumes = |micro| {
        let mut bucket = reported();
        bucket.presume(micro);
        bucket
    };
    for (what, bucket, link, now, is_over) in [
        ("hot", reported(), None, 11 * SEC - 1, false),
        ("told", reported(), None, 11 * SEC, true),
        ("not told, not old", unreported(), None, 21 * SEC - 1, false),
        ("not told, to nobody", unreported(), None, 21 * SEC, true),
        ("the same", unreported(), Some(alone), 21 * SEC, true),
        ("not told to others", unreported(), Some(LINK), 60 * SEC, false),
        ("a period is to begin", awaits(), Some(LINK), 60 * SEC, false),
        ("given out before", presumes(1), Some(cut_off), 60 * SEC, false),
        ("given out before, and heard", presumes(1), Some(LINK), 60 * SEC, true),
        ("nothing was given out", presumes(0), Some(cut_off), 60 * SEC, true),
    ] {
        assert_eq!(bucket.is_over(link, now), is_over, "{what}");
    }
}

#[test]
fn what_flowed_in_unheard_need_not_be_told_in_whole_tokens() {
    let mut bucket = hot(SEC);
    for (micro, untold) in [(1_500_000, 8), (499_999, 8), (1, 7), (100_000_000, 0)] {
        bucket.leak(micro);
        assert_eq!(bucket.untold(), untold, "{micro}");
    }
    bucket.spend(1, SEC);
    bucket.leak(999_999);
    assert_eq!(bucket.untold(), 1, "what was too much does not wait for the next token");
    bucket.leak(1);
    assert_eq!(bucket.untold(), 0);
}

#[test]
fn of_periods_that_have_not_begun_the_last_one_counts() {
    let mut bucket = hot(SEC);
    let mut early = |turn, tokens, asked| {
        bucket.keep_early(turn, tokens);
        bucket.early(asked)
    };
    assert_eq!(early(3, 5, 3), 5_000_000);
    assert_eq!((early(3, 0, 2), early(3, 0, 4)), (0, 0));
    assert_eq!(early(3, 2, 3), 7_000_000, "of another instance");
    assert_eq!((early(2, 9, 2), early(2, 9, 3)), (0, 7_000_000), "it is over");
    assert_eq!((early(4, 1, 3), early(4, 1, 4)), (0, 2_000_000));
    assert_eq!(early(4, u64::MAX, 4), 2 * i64::from(Limit::MAX_CAPACITY) * 1_000_000);
    // The period begins with what was reported of it, once.
    let mut bucket = hot(SEC);
    bucket.keep_early(4, 5);
    assert_eq!((bucket.begin_period(6, 3), bucket.elsewhere, bucket.early(4)), (0, 0, 5_000_000));
    assert_eq!((bucket.begin_period(7, 4), bucket.elsewhere, bucket.early(4)), (5_000_000, 5, 0));
}

#[test]
fn what_was_given_out_before_is_not_charged_again() {
    let mut bucket = hot(SEC);
    bucket.presume(1_500_000);
    bucket.presume(1_000_000);
    assert_eq!([1, 5, 5].map(|tokens| bucket.less_presumed(tokens)), [0, 4, 5]);
    bucket.presume(-3_500_000);
    assert_eq!(bucket.less_presumed(5), 5);
    bucket.presume(5_000_000);
    assert_eq!(bucket.less_presumed(5), 3, "more was given out in between");
    bucket.presume(9_000_000);
    bucket.note_guess(5, 7);
    assert_eq!(bucket.less_presumed(5), 5, "a silence begins");
    assert_eq!((bucket.take_guess(), bucket.take_guess()), ((5, 7), (0, 0)));
}

#[test]
fn a_guess_is_in_proportion_to_what_is_untold_here_or_what_they_said() {
    let bucket = hot(SEC);
    for (ahead, part, over, expected) in [
        (0, 0.25, 0, 27_000_000),
        (0, 0.25, 2_000_000, 25_000_000),
        (26_000_000, 0.25, 2_000_000, 26_000_000),
        (0, 0.5, 0, 9_000_000),
        (-1, 1.0, 0, 0),
    ] {
        assert_eq!(bucket.untold_by_others(ahead, part, over), expected, "{ahead} {part} {over}");
    }
}

#[test]
fn an_episode_begins_with_what_has_not_flowed_in() {
    for (presumed, is_hot) in [(0, false), (1, true)] {
        let mut bucket = hot(SEC);
        bucket.spend(50, SEC);
        bucket.presume(presumed);
        assert!(bucket.loud);
        bucket.begin_again(9, 4, 20 * SEC);
        assert_eq!((bucket.untold(), bucket.loud, bucket.is_hot(20 * SEC)), (4, false, is_hot));
        let report = bucket.report(20 * SEC, TOLD);
        assert_eq!((report.episode, report.spent, report.fresh), (9, 4, 4));
        // 63 % of 4 in half a second, where it goes on.
        assert_eq!(report.rate_micro / 10_000, if is_hot { 505 } else { 0 });
    }
}

#[test]
fn only_what_is_new_makes_a_report_that_was_not_sent_urgent() {
    let mut bucket = hot(SEC);
    bucket.report(SEC, TOLD);
    let empty = bucket.report(SEC + TICK, TOLD);
    bucket.take_back(&empty);
    assert!(!bucket.loud);
}

#[test]
fn a_look_ahead_says_what_the_next_request_would_find() {
    let small = Limit { capacity: 10, ..USUAL };
    let mut bucket = hot(SEC);
    bucket.hear(3, &told(1, 1, 1, 10), LONG_AGO, SEC);
    assert_eq!(bucket.foresee(small, LINK, 2_000_000, SEC), 0);
    for now in [SEC, SEC + SPARE_FOR - 1, SEC + SPARE_FOR, SEC + SPARE_FOR + 1, 2 * SEC] {
        let ahead = bucket.ahead(small, LINK, now);
        assert_eq!(bucket.foresee(small, LINK, 0, now), ahead, "{now}");
        assert_eq!(ahead % 1_000_000, 0, "whole tokens");
    }
    assert_eq!(bucket.foresee(small, LINK, 0, 2 * SEC), 10_000_000);
    for (micro, expected) in
        [(-5, 0), (999_999, 0), (1_000_000, 1_000_000), (1_999_999, 1_000_000), (2_000_001, 2_000_000)]
    {
        assert_eq!(whole(micro), expected, "{micro}");
    }
}
