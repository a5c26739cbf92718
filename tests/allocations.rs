//! Deciding on a client that is known, and finding the route of a request, allocate no memory. An allocator counts.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use balancer::clock::Clock;
use balancer::store::cache::{Cache, Entry, EntryKind, Known, LoadTicket, Loader, Urgency};
use balancer_http::routes::{HostPattern, RouteTable};
use balancer_limiter::identity::{ClientId, group};
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::limiter::{Ask, Limiter, Room, Shared};
use balancer_limiter::plans::Plans;
use balancer_limiter::ranges::{Range, Ranges};
use balancer_limiter::request_rules::{Effect, Needs, RequestRule, RequestRules};
use balancer_limiter::terms::{BucketName, BucketSpec, ClientLimit, Mode, Plan, PlanName, Reset, Terms};

/// A loader for tests in which every client is known: a load fails the test.
struct Nowhere;

impl Loader for Nowhere {
    fn ready(&self) -> bool {
        true
    }

    fn start(&self, _: LoadTicket, _: Urgency) {
        panic!("a client that is known was loaded");
    }

    fn gave_up(&self) {}
}

fn numbers(capacity: u32) -> Limit {
    Limit { capacity, rate: Rate { micro: 1_000_000, per_secs: 86_400 } }
}

fn bucket(name: &str) -> BucketSpec {
    BucketSpec::new(BucketName::parse(name).expect("a name"), numbers(60))
}

/// As many buckets as a limit can have, of every kind.
fn four() -> Arc<[BucketSpec]> {
    let shadow = BucketSpec { mode: Mode::Shadow, ..bucket("shadow") };
    let day = BucketSpec { reset: Some(Reset::Day), ..bucket("day") };
    let month = BucketSpec { reset: Some(Reset::Month), ..bucket("month") };
    Arc::new([bucket("plain"), shadow, day, month])
}

fn rules() -> RequestRules {
    let buckets = Effect::Buckets(Arc::new([bucket("login"), bucket("login a day")]));
    RequestRules::new(vec![
        RequestRule::new("login", vec!["POST".into()], "/login", buckets),
        RequestRule::new("export", Vec::new(), "/export", Effect::Cost(3)),
    ])
}

#[test]
fn the_decision_on_a_known_client_allocates_nothing() {
    let clock = Clock::real();
    let cache = Cache::new(1_000, Duration::from_secs(3_600), 64, clock.clone());
    let plans = Plans::default();
    let name = PlanName::parse("pro").expect("a name");
    plans.put(Plan {
        name: name.clone(),
        terms: Terms { buckets: four(), max_in_flight: Some(10), ..Terms::default() },
    });
    let plan = ClientLimit { plan: Some(name), ..ClientLimit::of_numbers(numbers(1)) };
    let shared = ClientLimit { shared: true, ..ClientLimit::of_numbers(numbers(60)) };
    let range =
        |text: &str, limit| Range::new(text.parse().expect("a range"), Arc::new(limit), text.into(), 1);
    let ranges = [range("10.1.0.0/16", ClientLimit::of_numbers(numbers(60))), range("10.2.0.0/16", shared)];
    let ranges = Ranges::new(ranges).expect("two ranges");
    let default = Terms::of_numbers(numbers(60));
    let limiter = Arc::new(Limiter::new(1_000));
    let put = |text: &str, limit: Option<ClientLimit>| {
        let id = ClientId::parse(text).expect("an id");
        let entry = limit.and_then(|limit| Entry::new(&id, Arc::new(limit)));
        cache.put(group(id.address().expect("an address"), 64), entry.into_iter().collect());
    };
    put("127.0.0.1", Some(ClientLimit::of_numbers(numbers(60))));
    put("127.0.0.2", Some(plan));
    for unnamed in ["127.0.0.3", "10.1.0.1", "10.2.0.1", "2001:db8::1"] {
        put(unnamed, None);
    }
    let rules = rules();
    let decide = |client: IpAddr, method: &str, path: &str| {
        let plans = plans.load();
        let in_force = Shared { ranges: &ranges, plans: &plans, default: Some(&default), ipv6_prefix: 64 };
        let when = clock.moment();
        let (key, granted, room) = match cache.find(client, Some(80), when.now, &Nowhere) {
            Ok(Known::Entry(hit)) => (hit.client, in_force.resolve(&hit.limit, EntryKind::Client), Room::Own),
            Ok(Known::Absent | Known::Unknown) => {
                let (key, granted, range) = in_force.of_address(client);
                (key, granted, in_force.room(range))
            }
            Err(_) => panic!("every client is in the cache"),
        };
        let Some(Needs { rules, cost }) = rules.needs(method, path) else { panic!("no rule exempts") };
        let ask = Ask { grant: granted.grant(), rules: &rules, cost, room };
        let (decision, seat) = limiter.admit(key, ask, when);
        drop(seat);
        decision.allowed
    };
    let clients = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "10.1.0.1", "10.2.0.1", "2001:db8::1"];
    let requests = [("GET", "/"), ("POST", "/login"), ("GET", "/export/all")];
    for client in clients.map(|client| client.parse::<IpAddr>().expect("an address")) {
        for (method, path) in requests {
            assert!(decide(client, method, path), "the first is allowed");
        }
        let mut allowed = 0;
        let counted = allocation_counter::measure(|| {
            for (method, path) in (0..30).flat_map(|_| requests) {
                allowed += u32::from(black_box(decide(client, method, path)));
            }
        });
        assert_eq!(counted.count_total, 0, "{client}: {counted:?}");
        // Both outcomes were measured.
        assert!((1..90).contains(&allowed), "{client}: {allowed} of 90 allowed");
    }
    // The counter does count allocations.
    assert!(allocation_counter::measure(|| drop(black_box(vec![1]))).count_total > 0);
}

#[test]
fn finding_the_route_of_an_ordinary_request_allocates_nothing() {
    let hosts = ["api.example.com", "*.example.com", "[2001:db8::1]"].map(HostPattern::parse);
    let hosts: Vec<HostPattern> = hosts.into_iter().flatten().chain([HostPattern::Any]).collect();
    let routes = hosts.iter().flat_map(|host| ["/", "/api/", "/api/v1"].map(|path| (host, path)));
    let table = RouteTable::new(routes).expect("no two are the same");
    for host in
        ["api.example.com", "API.Example.com.:80", "x.example.com", "[2001:db8:0::1]:443", "other.test"]
    {
        for path in ["/", "/index.html", "/api/v1/Things/12", "/API/v1"] {
            let mut found = None;
            let counted = allocation_counter::measure(|| {
                found = table.met(black_box(Some(host)), black_box(path)).ok().and_then(|met| met.by);
            });
            assert_eq!((counted.count_total, found.is_some()), (0, true), "{host} {path}: {counted:?}");
        }
    }
}
