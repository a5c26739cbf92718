//! What instances share of a limit: checks the table in `docs/budget.md`, row by row. Spends a whole bucket of each
//! kind in one instance, and asks the other one.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use balancer_limiter::answer::EntryKind;
use balancer_limiter::budget::{Budget, InstanceId};
use balancer_limiter::identity::{ClientId, ClientKey};
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::limiter::{Ask, Grant, Granted, Limiter, Room};
use balancer_limiter::plans::Plans;
use balancer_limiter::request_rules::{Effect, RequestRule};
use balancer_limiter::terms::{BucketId, BucketName, BucketSpec, Mode, Plan, PlanName, Reset, Terms};
use balancer_time::{Moment, Nanos};

const SEC: Nanos = 1_000_000_000;

fn at(now: Nanos) -> Moment {
    Moment { now, wall_s: 1_800_000_000 }
}

const SLOW: Limit = Limit { capacity: 10, rate: Rate { micro: 1_000_000, per_secs: 3_600 } };

fn named(name: &str) -> BucketSpec {
    BucketSpec::new(BucketName::parse(name).unwrap(), SLOW)
}

fn grant(buckets: Vec<BucketSpec>) -> Grant {
    let terms = Terms { buckets: buckets.into(), ..Terms::default() };
    Grant { terms, entry: EntryKind::Client, plan: None, per_instance: false }
}

/// One kind of bucket.
struct Kind {
    /// The first cell of its row in the table.
    row: &'static str,
    client: ClientKey,
    /// The client as the other instance knows it.
    other: ClientKey,
    grant: Option<Grant>,
    rule: Option<RequestRule>,
    cost: u32,
    room: Room,
    most_clients: usize,
}

fn kind(row: &'static str, grant: Grant) -> Kind {
    let client = ClientKey::digest(b"tenant=acme");
    let (rule, cost, room, most_clients) = (None, 1, Room::Own, 1000);
    Kind { row, client, other: client, grant: Some(grant), rule, cost, room, most_clients }
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn kinds() -> Vec<Kind> {
    let plain = || grant(vec![named("default")]);
    let plans = Plans::default();
    let plan = PlanName::parse("pro").unwrap();
    let number = plans.put(Plan { name: plan, terms: plain().terms }).unwrap().number;
    let day = BucketSpec { reset: Some(Reset::Day), ..named("day") };
    let shadow = BucketSpec { mode: Mode::Shadow, ..named("shadow") };
    let range = ClientKey::of_id(&ClientId::parse("10.0.0.0/8").unwrap());
    let of_rule = BucketSpec { id: BucketId::of_rule("login", "login"), ..named("login") };
    let rule = RequestRule::new("login", vec![], "/login", Effect::Buckets(vec![of_rule].into()));
    let of_address = |last| ClientKey::address(address(last));
    let of_default = Grant::of_default(plain().terms);
    vec![
        kind("a key, or an address with a limit of its own", plain()),
        Kind {
            client: of_address(7),
            other: of_address(7),
            ..kind("`rate_limit.default`, for each client", of_default.clone())
        },
        kind("several buckets", grant(vec![named("second"), named("hour")])),
        kind("a plan, for each of its clients", Grant { plan: Some(number), ..plain() }),
        Kind {
            client: of_address(1),
            other: of_address(1),
            ..kind("a range, for each of its addresses", Grant { entry: EntryKind::Range, ..plain() })
        },
        Kind { client: range, other: range, ..kind("a range with `shared`, for all of it", plain()) },
        Kind { grant: None, rule: Some(rule), ..kind("a rule's bucket, for each client", plain()) },
        Kind { cost: 5, ..kind("requests that cost several tokens", plain()) },
        kind("a bucket filled by the calendar (`utc`)", grant(vec![day])),
        kind("a bucket that only watches (`shadow`)", grant(vec![shadow])),
        kind("a limit with `per_instance`", Grant { per_instance: true, ..plain() }),
        Kind {
            most_clients: 0,
            ..kind("clients with an entry of their own, beyond `rate_limit.max_clients`", plain())
        },
        Kind {
            room: Ask::of(&of_default).room,
            most_clients: 0,
            ..kind("clients without an entry, beyond `rate_limit.max_clients`", of_default.clone())
        },
    ]
}

/// An instance that has shared its budget with another one since 1 s.
fn instance(own: u64, most_clients: usize) -> (Arc<Limiter>, Budget) {
    started(own, most_clients, SEC)
}

/// An instance that has shared its budget with another one since `start`.
fn started(own: u64, most_clients: usize, start: Nanos) -> (Arc<Limiter>, Budget) {
    let limiter = Arc::new(Limiter::new(most_clients));
    let budget = Budget::new(Arc::clone(&limiter), InstanceId(own), start);
    for second in start / SEC..=4 {
        for from in [1, 2] {
            budget.heard(InstanceId(from), &[], at(second * SEC));
        }
    }
    (limiter, budget)
}

/// Whether tokens spent in one instance are missing in the other, which was started at `start`.
fn is_shared(kind: &Kind, start: Nanos) -> bool {
    let (here, told) = instance(1, kind.most_clients);
    let (there, hears) = started(2, kind.most_clients, start);
    let rules: Vec<&RequestRule> = kind.rule.iter().collect();
    let ask = Ask { grant: kind.grant.as_ref(), rules: &rules, cost: kind.cost, room: kind.room };
    let passed = |limiter: &Limiter, client| {
        let passes = || limiter.acquire(client, ask, at(4 * SEC)).verdicts()[0].outcome.allowed;
        (0..100).take_while(|_| passes()).count()
    };
    let all = (10 / kind.cost) as usize;
    assert_eq!(passed(&here, kind.client), all, "{}", kind.row);
    let mut reports = Vec::new();
    told.tick(at(4 * SEC), &mut reports);
    hears.heard(InstanceId(1), &reports, at(4 * SEC));
    let left = passed(&there, kind.other);
    assert!(left == 0 || left == all, "{}: {left}", kind.row);
    left == 0
}

#[test]
fn the_table_of_what_is_shared_says_what_happens() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/budget.md")).unwrap();
    for kind in kinds() {
        let shared = if is_shared(&kind, SEC) { "shared" } else { "each instance alone" };
        // An instance that was started a second ago hears of it too.
        assert_eq!(is_shared(&kind, 3 * SEC), shared == "shared", "{}", kind.row);
        let row = format!("| {} | {shared} |", kind.row);
        assert!(page.lines().any(|line| line.starts_with(&row)), "docs/budget.md lacks: {row}");
    }
    let table = page.lines().skip_while(|line| !line.starts_with("| what | ")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).count();
    // The last row is about requests at once, for which there is a test of its own below.
    assert_eq!(rows, kinds().len() + 1);
}

/// Two instances with a bucket of 1,000 tokens a day.
struct Days {
    here: (Arc<Limiter>, Budget),
    there: (Arc<Limiter>, Budget),
    grant: Grant,
}

impl Days {
    fn new() -> Self {
        let limit = Limit { capacity: 1_000, ..SLOW };
        let name = BucketName::parse("day").unwrap();
        let day = BucketSpec { reset: Some(Reset::Day), ..BucketSpec::new(name, limit) };
        Self { here: instance(1, 1000), there: instance(2, 1000), grant: grant(vec![day]) }
    }

    /// An instant `ms` after the start by the monotonic clock, on that day by the wall clock.
    fn when(ms: Nanos, day: u64) -> Moment {
        Moment { now: 4 * SEC + ms * 1_000_000, wall_s: 1_800_000_000 + day * 86_400 }
    }

    fn spend(&self, limiter: &Limiter, tokens: u32, when: Moment) {
        for _ in 0..tokens {
            assert!(limiter.acquire(ClientKey::digest(b"acme"), Ask::of(&self.grant), when).allowed);
        }
    }

    /// Each instance sends all that it has to report to the other.
    fn exchange(&self, when: Moment) {
        let both = [(&self.here, &self.there, 1), (&self.there, &self.here, 2)];
        for ((_, from), (_, to), id) in both {
            let mut reports = Vec::new();
            from.tick(when, &mut reports);
            from.heard(InstanceId(id), &[], when);
            to.heard(InstanceId(id), &reports, when);
        }
    }

    /// Tokens left in each of the two instances.
    fn left(&self, when: Moment) -> [u32; 2] {
        let id = self.grant.terms.buckets[0].id;
        [&self.here.0, &self.there.0].map(|limiter| {
            limiter.peek(ClientKey::digest(b"acme"), id, when).map_or(1_000, |bucket| bucket.whole())
        })
    }
}

#[test]
fn what_was_hidden_yesterday_is_missing_to_nobody_today() {
    let days = Days::new();
    // An eighth of 1,000 may be hidden.
    days.spend(&days.here.0, 80, Days::when(0, 0));
    days.exchange(Days::when(0, 0));
    assert_eq!(days.left(Days::when(0, 0)), [920, 1_000]);
    days.spend(&days.there.0, 200, Days::when(600, 1));
    for ms in [600, 1_200, 1_800] {
        days.exchange(Days::when(ms, 1));
    }
    assert_eq!(days.left(Days::when(1_800, 1)), [800, 800]);
}

#[test]
fn what_was_not_told_yesterday_is_missing_to_nobody_today() {
    let days = Days::new();
    days.spend(&days.here.0, 200, Days::when(0, 0));
    days.exchange(Days::when(0, 0));
    assert_eq!(days.left(Days::when(0, 0)), [800, 800]);
    days.spend(&days.here.0, 8, Days::when(100, 0));
    days.spend(&days.here.0, 5, Days::when(600, 1));
    for ms in [600, 1_200] {
        days.exchange(Days::when(ms, 1));
    }
    assert_eq!(days.left(Days::when(1_200, 1)), [995, 995]);
}

/// The operator changes the numbers on the new day, before the first request.
#[test]
fn a_change_on_the_next_day_tells_nobody_of_what_was_spent_the_day_before() {
    let mut days = Days::new();
    days.spend(&days.here.0, 200, Days::when(0, 0));
    days.exchange(Days::when(0, 0));
    days.spend(&days.here.0, 8, Days::when(100, 0));
    let spec = &days.grant.terms.buckets[0];
    let larger = BucketSpec { limit: Limit { capacity: 2_000, ..spec.limit }, ..spec.clone() };
    days.grant = grant(vec![larger]);
    for (limiter, _) in [&days.here, &days.there] {
        let granted = Granted::Limited(days.grant.clone());
        limiter.retune(ClientKey::digest(b"acme"), &granted, Days::when(300, 1));
    }
    days.spend(&days.here.0, 5, Days::when(600, 1));
    for ms in [600, 1_200] {
        days.exchange(Days::when(ms, 1));
    }
    assert_eq!(days.left(Days::when(1_200, 1)), [1_995, 1_995]);
}

#[test]
fn requests_at_once_are_counted_by_each_instance_alone() {
    let terms = Terms { max_in_flight: Some(1), ..Terms::of_numbers(Limit { capacity: 1000, ..SLOW }) };
    let grant = Grant { entry: EntryKind::Client, ..Grant::of_default(terms) };
    let (here, told) = instance(1, 1000);
    let (there, hears) = instance(2, 1000);
    let client = ClientKey::digest(b"tenant=acme");
    let ask = Ask { cost: 300, ..Ask::of(&grant) };
    let (_, seat) = here.admit(client, ask, at(4 * SEC));
    assert!(seat.is_some() && here.admit(client, ask, at(4 * SEC)).1.is_none());
    let mut reports = Vec::new();
    told.tick(at(4 * SEC), &mut reports);
    assert_eq!(reports.len(), 1);
    hears.heard(InstanceId(1), &reports, at(4 * SEC));
    assert_eq!(there.levels(client, ask, at(4 * SEC)).buckets, [700]);
    assert!(there.admit(client, ask, at(4 * SEC)).1.is_some());
}
