//! Thousands of clients that wait or are slow delay no other: requests beside them take as long as before.
//! `BALANCER_DRILL_CLIENTS` sets how many clients.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::crowd::{Crowd, Habit};
use super::farm::Farm;
use super::normal::Normal;
use super::{may_open, setup, turn};
use crate::support::client::head;
use crate::support::{Conn, until};

/// Requests that are measured before and beside a crowd.
const MEASURED: usize = 600;
/// Below this time a request counts as quick: small times vary by more than twice on a busy machine.
const FLOOR: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(100);

/// How many clients a crowd has.
fn clients(usual: usize) -> usize {
    std::env::var("BALANCER_DRILL_CLIENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

/// Fails unless one of three measurements finds times of at most twice those before: the machine may be busy during one.
#[track_caller]
fn at_most_twice(what: &str, before: Duration, mut measure: impl FnMut() -> Duration) {
    let most = FLOOR.max(2 * before);
    let slow: Vec<Duration> = (0..3).map_while(|_| Some(measure()).filter(|took| *took > most)).collect();
    assert!(slow.len() < 3, "{what}: {slow:?}, {before:?} before");
}

/// Where clients come from: all from one address, or in turns from eight.
fn sources(count: u8) -> Vec<Ipv4Addr> {
    (1..=count).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect()
}

/// All clients of the crowd send the same, from one address and from several. Other requests are measured while they
/// wait, and after they left.
fn nobody_is_stopped_by(first: &[u8]) {
    let _turn = turn();
    let all = clients(2000);
    if !may_open(4 * all as u64) {
        return;
    }
    let farm = Farm::start();
    // No request times out while the test waits.
    let balancer = setup().backend(farm.address()).set("upstream.response_timeout", json!("5m")).start();
    let first: Arc<[u8]> = Arc::from(first);
    let normal = Normal::start(balancer.address);
    let before = normal.measure(MEASURED);
    for sources in [sources(1), sources(8)] {
        let mut crowd = Crowd::new(TICK);
        for from in sources.iter().cycle().take(all) {
            crowd.join_from(*from, balancer.address, "pending", Habit::Listen, &first);
        }
        until("all are at the backend", || (farm.hanging() == all).then_some(()));
        at_most_twice("beside those who stay", before, || normal.measure(MEASURED));
        assert_eq!(farm.hanging(), all, "they were there all the time");
        let left = Instant::now();
        crowd.reset();
        until("nobody waits any more", || (farm.hanging() == 0).then_some(()));
        assert!(left.elapsed() < Duration::from_secs(10), "{:?}", left.elapsed());
        at_most_twice("behind those who left", before, || normal.measure(MEASURED));
    }
    normal.finish();
}

#[test]
fn one_slow_url_stops_nobody() {
    nobody_is_stopped_by(&head("GET", "/hang", &[], None));
}

#[test]
fn slow_websocket_handshakes_stop_nobody() {
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
    nobody_is_stopped_by(&head("GET", "/hang", &upgrade, None));
}

/// How long a whole upload of that many bytes takes.
fn upload(to: SocketAddr, bytes: usize) -> Duration {
    let began = Instant::now();
    let answer = Conn::open(to).ask("POST", "/sink", &[], &vec![b'x'; bytes]).expect(200);
    assert_eq!(answer.text(), bytes.to_string());
    began.elapsed()
}

#[test]
fn slow_uploads_stop_nobody_and_no_quick_one() {
    /// Bytes that each slow client sends in a tick: 10 kB/s.
    const A_TICK: usize = 1000;
    const QUICK: usize = 100_000;
    let _turn = turn();
    let all = clients(500);
    if !may_open(4 * all as u64) {
        return;
    }
    let farm = Farm::start();
    let balancer = setup().backend(farm.address()).start();
    let normal = Normal::start(balancer.address);
    let before = normal.measure(MEASURED);
    let alone = (0..10).map(|_| upload(balancer.address, QUICK)).max().unwrap();
    let mut crowd = Crowd::new(TICK);
    let first: Arc<[u8]> = Arc::from(head("POST", "/sink", &[], Some(10 << 20)));
    for from in sources(8).iter().cycle().take(all) {
        crowd.join_from(*from, balancer.address, "upload", Habit::Pour(A_TICK), &first);
    }
    crowd.act_until("all uploads are under way", |_| farm.bodies() >= all);
    let to = balancer.address;
    at_most_twice("beside slow uploads", before, || {
        let from = normal.answered();
        crowd.act_until("the normal requests were answered", |_| normal.answered() >= from + MEASURED);
        normal.p99_since(from)
    });
    at_most_twice("quick uploads beside slow ones", alone, || {
        let quick = std::thread::spawn(move || (0..10).map(|_| upload(to, QUICK)).max().unwrap());
        crowd.act_until("the quick uploads are through", |_| quick.is_finished());
        quick.join().unwrap()
    });
    assert_eq!(crowd.open(), all, "{}", crowd.story());
    crowd.reset();
    until("none is left", || (farm.bodies() <= 1).then_some(()));
    normal.finish();
}

#[test]
fn quiet_event_streams_stop_nobody() {
    let _turn = turn();
    let all = clients(2000);
    if !may_open(4 * all as u64) {
        return;
    }
    let farm = Farm::start();
    let balancer = setup().backend(farm.address()).start();
    let normal = Normal::start(balancer.address);
    let before = normal.measure(MEASURED);
    let mut crowd = Crowd::new(TICK);
    let first: Arc<[u8]> = Arc::from(head("GET", "/events", &[], None));
    for from in sources(8).iter().cycle().take(all) {
        crowd.join_from(*from, balancer.address, "stream", Habit::Listen, &first);
    }
    crowd.act_until("all streams are open", |crowd| {
        crowd.clients.iter().all(|client| client.status() == Some(200))
    });
    at_most_twice("beside quiet streams", before, || normal.measure(MEASURED));
    assert_eq!((crowd.open(), farm.streams()), (all, all), "{}", crowd.story());
    crowd.reset();
    until("none is left", || (farm.streams() == 0).then_some(()));
    at_most_twice("behind them", before, || normal.measure(MEASURED));
    normal.finish();
}
