//! Addresses of one backend with different tiers and weights.

use super::picks::entries;
use super::*;
use crate::backend::WHOLE;
use crate::outlier::OutlierPolicy;

fn located(last: u8, tier: u16, weight: u32) -> Located {
    Located { tier, address: address(last), weight }
}

/// A pool of one backend with these addresses.
fn pool_at(settings: &Settings, list: &[Located]) -> (Backends, BackendEntry) {
    let entry = entries(&["a"]).remove(0);
    let pool = Backends::new(settings, std::slice::from_ref(&entry));
    pool.located(&entry, list, NOW);
    (pool, entry)
}

/// How often each address is picked in `picks` picks, by its last number.
fn shares(pool: &Backends, picks: u32, tried: &[u64]) -> HashMap<u8, u32> {
    let mut counts = HashMap::new();
    for _ in 0..picks {
        let SocketAddr::V4(address) = pick(pool, tried).unwrap().endpoint.address else { panic!("IPv4") };
        *counts.entry(address.ip().octets()[3]).or_default() += 1;
    }
    counts
}

#[test]
fn every_strategy_keeps_the_weights_of_addresses_and_those_of_backends() {
    for strategy in STRATEGIES.into_iter().filter(|one| *one != Strategy::First) {
        fastrand::seed(1);
        let mut entries = entries(&["a", "b"]);
        entries[0].weight = 2;
        let pool = Backends::new(&Settings::of(strategy), &entries);
        // `a` has a weight of 2: its addresses have 0.3 and 1.7 times that. `b` has a weight of 1.
        pool.located(&entries[0], &[located(1, 0, WHOLE / 10 * 3), located(2, 0, WHOLE / 10 * 17)], NOW);
        pool.located(&entries[1], &[located(3, 0, WHOLE)], NOW);
        let weights: Vec<_> = pool.snapshot().endpoints().iter().map(|one| one.weight()).collect();
        assert_eq!(weights, [0.6, 3.4, 1.0]);
        let counts = shares(&pool, 20_000, &[]);
        for (last, expected) in [(1, 2_400), (2, 13_600), (3, 4_000)] {
            let found = counts.get(&last).copied().unwrap_or_default();
            assert!(found.abs_diff(expected) < 300, "{strategy:?} {last}: {found}");
        }
    }
}

#[test]
fn a_tier_is_used_only_when_nobody_of_a_lower_one_can_be() {
    for strategy in STRATEGIES {
        let list: Vec<_> =
            [3, 0, 2, 1].into_iter().zip(1..).map(|(tier, last)| located(last, tier, WHOLE)).collect();
        let (pool, _) = pool_at(&Settings::of(strategy), &list);
        let snapshot = pool.snapshot();
        let at = |last: usize| &snapshot.endpoints()[last - 1];
        let only = |last: u8, tried: &[u64]| {
            assert_eq!(shares(&pool, 20, tried), HashMap::from([(last, 20)]), "{strategy:?}");
        };
        let order = [2, 4, 3, 1];
        for (gone, last) in order.into_iter().enumerate() {
            // A request that has tried all addresses of the lower tiers goes to the next tier.
            let tried: Vec<_> = order[..gone].iter().map(|last| at(*last).id).collect();
            only(u8::try_from(last).unwrap(), &tried);
        }
        for pair in order.windows(2) {
            pool.set_health(at(pair[0]), Status::Down, NOW);
            only(u8::try_from(pair[1]).unwrap(), &[]);
        }
        // They come back, one by one. One that was never checked comes after all that are up; several such go by tier.
        for last in [3, 4] {
            pool.set_health(at(last), Status::Up, NOW);
            only(u8::try_from(last).unwrap(), &[]);
        }
        pool.set_health(at(2), Status::Unknown, NOW);
        only(4, &[]);
        for last in [4, 3, 1] {
            pool.set_health(at(last), Status::Unknown, NOW);
        }
        only(2, &[]);
    }
}

#[test]
fn a_backup_comes_after_every_tier_of_the_others() {
    let mut entries = entries(&["spare", "a"]);
    entries[0].backup = true;
    let pool = Backends::new(&Settings::of(Strategy::RoundRobin), &entries);
    pool.located(&entries[0], &[located(1, 0, WHOLE), located(2, 1, WHOLE)], NOW);
    pool.located(&entries[1], &[located(3, 0, WHOLE), located(4, 9, WHOLE)], NOW);
    let snapshot = pool.snapshot();
    for (down, next) in [(3, 4), (4, 1), (1, 2)] {
        let one = snapshot.endpoints().iter().find(|one| one.address == address(down)).unwrap();
        pool.set_health(one, Status::Down, NOW);
        assert_eq!(shares(&pool, 20, &[]), HashMap::from([(next, 20)]));
    }
}

#[test]
fn another_weight_or_tier_changes_the_endpoint_that_is_there() {
    let (pool, entry) = pool_at(
        &Settings::of(Strategy::RoundRobin),
        &[located(1, 0, WHOLE), located(2, 0, WHOLE), located(3, 1, WHOLE)],
    );
    let before = pool.snapshot();
    let held: Vec<_> = (0..4).map(|_| pick(&pool, &[]).unwrap()).collect();
    let change = pool.located(
        &entry,
        &[located(1, 0, WHOLE / 2), located(2, 0, WHOLE / 2 * 3), located(3, 1, WHOLE)],
        NOW,
    );
    assert_eq!(change, AddressChange { changed: vec![address(1), address(2)], ..AddressChange::default() });
    assert!(Arc::ptr_eq(&before, &pool.snapshot()), "the same endpoints, with their counters");
    assert_eq!(before.endpoints().iter().map(|one| one.in_flight()).collect::<Vec<_>>(), [2, 2, 0]);
    drop(held);
    assert_eq!(shares(&pool, 400, &[]), HashMap::from([(1, 100), (2, 300)]));

    // The same addresses in another order are no change.
    let same = [located(3, 1, WHOLE), located(2, 0, WHOLE / 2 * 3), located(1, 0, WHOLE / 2)];
    assert_eq!(pool.located(&entry, &same, NOW), AddressChange::default());
    // Two addresses swap their tiers, one goes and one comes.
    let change =
        pool.located(&entry, &[located(3, 0, WHOLE), located(1, 1, WHOLE / 2), located(4, 1, WHOLE)], NOW);
    assert_eq!(
        change,
        AddressChange {
            added: vec![address(4)],
            removed: vec![address(2)],
            changed: vec![address(1), address(3)],
            left_out: 0
        }
    );
    assert!(Arc::ptr_eq(&before.endpoints()[2], &pool.snapshot().endpoints()[1]));
    assert_eq!(shares(&pool, 20, &[]), HashMap::from([(3, 20)]));
    // An address that is named twice gets the lower of its tiers.
    let change = pool.located(&entry, &[located(3, 2, 1), located(3, 0, WHOLE)], NOW);
    assert_eq!((change.removed.len(), change.changed.len()), (2, 0));
}

#[test]
fn the_bound_on_endpoints_keeps_the_lower_tiers() {
    let many: Vec<_> = (0..=MAX_ENDPOINTS)
        .map(|index| Located {
            tier: u16::try_from(MAX_ENDPOINTS - index).unwrap(),
            address: SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 80)),
            weight: WHOLE,
        })
        .collect();
    let (pool, _) = pool_at(&Settings::of(Strategy::RoundRobin), &many);
    let snapshot = pool.snapshot();
    assert_eq!(snapshot.endpoints().len(), MAX_ENDPOINTS);
    assert!(snapshot.endpoints().iter().all(|one| one.tier() < u16::try_from(MAX_ENDPOINTS).unwrap()));
}

/// While a lower tier serves, no request is sent to a higher tier only to probe an endpoint there.
#[test]
fn only_the_lowest_tier_is_probed_while_others_serve() {
    let outlier = OutlierPolicy { consecutive: 1, ratio: None, window: 10, base_time: 10 };
    let settings =
        Settings { outlier: Some(outlier), max_ejected: 1.0, ..Settings::of(Strategy::RoundRobin) };
    for (ejected, is_probed) in [(1, true), (3, false)] {
        let (pool, _) =
            pool_at(&settings, &[located(1, 0, WHOLE), located(2, 0, WHOLE), located(3, 1, WHOLE)]);
        let snapshot = pool.snapshot();
        let others: Vec<_> = snapshot
            .endpoints()
            .iter()
            .filter(|one| one.address != address(ejected))
            .map(|one| one.id)
            .collect();
        let mut lease = snapshot.pick(&wanted(&others)).unwrap();
        assert!(snapshot.observe(&mut lease, 1, true, NOW).is_some());
        drop(lease);
        // The ejection's time is over.
        let later = Wanted { now: NOW + 1_000, ..wanted(&[]) };
        let first = snapshot.pick(&later).unwrap();
        let second = snapshot.pick(&later).unwrap();
        let found = [first.endpoint.address, second.endpoint.address];
        assert_eq!(found[0] == address(ejected), is_probed, "{found:?}");
        assert!(!found.contains(&address(3)), "{found:?}");
    }
}
