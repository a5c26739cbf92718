//! Everything on which the process depends hangs, one after the other, and no loop is delayed by it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::setup;
use crate::support::client::head;
use crate::support::engine::each_engine;
use crate::support::names::{NameServer, Says};
use crate::support::postgres::Postgres;
use crate::support::{Backend, Balancer, Conn, Engine, Setup, get, pipe, until};

/// How much later than an idle thread a loop may be.
const MORE: Duration = Duration::from_millis(50);
/// For how long it is looked at while something hangs.
const TIME: Duration = Duration::from_millis(1500);

/// The machine may be busy with something else: the best of so many counts.
const TRIES: usize = 3;

/// A thread that only sleeps, and how late it was woken at worst: so late the machine itself makes any thread.
struct Idle {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Idle {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            const NAP: Duration = Duration::from_millis(2);
            let mut worst = Duration::ZERO;
            while !ends.load(Ordering::SeqCst) {
                let began = Instant::now();
                std::thread::sleep(NAP);
                worst = worst.max(began.elapsed().saturating_sub(NAP));
            }
            worst
        });
        Self { stop, thread }
    }

    fn worst(self) -> Duration {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("it only sleeps")
    }
}

/// How many turns of loops took at most so many seconds, by bucket.
fn turns(balancer: &Balancer) -> Vec<(f64, u64)> {
    let text = get(balancer.admin, "/metrics").expect(200).text();
    let buckets = text.lines().filter_map(|line| line.strip_prefix("balancer_loop_lag_seconds_bucket{le=\""));
    let buckets = buckets.filter_map(|line| line.split_once("\"} "));
    buckets
        .map(|(most, count)| (most.parse().unwrap_or(f64::MAX), count.parse().expect("a number")))
        .collect()
}

/// Has loops work for a while on what hangs, and on other requests beside. `work` is called again and again, with the
/// number of the call.
pub(super) fn no_loop_is_late(what: &str, balancer: &Balancer, mut work: impl FnMut(usize)) {
    let mut others: Vec<Conn> = (0..8).map(|_| Conn::open(balancer.address)).collect();
    others.iter_mut().for_each(|conn| drop(conn.get("/-/livez").expect(200)));
    let (mut round, mut late) = (0, Vec::new());
    for _ in 0..TRIES {
        let (before, first) = (turns(balancer), round);
        let idle = Idle::start();
        let began = Instant::now();
        // On a busy machine a few calls take all of the time.
        while began.elapsed() < TIME || round - first <= 10 {
            work(round);
            round += 1;
            for conn in &mut others {
                conn.get("/-/livez").expect(200);
            }
        }
        let idle = idle.worst();
        let after = turns(balancer);
        let new = before.iter().zip(&after).map(|((most, before), (_, after))| (*most, after - before));
        let new: Vec<(f64, u64)> = new.collect();
        let all = new.last().map_or(0, |(_, count)| *count);
        assert!(all > 100, "{what}: {all} turns");
        // The longest turn took longer than the bound of the last bucket that does not have all turns.
        let longer = new.iter().filter(|(_, count)| *count < all).map(|(most, _)| *most).fold(0.0, f64::max);
        if longer <= (idle + MORE).as_secs_f64() {
            return;
        }
        late.push(format!("a turn took more than {longer} s, an idle thread was late by {idle:?}"));
    }
    panic!("{what}: {late:#?}");
}

/// Sends a request and does not wait for its answer.
fn ask_from(from: Ipv4Addr, balancer: &Balancer, request: &[u8]) -> Conn {
    let mut conn = Conn::from(IpAddr::V4(from), balancer.address);
    conn.send(request);
    conn
}

pub(super) fn watched() -> Setup {
    setup().set("admin.listen", json!("127.0.0.1:0"))
}

#[test]
fn a_database_that_hangs_makes_no_loop_late() {
    let Some(server) = Postgres::start() else { return };
    let backend = Backend::named("a");
    let balancer = watched()
        .store(&server.database("hangs"))
        .backend(backend.address())
        .set("cache.load_timeout", json!("5s"))
        .start();
    balancer.limit("127.0.3.1", 5, 5);
    server.pause();
    let mut waiting = Vec::new();
    no_loop_is_late("database", &balancer, |round| {
        // An unknown client has to be looked up, and calls of the API wait for the database on threads of their own.
        let unknown = Ipv4Addr::new(127, 0, 4 + (round / 250) as u8, (round % 250) as u8);
        waiting.push(ask_from(unknown, &balancer, &head("GET", "/", &[], None)));
        if round % 8 == 0 {
            let call = head("GET", "/limits", &[], None);
            let mut conn = Conn::open(balancer.admin);
            conn.send(call);
            waiting.push(conn);
        }
    });
    server.resume();
    for conn in &mut waiting {
        let status = conn.read("GET").unwrap().status;
        assert!([200, 503].contains(&status), "{status}");
    }
}

#[test]
fn a_name_server_that_hangs_makes_no_loop_late() {
    let backend = Backend::named("a");
    let server = NameServer::start();
    server.says("app.test", Says::Addresses(vec![Ipv4Addr::LOCALHOST]));
    let balancer = watched()
        .backend_with(json!({ "url": format!("http://app.test:{}", backend.address().port()) }))
        .set("upstream.resolve_interval", json!("100ms"))
        .set("discovery.resolver", json!(server.address.to_string()))
        .start();
    until("its name is known", || (balancer.get("/").status == 200).then_some(()));
    server.says("app.test", Says::Silent);
    let asked = server.asked();
    no_loop_is_late("name server", &balancer, |_| {
        balancer.get("/").expect(200);
    });
    assert!(server.asked() > asked, "it was asked, and said nothing");
}

each_engine! {
    while_the_database_hangs_what_needs_none_is_answered,
}

/// Calls that need only memory are answered while more calls wait for the database than either engine has threads.
fn while_the_database_hangs_what_needs_none_is_answered(engine: Engine) {
    let Some(server) = Postgres::start() else { return };
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .store(&server.database("probes"))
        .backend(backend.address())
        .set("database.timeout", json!("1m"))
        .start();
    balancer.get("/").expect(200);
    server.pause();
    let mut waiting: Vec<Conn> = (0..100)
        .map(|_| {
            let mut conn = Conn::open(balancer.address);
            // A connection of tiny_http's may have to wait until another one ends.
            conn.send(head("GET", "/limits", &[("Connection", "close")], None));
            conn
        })
        .collect();
    for (target, statuses) in [
        ("/-/livez", [200, 200]),
        ("/-/readyz", [200, 503]),
        ("/-/readyz?verbose", [200, 503]),
        ("/-/metrics", [200, 200]),
        ("/-/v1/overview", [200, 200]),
        ("/-/v1/history?metric=requests", [200, 200]),
        ("/-/v1/status", [200, 200]),
        ("/-/v1/limited", [200, 200]),
        ("/-/v1/clients", [200, 200]),
        ("/-/v1/pools", [200, 200]),
        ("/-/v1/pools/default", [200, 200]),
        ("/-/v1/backends", [200, 200]),
        ("/-/v1/backends/a", [200, 200]),
        ("/-/v1/routes", [200, 200]),
        ("/-/openapi.json", [200, 200]),
        ("/-/dashboard", [200, 200]),
        ("/-/v1/nothing", [404, 404]),
        ("/-/v1/import", [405, 405]),
        ("/", [200, 200]),
    ] {
        let began = Instant::now();
        let status = get(balancer.address, target).status;
        let took = began.elapsed();
        assert!(
            statuses.contains(&status) && took < Duration::from_secs(5),
            "{target}: {status} in {took:?}"
        );
    }
    server.resume();
    for conn in &mut waiting {
        let status = conn.read("GET").unwrap().status;
        assert!([200, 503].contains(&status), "{status}");
    }
}

#[test]
fn a_log_that_nobody_reads_makes_no_loop_late() {
    let backend = Backend::named("a");
    let setup = watched().backend(backend.address()).set("log.access", json!("file:access.log"));
    let unread = pipe(&setup.folder().join("access.log"));
    let balancer = setup.start();
    let mut conn = Conn::open(balancer.address);
    // Long lines fill it soon.
    let target = format!("/{}", "x".repeat(4000));
    no_loop_is_late("log", &balancer, |_| {
        for _ in 0..20 {
            conn.get(&target).expect(200);
        }
    });
    let mut fds = [PollFd::new(&unread, PollFlags::OUT)];
    assert_eq!(poll(&mut fds, Some(&Timespec::default())), Ok(0), "there is room in the pipe");
}

/// Listens and has no room for a connection more: connecting to it takes for ever.
pub fn full() -> (SocketAddr, socket2::Socket, Vec<socket2::Socket>) {
    let new = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let listener = new();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    listener.listen(0).expect("a listener");
    let address = listener.local_addr().expect("bound");
    let mut held = Vec::new();
    loop {
        let one = new();
        if one.connect_timeout(&address, Duration::from_millis(300)).is_err() {
            return (address.as_socket().expect("an address"), listener, held);
        }
        held.push(one);
    }
}

#[test]
fn a_backend_to_which_no_connection_comes_about_makes_no_loop_late() {
    let (address, _listener, _held) = full();
    let balancer = watched()
        .backend(address)
        .set("upstream.connect_timeout", json!("4s"))
        .set("upstream.retries", json!(0))
        .start();
    let mut waiting = Vec::new();
    no_loop_is_late("connect", &balancer, |_| {
        waiting.push(ask_from(Ipv4Addr::LOCALHOST, &balancer, &head("GET", "/", &[], None)));
    });
    for mut conn in waiting {
        conn.read("GET").unwrap().problem(502);
    }
}
