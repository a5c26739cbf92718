//! What clients have left survives a restart: which of it is saved, under whose name, and what comes back when.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::Limits;
use super::super::levels::Levels;
use super::{Setup, down, id, on_both, tester};
use crate::clock::Clock;
use balancer_limiter::identity::ClientKey;
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::limiter::{Limiter, Saved};
use balancer_limiter::terms::BucketId;

/// 100 tokens, one an hour.
const SLOW: Limit = Limit { capacity: 100, rate: Rate { micro: 1_000_000, per_secs: 3_600 } };
const FULL: i64 = 100_000_000;
/// What flows into it in a minute.
const MINUTE: i64 = 1_000_000 / 60;

const BUCKET: BucketId = BucketId(7);

fn client(last: u8) -> ClientKey {
    ClientKey::address([10, 0, 0, last].into())
}

/// Whose buckets have these levels, in millionths of a token.
fn limiter(levels: &[(u8, i64)], clock: &Clock) -> Arc<Limiter> {
    let limiter = Arc::new(Limiter::new(1_000));
    for (last, level_micro) in levels {
        let saved = Saved { id: BUCKET, of_rule: false, limit: SLOW, level_micro: *level_micro, reset: None };
        assert!(limiter.restore(client(*last), &saved, 0, clock.moment()));
    }
    limiter
}

fn level(limiter: &Limiter, last: u8, clock: &Clock) -> Option<i64> {
    limiter.peek(client(last), BUCKET, clock.moment()).map(|bucket| bucket.level_micro())
}

/// A process of its own: puts back what was saved, and saves what it has when it stops.
fn lives(limiter: &Arc<Limiter>, limits: &Arc<Limits>, folder: Option<&Path>, clock: &Clock) {
    Levels::start(Arc::clone(limiter), Arc::clone(limits), folder, clock.clone()).unwrap().stop();
}

#[test]
fn what_is_not_full_soon_comes_back_from_the_database_and_the_lowest_level_counts() {
    on_both(|setup| {
        let (limits, clock) = (setup.start().unwrap(), Clock::manual());
        // 1: an hour from full and more; 2: a minute, of a clock that stands still; 3: three seconds.
        let first = limiter(&[(1, 40_000_000), (2, FULL - 10 * MINUTE), (3, FULL - MINUTE / 20)], &clock);
        lives(&first, &limits, None, &clock);
        // Another instance, which spent more of the first client's and gave the second's back.
        lives(&limiter(&[(1, 30_000_000), (4, 1)], &clock), &limits, None, &clock);

        let after = limiter(&[], &clock);
        lives(&after, &limits, None, &clock);
        // What flowed in since is that of some seconds, on the database's clock.
        let close = |last, saved: i64| {
            let level = level(&after, last, &clock).unwrap_or(FULL);
            assert!((saved..saved + 9 * MINUTE).contains(&level), "{last}: {level}");
        };
        close(1, 30_000_000);
        close(2, FULL - 10 * MINUTE);
        close(4, 1);
        assert_eq!(level(&after, 3, &clock), None, "not worth saving");
    });
}

#[test]
fn buckets_that_were_filled_by_hand_are_saved_as_full() {
    on_both(|setup| {
        let (limits, clock, folder) = (setup.start().unwrap(), Clock::manual(), tempfile::tempdir().unwrap());
        let folder = Some(folder.path());
        lives(&limiter(&[(1, 5), (2, 6)], &clock), &limits, folder, &clock);
        let again = limiter(&[], &clock);
        let levels = Levels::start(Arc::clone(&again), Arc::clone(&limits), folder, clock.clone()).unwrap();
        assert!(level(&again, 1, &clock).is_some());
        again.fill(client(1));
        levels.stop();
        let last = limiter(&[], &clock);
        lives(&last, &limits, folder, &clock);
        assert_eq!(level(&last, 1, &clock), None);
        assert!(level(&last, 2, &clock).is_some());
    });
}

#[test]
fn the_file_stands_in_for_a_database_that_is_down_with_its_age() {
    let (home, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
    let folder = home.path().join("own");
    let limits = Setup::sqlite(home.path()).start().unwrap();
    let levels = [(1, 40_000_000), (2, FULL - 30 * MINUTE), (3, FULL - 90 * MINUTE)];
    lives(&limiter(&levels, &clock), &limits, Some(&folder), &clock);
    limits.stop();

    clock.advance(Duration::from_secs(3_600));
    let limits = down();
    let after = limiter(&[], &clock);
    lives(&after, &limits, Some(&folder), &clock);
    assert_eq!(level(&after, 1, &clock), Some(41_000_000));
    assert_eq!(level(&after, 2, &clock), None, "full by now");
    // In whole numbers a minute is a little less than what flows in.
    assert_eq!(level(&after, 3, &clock), Some(FULL - 90 * MINUTE + 1_000_000));
    limits.stop();
}

#[test]
fn what_was_saved_before_a_reset_does_not_come_back() {
    on_both(|setup| {
        let (limits, clock) = (setup.start().unwrap(), Clock::manual());
        limits.create(&id("10.0.0.1"), SLOW, &tester()).unwrap();
        lives(&limiter(&[(1, 5), (2, 6)], &clock), &limits, None, &clock);
        limits.note_reset(&id("10.0.0.1"), &tester()).unwrap();
        let after = limiter(&[], &clock);
        lives(&after, &limits, None, &clock);
        assert_eq!((level(&after, 1, &clock), level(&after, 2, &clock).is_some()), (None, true));
    });
}
