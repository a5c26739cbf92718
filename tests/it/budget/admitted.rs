//! How many requests several instances allow together, counted: as many as one instance would, within a bound, while
//! instances join, die, and are cut off from the database. The long tests are ignored; CONTRIBUTING has the command that
//! runs them all.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::load::{Hits, Shot, send, send_as, steady};
use super::{knows, takes, told_of};
use crate::support::postgres::Postgres;
use crate::support::{Backend, Balancer, Database, Setup, aloud};

/// The limit of every drill here, unless it says another.
const CAPACITY: f64 = 100.0;
const RATE: f64 = 50.0;

/// Instances that take the client's address from the test's requests.
struct Fleet {
    list: Vec<Balancer>,
    setup: Setup,
    _backend: Backend,
}

impl Fleet {
    fn start(database: &Database, count: usize, change: impl FnOnce(Setup) -> Setup) -> Self {
        let backend = Backend::named("a");
        let setup = super::setup(database, &backend)
            .set("admin.listen", json!("127.0.0.1:0"))
            .set("rate_limit.trusted_proxies", json!(["127.0.0.0/8"]))
            // On a busy machine a look-up may take long: without this the client would count as one without a limit.
            .set("cache.load_timeout", json!("5s"));
        let setup = change(setup);
        let list = (0..count).map(|_| setup.start()).collect();
        Self { list, setup, _backend: backend }
    }

    /// Three, with that client's limit.
    fn of_three(database: &Database, client: &str) -> Self {
        let fleet = Self::start(database, 3, |setup| setup);
        fleet.know_each_other();
        fleet.list[0].limit(client, CAPACITY as u64, RATE as u64);
        fleet
    }

    fn know_each_other(&self) {
        for balancer in &self.list {
            knows(balancer, self.list.len());
        }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.list.iter().map(|balancer| balancer.address).collect()
    }

    /// Sends all of it. Also returns the longest that a message took meanwhile, in seconds.
    fn send(&self, client: &str, shots: &[Shot]) -> (Hits, f64) {
        let last = shots.last().map_or(Duration::ZERO, |shot| shot.at);
        send(&self.addresses(), client, shots, |began| {
            let mut longest: f64 = 0.0;
            while began.elapsed() < last + Duration::from_millis(300) {
                longest = self.most("balancer_budget_lag_seconds").max(longest);
                std::thread::sleep(Duration::from_millis(100));
            }
            longest
        })
    }

    /// The largest value that a series has at any of them.
    fn most(&self, name: &str) -> f64 {
        self.list.iter().map(|one| one.series(name)).fold(0.0, f64::max)
    }

    fn sent_messages(&self) -> Vec<f64> {
        self.list.iter().map(|one| one.series("balancer_budget_messages_sent_total")).collect()
    }
}

/// What one instance alone admits at most in that time.
fn of_one(seconds: f64) -> f64 {
    CAPACITY + RATE * seconds
}

/// The bound of docs/budget.md on what N instances admit beyond one: at an offered rate, with messages that take `lag` seconds.
fn beyond(instances: f64, offered: f64, lag: f64) -> f64 {
    let quiet = (CAPACITY / (4.0 * instances)).max(1.0);
    let unheard = 0.05 + lag;
    let all = (instances - 1.0) * (CAPACITY + RATE * unheard);
    all.min(instances * quiet + offered * unheard + RATE * (0.5 + lag))
}

/// Checks that what was admitted is within the bound, and not less than one instance would admit if as much was asked
/// for.
#[track_caller]
fn keeps_within(what: &str, hits: &Hits, offered: f64, lag: f64) {
    let (allowed, one) = (hits.allowed() as f64, of_one(hits.seconds()));
    let most = one + beyond(3.0, offered, lag);
    aloud(&format!(
        "budget: {what}: {allowed} admitted of {} in {:.1} s, {one:.0} by one alone, bound {most:.0}, \
         beyond one {:.2} capacities, lag {:.0} ms",
        hits.0.len(),
        hits.seconds(),
        (allowed - one) / CAPACITY,
        lag * 1e3
    ));
    assert!(allowed <= most, "{what}: {allowed} of at most {most}");
    assert!(allowed >= 0.95 * one.min(hits.0.len() as f64), "{what}: {allowed} of {one}");
}

#[test]
fn a_whole_burst_on_one_idle_instance_is_let_through() {
    let Some(database) = Database::postgres() else { return };
    let fleet = Fleet::of_three(&database, "10.0.0.1");
    let burst: Vec<Shot> = (0..CAPACITY as usize).map(|_| Shot { at: Duration::ZERO, to: 0 }).collect();
    let (hits, _) = fleet.send("10.0.0.1", &burst);
    assert_eq!(hits.refused(), 0);
}

#[test]
fn three_bursts_at_once_stay_within_the_bound() {
    let Some(database) = Database::postgres() else { return };
    let fleet = Fleet::of_three(&database, "10.0.0.2");
    let offered = 3.0 * CAPACITY / 0.3;
    let shots = steady(offered, Duration::from_millis(300), |number, _| number % 3);
    let (hits, lag) = fleet.send("10.0.0.2", &shots);
    let offered = hits.0.len() as f64 / hits.seconds();
    keeps_within("three bursts within 0.3 s", &hits, offered, lag);
}

#[test]
fn three_instances_admit_together_what_one_would() {
    let Some(database) = Database::postgres() else { return };
    let fleet = Fleet::of_three(&database, "10.0.0.3");
    let shots = steady(600.0, Duration::from_secs(6), |number, _| number % 3);
    let (hits, lag) = fleet.send("10.0.0.3", &shots);
    keeps_within("600 a second, evenly", &hits, 600.0, lag);
}

/// A rate at which a client must never be refused.
const BELOW: f64 = 0.9 * RATE;

#[test]
fn instances_that_join_refuse_nobody_who_keeps_to_its_rate() {
    let Some(database) = Database::postgres() else { return };
    let mut fleet = Fleet::of_three(&database, "10.0.0.4");
    let joining = fleet.list.split_off(1);
    drop(joining);
    knows(&fleet.list[0], 1);
    let first = fleet.list[0].address;
    let shots = steady(BELOW, Duration::from_secs(3), |_, _| 0);
    // Two instances join meanwhile.
    let (hits, joined) = send(&[first], "10.0.0.4", &shots, |_| {
        let joined: Vec<Balancer> = (0..2).map(|_| fleet.setup.start()).collect();
        joined
    });
    assert_eq!(hits.refused(), 0, "before they joined");
    fleet.list.extend(joined);
    fleet.know_each_other();
    let shots = steady(BELOW, Duration::from_secs(6), |number, _| number % 3);
    let (hits, _) = fleet.send("10.0.0.4", &shots);
    aloud(&format!("budget: two joined: {} of {} refused", hits.refused(), hits.0.len()));
    assert_eq!(hits.refused(), 0, "behind that");
}

#[test]
fn after_one_was_killed_the_others_give_the_whole_budget() {
    let Some(database) = Database::postgres() else { return };
    let mut fleet = Fleet::of_three(&database, "10.0.0.5");
    let shots = steady(300.0, Duration::from_secs(2), |number, _| number % 3);
    fleet.send("10.0.0.5", &shots);
    let killed = fleet.list.remove(1);
    killed.proc.signal(Signal::KILL);
    let shots = steady(300.0, Duration::from_secs(10), |number, _| number % 2);
    let (hits, _) = fleet.send("10.0.0.5", &shots);
    let late = hits.between(Duration::from_secs(5), Duration::from_secs(10));
    let part = late.allowed() as f64 / (RATE * 5.0);
    aloud(&format!("budget: 5 s after one was killed the others give {:.0} % of the rate", part * 100.0));
    assert!((0.9..1.1).contains(&part), "{part}");
    assert_eq!(told_of(&fleet.list[0]).len(), 2);
}

#[test]
#[ignore = "a minute"]
fn for_a_minute_three_admit_what_one_would() {
    let Some(database) = Database::postgres() else { return };
    let fleet = Fleet::of_three(&database, "10.0.0.6");
    let before = fleet.sent_messages();
    let shots = steady(600.0, Duration::from_secs(60), |number, _| number % 3);
    let (hits, lag) = fleet.send("10.0.0.6", &shots);
    keeps_within("600 a second for a minute", &hits, 600.0, lag);
    let one = of_one(hits.seconds());
    assert!((hits.allowed() as f64 - one).abs() <= 0.05 * one, "{} of {one}", hits.allowed());
    for (after, before) in fleet.sent_messages().into_iter().zip(before) {
        let rate = (after - before) / hits.seconds();
        assert!(rate <= 20.0, "{rate} messages a second for one client");
    }
}

#[test]
#[ignore = "a minute"]
fn a_load_that_moves_is_let_through() {
    let Some(database) = Database::postgres() else { return };
    let fleet = Fleet::of_three(&database, "10.0.0.7");
    let shots = steady(BELOW, Duration::from_secs(60), |_, at| (at.as_secs() / 10) as usize % 3);
    let (hits, _) = fleet.send("10.0.0.7", &shots);
    aloud(&format!("budget: a load that moves each 10 s: {:.1} % admitted", hits.part() * 100.0));
    assert!(hits.part() >= 0.95, "{}", hits.part());
}

/// How long the database is paused.
const PAUSE: Duration = Duration::from_secs(30);

/// What a drill with a paused database came to.
struct Paused {
    /// A client that sends evenly to all instances.
    spread: Hits,
    /// A client that sends to one instance at 0.9 of its rate.
    lone: Hits,
}

/// How long requests are sent before the database is paused.
const BEFORE: Duration = Duration::from_secs(5);

/// Sends all the time and pauses the database meanwhile. Returns what became of the requests during the pause.
fn paused(fleet: &Fleet, server: &Postgres) -> Paused {
    let (addresses, span) = (fleet.addresses(), BEFORE + PAUSE);
    let still = |hits: Hits| hits.between(BEFORE, span);
    let (spread, lone) = std::thread::scope(|scope| {
        let one = &addresses[..1];
        let lone = scope.spawn(move || send(one, "10.0.0.9", &steady(BELOW, span, |_, _| 0), |_| ()).0);
        let shots = steady(600.0, span, |number, _| number % 3);
        let (spread, ()) = send(&addresses, "10.0.0.8", &shots, |began| {
            std::thread::sleep(BEFORE.saturating_sub(began.elapsed()));
            server.pause();
        });
        (spread, lone.join().expect("it was answered"))
    });
    server.resume();
    Paused { spread: still(spread), lone: still(lone) }
}

fn with_limits(server: &Postgres, name: &str, change: impl FnOnce(Setup) -> Setup) -> Fleet {
    let fleet = Fleet::start(&server.database(name), 3, change);
    for client in ["10.0.0.8", "10.0.0.9"] {
        fleet.list[0].limit(client, CAPACITY as u64, RATE as u64);
    }
    fleet
}

#[test]
#[ignore = "two minutes"]
fn a_paused_database_costs_accuracy_alone() {
    let Some(server) = Postgres::start() else { return };
    let off = {
        let fleet =
            with_limits(&server, "without_it", |setup| setup.set("rate_limit.shared_budget", json!("off")));
        paused(&fleet, &server).spread
    };
    let fleet = with_limits(&server, "with_it", |setup| setup);
    fleet.know_each_other();
    // A bucket that is never refilled: a token that is charged twice would be missing in the end.
    fleet.list[0].limit("10.0.0.10", 300, 0);
    let (some, _) = fleet.send("10.0.0.10", &steady(100.0, Duration::from_secs(1), |number, _| number % 3));
    let Paused { spread, lone } = paused(&fleet, &server);
    let back = takes("all are back", || {
        let is_back = |one: &Balancer| told_of(one).iter().filter(|one| one["cut_off"] == false).count() == 3;
        fleet.list.iter().all(is_back).then_some(())
    });
    let most = 1.25 * of_one(PAUSE.as_secs_f64());
    aloud(&format!(
        "budget: paused for {PAUSE:?}: {} admitted of at most {most}; at 0.9 on one instance {:.1} %; p99 {:?}, {:?} with \
         shared_budget off, which admits {}; back after {back:?}",
        spread.allowed(),
        lone.part() * 100.0,
        spread.p99(),
        off.p99(),
        off.allowed()
    ));
    assert!(spread.allowed() as f64 <= most, "{} of at most {most}", spread.allowed());
    assert!(lone.part() >= 0.95, "{}", lone.part());
    // A tenth is promised, and a busy machine's slices differ by some milliseconds.
    let most = off.p99().mul_f64(1.1) + Duration::from_millis(3);
    assert!(spread.p99() <= most, "{:?} with it, {:?} without", spread.p99(), off.p99());
    assert!(back < Duration::from_secs(2), "{back:?}");
    let rest = steady(200.0, Duration::from_secs(2), |number, _| number % 3);
    let (rest, _) = fleet.send("10.0.0.10", &rest);
    let all = some.allowed() + rest.allowed();
    aloud(&format!("budget: before and after it {all} of 300 that are never refilled were admitted"));
    assert!(all >= 300, "{all} of 300 were admitted: something was charged twice");
    assert!(all as f64 <= 300.0 + beyond(3.0, 200.0, 0.1), "{all} of 300");
}

#[test]
#[ignore = "a minute"]
fn ten_thousand_quiet_clients_are_not_reported() {
    let Some(database) = Database::postgres() else { return };
    // 5 % of 1/s is one request in 20 s.
    let limit = json!({ "capacity": 100, "rate_per_sec": 1 });
    let fleet = Fleet::start(&database, 10, |setup| {
        setup
            .set("rate_limit.default", limit)
            .set("frontend.workers", json!(1))
            .set("database.pool_size", json!(2))
    });
    fleet.know_each_other();
    let client = |number: usize| format!("10.1.{}.{}", number % 10_000 / 100, number % 100);
    let shots = steady(490.0, Duration::from_secs(41), |number, _| number % 7 + number % 4);
    let (began, before) = (Instant::now(), fleet.sent_messages());
    // A hot client is one no longer some seconds after its last request.
    let (hits, hot) = send_as(&fleet.addresses(), client, &shots, |_| {
        let mut hot: f64 = 0.0;
        while began.elapsed() < Duration::from_secs(41) {
            std::thread::sleep(Duration::from_secs(1));
            hot = fleet.most("balancer_budget_hot_clients").max(hot);
        }
        hot
    });
    let (after, seconds) = (fleet.sent_messages(), began.elapsed().as_secs_f64());
    assert_eq!(hits.refused(), 0);
    let clients = fleet.list[0].series("balancer_ratelimit_clients");
    let most =
        after.iter().zip(&before).map(|(after, before)| (after - before) / seconds).fold(0.0, f64::max);
    aloud(&format!(
        "budget: 10,000 quiet clients on 10 instances: at most {most:.1} messages a second, {clients} clients on one"
    ));
    assert!(most <= 20.0, "{most}");
    assert_eq!(hot, 0.0, "clients were hot");
}
