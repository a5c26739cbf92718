use super::*;
use crate::importance::GivenImportance;
use crate::limit::{Limit, Rate};
use crate::limiter::Ask;
use crate::plans::Plans;
use crate::terms::{BucketId, Plan, PlanName};
use balancer_importance::Importance;
use balancer_importance::Priority;
use balancer_time::Nanos;
use std::sync::{Arc, LazyLock};

const SEC: Nanos = 1_000_000_000;

fn limit(capacity: u32) -> Limit {
    Limit { capacity, rate: Rate::per_second(0) }
}

fn ranges(list: &[(&str, u32)]) -> Ranges {
    let range = |(net, capacity): &(&str, u32)| {
        Range::new(net.parse().unwrap(), Arc::new(numbers(*capacity)), (*net).into(), 1)
    };
    Ranges::new(list.iter().map(range)).unwrap()
}

/// The state with these ranges, and a default of that capacity.
fn shared(ranges: &Ranges, default: Option<u32>) -> Shared<'_> {
    static NO_PLANS: LazyLock<PlanMap> = LazyLock::new(PlanMap::default);
    let default: Option<&'static Terms> =
        default.map(|capacity| &*Box::leak(Box::new(Terms::of_numbers(limit(capacity)))));
    Shared { ranges, plans: &NO_PLANS, default, ipv6_prefix: 64 }
}

fn numbers(capacity: u32) -> ClientLimit {
    ClientLimit::of_numbers(limit(capacity))
}

/// An instant, on a wall clock that stands still.
fn at(now: Nanos) -> Moment {
    Moment { now, wall_s: 0 }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn id(text: &str) -> ClientId {
    ClientId::parse(text).unwrap()
}

/// Takes tokens for an address without an entry. Returns what is left, or `None` for a refusal.
fn take(limiter: &Limiter, shared: Shared<'_>, address: &str, cost: u32) -> Option<u32> {
    let (client, granted, _) = shared.of_address(ip(address));
    take_own(limiter, client, granted.grant().unwrap(), cost)
}

fn take_own(limiter: &Limiter, client: ClientKey, grant: &Grant, cost: u32) -> Option<u32> {
    let outcome = limiter.acquire(client, Ask { cost, ..Ask::of(grant) }, at(SEC)).first();
    outcome.allowed.then_some(outcome.left)
}

fn named(capacity: u32) -> Grant {
    Grant {
        terms: Terms::of_numbers(limit(capacity)),
        entry: EntryKind::Client,
        plan: None,
        per_instance: false,
    }
}

#[test]
fn an_address_is_decided_by_its_longest_range_or_the_default() {
    let ranges = ranges(&[("10.0.0.0/8", 7), ("10.1.0.0/16", 8), ("2001:db8::/32", 9), ("2001:db8::/96", 3)]);
    let shared = shared(&ranges, Some(1));
    let rows = [
        ("10.2.0.1", 7, EntryKind::Range, "10.2.0.1/32"),
        ("10.1.0.1", 8, EntryKind::Range, "10.1.0.1/32"),
        ("11.0.0.1", 1, EntryKind::Default, "11.0.0.1/32"),
        ("2001:db8:1::5", 9, EntryKind::Range, "2001:db8:1::/64"),
        // A range longer than the prefix is a group of its own; the rest of its prefix is another.
        ("2001:db8::5", 3, EntryKind::Range, "2001:db8::/96"),
        ("2001:db8::1:0:0:5", 9, EntryKind::Range, "2001:db8::/64"),
        ("2001:db9::5", 1, EntryKind::Default, "2001:db9::/64"),
    ];
    for (address, capacity, entry, group) in rows {
        let (client, granted, _) = shared.of_address(ip(address));
        assert_eq!(granted.grant(), Some(&Grant { entry, ..named(capacity) }), "{address}");
        assert_eq!(client.network(), Some(group.parse().unwrap()), "{address}");
        assert_eq!(shared.of_group(client.network().unwrap()), Some(granted), "{address}");
    }
}

#[test]
fn a_change_of_ranges_or_default_reaches_every_client_without_an_entry() {
    let limiter = Limiter::new(1000);
    let none = ranges(&[]);
    let before = shared(&none, Some(10));
    let own = ClientKey::address(ip("10.0.0.9"));
    take(&limiter, before, "10.0.0.1", 4);
    take(&limiter, before, "10.0.0.2", 10);
    take(&limiter, before, "11.0.0.1", 4);
    take_own(&limiter, own, &named(10), 4);
    let level = |client: &str| {
        limiter.peek(ClientKey::address(ip(client)), BucketId::of("default"), at(SEC)).map(|b| b.whole())
    };
    let levels = || ["10.0.0.1", "10.0.0.2", "11.0.0.1", "10.0.0.9"].map(level);
    assert_eq!(levels(), [Some(6), Some(0), Some(6), Some(6)]);

    let created = ranges(&[("10.0.0.0/8", 20)]);
    limiter.entry_changed(&id("10.0.0.0/8"), Some(&numbers(20)), shared(&created, Some(10)), at(SEC));
    assert_eq!(levels(), [Some(16), Some(10), Some(6), Some(6)]);

    let updated = ranges(&[("10.0.0.0/8", 5)]);
    limiter.entry_changed(&id("10.0.0.0/8"), Some(&numbers(5)), shared(&updated, Some(10)), at(SEC));
    assert_eq!(levels(), [Some(1), Some(0), Some(6), Some(6)]);

    limiter.shared_changed(shared(&updated, Some(30)), at(SEC));
    assert_eq!(levels(), [Some(1), Some(0), Some(26), Some(6)]);

    limiter.entry_changed(&id("10.0.0.0/8"), None, shared(&none, Some(30)), at(SEC));
    assert_eq!(levels(), [Some(26), Some(25), Some(26), Some(6)]);

    // Unlimited counts as full: nothing is remembered.
    limiter.shared_changed(shared(&none, None), at(SEC));
    assert_eq!(levels(), [None, None, None, Some(6)]);
}

#[test]
fn overflow_buckets_follow_the_default() {
    let limiter = Limiter::new(1);
    let none = ranges(&[]);
    take(&limiter, shared(&none, Some(10)), "10.0.0.1", 1);
    assert_eq!(take(&limiter, shared(&none, Some(10)), "10.0.0.2", 10), Some(0));
    limiter.shared_changed(shared(&none, Some(15)), at(SEC));
    assert_eq!(take(&limiter, shared(&none, Some(15)), "10.0.0.2", 5), Some(0));
    assert_eq!(limiter.overflowed(), 2);
}

#[test]
fn an_entry_for_an_ipv4_address_moves_the_level_that_the_address_has() {
    let limiter = Limiter::new(1000);
    let none = ranges(&[]);
    let shared = shared(&none, Some(5));
    assert_eq!(take(&limiter, shared, "1.2.3.4", 5), Some(0));
    let client = ClientKey::address(ip("1.2.3.4"));
    limiter.entry_changed(&id("::ffff:1.2.3.4"), Some(&numbers(8)), shared, at(SEC));
    assert_eq!(take_own(&limiter, client, &named(8), 1), Some(2));
    limiter.entry_changed(&id("1.2.3.4"), Some(&numbers(6)), shared, at(SEC));
    assert_eq!(take_own(&limiter, client, &named(6), 1), None);
    limiter.entry_changed(&id("1.2.3.4"), Some(&numbers(16)), shared, at(SEC));
    limiter.entry_changed(&id("1.2.3.4"), None, shared, at(SEC));
    assert_eq!(take(&limiter, shared, "1.2.3.4", 1), None, "10 of 16 are −1 of 5");
}

#[test]
fn an_entry_with_a_bucket_of_its_own_starts_from_where_its_client_was() {
    let limiter = Limiter::new(1000);
    let none = ranges(&[]);
    let shared = shared(&none, Some(5));
    let own = ClientKey::address(ip("2001:db8::1"));
    assert_eq!(take(&limiter, shared, "2001:db8::1", 4), Some(1));
    limiter.entry_changed(&id("2001:db8::1"), Some(&numbers(7)), shared, at(SEC));
    assert_eq!(take_own(&limiter, own, &named(7), 1), Some(2));
    // The rest of the prefix has what it had.
    assert_eq!(take(&limiter, shared, "2001:db8::2", 1), Some(0));
    // Updated: it has a bucket of its own, whose level changes.
    limiter.entry_changed(&id("2001:db8::1"), Some(&numbers(9)), shared, at(SEC));
    assert_eq!(take_own(&limiter, own, &named(9), 1), Some(3));

    let peer = ClientKey::of_id(&id("[2001:db8::1]:80"));
    limiter.entry_changed(&id("[2001:db8::1]:80"), Some(&numbers(10)), shared, at(SEC));
    assert_eq!(take_own(&limiter, peer, &named(10), 1), Some(3), "from its address");
    limiter.entry_changed(&id("[2001:db8::1]:80"), None, shared, at(SEC));
    limiter.entry_changed(&id("2001:db8::1"), None, shared, at(SEC));
    let is_known = |client| limiter.peek(client, BucketId::of("default"), at(SEC)).is_some();
    assert!(!is_known(own) && !is_known(peer));

    // There was no bucket: a new one, which is full.
    limiter.entry_changed(&id("9.9.9.9:80"), Some(&numbers(4)), shared, at(SEC));
    assert_eq!(take_own(&limiter, ClientKey::of_id(&id("9.9.9.9:80")), &named(4), 1), Some(3));
}

#[test]
fn tokens_flow_in_at_the_new_rate_from_the_moment_of_the_change() {
    let limiter = Limiter::new(1000);
    let client = ClientKey::address(ip("1.2.3.4"));
    assert_eq!(take_own(&limiter, client, &named(10), 10), Some(0));
    let terms = Terms::of_numbers(Limit { capacity: 10, rate: Rate::per_second(1_000_000) });
    let faster = Granted::Limited(Grant { terms, ..named(10) });
    limiter.retune(client, &faster, at(10 * SEC));
    let left = |now| limiter.acquire(client, Ask::of(faster.grant().unwrap()), at(now)).first().left;
    assert_eq!(left(13 * SEC), 2);
    limiter.retune(client, &Granted::Unlimited, at(13 * SEC));
    assert_eq!(left(13 * SEC), 9);
}

fn plan(capacity: u32, micro: u64) -> (Plans, PlanName, PlanChange) {
    let (plans, name) = (Plans::default(), PlanName::parse("pro").unwrap());
    let terms = Terms {
        importance: GivenImportance { weight: Some(9), priority: Some(Priority::Background) },
        ..Terms::of_numbers(Limit { capacity, rate: Rate::per_second(micro) })
    };
    let change = plans.put(Plan { name: name.clone(), terms }).unwrap();
    (plans, name, change)
}

#[test]
fn a_changed_plan_flows_at_its_new_rate_from_the_moment_of_the_change() {
    let (plans, name, _) = plan(10, 0);
    let planned = ClientLimit { plan: Some(name.clone()), ..numbers(1) };
    let ranges = Ranges::default();
    let granted = || {
        let plans = plans.load();
        Shared { ranges: &ranges, plans: &plans, default: None, ipv6_prefix: 64 }
            .resolve(&planned, EntryKind::Client)
    };
    let limiter = Limiter::new(10);
    let (own, other) = (ClientKey::address(ip("1.2.3.4")), ClientKey::address(ip("1.2.3.5")));
    let left = |client, granted: &Granted, cost, now| {
        limiter.acquire(client, Ask { cost, ..Ask::of(granted.grant().unwrap()) }, at(now)).first().left
    };
    assert_eq!(left(own, &granted(), 10, SEC), 0);
    // The same numbers, but not from the plan.
    assert_eq!(left(other, &Granted::Limited(named(10)), 10, SEC), 0);
    let terms = Terms::of_numbers(Limit { capacity: 12, rate: Rate::per_second(1_000_000) });
    let change = plans.put(Plan { name, terms }).unwrap();
    limiter.plan_changed(&change, at(100 * SEC));
    // 0 of 10 are 2 of 12, and three seconds bring three.
    assert_eq!(left(own, &granted(), 0, 103 * SEC), 5);
    assert_eq!(left(other, &Granted::Limited(named(10)), 0, 103 * SEC), 0);
    // From now on the number may be another plan's.
    limiter.plan_changed(&PlanChange { terms: None, ..change.clone() }, at(103 * SEC));
    limiter.plan_changed(&PlanChange { terms: Some(Terms::of_numbers(limit(99))), ..change }, at(103 * SEC));
    assert_eq!(limiter.peek(own, BucketId::of("default"), at(103 * SEC)).unwrap().limit().capacity, 12);
}

#[test]
fn an_entry_comes_to_its_plan_its_own_buckets_or_nothing() {
    let (plans, name, change) = plan(10, 0);
    let (plans, ranges, default) = (plans.load(), Ranges::default(), Terms::of_numbers(limit(3)));
    let shared = Shared { ranges: &ranges, plans: &plans, default: Some(&default), ipv6_prefix: 64 };
    let of = |limit: ClientLimit| shared.resolve(&limit, EntryKind::Client);
    let seen = |granted: &Granted| {
        let grant = granted.grant()?;
        Some((grant.terms.first()?.capacity, grant.terms.max_in_flight, grant.plan))
    };
    assert_eq!(seen(&of(numbers(7))), Some((7, None, None)));
    let planned = ClientLimit { plan: Some(name), ..numbers(1) };
    assert_eq!(seen(&of(planned.clone())), Some((10, None, Some(change.number))));
    let importance = GivenImportance { weight: Some(4), priority: None };
    let own = Terms { max_in_flight: Some(4), importance, ..planned.own.clone() };
    let granted = of(ClientLimit { own: own.clone(), ..planned.clone() });
    assert_eq!(seen(&granted), Some((10, Some(4), Some(change.number))));
    assert_eq!(granted.importance(), Importance { weight: 4, priority: Priority::Background });
    assert_eq!(of(planned.clone()).importance(), Importance { weight: 9, priority: Priority::Background });
    assert_eq!(of(numbers(7)).importance(), Importance::default());
    let exempt = of(ClientLimit { exempt: true, own, ..planned });
    assert!(matches!(exempt, Granted::Exempt(_)));
    assert_eq!(exempt.importance(), Importance { weight: 4, priority: Priority::Background });
    // A plan that is not known yet: the numbers of the default, but the kind of the entry.
    let unknown = ClientLimit { plan: PlanName::parse("new").ok(), ..numbers(1) };
    assert_eq!(seen(&of(unknown.clone())), Some((3, None, None)));
    let no_default = Shared { default: None, ..shared };
    assert_eq!(no_default.resolve(&unknown, EntryKind::Client), Granted::Unlimited);
}

#[test]
fn a_shared_range_counts_all_its_addresses_as_one_and_follows_its_changes() {
    let whole = |capacity, shared| {
        let limit = Arc::new(ClientLimit { shared, ..numbers(capacity) });
        Ranges::new([Range::new("10.0.0.0/8".parse().unwrap(), limit, "10.0.0.0/8".into(), 1)]).unwrap()
    };
    let limiter = Limiter::new(100);
    let before = whole(5, true);
    for (address, left) in [("10.0.0.1", 4), ("10.9.9.9", 3)] {
        assert_eq!(take(&limiter, shared(&before, Some(1)), address, 1), Some(left));
    }
    assert_eq!(limiter.clients(), 1);
    let after = whole(9, true);
    limiter.entry_changed(&id("10.0.0.0/8"), None, shared(&after, Some(1)), at(SEC));
    assert_eq!(take(&limiter, shared(&after, Some(1)), "10.0.0.3", 1), Some(6));
    // Not shared any more: each address has a bucket of its own, and the shared one is forgotten.
    let apart = whole(9, false);
    limiter.shared_changed(shared(&apart, Some(1)), at(SEC));
    assert_eq!(limiter.clients(), 0);
    assert_eq!(take(&limiter, shared(&apart, Some(1)), "10.0.0.3", 1), Some(8));
}

#[test]
fn who_has_a_request_under_way_stays_when_its_limit_goes() {
    let limiter = Arc::new(Limiter::new(10));
    let none = ranges(&[]);
    let before = shared(&none, Some(10));
    let (client, granted, _) = before.of_address(ip("10.0.0.1"));
    let (_, seat) = limiter.admit(client, Ask::of(granted.grant().unwrap()), at(SEC));
    take(&limiter, before, "10.0.0.2", 1);
    limiter.shared_changed(shared(&none, None), at(SEC));
    assert_eq!(limiter.clients(), 1);
    drop(seat);
    limiter.shared_changed(shared(&none, None), at(SEC));
    assert_eq!(limiter.clients(), 0);
}

#[test]
fn a_crowd_of_a_range_follows_its_range() {
    let limiter = Limiter::new(0);
    let before = ranges(&[("10.0.0.0/8", 10)]);
    let left = |shared: Shared<'_>, cost| {
        let (client, granted, range) = shared.of_address(ip("10.0.0.1"));
        let ask = Ask { cost, room: shared.room(range), ..Ask::of(granted.grant().unwrap()) };
        let decision = limiter.acquire(client, ask, at(SEC));
        assert!(decision.overflow);
        decision.first().left
    };
    assert_eq!(left(shared(&before, None), 4), 6);
    let after = ranges(&[("10.0.0.0/8", 15)]);
    limiter.shared_changed(shared(&after, None), at(SEC));
    assert_eq!((left(shared(&after, None), 0), limiter.crowds()), (11, 1));
    limiter.shared_changed(shared(&ranges(&[]), None), at(SEC));
    assert_eq!(limiter.crowds(), 0);
}

#[test]
fn a_shared_range_has_a_row_of_its_own_and_others_crowds() {
    let of = |shared| {
        let limit = Arc::new(ClientLimit { shared, ..numbers(1) });
        Ranges::new([Range::new("10.0.0.0/8".parse().unwrap(), limit, "10.0.0.0/8".into(), 1)]).unwrap()
    };
    for is_shared in [false, true] {
        let ranges = of(is_shared);
        let shared = shared(&ranges, None);
        let (_, _, range) = shared.of_address(ip("10.0.0.1"));
        assert_eq!(shared.room(range) == Room::Own, is_shared);
        assert_eq!(shared.of_group("10.0.0.1/32".parse().unwrap()).is_none(), is_shared);
        assert_eq!(shared.room(None), Room::Shared(Crowds::OF_DEFAULT));
    }
}
