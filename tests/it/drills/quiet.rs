//! Connections that wait for something cost no work: there is one of every kind, and the process sleeps.

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::json;

use super::farm::Farm;
use super::long::{tunnel, upgrading};
use super::setup;
use crate::support::client::head;
use crate::support::{Backend, Balancer, Conn, Setup, Then, until};

/// How long it is looked at, and the processor time that may be used meanwhile.
const LOOK: Duration = Duration::from_millis(1500);
const MOST: Duration = Duration::from_millis(300);

#[track_caller]
fn sleeps(what: &str, balancer: &Balancer) {
    let used = balancer.proc.cpu_time();
    let until_then = Instant::now() + LOOK;
    until("it was looked at for long enough", || (Instant::now() > until_then).then_some(()));
    let used = balancer.proc.cpu_time() - used;
    assert!(used < MOST, "{what}: {used:?} in {LOOK:?}\n{}", balancer.proc.story());
}

fn patient() -> Setup {
    setup().set("frontend.abort_on_close", json!(false))
}

fn sent(balancer: &Balancer, bytes: &[u8], finishes: bool) -> Conn {
    let mut conn = Conn::open(balancer.address);
    conn.send(bytes);
    if finishes {
        conn.finish();
    }
    conn
}

#[test]
fn who_waits_for_a_backend_or_takes_nothing() {
    let farm = Farm::start();
    let balancer = patient().backend(farm.address()).start();
    let requests = [
        head("GET", "/hang", &[], None),
        head("GET", "/events", &[], None),
        // More than fits into any buffer, and nobody reads it.
        head("GET", "/bytes/67108864", &[], None),
        // More requests behind one that waits.
        [head("GET", "/hang", &[], None).repeat(50)].concat(),
        [head("POST", "/hang", &[], Some(10)), vec![b'x'; 10]].concat(),
    ];
    let mut conns = Vec::new();
    for request in &requests {
        for finishes in [false, true] {
            conns.push(sent(&balancer, request, finishes));
        }
    }
    until("all are at the backend", || {
        (farm.hanging() + farm.streams() + farm.answers() == conns.len()).then_some(())
    });
    sleeps("at a backend", &balancer);
    // Beginnings of requests, an upload that pauses, and one that is refused and goes on being there.
    conns.push(sent(&balancer, b"", false));
    conns.push(sent(&balancer, b"GET / HTTP/1.1\r\nHo", false));
    conns.push(sent(&balancer, &head("POST", "/sink", &[], Some(1000)), false));
    conns.push(sent(
        &balancer,
        &[head("POST", "/sink", &[], Some(4 << 20)), vec![b'x'; 500_000]].concat(),
        false,
    ));
    conns.push(sent(&balancer, b"garbage\r\n\r\n", false));
    sleeps("in the middle of a request", &balancer);
}

#[test]
fn who_waits_in_line() {
    let farm = Farm::start();
    let balancer = patient()
        .backend_with(json!({ "url": format!("http://{}", farm.address()), "max_in_flight": 1 }))
        .set("balancing.queue_timeout", json!("5m"))
        .set("balancing.queue_target", json!(null))
        .start();
    let get = head("GET", "/hang", &[], None);
    let conns: Vec<Conn> = (0..20).map(|number| sent(&balancer, &get, number % 2 == 1)).collect();
    until("one is at the backend", || (farm.hanging() == 1).then_some(()));
    sleeps("in line", &balancer);
    assert_eq!((conns.len(), farm.hanging()), (20, 1));
}

/// Both sides of tunnels, in every state of closing, with bytes that nobody takes.
#[test]
fn tunnels_half_closed_and_full() {
    let echoing = upgrading();
    let balancer = patient().backend(echoing.address()).start();
    let idle = tunnel(&balancer);
    // It sends and does not read, until both directions are full.
    let full = tunnel(&balancer);
    let mut sender = full.another();
    let sending = std::thread::spawn(move || while sender.try_send([b'x'; 65536]).is_ok() {});
    until("both directions are full", || {
        let used = balancer.proc.cpu_time();
        std::thread::sleep(Duration::from_millis(300));
        (balancer.proc.cpu_time() - used < Duration::from_millis(30)).then_some(())
    });
    full.finish();
    sleeps("tunnels", &balancer);
    full.reset();
    drop(idle);
    let _ = sending.join();

    // The backend ends its side and takes nothing.
    let ending = Backend::raw(|_, stream, _| {
        let _ = stream.read(&mut [0; 4096]);
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let _ = std::io::Write::write_all(stream, switch);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        Then::Hang
    });
    let balancer = patient().backend(ending.address()).start();
    let mut conn = tunnel(&balancer);
    conn.send([b'x'; 4096]);
    sleeps("a tunnel whose backend sends no more", &balancer);
}
