//! The rules, one by one, on numbers that were not measured.

use super::*;

const MEASURED: Measured = Measured { answers: 100, median_s: 0.5, rate: 100.0, in_flight: 16.0, full: 1.0 };

/// A bound of 16 at ten seconds, which does not double any more, of a backend that usually answers in half a second.
fn settled() -> AutoLimit {
    let mut limit = AutoLimit::new(BOUNDS, 10 * SECOND);
    (limit.base_s, limit.last_s, limit.starting) = (Some(0.5), 0.5, false);
    limit
}

fn is_close(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 1e-9
}

#[test]
fn verdicts_and_moves_have_their_names() {
    assert_eq!(ProbeVerdict::ALL.map(ProbeVerdict::name), ["idle", "busy", "none"]);
    let moves = [AutoMove::Quick, AutoMove::Trial, AutoMove::Verdict(ProbeVerdict::Idle), AutoMove::Bounds];
    assert_eq!(moves.map(AutoMove::name), ["quick", "trial", "idle", "bounds"]);
}

#[test]
fn a_window_moves_what_is_usual() {
    // Answers, their median, requests in flight on average, part of the time in which all places were taken; the base
    // afterwards, which was 0.5 s.
    for (answers, median_s, in_flight, full, base) in [
        (100, 0.3, 16.0, 1.0, 0.44),
        (25, 0.3, 16.0, 1.0, 0.47),
        (25, 0.3, 7.9, 0.49, 0.4615),
        // It rises only while half of the places are free.
        (25, 0.7, 7.9, 0.49, 0.51),
        (25, 0.7, 8.0, 0.49, 0.5),
        (25, 0.7, 7.9, 0.5, 0.5),
    ] {
        let mut limit = settled();
        limit.steer(&Measured { answers, median_s, in_flight, full, ..MEASURED });
        let found = limit.base_s.expect("measured");
        assert!(is_close(found, base), "{answers} of {median_s} s with {in_flight}, {full}: {found}");
        assert_eq!(limit.since, u32::from(full >= 0.5));
    }
}

#[test]
fn a_full_window_raises_the_bound_or_begins_a_trial() {
    // Still doubling; full windows since the last trial and until the next; answers and their median; the bound
    // afterwards and what moved it; until when nothing is measured, in ms after now.
    let (quick, trial) = (Some(AutoMove::Quick), Some(AutoMove::Trial));
    for (starting, since, wait, answers, median_s, bound, moved, ignored_ms) in [
        (true, 0, 2, 30, 0.5, 32.0, quick, 500),
        (false, 0, 2, 30, 0.5, 20.0, quick, 500),
        (false, 0, 2, 29, 0.5, 16.0, None, 0),
        // Just not slow, then slow.
        (false, 0, 2, 30, 0.75, 20.0, quick, 500),
        (true, 0, 2, 30, 0.76, 16.0, None, 0),
        (false, 0, 1, 30, 0.76, 9.6, trial, 900),
        (false, 0, 1, 30, 0.75, 20.0, quick, 500),
        (false, 18, 9, 30, 0.76, 16.0, None, 0),
        (false, 19, 9, 30, 0.76, 9.6, trial, 900),
        (true, 19, 9, 29, 0.5, 9.6, trial, 900),
    ] {
        let mut limit = settled();
        (limit.starting, limit.since, limit.wait) = (starting, since, wait);
        limit.steer(&Measured { answers, median_s, ..MEASURED });
        let case = format!("{starting} {since} {wait} {answers} {median_s}: {limit:?}");
        assert!(is_close(limit.limit, bound) && limit.moved() == moved, "{case}");
        let ignored = if ignored_ms == 0 { 0 } else { 10 * SECOND + ignored_ms * MS };
        assert_eq!(limit.ignored_until, ignored, "{case}");
        assert_eq!((limit.since, limit.wait), (since + 1, wait - 1), "{case}");
        assert_eq!(limit.starting, starting && moved != trial && median_s <= 0.75, "{case}");
        assert_eq!(
            limit.trial.map(|one| (one.limit, one.may_grow)),
            (moved == trial).then_some((16.0, answers == 30))
        );
    }
    // At its highest it has not moved.
    let mut limit = settled();
    limit.limit = 1000.0;
    limit.steer(&MEASURED);
    assert_eq!((limit.limit, limit.moved(), limit.ignored_until), (1000.0, None, 0));
}

#[test]
fn a_trial_is_judged_by_its_answers_and_their_time() {
    use ProbeVerdict::{Busy, Idle, None};
    // What is left of 16 places. Answers, their median and rate, part of the time in which all places were taken; the
    // verdict, bound and base afterwards. Before, 100 answers a second came, each in half a second.
    for (left, answers, median_s, rate, full, verdict, bound, base) in [
        (8.0, 50, 0.25, 100.0, 1.0, Idle, 12.0, 0.25),
        (8.0, 20, 0.25, 100.0, 0.5, Idle, 12.0, 0.25),
        (8.0, 19, 0.25, 100.0, 1.0, None, 16.0, 0.3),
        (8.0, 50, 0.25, 100.0, 0.49, None, 16.0, 0.3),
        // Exactly 0.6 and 0.4 of the places were idle.
        (8.0, 50, 0.45, 100.0, 1.0, None, 16.0, 0.3),
        (8.0, 50, 0.25, 40.0, 1.0, None, 16.0, 0.3),
        (8.0, 50, 0.4, 100.0, 1.0, Idle, 12.0, 0.3),
        (8.0, 50, 0.4, 60.0, 1.0, Busy, 20.0, 0.4),
        (8.0, 50, 0.6, 50.0, 1.0, Busy, 20.0, 0.5),
        (8.0, 49, 0.6, 50.0, 1.0, Busy, 16.0, 0.5),
        // No place could be taken away.
        (16.0, 50, 0.25, 100.0, 1.0, Busy, 20.0, 0.3),
    ] {
        let trial = Trial { rate: 100.0, median_s: 0.5, limit: 16.0, may_grow: true };
        let mut limit = settled();
        (limit.limit, limit.base_s, limit.since, limit.starting) = (left, Some(0.3), 7, true);
        let measured = Measured { answers, median_s, rate, full, ..MEASURED };
        let found = limit.judge(&trial, &measured);
        let case = format!("{left} {answers} {median_s} {rate} {full}: {found:?} {limit:?}");
        assert!(found == verdict && limit.limit == bound && limit.base_s == Some(base), "{case}");
        assert_eq!((limit.since, limit.wait, limit.starting), (0, BACK, verdict != Idle), "{case}");
        assert_eq!(limit.ignored_until, 10 * SECOND + 900 * MS, "{case}");
    }
    // Half of what the times say and half of what the number of answers says.
    let trial = Trial { rate: 100.0, median_s: 0.5, limit: 16.0, may_grow: false };
    assert!(is_close(trial.idle(&Measured { median_s: 0.375, rate: 80.0, ..MEASURED }, 0.5), 0.55));
    let mut limit = settled();
    assert_eq!((limit.judge(&trial, &MEASURED), limit.limit), (Busy, 16.0), "it may not grow");
}

#[test]
fn a_window_ends_with_enough_answers_or_after_a_while() {
    // In a trial; the last median in seconds; answers; the window's length and until when all is ignored, in ms;
    // whether it ends.
    for (in_trial, last_s, answers, span_ms, ignored_ms, ends) in [
        (false, 0.0, 10, 499, 0, false),
        (false, 0.0, 10, 500, 0, true),
        (false, 0.0, 9, 9_999, 0, false),
        (false, 0.0, 9, 10_000, 0, true),
        // It lasts for one median, up to five seconds.
        (false, 3.0, 10, 2_999, 0, false),
        (false, 3.0, 10, 3_000, 0, true),
        (false, 8.0, 10, 4_999, 0, false),
        (false, 8.0, 10, 5_000, 0, true),
        (true, 0.0, 99, 19_999, 0, false),
        (true, 0.0, 99, 20_000, 0, true),
        (true, 0.0, 100, 499, 0, false),
        (true, 0.0, 100, 500, 0, true),
        (false, 0.0, 10, 500, 500, true),
        (false, 0.0, 10, 500, 501, false),
    ] {
        let mut limit = AutoLimit::new(BOUNDS, 0);
        (limit.last_s, limit.ignored_until) = (last_s, ignored_ms * MS);
        limit.trial = in_trial.then_some(Trial { rate: 1.0, median_s: 0.5, limit: 16.0, may_grow: true });
        (0..answers).for_each(|_| limit.window.answered(250 * MS));
        let verdict = limit.tick(span_ms * MS);
        let case = format!("{in_trial} {last_s} {answers} {span_ms} {ignored_ms}: {limit:?}");
        assert_eq!((limit.last_s == 0.25, verdict.is_some()), (ends, ends && in_trial), "{case}");
        // What is ignored is forgotten too.
        let goes_on = !ends && ignored_ms == 0;
        assert_eq!(limit.window.span(limit.now) > 0, goes_on, "{case}");
        assert_eq!(limit.base_s.is_some(), ends && !in_trial && answers >= 10, "{case}");
    }
}

#[test]
fn the_median_and_the_last_move_are_told() {
    let mut limit = AutoLimit::new(BOUNDS, 10 * SECOND);
    assert_eq!((limit.median_s(), limit.moved()), (None, None));
    let attempts: Vec<AutoAttempt> = (0..10).map(|_| limit.began(10 * SECOND)).collect();
    attempts.into_iter().for_each(|attempt| limit.ended(attempt, true, 10 * SECOND + 250 * MS));
    assert_eq!(limit.tick(10 * SECOND + 500 * MS), None);
    assert_eq!(limit.median_s(), Some(0.25));
    // Other limits move it only if it is not within them.
    limit.set_bounds(AutoBounds { max: 16, ..BOUNDS });
    assert_eq!((limit.bound(), limit.moved()), (16, None));
    limit.set_bounds(AutoBounds { max: 15, ..BOUNDS });
    assert_eq!((limit.bound(), limit.moved()), (15, Some(AutoMove::Bounds)));
}
