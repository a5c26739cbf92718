//! Clients that leave: after a half-close they are still answered; after a reset the backend's place is free again within a
//! second.

use std::time::{Duration, Instant};

use serde_json::json;

use super::farm::Farm;
use super::hangs::full;
use super::setup;
use crate::support::backend::OK;
use crate::support::client::head;
use crate::support::{Backend, Balancer, Conn, Fault, Gate, Setup, Then, until};

/// How soon a slot must be free again.
const SOON: Duration = Duration::from_secs(1);
/// The machine may be busy with something else: the best of so many counts.
const TRIES: usize = 5;

/// Without `abort_on_close`.
fn patient() -> Setup {
    setup().set("frontend.abort_on_close", json!(false))
}

/// Waits longer than a half-closed client may get no byte of its answer.
fn silence_passes() {
    let looked = Instant::now() + Duration::from_millis(1500);
    until("the silence is long", || (Instant::now() > looked).then_some(()));
}

#[test]
fn without_abort_on_close_a_half_closed_client_gets_its_late_answer() {
    let gate = Gate::default();
    let opened = gate.clone();
    let backend = Backend::scripted(move |_, stream| {
        opened.wait();
        let _ = std::io::Write::write_all(stream, OK);
        Then::Keep
    });
    let balancer = patient().backend(backend.address()).start();
    let mut asked: Vec<(&str, Conn)> = Vec::new();
    for (method, body) in [("GET", None), ("POST", Some(5))] {
        let mut conn = Conn::open(balancer.address);
        conn.send(head(method, "/", &[], body));
        conn.send(vec![b'x'; body.unwrap_or(0)]);
        conn.finish();
        asked.push((method, conn));
    }
    until("the backend has both", || (backend.seen().len() == 2).then_some(()));
    silence_passes();
    assert_eq!(backend.open(), 2, "the calls go on");
    gate.open();
    for (method, mut conn) in asked {
        conn.read(method).unwrap().expect(200);
        assert_eq!(conn.wait_closed().0, b"");
    }
}

/// `printf … | nc` ends its direction with the request.
#[test]
fn a_half_closed_client_gets_the_answer_of_a_quick_backend() {
    let backend = Backend::named("quick");
    let balancer = setup().backend(backend.address()).start();
    let get = head("GET", "/", &[], None);
    let post = [head("POST", "/", &[], Some(5)), b"hello".to_vec()].concat();
    let chunks =
        [head("POST", "/", &[("Transfer-Encoding", "chunked")], None), b"5\r\nhello\r\n0\r\n\r\n".to_vec()];
    let pipeline = get.repeat(3);
    for (request, method, answers) in
        [(get, "GET", 1), (post, "POST", 1), (chunks.concat(), "POST", 1), (pipeline, "GET", 3)]
    {
        for _ in 0..20 {
            let mut conn = Conn::open(balancer.address);
            conn.send(&request);
            conn.finish();
            for _ in 0..answers {
                assert_eq!(conn.read(method).unwrap().expect(200).text(), "quick");
            }
            assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed));
        }
    }
}

/// How long after `leave` the backend saw its connection end; the best of a few tries.
fn soonest_end(
    farm: &Farm,
    balancer: &Balancer,
    request: &[u8],
    soon: Duration,
    leave: impl Fn(Conn),
) -> Duration {
    let is_there = || farm.hanging() + farm.streams() + farm.answers() + farm.bodies() == 1;
    let mut soonest = Duration::MAX;
    for _ in 0..TRIES {
        let mut conn = Conn::open(balancer.address);
        conn.send(request);
        until("the backend is at it", || is_there().then_some(()));
        if farm.streams() + farm.answers() == 1 {
            conn.read_head("GET").unwrap().expect(200);
        }
        assert!(is_there(), "it would have gone on");
        let ended = farm.cut().len();
        let left = Instant::now();
        leave(conn);
        let seen = until("the backend's connection has ended", || farm.cut().get(ended).cloned()).1;
        soonest = soonest.min(seen.saturating_duration_since(left));
        if soonest < soon {
            break;
        }
    }
    soonest
}

/// Requests that are under way until their client leaves: waiting for a head, for more of a stream, for the client to
/// take more of its answer, for the client to send more of its body.
fn under_way() -> [(&'static str, Vec<u8>); 4] {
    let get = |target| head("GET", target, &[], None);
    let upload = [head("POST", "/sink", &[], Some(4 << 20)), vec![b'x'; 200_000]].concat();
    [("hung", get("/hang")), ("events", get("/events")), ("long", get("/bytes/67108864")), ("upload", upload)]
}

#[test]
fn a_client_that_resets_gives_its_backend_slot_back_within_a_second() {
    let farm = Farm::start();
    let balancer = setup().backend(farm.address()).start();
    for (what, request) in under_way() {
        let took = soonest_end(&farm, &balancer, &request, SOON, Conn::reset);
        assert!(took < SOON, "{what}, reset: {took:?}");
    }
    balancer.get("/ok").expect(200);
    assert_eq!(farm.hanging() + farm.streams() + farm.answers() + farm.bodies(), 0);
}

#[test]
fn a_half_close_ends_a_request_that_gets_no_byte_for_a_second() {
    let farm = Farm::start();
    let balancer = setup().backend(farm.address()).start();
    // A client that takes nothing of its answer is found by its pace, not by its half-close.
    for (what, request) in under_way().into_iter().filter(|(what, _)| *what != "long") {
        let held = std::cell::RefCell::new(Vec::new());
        // Half a body can't become a request any more, so nothing is waited for.
        let least = if what == "upload" { Duration::ZERO } else { Duration::from_millis(950) };
        let took = soonest_end(&farm, &balancer, &request, least + SOON, |conn| {
            conn.finish();
            held.borrow_mut().push(conn);
        });
        assert!(took >= least && took < least + SOON, "{what}, half-closed: {took:?}");
    }
    balancer.get("/ok").expect(200);
}

#[test]
fn without_it_a_half_close_ends_no_stream() {
    let farm = Farm::start();
    let balancer = patient().backend(farm.address()).start();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", "/events", &[], None));
    conn.finish();
    conn.read_head("GET").unwrap().expect(200);
    silence_passes();
    for number in 0..3 {
        let event = format!("data: {number}\n\n");
        farm.send_event(&number.to_string());
        let mut came = Vec::new();
        // `8\r\n`, the event, `\r\n`.
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        conn.exactly(chunk.len() as u64, &mut |bytes| came.extend_from_slice(bytes)).unwrap();
        assert_eq!(String::from_utf8_lossy(&came), chunk);
    }
    assert_eq!((farm.streams(), farm.cut().len()), (1, 0));
}

/// The same second holds in line, and at a second backend after the first has failed.
#[test]
fn a_half_close_ends_a_request_in_line_and_one_that_was_sent_again() {
    let farm = Farm::start();
    let setup = setup()
        .set("admin.listen", json!("127.0.0.1:0"))
        // It would end the requests as well.
        .set("upstream.response_timeout", json!("5m"));
    let narrow = setup
        .clone()
        .backend_with(json!({ "url": format!("http://{}", farm.address()), "max_in_flight": 1 }))
        .set("balancing.queue_timeout", json!("5m"))
        .set("balancing.queue_target", json!(null))
        .start();
    let value = |balancer: &Balancer, series: &str| {
        let text = crate::support::get(balancer.admin, "/metrics").expect(200).text();
        text.contains(&format!("{series}\n")).then_some(())
    };
    let mut held = Conn::open(narrow.address);
    held.send(head("GET", "/hang", &[], None));
    until("it is at the backend", || (farm.hanging() == 1).then_some(()));
    let mut waits = Conn::open(narrow.address);
    waits.send(head("GET", "/ok", &[], None));
    until("it is in line", || value(&narrow, "balancer_queue_depth{pool=\"default\"} 1"));
    let began = Instant::now();
    waits.finish();
    until("it has left the line", || value(&narrow, "balancer_queue_depth{pool=\"default\"} 0"));
    assert!(began.elapsed() > Duration::from_millis(950), "{:?}", began.elapsed());
    assert!(waits.wait_closed().0.is_empty());
    held.reset();
    until("the place is free", || {
        value(&narrow, "balancer_backend_in_flight{pool=\"default\",backend=\"a\"} 0")
    });

    let broken = Backend::saying("", Then::Reset);
    let twice = setup
        .backend(broken.address())
        .backend(farm.address())
        .set("balancing.strategy", json!("first"))
        .start();
    for leave in [Conn::reset, |conn: Conn| {
        conn.finish();
        std::mem::forget(conn);
    }] {
        let mut conn = Conn::open(twice.address);
        conn.send(head("GET", "/hang", &[], None));
        until("it was sent again", || (farm.hanging() == 1).then_some(()));
        leave(conn);
        until("the second attempt has ended", || (farm.hanging() == 0).then_some(()));
        until("every place is given back", || {
            value(&twice, "balancer_backend_in_flight{pool=\"default\",backend=\"b\"} 0")
        });
    }
    assert!(!broken.seen().is_empty());
}

/// Half a body and its end come before a connection to the backend: there is nothing to do until it does.
#[test]
fn who_leaves_in_mid_upload_costs_no_processor_time() {
    let (nobody, _listener, _held) = full();
    let balancer = setup().backend(nobody).set("upstream.connect_timeout", json!("10s")).start();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("POST", "/", &[], Some(8 << 20)));
    until("it is on its way", || {
        balancer
            .get("/-/metrics")
            .text()
            .contains("balancer_backend_in_flight{pool=\"default\",backend=\"a\"} 1\n")
            .then_some(())
    });
    conn.send(vec![b'x'; 10_000]);
    conn.finish();
    let used = balancer.proc.cpu_time();
    silence_passes();
    let used = balancer.proc.cpu_time() - used;
    assert!(used < Duration::from_millis(500), "{used:?}");
}

/// A client that has ended its direction and reads slowly, with more to come than buffers hold, is still there.
#[test]
fn a_half_closed_client_may_pause_in_its_answer() {
    const BYTES: u64 = 64 << 20;
    let farm = Farm::start();
    let balancer = setup().backend(farm.address()).start();
    let mut conn = Conn::open(balancer.address);
    conn.send(head("GET", &format!("/bytes/{BYTES}"), &[], None));
    conn.finish();
    conn.read_head("GET").unwrap().expect(200);
    let mut left = BYTES;
    for _ in 0..2 {
        silence_passes();
        conn.exactly(8 << 20, &mut |_| {}).unwrap();
        left -= 8 << 20;
    }
    conn.exactly(left, &mut |_| {}).unwrap();
    assert_eq!(conn.wait_closed(), (Vec::new(), Fault::Closed));
}

/// Bodies of calls are counted while they are gathered, and those that break off are forgotten.
#[test]
fn calls_that_break_off_leave_room_for_others() {
    const MIB: usize = 1 << 20;
    let farm = Farm::start();
    let balancer = setup().backend(farm.address()).set("admin.listen", json!("127.0.0.1:0")).start();
    // More than may be gathered at once, one after the other.
    for _ in 0..80 {
        let mut conn = Conn::open(balancer.admin);
        conn.send(head("POST", "/v1/batch", &[], Some(MIB)));
        conn.send(vec![b' '; MIB - 1]);
        conn.finish();
        assert_eq!(conn.read("POST").unwrap().status, 400);
    }
    let body = [b"{\"operations\":[]}".to_vec(), vec![b' '; MIB / 2]].concat();
    let status = crate::support::request(balancer.admin, "POST", "/v1/batch", &[], &body).status;
    assert_ne!(status, 503);
}
