//! Connections: kept, closed, counted, evicted, drained; and what a panic costs.

use super::*;
use std::net::{IpAddr, Shutdown};

use crate::engine::loops::counts::{Counted, Counts, Full, Kind};

#[test]
fn a_connection_is_kept_as_its_version_and_its_options_say() {
    let door = Door::open(&config(), lane);
    let mut stream = door.connect();
    for path in ["/now/1", "/2", "/3"] {
        stream.write_all(&get(path)).expect("sent");
        assert!(!read_answer(&mut stream).0.contains("Connection"));
    }
    stream.write_all(b"GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
    let last = read_to_end(&mut stream);
    assert!(last.contains("\r\nConnection: close\r\n"), "{last:?}");
    assert!(door.ask(b"GET /now HTTP/1.0\r\n\r\n").contains("\r\nConnection: close\r\n"));
    let mut old = door.connect();
    for path in ["/now", "/lane"] {
        let request = format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        old.write_all(request.as_bytes()).expect("sent");
        assert!(read_answer(&mut old).0.contains("\r\nConnection: keep-alive\r\n"));
    }
}

#[test]
fn a_half_closed_client_is_answered() {
    for abort_on_close in [true, false] {
        let door = Door::open(&Frontend { abort_on_close, ..config() }, lane);
        for path in ["/now", "/lane"] {
            let mut stream = door.send(&get(path));
            stream.shutdown(Shutdown::Write).expect("open");
            assert!(read_to_end(&mut stream).starts_with("HTTP/1.1 200 "));
        }
        door.until_empty();
    }
}

#[test]
fn a_panic_costs_its_own_request_a_500() {
    let door = Door::open(&config(), |asked| {
        assert_ne!(asked.head.target, "/now/panic", "as the test wants it");
        lane(asked)
    });
    let mut other = door.send(&get("/now"));
    read_answer(&mut other);
    for path in ["/now/panic", "/panic"] {
        let mut stream = door.send(&get(path));
        assert!(read_answer(&mut stream).0.starts_with("HTTP/1.1 500 "), "{path}");
    }
    other.write_all(&get("/now")).expect("sent");
    assert_eq!(read_answer(&mut other).1, "/now");
    assert_eq!(*door.service.events.lock(), [FrontendEvent::Panicked, FrontendEvent::Panicked]);
}

#[test]
fn at_the_bound_silent_ones_go_first_then_the_longest_idle() {
    let bound = Frontend { max_connections: 3, ..config() };
    let door = Door::open(&bound, lane);
    let idle = |path: &str| {
        let mut stream = door.send(&get(path));
        read_answer(&mut stream);
        stream
    };
    let (mut first, mut second) = (idle("/now/1"), idle("/now/2"));
    let mut silent = door.connect();
    door.until("it is counted", |stats| stats.reading == 1 && stats.idle == 2);
    // What has said nothing for a second is no client whose request is on its way.
    let since = Clock::real();
    let begun = since.now();
    until("it is no longer new", || since.now() - begun > 1_100_000_000);
    let mut third = idle("/now/3");
    assert_eq!(read_to_end(&mut silent), "", "the silent one went");
    let _fourth = idle("/now/4");
    assert_eq!(read_to_end(&mut first), "", "the longest idle one went");
    second.write_all(&get("/now")).expect("sent");
    assert_eq!(read_answer(&mut second).1, "/now");
    third.write_all(&get("/now")).expect("sent");
    assert_eq!(read_answer(&mut third).1, "/now");
}

#[test]
fn at_the_bound_with_nobody_idle_new_ones_are_refused() {
    let bound = Frontend { max_connections: 2, ..config() };
    let door = Door::open(&bound, lane);
    let _reading: Vec<_> = (0..2).map(|_| door.send(b"GET / HT")).collect();
    let kinds = &door.running().shared.counts;
    until("both are in the middle of a head", || kinds.of_kind(Kind::Reading) == 2);
    let mut refused = door.connect();
    assert!(matches!(refused.read(&mut [0]), Ok(0) | Err(_)), "closed at once");
    until("counted", || {
        door.service.events.lock().contains(&FrontendEvent::Rejected(Rejection::MaxConnections))
    });
}

#[test]
fn one_address_has_a_bound_of_its_own() {
    let bound = Frontend { max_connections_per_ip: 2, ..config() };
    let door = Door::open(&bound, lane);
    let mut held: Vec<_> = (0..2).map(|_| door.connect()).collect();
    let mut refused = door.connect();
    assert!(matches!(refused.read(&mut [0]), Ok(0) | Err(_)), "closed at once");
    assert!(door.service.events.lock().contains(&FrontendEvent::Rejected(Rejection::MaxConnectionsPerIp)));
    held.pop();
    until("its place is free again", || {
        let mut stream = door.connect();
        let _ = stream.write_all(b"GET /now HTTP/1.0\r\n\r\n");
        let mut text = String::new();
        stream.read_to_string(&mut text).is_ok() && text.starts_with("HTTP/1.1 200 ")
    });
}

#[test]
fn counts_follow_a_connection_and_addresses_of_one_prefix_are_one_client() {
    let counts = Arc::new(Counts::new(2, 5, 2, 64));
    let try_enter =
        |room, address: &str| Counted::enter(&counts, room, address.parse::<IpAddr>().expect("one"));
    let enter = |room, address: &str| try_enter(room, address).ok();
    let mut one = enter(0, "2001:db8::1").expect("the first");
    let two = enter(1, "2001:db8::ffff:2").expect("the second");
    assert_eq!(try_enter(0, "2001:db8::3").err(), Some(Full::Address), "a third of the same /64");
    let other = enter(0, "2001:db8:0:1::1").expect("of another /64");
    let v4: Vec<_> = (0..2).filter_map(|_| enter(0, "1.2.3.4")).collect();
    assert!(v4.len() == 2 && enter(0, "1.2.3.4").is_none());
    for _ in 0..3 {
        // What is refused for want of a place does not count for its address.
        assert_eq!(try_enter(0, "1.2.3.5").err(), Some(Full::All));
    }
    assert_eq!((counts.all(), counts.of_loop(0), counts.of_loop(1)), (5, 4, 1));
    assert_eq!(counts.of_kind_in(0, Kind::Silent), 4);
    one.set_kind(Kind::Idle);
    assert_eq!((counts.of_kind_in(0, Kind::Silent), counts.of_kind_in(0, Kind::Idle)), (3, 1));
    one.move_to(1);
    assert_eq!((counts.of_kind_in(0, Kind::Idle), counts.of_kind_in(1, Kind::Idle)), (0, 1));
    assert_eq!((counts.of_loop(0), counts.of_loop(1), counts.of_kind(Kind::Idle)), (3, 2, 1));
    drop((one, two));
    assert!(enter(0, "2001:db8::3").is_some(), "its place is free again");
    drop((other, v4));
    assert_eq!((counts.all(), counts.of_loop(0), counts.of_loop(1)), (0, 0, 0));
}

#[test]
fn draining_ends_connections_with_their_next_answer_or_when_idle() {
    let door = Door::open(&config(), lane);
    let mut busy = door.send(&get("/now"));
    read_answer(&mut busy);
    let mut idle = door.send(&get("/now"));
    read_answer(&mut idle);
    let mut silent = door.connect();
    door.until("all are known", |stats| stats.reading == 1 && stats.idle == 2);
    door.running().stop_accepting();
    busy.write_all(&get("/2")).expect("sent");
    let last = read_to_end(&mut busy);
    assert!(last.contains("\r\nConnection: close\r\n") && last.ends_with("GET /2 "), "{last:?}");
    assert_eq!(read_to_end(&mut idle), "");
    assert_eq!(read_to_end(&mut silent), "");
    assert_eq!(door.running().drain(PATIENCE), crate::engine::Drained::default());
    assert!(TcpStream::connect(door.address).is_err(), "nobody listens");
}

#[test]
fn what_is_left_at_the_end_of_the_time_to_drain_is_cut_and_counted() {
    let door = Door::open(&config(), lane);
    let mut reading = door.send(&post("Content-Length: 9\r\n"));
    door.until("it is read", |stats| stats.reading == 1 && door.begun() == 0);
    let kinds = &door.running().shared.counts;
    until("its body is awaited", || kinds.of_kind(Kind::Reading) == 1);
    let drained = door.running().drain(Duration::from_millis(50));
    assert_eq!((drained.requests, drained.streams, drained.tunnels), (1, 0, 0));
    assert!(reading.read(&mut [0]).is_err(), "it is reset");
    assert_eq!(kinds.all(), 0);
}

#[test]
fn many_clients_whose_time_comes_at_once_all_end() {
    let times = Frontend { head_timeout: Duration::from_millis(300), ..config() };
    let door = Door::open(&times, lane);
    let mut silent: Vec<_> = (0..300).map(|_| door.connect()).collect();
    for stream in &mut silent {
        assert_eq!(read_to_end(stream), "");
    }
    door.until_empty();
}

#[test]
fn a_shorter_time_than_the_one_before_counts() {
    // Idle for 60 s, in the middle of a head for 1 s: the later entry of the timers must not hide the earlier one.
    let times = Frontend { head_timeout: Duration::from_secs(1), ..config() };
    let door = Door::open(&times, lane);
    let mut stream = door.send(&get("/now"));
    read_answer(&mut stream);
    stream.write_all(b"GET / HT").expect("sent");
    assert!(read_to_end(&mut stream).starts_with("HTTP/1.1 408 "));
    // And the other way round: a request that took its time leaves a connection that may be idle for long.
    let mut kept = door.send(b"GET /now HT");
    kept.write_all(b"TP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    read_answer(&mut kept);
    let clock = Clock::real();
    let begun = clock.now();
    until("the head's time has passed", || clock.now() - begun > 1_500_000_000);
    kept.write_all(&get("/now")).expect("sent");
    assert_eq!(read_answer(&mut kept).1, "/now");
}

/// So that a client which is still sending finds the answer, and none stays for ever.
#[test]
fn what_comes_after_the_last_answer_is_dropped_for_ten_seconds_and_silence_awaited_for_two() {
    let clock = Clock::manual();
    let door = Door::by(&clock, None, &config(), Ends::default(), lane);
    let mut other = door.connect();
    for (goes_on, seconds) in [(true, 10), (false, 2)] {
        let mut refused = door.send(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n");
        refused.set_nodelay(true).expect("set");
        assert!(read_head(&mut refused).starts_with("HTTP/1.1 505 "));
        let closing = || door.running().shared.counts.of_kind(Kind::Closing);
        until("it closes", || closing() == 1);
        for second in 0..seconds {
            assert_eq!(closing(), 1, "after {second} s");
            if goes_on {
                refused.write_all(b"x").expect("it is taken");
            }
            clock.advance(Duration::from_secs(1));
            // When this is answered, the loop has seen the time.
            other.write_all(&get("/now")).expect("sent");
            assert_eq!(read_answer(&mut other).1, "/now");
        }
        until("it is closed", || closing() == 0);
    }
}
