//! Keeping, pipelining, closing, bounds and deadlines.

use std::io::{Read, Write};
use std::time::Duration;

use super::{Door, PATIENCE, config, echo, get, half_close, read_answer, read_to_end, until};
use crate::proxy::exchange::Answer;
use crate::proxy::exchange::FrontendEvent;

#[test]
fn a_connection_is_kept_as_its_version_and_its_options_say() {
    let door = Door::open(&config(), echo);
    let mut stream = door.connect();
    for path in ["/1", "/2", "/3"] {
        stream.write_all(&get(path)).expect("sent");
        let (head, body) = read_answer(&mut stream);
        assert!(!head.contains("Connection"), "{head:?}");
        assert_eq!(body, format!("GET {path} "));
    }
    stream.write_all(b"GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
    let last = read_to_end(&mut stream);
    assert!(last.contains("\r\nConnection: close\r\n"), "{last:?}");

    assert!(door.ask(b"GET / HTTP/1.0\r\n\r\n").contains("\r\nConnection: close\r\n"));
    let mut old = door.connect();
    for _ in 0..2 {
        old.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").expect("sent");
        assert!(read_answer(&mut old).0.contains("\r\nConnection: keep-alive\r\n"));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_however_many() {
    let door = Door::open(&config(), echo);
    let mut stream = door.connect();
    let mut all = Vec::new();
    for number in 0..200 {
        let text = format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{number:03}");
        all.extend_from_slice(text.as_bytes());
    }
    let mut writer = stream.try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || {
        // In pieces that fall anywhere.
        for piece in all.chunks(777) {
            writer.write_all(piece).expect("sent");
        }
    });
    for number in 0..200 {
        assert_eq!(read_answer(&mut stream).1, format!("POST /{number} {number:03}"));
    }
    sender.join().expect("the sender ends");
    assert_eq!(door.served(), 200);
}

#[test]
fn a_half_closed_client_is_answered() {
    let door = Door::open(&config(), echo);
    let mut stream = door.connect();
    stream.write_all(&get("/half")).expect("sent");
    half_close(&stream);
    assert!(read_to_end(&mut stream).ends_with("GET /half "));
    door.until("nothing is left", |stats| stats.idle + stats.reading + stats.busy == 0);
}

#[test]
fn a_head_that_does_not_end_gets_408_and_an_idle_connection_is_closed_without_a_word() {
    let times = crate::config::Frontend {
        head_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(300),
        ..config()
    };
    let door = Door::open(&times, echo);
    let mut slow = door.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHo").expect("sent");
    assert!(read_to_end(&mut slow).starts_with("HTTP/1.1 408 "));
    let mut silent = door.connect();
    assert_eq!(read_to_end(&mut silent), "");
    let mut kept = door.connect();
    kept.write_all(&get("/")).expect("sent");
    read_answer(&mut kept);
    assert_eq!(read_to_end(&mut kept), "");
    assert_eq!(*door.service.refused.lock(), [408]);
}

#[test]
fn the_deadline_of_a_head_is_not_moved_by_bytes() {
    let times = crate::config::Frontend { head_timeout: Duration::from_millis(300), ..config() };
    let door = Door::open(&times, echo);
    let mut slow = door.connect();
    let mut writer = slow.try_clone().expect("a second handle");
    let trickle = std::thread::spawn(move || {
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nLong: ".iter().chain(std::iter::repeat(&b'x')) {
            std::thread::sleep(Duration::from_millis(20));
            if writer.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    let mut start = [0; 12];
    slow.read_exact(&mut start).expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 408");
    slow.shutdown(std::net::Shutdown::Both).expect("an open socket");
    trickle.join().expect("the writer ends");
}

#[test]
fn at_the_bound_the_longest_idle_makes_room_and_then_new_ones_are_refused() {
    let bound = crate::config::Frontend { max_connections: 3, ..config() };
    let door = Door::open(&bound, echo);
    let mut kept: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = door.connect();
            stream.write_all(&get("/")).expect("sent");
            read_answer(&mut stream);
            stream
        })
        .collect();
    door.until("all idle", |stats| stats.idle == 3);
    let mut fourth = door.connect();
    fourth.write_all(&get("/4")).expect("sent");
    assert_eq!(read_answer(&mut fourth).1, "GET /4 ");
    assert_eq!(read_to_end(&mut kept.remove(0)), "", "the longest idle one was closed");
    kept[0].write_all(&get("/still")).expect("sent");
    assert_eq!(read_answer(&mut kept[0]).1, "GET /still ");

    // Nobody idle any more: three in the middle of a head.
    let mut third = kept.remove(1);
    for stream in [&mut kept[0], &mut third, &mut fourth] {
        stream.write_all(b"GET / HT").expect("sent");
    }
    door.until("all reading", |stats| stats.reading == 3);
    let mut refused = door.connect();
    let mut byte = [0];
    assert!(matches!(refused.read(&mut byte), Ok(0) | Err(_)), "closed at once");
    until("counted", || door.service.events.lock().contains(&FrontendEvent::Rejected("max_connections")));
}

#[test]
fn one_address_has_a_bound_of_its_own() {
    let bound = crate::config::Frontend { max_connections_per_ip: 2, ..config() };
    let door = Door::open(&bound, echo);
    let mut held: Vec<_> = (0..2).map(|_| door.connect()).collect();
    let mut refused = door.connect();
    let mut byte = [0];
    assert!(matches!(refused.read(&mut byte), Ok(0) | Err(_)), "closed at once");
    held.pop();
    until("its place is free again", || {
        let mut stream = door.connect();
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let mut text = String::new();
        stream.read_to_string(&mut text).is_ok() && text.starts_with("HTTP/1.1 200 ")
    });
}

#[test]
fn a_panic_costs_its_own_request_a_500() {
    let door = Door::open(&config(), |exchange| {
        assert_ne!(exchange.head.target, "/panic", "as the test wants it");
        Answer::new(200, Vec::new())
    });
    for _ in 0..20 {
        assert!(door.ask(&get("/panic")).starts_with("HTTP/1.1 500 "));
    }
    assert!(door.ask(b"GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 "));
    assert_eq!(door.service.events.lock().len(), 20);
}

#[test]
fn draining_ends_connections_with_their_next_answer_or_when_idle() {
    let door = Door::open(&config(), echo);
    let mut busy = door.connect();
    busy.write_all(&get("/1")).expect("sent");
    read_answer(&mut busy);
    let mut idle = door.connect();
    idle.write_all(&get("/1")).expect("sent");
    read_answer(&mut idle);
    assert!(!door.running().drain(Duration::ZERO));
    busy.write_all(&get("/2")).expect("sent");
    let last = read_to_end(&mut busy);
    assert!(last.contains("\r\nConnection: close\r\n") && last.ends_with("GET /2 "), "{last:?}");
    assert_eq!(read_to_end(&mut idle), "");
    assert!(door.running().drain(PATIENCE));
}
