//! The bounds on connections: on all of them, and on those of one address.

use serde_json::json;

use super::{is_open, setup};
use crate::support::client::head;
use crate::support::{Backend, Conn, Engine, Fault, Setup, until};

fn refused(mut conn: Conn) {
    // Nothing is sent: a byte that nobody reads would turn the close into a reset.
    let (bytes, fault) = conn.wait_closed();
    assert!(bytes.is_empty() && matches!(fault, Fault::Closed | Fault::Reset), "{bytes:?} {fault:?}");
}

#[test]
fn beyond_max_connections_the_longest_idle_makes_room_and_then_nobody_is_let_in() {
    const MOST: usize = 20;
    let backend = Backend::named("a");
    // Several loops each close the longest idle of their own.
    let balancer = setup()
        .one_loop()
        .backend(backend.address())
        .set("frontend.max_connections", json!(MOST))
        .set("admin.listen", json!("127.0.0.1:0"))
        .start();
    // They become idle one after the other. The answer comes a moment before its connection is idle: wait for that.
    let idle = |count: usize| {
        let wanted = format!("balancer_connections{{state=\"idle\"}} {count}\n");
        let metrics = || crate::support::get(balancer.admin, "/metrics").text();
        until("the connection is idle", || metrics().contains(&wanted).then_some(()));
    };
    let mut kept: Vec<Conn> = Vec::new();
    for count in 1..=MOST {
        let mut conn = Conn::open(balancer.address);
        conn.get("/").expect(200);
        kept.push(conn);
        idle(count);
    }
    // Used again, the first two are the youngest now.
    for conn in &mut kept[..2] {
        conn.get("/").expect(200);
        idle(MOST);
    }
    kept.rotate_left(2);
    let mut newer: Vec<Conn> = Vec::new();
    for round in 0..5 {
        let mut conn = Conn::open(balancer.address);
        conn.get("/").expect(200);
        newer.push(conn);
        idle(MOST);
        assert_eq!(kept[round].wait_closed(), (Vec::new(), Fault::Closed), "the longest idle is closed");
        assert!(kept[round + 1..].iter_mut().all(is_open), "and no other");
    }
    assert!(newer.iter_mut().all(is_open));

    // A client in the middle of a head is not idle.
    let mut open: Vec<Conn> = kept.drain(5..).chain(newer).collect();
    assert_eq!(open.len(), MOST);
    for conn in &mut open {
        conn.send("GET / HTTP/1.1\r\nHo");
    }
    idle(0);
    refused(Conn::open(balancer.address));
    // The admin listener has a bound of its own.
    crate::support::get(balancer.admin, "/-/livez").expect(200);
    // None of them was disturbed.
    for mut conn in open {
        conn.send("st: a\r\n\r\n");
        conn.read("GET").unwrap().expect(200);
    }
    // Once there is room again, every client is served.
    until("there is room", || {
        let mut conn = Conn::open(balancer.address);
        let asked = conn.try_send(head("GET", "/", &[], None));
        asked.ok().and_then(|()| conn.read("GET").ok()).map(|answer| answer.expect(200))
    });
}

#[test]
fn one_address_has_a_bound_that_leaves_the_others_alone() {
    const MOST: usize = 10;
    let backend = Backend::named("a");
    let balancer = Setup::on(Engine::Epoll)
        .backend(backend.address())
        .set("frontend.max_connections_per_ip", json!(MOST))
        .start();
    let from = |address: &str| Conn::from(address.parse().expect("an address"), balancer.address);
    let mut held: Vec<Conn> = (0..MOST).map(|_| from("127.0.0.1")).collect();
    for conn in &mut held {
        conn.get("/").expect(200);
    }
    refused(from("127.0.0.1"));
    // Not even an idle one of its own makes room; and another address is not concerned.
    let mut others: Vec<Conn> = (0..MOST).map(|_| from("127.0.0.2")).collect();
    for conn in held.iter_mut().chain(&mut others) {
        conn.get("/").expect(200);
    }
    refused(from("127.0.0.2"));
    held.pop();
    until("a place is given back", || {
        let mut conn = from("127.0.0.1");
        let asked = conn.try_send(head("GET", "/", &[], None));
        asked.ok().and_then(|()| conn.read("GET").ok()).map(|answer| answer.expect(200))
    });
}

/// At the bound each new connection takes the place of an idle one. It must not be that of a client that came a moment
/// before and has had no time to ask.
#[test]
fn newcomers_take_the_places_of_idle_clients_and_not_each_others() {
    const MOST: usize = 20;
    let backend = Backend::named("a");
    let balancer = setup().backend(backend.address()).set("frontend.max_connections", json!(MOST)).start();
    let mut kept: Vec<Conn> = (0..MOST).map(|_| Conn::open(balancer.address)).collect();
    kept.iter_mut().for_each(|conn| drop(conn.get("/").expect(200)));
    for _ in 0..5 {
        let mut newcomers: Vec<Conn> = (0..MOST / 4).map(|_| Conn::open(balancer.address)).collect();
        for conn in &mut newcomers {
            conn.get("/").expect(200);
        }
        kept.extend(newcomers);
    }
    // A loop that was told to make room may have had no idle connection at that moment.
    until("the others are closed", || {
        let open = kept.iter_mut().map(is_open).filter(|open| *open).count();
        (open <= MOST + 2).then_some(())
    });
}

/// Silent connections take each other's places, however fast they come.
#[test]
fn a_flood_of_silent_connections_leaves_kept_ones_alone() {
    const MOST: usize = 200;
    let backend = Backend::named("a");
    let balancer = setup()
        .backend(backend.address())
        .set("frontend.max_connections", json!(MOST))
        // Silent connections would end by it.
        .set("frontend.head_timeout", json!("5m"))
        .start();
    let mut kept: Vec<Conn> = (0..MOST / 2).map(|_| Conn::open(balancer.address)).collect();
    kept.iter_mut().for_each(|conn| drop(conn.get("/").expect(200)));
    let mut silent: Vec<Conn> = (0..5 * MOST).map(|_| Conn::open(balancer.address)).collect();
    Conn::open(balancer.address).get("/").expect(200);
    Conn::open(balancer.address).get("/-/livez").expect(200);
    let open = |conns: &mut Vec<Conn>| conns.iter_mut().map(is_open).filter(|open| *open).count();
    let kept = until("no more are open than may be", || {
        let (kept, silent) = (open(&mut kept), open(&mut silent));
        (kept + silent <= MOST).then_some(kept)
    });
    // The first silent ones may take some places of kept connections.
    assert!(kept >= MOST / 4, "{kept} kept ones are open");
}
