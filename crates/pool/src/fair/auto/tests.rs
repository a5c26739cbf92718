use std::collections::VecDeque;

use super::*;

mod rules;

const MS: Nanos = 1_000_000;
const BOUNDS: AutoBounds = AutoBounds { start: 16, min: 1, max: 1000 };

/// A backend with so many places, which shares its work among all requests that it has: an answer takes `took` while
/// there are enough places, and proportionally longer if there are too few. It always gets `load` requests at once,
/// if the bound allows.
struct Backend {
    limit: AutoLimit,
    attempts: VecDeque<AutoAttempt>,
    now: Nanos,
    ticked: Nanos,
    places: f64,
    took: Nanos,
    load: u32,
    greatest: u32,
}

impl Backend {
    fn new(bounds: AutoBounds, places: f64, took: Nanos) -> Self {
        Self {
            limit: AutoLimit::new(bounds, 0),
            attempts: VecDeque::new(),
            now: 0,
            ticked: 0,
            places,
            took,
            load: u32::MAX,
            greatest: 0,
        }
    }

    /// Runs for so many seconds, and returns the verdicts of trials.
    fn run(&mut self, seconds: Nanos) -> Vec<ProbeVerdict> {
        let (until, mut found) = (self.now + seconds * SECOND, Vec::new());
        while self.now < until {
            for _ in self.limit.in_flight()..self.limit.limit().min(self.load) {
                self.attempts.push_back(self.limit.began(self.now));
            }
            // Requests end one after the other, at even distances.
            let there = self.attempts.len().max(1) as f64;
            self.now += (self.took as f64 * (there / self.places).max(1.0) / there) as Nanos;
            if let Some(attempt) = self.attempts.pop_front() {
                self.limit.ended(attempt, true, self.now);
            }
            if self.now - self.ticked >= 500 * MS {
                self.ticked = self.now;
                found.extend(self.limit.tick(self.now));
                self.greatest = self.greatest.max(self.limit.bound());
            }
        }
        found
    }

    fn run_until_a_trial(&mut self) {
        while self.limit.trial.is_none() {
            self.run(1);
            assert!(self.now < 600 * SECOND, "no trial");
        }
    }
}

#[test]
fn a_bound_comes_to_what_the_backend_has_places_for() {
    // Places, start, and the range in which the bound has to be after two minutes.
    for (places, start, least, most) in
        [(2.0, 16, 2, 12), (8.0, 16, 8, 24), (40.0, 16, 36, 90), (40.0, 400, 36, 200)]
    {
        let mut backend = Backend::new(AutoBounds { start, ..BOUNDS }, places, 20 * MS);
        backend.run(120);
        let bound = backend.limit.bound();
        assert!((least..=most).contains(&bound), "{places} places, from {start}: {bound}");
    }
}

#[test]
fn it_grows_while_the_backend_is_full_and_as_quick_as_ever() {
    // Requests asked for at once; how long an answer takes; the bound after half a minute.
    for (load, took, max, bound) in [
        (u32::MAX, 20 * MS, 1000, 1000),
        (u32::MAX, 20 * MS, 100, 100),
        // Never full.
        (12, 20 * MS, 1000, 16),
        // Five answers a second.
        (u32::MAX, 3_200 * MS, 1000, 16),
    ] {
        let mut backend = Backend::new(AutoBounds { max, ..BOUNDS }, 1e9, took);
        backend.load = load;
        let found = backend.run(30);
        assert_eq!(backend.limit.bound(), bound, "{load} {took}");
        // If all places are taken there is a trial every twenty windows, though the backend is not slow.
        let tried = found.contains(&ProbeVerdict::Busy);
        assert_eq!(tried, load == u32::MAX, "{load} {took}: {found:?}");
        assert!(backend.greatest <= bound);
    }
}

#[test]
fn fewer_places_make_it_smaller_and_more_make_it_larger_again() {
    let mut backend = Backend::new(BOUNDS, 40.0, 20 * MS);
    backend.run(60);
    let before = backend.limit.bound();
    backend.places = 10.0;
    let found = backend.run(30);
    let lower = backend.limit.bound();
    assert!(lower < before * 3 / 4, "{before} to {lower}");
    assert!(found.contains(&ProbeVerdict::Idle), "{found:?}");
    backend.places = 40.0;
    backend.run(30);
    assert!(backend.limit.bound() > lower, "{lower} to {}", backend.limit.bound());
}

/// All answers take three times as long, however few requests there are: that is no reason to keep the bound lower.
#[test]
fn a_backend_that_became_slow_keeps_its_places() {
    let mut backend = Backend::new(AutoBounds { max: 32, ..BOUNDS }, 40.0, 20 * MS);
    backend.run(30);
    backend.took = 60 * MS;
    let found = backend.run(60);
    assert!(found.contains(&ProbeVerdict::Busy) && !found.contains(&ProbeVerdict::Idle), "{found:?}");
    assert_eq!(backend.limit.bound(), 32);
    // After the first verdict it does not count as slow any more, so there is a trial only every twenty windows.
    assert!(found.len() <= 7, "{found:?}");
}

#[test]
fn what_is_usual_follows_the_backend() {
    // Time of answers at first, and then; requests at once; the base after 20 s, in ms.
    for (before, after, load, usual) in [
        (60, 20, u32::MAX, 20..=22),
        // Slower with nearly nothing to do: the backend itself is slower.
        (20, 60, 2, 45..=60),
        // Slower with much to do: that may be the reason.
        (20, 60, 12, 20..=20),
    ] {
        let mut backend = Backend::new(AutoBounds { max: 16, ..BOUNDS }, 1e9, before * MS);
        backend.run(5);
        (backend.took, backend.load) = (after * MS, load);
        backend.run(20);
        let found = (backend.limit.base_s.expect("measured") * 1e3).round() as u64;
        assert!(usual.contains(&found), "{before} to {after} with {load}: {found}");
    }
}

#[test]
fn with_fewer_than_ten_answers_in_ten_seconds_nothing_moves_it() {
    // It was lowered, and there would be room for many more. Seconds that an answer takes; the bound after five
    // minutes. Of answers that take 18 s fewer than ten come in 10 s: 16 requests are in flight, with those that are
    // held for long.
    for (took, bound) in [(18, 4), (2, 16)] {
        let mut backend = Backend::new(BOUNDS, 1e9, took * SECOND);
        backend.limit.limit = 4.0;
        backend.run(300);
        assert_eq!(backend.greatest, bound, "{took}");
    }
}

#[test]
fn few_answers_never_take_it_above_where_it_began() {
    // Five answers a second for two minutes; trials last 20 s then, and have enough answers for a verdict.
    for places in [4.0, 16.0, 1e9] {
        let mut backend = Backend::new(BOUNDS, places, (places.min(16.0) * 200.0) as Nanos * MS);
        backend.run(120);
        assert!(backend.greatest <= 16, "{places}: {}", backend.greatest);
    }
    // Forty a second are fewer than 30 in a window, of half a second at least; eighty are not.
    for (took, may_grow) in [(400 * MS, false), (200 * MS, true)] {
        let mut backend = Backend::new(BOUNDS, 1e9, took);
        backend.run(120);
        assert_eq!(backend.greatest > 16, may_grow, "{took}: {}", backend.greatest);
    }
}

#[test]
fn the_least_that_is_allowed_is_kept_and_a_trial_that_cannot_be_says_busy() {
    let mut backend = Backend::new(AutoBounds { start: 4, min: 4, max: 4 }, 8.0, 20 * MS);
    backend.run(5);
    backend.took = 60 * MS;
    let found = backend.run(60);
    assert_eq!(backend.limit.bound(), 4);
    assert!(!found.is_empty() && found.iter().all(|verdict| *verdict == ProbeVerdict::Busy), "{found:?}");
}

#[test]
fn a_trial_says_nothing_when_the_load_goes_away() {
    let mut backend = Backend::new(BOUNDS, 8.0, 20 * MS);
    backend.run_until_a_trial();
    let before = backend.limit.trial.as_ref().expect("just seen").limit as u32;
    assert!(backend.limit.bound() < before);
    backend.load = 1;
    assert_eq!(backend.run(25), [ProbeVerdict::None]);
    assert_eq!(backend.limit.bound(), before, "as before the trial");
}

#[test]
fn what_is_held_for_long_is_not_counted() {
    // Requests that are held; seconds; time of other answers, which decides what counts as long; places beside the
    // bound.
    for (held, seconds, took, beside) in [
        (10, 2, 20 * MS, 10),
        (100, 2, 20 * MS, 48),
        (10, 0, 20 * MS, 0),
        (10, 1, 200 * MS, 0),
        (10, 2, 200 * MS, 10),
    ] {
        let mut backend = Backend::new(AutoBounds { max: 16, ..BOUNDS }, 1e9, took);
        backend.load = 8;
        backend.run(3);
        let attempts: Vec<AutoAttempt> = (0..held).map(|_| backend.limit.began(backend.now)).collect();
        backend.load = held + 8;
        backend.run(seconds);
        let _ = backend.limit.tick(backend.now);
        let limit = |backend: &Backend| backend.limit.limit() - backend.limit.bound();
        assert_eq!(limit(&backend), beside, "{held} for {seconds} s of {took}");
        // Once ended, they hold nothing.
        attempts.into_iter().for_each(|attempt| backend.limit.ended(attempt, true, backend.now));
        assert_eq!(limit(&backend), 0);
    }
}

#[test]
fn an_attempt_ends_once_and_a_clock_that_went_back_changes_nothing() {
    let mut limit = AutoLimit::new(BOUNDS, 10 * SECOND);
    let attempt = limit.began(9 * SECOND);
    assert_eq!(limit.in_flight(), 1);
    limit.ended(attempt, true, 8 * SECOND);
    limit.ended(attempt, true, 12 * SECOND);
    assert_eq!((limit.in_flight(), limit.window.answers()), (0, 1));
    assert_eq!(limit.tick(0), None);
}

#[test]
fn other_bounds_end_a_trial_and_hold_at_once() {
    for (bounds, holds) in [
        (AutoBounds { start: 1, min: 1, max: 3 }, 1..=3),
        (AutoBounds { start: 200, min: 200, max: 1000 }, 200..=1000),
    ] {
        let mut backend = Backend::new(BOUNDS, 8.0, 20 * MS);
        backend.run_until_a_trial();
        backend.limit.set_bounds(bounds);
        for _ in 0..60 {
            assert!(holds.contains(&backend.limit.bound()), "{bounds:?}: {}", backend.limit.bound());
            backend.run(1);
        }
    }
}
