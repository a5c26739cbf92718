//! Which endpoint is picked: backups, slow start, keys, latencies and sticky sessions.

use std::time::Duration;

use super::*;
use crate::backend::WHOLE;
use crate::strategy::key_of;

const MS: Nanos = 1_000_000;

/// One attempt at this endpoint ends.
pub(super) fn saw(pool: &Backends, endpoint: &Endpoint, took: Nanos, failed: bool, now: Nanos) {
    let snapshot = pool.snapshot();
    let others: Vec<_> =
        snapshot.endpoints().iter().map(|one| one.id).filter(|id| *id != endpoint.id).collect();
    let mut lease = snapshot.pick(&Wanted { now, ..wanted(&others) }).unwrap();
    snapshot.observe(&mut lease, took, failed, now);
}

pub(super) fn entries(names: &[&str]) -> Vec<BackendEntry> {
    names.iter().map(|name| BackendEntry::new(name, "backend.test", 9000)).collect()
}

fn count(pool: &Backends, picks: u32) -> HashMap<String, u32> {
    count_at(NOW, pool, picks)
}

fn count_at(now: Nanos, pool: &Backends, picks: u32) -> HashMap<String, u32> {
    let mut counts = HashMap::new();
    for _ in 0..picks {
        let lease = pool.snapshot().pick(&Wanted { now, ..wanted(&[]) }).unwrap();
        *counts.entry(lease.endpoint.backend.to_string()).or_default() += 1;
    }
    counts
}

#[test]
fn a_backup_is_used_when_nobody_else_is_left() {
    for strategy in STRATEGIES {
        let mut entries = entries(&["spare", "a", "b"]);
        entries[0].backup = true;
        let pool = of_entries(strategy, &entries, NOW);
        let snapshot = pool.snapshot();
        let [spare, a, b] = snapshot.endpoints() else { panic!("three endpoints") };
        assert!(!count(&pool, 200).contains_key("spare"), "{strategy:?}");
        // A request that has tried the others goes to the backup, too.
        let last = snapshot.pick(&wanted(&[a.id, b.id])).unwrap();
        assert_eq!(last.endpoint.id, spare.id);
        drop(last);
        pool.set_health(a, Status::Down, NOW);
        assert_eq!(count(&pool, 20), HashMap::from([("b".into(), 20)]));
        pool.set_health(b, Status::Down, NOW);
        assert_eq!(count(&pool, 20), HashMap::from([("spare".into(), 20)]));
        // An endpoint that was never checked comes after a backup that is up.
        pool.set_health(b, Status::Unknown, NOW);
        assert_eq!(count(&pool, 20), HashMap::from([("spare".into(), 20)]));
        pool.set_health(a, Status::Up, NOW);
        assert_eq!(count(&pool, 20), HashMap::from([("a".into(), 20)]));
    }
}

#[test]
fn one_that_came_back_warms_up() {
    let clock = Clock::manual();
    let mut entries = entries(&["a", "b"]);
    entries[0].slow_start = Duration::from_secs(90);
    let pool = of_entries(Strategy::RoundRobin, &entries, clock.now());
    let a = Arc::clone(&pool.snapshot().endpoints()[0]);
    assert_eq!(count_at(clock.now(), &pool, 200)["a"], 100, "at the start nobody is a newcomer");
    pool.set_health(&a, Status::Down, clock.now());
    pool.set_health(&a, Status::Up, clock.now());
    // The weights are 10 and 100 at first, 55 and 100 after half of the time, and equal at the end.
    assert_eq!(count_at(clock.now(), &pool, 110)["a"], 10);
    clock.advance(Duration::from_secs(45));
    assert!(count_at(clock.now(), &pool, 310)["a"].abs_diff(110) <= 1);
    clock.advance(Duration::from_secs(45));
    assert!(count_at(clock.now(), &pool, 200)["a"].abs_diff(100) <= 1);
    // An endpoint that was already up does not restart its slow start.
    pool.set_health(&a, Status::Up, clock.now());
    assert!(count_at(clock.now(), &pool, 200)["a"].abs_diff(100) <= 1);
    // A new address of a backend starts slowly. Those that were there do not start again.
    pool.resolved(&entries[0], &[address(1), address(7)], clock.now());
    let now = clock.now();
    let weights: Vec<_> = pool.snapshot().endpoints().iter().map(|one| one.effective_weight(now)).collect();
    assert_eq!(weights, [WHOLE, WHOLE / 10, WHOLE]);
}

#[test]
fn a_key_stays_with_its_endpoint_and_nobody_elses_keys_move() {
    let pool = pool(Strategy::Hash, &[1, 1, 1, 1]);
    let snapshot = pool.snapshot();
    let owner = |key: u64| {
        let wanted = Wanted { key: key_of(&key.to_le_bytes()), now: 1, ..wanted(&[]) };
        snapshot.pick(&wanted).unwrap().endpoint.id
    };
    let before: Vec<_> = (0..400).map(owner).collect();
    assert_eq!(before, (0..400).map(owner).collect::<Vec<_>>());
    let gone = &snapshot.endpoints()[2];
    pool.set_health(gone, Status::Down, NOW);
    for (key, was) in (0..400).zip(&before) {
        let is = owner(key);
        assert!(if *was == gone.id { is != gone.id } else { is == *was }, "{key}");
    }
    pool.set_health(gone, Status::Up, NOW);
    assert_eq!(before, (0..400).map(owner).collect::<Vec<_>>());
}

#[test]
fn one_that_fails_fast_is_no_quick_one() {
    let clock = Clock::manual();
    let pool = of_entries(Strategy::PeakEwma, &entries(&["a", "b"]), clock.now());
    let snapshot = pool.snapshot();
    let [a, b] = snapshot.endpoints() else { panic!("two endpoints") };
    saw(&pool, a, MS, false, clock.now());
    saw(&pool, b, MS / 10, true, clock.now());
    assert_eq!(count(&pool, 50), HashMap::from([("a".into(), 50)]));
    // `b` is ten times as quick, so it gets ten times as many requests.
    saw(&pool, a, 10 * MS, false, clock.now());
    clock.advance(Duration::from_secs(300));
    saw(&pool, b, MS, false, clock.now());
    saw(&pool, a, 10 * MS, false, clock.now());
    let held: Vec<_> = (0..110).map(|_| pick(&pool, &[]).unwrap()).collect();
    assert!(a.in_flight().abs_diff(10) <= 1, "{} {}", a.in_flight(), b.in_flight());
    drop(held);
}

/// If many threads write the latency at the same time, one of their values is kept, never a mixture of two.
#[test]
fn latencies_seen_by_many_threads_stay_between_what_was_seen() {
    let clock = Clock::manual();
    let pool = of_entries(Strategy::PeakEwma, &entries(&["a"]), clock.now());
    let snapshot = pool.snapshot();
    let endpoint = &snapshot.endpoints()[0];
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for thread in 1..=8u64 {
            let (pool, clock, start) = (&pool, clock.clone(), &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..2_000 {
                    let took = (thread * 10 + round % 10) * MS;
                    saw(pool, endpoint, took, false, clock.now());
                    clock.advance(Duration::from_millis(1));
                    let expected = endpoint.pace().expected_ns(1, clock.now());
                    assert!((9 * MS..=90 * MS).contains(&expected), "{expected}");
                }
            });
        }
    });
}

#[test]
fn a_session_sticks_while_its_endpoint_can_take_it() {
    for strategy in STRATEGIES {
        let sticky = Some(SigningKey::new(b"0123456789abcdef"));
        let mut entries = entries(&["a", "b"]);
        entries[1].max_in_flight = most(2);
        let pool = Backends::new(&Settings { sticky, ..Settings::of(strategy) }, &entries);
        replace(&pool, "a", &[address(1)]);
        replace(&pool, "b", &[address(2), address(3)]);
        let snapshot = pool.snapshot();
        let [a, _, b] = snapshot.endpoints() else { panic!("three endpoints") };
        let token = b.token().unwrap();
        let token = token.as_str();
        let pick = |sent: &str, tried: &[u64]| {
            let wanted = Wanted { preferred: &[sent.as_bytes()], ..wanted(tried) };
            snapshot.pick(&wanted).unwrap()
        };
        for _ in 0..10 {
            assert_eq!(pick(token, &[]).endpoint.id, b.id, "{strategy:?}");
        }
        // If its endpoint was tried, is full or is down, the session goes to another.
        assert_ne!(pick(token, &[b.id]).endpoint.id, b.id);
        let held = (pick(token, &[]), pick(token, &[]));
        assert_eq!(pick(token, &[]).endpoint.id, a.id);
        drop(held);
        pool.set_health(b, Status::Down, NOW);
        assert_ne!(pick(token, &[]).endpoint.id, b.id);
        pool.set_health(b, Status::Up, NOW);
        // Of several cookies the first that names an endpoint counts, and the next if that one can't take the request.
        let other = a.token().unwrap();
        let several = |sent: &[&[u8]], tried: &[u64]| {
            snapshot.pick(&Wanted { preferred: sent, ..wanted(tried) }).unwrap().endpoint.id
        };
        for _ in 0..10 {
            assert_eq!(several(&[b"x", token.as_bytes()], &[]), b.id, "{strategy:?}");
            assert_eq!(several(&[token.as_bytes(), b"x"], &[]), b.id, "{strategy:?}");
            let both = [token.as_bytes(), other.as_str().as_bytes()];
            assert_eq!(several(&both, &[b.id]), a.id, "{strategy:?}");
        }
        for nonsense in ["", "x", &token[1..]] {
            drop(pick(nonsense, &[]));
        }
        assert_eq!((a.in_flight(), b.in_flight(), b.group.in_flight(), b.group.calling()), (0, 0, 0, 0));
    }
}

/// The endpoint of the client's connection comes before those of its cookies. None of them comes before endpoints of an
/// earlier rank that passed their checks.
#[test]
fn what_a_client_is_bound_to_comes_first() {
    let sticky = Some(SigningKey::new(b"0123456789abcdef"));
    let settings = Settings { sticky, checked: true, ..Settings::of(Strategy::First) };
    let entries = entries(&["a", "b", "c"]);
    let pool = Backends::new(&settings, &entries);
    ["a", "b", "c"].iter().zip(1..).for_each(|(name, last)| drop(replace(&pool, name, &[address(last)])));
    let snapshot = pool.snapshot();
    let [a, b, c] = snapshot.endpoints() else { panic!("three endpoints") };
    let token = b.token().unwrap();
    let pick = |bound_to, tried: &[u64]| {
        let wanted = Wanted { bound_to, preferred: &[token.as_str().as_bytes()], ..wanted(tried) };
        snapshot.pick(&wanted).unwrap().endpoint.id
    };
    // None was checked yet.
    assert_eq!([pick(None, &[]), pick(Some(c.id), &[])], [a.id; 2]);
    [a, b, c].into_iter().for_each(|one| pool.set_health(one, Status::Up, NOW));
    assert_eq!([pick(None, &[]), pick(Some(c.id), &[]), pick(Some(c.id), &[c.id])], [b.id, c.id, b.id]);
    assert!(snapshot.knows_any(&wanted(&[a.id, b.id])) && !snapshot.knows_any(&wanted(&[a.id, b.id, c.id])));
}
