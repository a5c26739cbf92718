//! Nobody at the door, and no descriptors left.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::json;

use super::farm::Farm;
use super::{is_open, setup};
use crate::support::client::head;
use crate::support::{Conn, Fault, get, until};

/// A request whose answer is still to come.
fn ask(to: std::net::SocketAddr, target: &str) -> Conn {
    let mut conn = Conn::open(to);
    conn.send(head("GET", target, &[], None));
    conn
}

#[test]
fn without_descriptors_accepting_pauses_and_recovers_by_itself() {
    const FILES: usize = 120;
    let farm = Farm::start();
    let mut balancer =
        setup().backend(farm.address()).set("admin.listen", json!("127.0.0.1:0")).open_files(FILES).start();
    let mut lines = 0;
    for round in 0..2 {
        get(balancer.address, "/ok").expect(200);
        // They say nothing, so none of them may be closed to make room for another.
        let mut held: Vec<Conn> = (0..2 * FILES).map(|_| Conn::open(balancer.address)).collect();
        until("every descriptor is taken", || (balancer.proc.files() >= FILES).then_some(()));
        if round == 0 {
            let said =
                |line: &str| line.contains("no new connections for now") && line.contains("open files");
            (lines, _) = balancer.proc.wait_err(lines, "the operator is told", said);
        }
        // Nobody more gets in: not served, and not refused.
        let mut waiting = ask(balancer.address, "/ok");
        waiting.wait_at_most(Duration::from_millis(300));
        assert_eq!(waiting.read("GET").unwrap_err(), Fault::TimedOut);
        assert!(balancer.proc.files() >= FILES, "{} files", balancer.proc.files());
        held.drain(..).for_each(Conn::reset);
        waiting.wait_at_most(crate::support::PATIENCE);
        waiting.read("GET").unwrap().expect(200);
        for _ in 0..20 {
            get(balancer.address, "/ok").expect(200);
        }
        get(balancer.admin, "/-/livez").expect(200);
    }
    assert!(balancer.proc.poll().is_none(), "the same process all the time");
}

#[test]
fn with_no_descriptor_left_a_kept_client_makes_room_for_a_new_one() {
    const FILES: usize = 120;
    let farm = Farm::start();
    let balancer = setup().backend(farm.address()).open_files(FILES).start();
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut kept = Vec::new();
    for number in 0..3 * FILES {
        let mut conn = Conn::try_from(from, balancer.address).expect("the kernel accepts");
        let answer = conn.get("/-/livez");
        assert_eq!(answer.status, 200, "connection {number}");
        kept.push(conn);
    }
    assert!(balancer.proc.err().contains("no new connections for now"), "{}", balancer.proc.story());
    let closed = kept.iter_mut().map(is_open).filter(|open| !open).count();
    assert!(closed >= 2 * FILES, "{closed} of {} kept connections were closed", kept.len());
}
