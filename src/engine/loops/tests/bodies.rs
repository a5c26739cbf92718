//! Requests' bodies: gathered for the lane, refused, and asked for.

use super::*;
use std::net::Shutdown;

const CHUNKED: &[u8] = b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nT: r\r\n\r\n";

#[test]
fn a_body_is_whole_before_the_lane_has_it_however_it_is_framed_and_cut() {
    let door = Door::open(&config(), lane);
    let mut stream = door.connect();
    stream.set_nodelay(true).expect("set");
    for cut in 0..CHUNKED.len() {
        for (fields, body) in
            [("Transfer-Encoding: chunked\r\n", CHUNKED), ("Content-Length: 5\r\n", b"abcde")]
        {
            let (first, second) = body.split_at(cut.min(body.len()));
            let looks = door.service.turns.load(Ordering::SeqCst);
            stream.write_all(&[&post(fields), first].concat()).expect("sent");
            until("it was read", || door.service.turns.load(Ordering::SeqCst) > looks);
            stream.write_all(second).expect("sent");
            assert_eq!(read_answer(&mut stream).1, "POST /x abcde", "cut at {cut}");
        }
        stream.write_all(&get("/now")).expect("sent");
        assert_eq!(read_answer(&mut stream).1, "/now");
    }
}

#[test]
fn a_call_may_have_so_much_of_a_body_and_no_more() {
    let door = Door::open(&config(), |_| Step::Work(100_000));
    for length in [100_000, 100_001] {
        let body = vec![b'x'; length];
        let chunked = [format!("{length:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        for (fields, body) in [
            (format!("Content-Length: {length}\r\n"), body),
            ("Transfer-Encoding: chunked\r\n".into(), chunked),
        ] {
            let mut stream = door.send(&[post(&fields), body].concat());
            let (head, text) = read_answer(&mut stream);
            if length == 100_000 {
                assert!(text.len() == 100_008 && !head.contains("Connection: close"), "{head:?}");
            } else {
                assert!(head.starts_with("HTTP/1.1 413 "), "{head:?}");
                // Whatever was not read is dropped, and the connection ends.
                assert!(!head.contains("Connection: close") || read_to_end(&mut stream).is_empty());
            }
        }
    }
}

#[test]
fn a_body_that_comes_too_slowly_gets_408_and_one_that_breaks_off_is_over() {
    let times = Frontend { body_timeout: Duration::from_millis(200), ..config() };
    let door = Door::open(&times, lane);
    for fields in ["Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut slow = door.send(&[&post(fields), &b"2\r\nab"[..]].concat());
        assert!(read_to_end(&mut slow).starts_with("HTTP/1.1 408 "));
        let gone = door.send(&[&post(fields), &b"2\r\nab"[..]].concat());
        drop(gone);
    }
    door.until_empty();
    assert!(door.ask(b"GET /now HTTP/1.0\r\n\r\n").ends_with("/now"));
}

#[test]
fn a_body_below_the_minimum_rate_gets_408_though_it_never_pauses() {
    let times = Frontend { min_bytes_per_sec: 1 << 20, slow_grace: Duration::from_millis(200), ..config() };
    let door = Door::open(&times, lane);
    let mut slow = door.send(&post("Content-Length: 100000\r\n"));
    let mut writer = slow.try_clone().expect("a second handle");
    let trickle = thread::spawn(move || {
        while writer.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(read_head(&mut slow).starts_with("HTTP/1.1 408 "));
    slow.shutdown(Shutdown::Both).expect("open");
    trickle.join().expect("the writer ends");
}

#[test]
fn a_body_beyond_the_bound_gets_413_that_is_read_and_not_reset() {
    let bound = Frontend { max_body_bytes: 100_000, ..config() };
    let door = Door::open(&bound, |_| Step::Work(1 << 30));
    for (fields, piece) in [
        ("Content-Length: 8000000\r\n", vec![b'x'; 80_000]),
        ("Transfer-Encoding: chunked\r\n", [b"10000\r\n".as_slice(), &[b'x'; 65536], b"\r\n"].concat()),
    ] {
        let mut stream = door.send(&post(fields));
        // A client that sends everything before it reads: a reset would fail it.
        for _ in 0..100 {
            stream.write_all(&piece).expect("the engine takes it");
        }
        assert!(read_to_end(&mut stream).starts_with("HTTP/1.1 413 "));
    }
}

#[test]
fn the_client_that_waits_for_100_gets_it_only_when_the_body_is_wanted() {
    let door = Door::open(&config(), |asked| {
        if asked.head.target == "/no" {
            return Step::Answer(Answer::new(429, b"no".to_vec()));
        }
        lane(asked)
    });
    let fields = "Expect: 100-continue\r\nContent-Length: 5\r\n";
    let mut stream = door.send(&post(fields));
    assert_eq!(read_head(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").expect("sent");
    assert_eq!(read_answer(&mut stream).1, "POST /x hello");
    // With the body at hand there is nothing to ask for.
    stream.write_all(&[&post(fields)[..], b"hello"].concat()).expect("sent");
    assert_eq!(read_answer(&mut stream).1, "POST /x hello");
    let no = b"POST /no HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let answer = door.ask(no);
    assert!(
        answer.starts_with("HTTP/1.1 429 ") && answer.contains("\r\nConnection: close\r\n"),
        "{answer:?}"
    );
}

/// A body that breaks off or is at fault must not stay counted as gathered: after 64 MiB of such bodies, no call would
/// have its body read any more.
#[test]
fn what_calls_that_came_to_nothing_had_gathered_is_forgotten() {
    let times = Frontend { body_timeout: Duration::from_secs(2), ..config() };
    let door = Door::open(&times, |_| Step::Work(9 << 20));
    let piece = vec![b'x'; 8 << 20];
    let chunk = [b"800000\r\n".as_slice(), &piece, b"\r\n"].concat();
    for n in 0..9 {
        let mut left = door.send(&post("Content-Length: 9000000\r\n"));
        left.write_all(&piece).expect("the engine takes it");
        drop(left);
        let mut wrong = door.send(&post("Transfer-Encoding: chunked\r\n"));
        wrong.write_all(&[&chunk[..], b"x\r\n"].concat()).expect("the engine takes it");
        assert!(read_to_end(&mut wrong).starts_with("HTTP/1.1 400 "), "{n}");
        drop(wrong);
        door.until_empty();
    }
    let mut whole = door.send(&[&post("Content-Length: 8388608\r\n")[..], &piece].concat());
    assert!(read_head(&mut whole).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_full_lane_refuses_and_what_it_has_is_answered() {
    // Two threads, and what may wait for one.
    const MOST: usize = 2 + 256;
    let door = Door::open(&config(), lane);
    let gate = door.service.gate.lock();
    let mut clients: Vec<_> = (0..2).map(|_| door.send(&get("/gate"))).collect();
    until("both threads are at work", || door.begun() == 2);
    door.until("they wait", |stats| stats.parked == 2);
    clients.extend((2..MOST).map(|_| door.send(&get("/gate"))));
    door.until("the lane is full", |stats| stats.parked == MOST);
    let mut over = door.send(&get("/lane"));
    let (head, _) = read_answer(&mut over);
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nRetry-After: 1\r\n"), "{head:?}");
    assert!(door.ask(b"GET /now HTTP/1.0\r\n\r\n").ends_with("/now"), "others do not wait for it");
    // Some leave meanwhile: their answers find no client, and are settled.
    reset(clients.remove(0));
    reset(clients.remove(100));
    door.until("they have left", |stats| stats.parked == MOST - 2);
    drop(gate);
    for stream in &mut clients {
        assert_eq!(read_answer(stream).1, "GET /gate ");
    }
    until("all are settled", || door.service.ends.lock().len() == MOST + 1);
    let gone = door.service.ends.lock().iter().filter(|end| end.2 == DeliveryOutcome::ClientGone).count();
    assert_eq!(gone, 2);
}
