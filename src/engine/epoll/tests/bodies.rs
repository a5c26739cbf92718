//! Request bodies: read ahead, streamed, refused.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Door, PATIENCE, config, echo, get, read_answer, read_to_end, until};
use crate::proxy::exchange::{Answer, BodyFault};

fn post(fields: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

#[test]
fn a_small_body_is_whole_before_it_is_served_however_it_is_framed_and_cut() {
    let door = Door::open(&config(), |exchange| {
        let whole = exchange.body.buffered().map(<[u8]>::to_vec);
        let mut answer = echo(exchange);
        answer.status = if whole.is_some() { 200 } else { 500 };
        answer
    });
    let chunked: &[u8] = b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nT: r\r\n\r\n";
    let known: &[u8] = b"abcde";
    for cut in 0..chunked.len() {
        let mut stream = door.connect();
        for (fields, body) in [("Transfer-Encoding: chunked\r\n", chunked), ("Content-Length: 5\r\n", known)]
        {
            let (first, second) = body.split_at(cut.min(body.len()));
            stream.write_all(&[&post(fields), first].concat()).expect("sent");
            std::thread::sleep(Duration::from_millis(1));
            stream.write_all(second).expect("sent");
            let (head, text) = read_answer(&mut stream);
            assert!(head.starts_with("HTTP/1.1 200 ") && text == "POST /x abcde", "cut at {cut}: {head:?}");
        }
        stream.write_all(&get("/next")).expect("sent");
        assert_eq!(read_answer(&mut stream).1, "GET /next ");
    }
}

#[test]
fn a_slow_small_body_holds_no_worker_and_gets_408() {
    let times =
        crate::config::Frontend { workers: Some(2), body_timeout: Duration::from_millis(300), ..config() };
    let door = Door::open(&times, echo);
    let mut slow: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = door.connect();
            stream.write_all(&[&post("Content-Length: 1000\r\n"), &b"ab"[..]].concat()).expect("sent");
            stream
        })
        .collect();
    let answer = door.ask(b"GET /quick HTTP/1.0\r\n\r\n");
    assert!(answer.ends_with("GET /quick "), "{answer:?}");
    for stream in &mut slow {
        assert!(read_to_end(stream).starts_with("HTTP/1.1 408 "));
    }
    assert_eq!(door.served(), 1);
}

#[test]
fn a_large_body_streams_and_the_next_request_follows() {
    let door = Door::open(&config(), |exchange| {
        assert!(exchange.body.buffered().is_none(), "larger than the buffer");
        let mut buffer = vec![0; 10_000];
        let mut sum = 0u64;
        loop {
            match exchange.body.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => sum += buffer[..bytes].iter().map(|byte| u64::from(*byte)).sum::<u64>(),
                Err(error) => return Answer::new(400, error.to_string().into_bytes()),
            }
        }
        Answer::new(200, sum.to_string().into_bytes())
    });
    let body: Vec<u8> = (0..1_000_000u32).map(|number| number as u8).collect();
    let sum = body.iter().map(|byte| u64::from(*byte)).sum::<u64>().to_string();
    let mut chunked = Vec::new();
    for piece in body.chunks(54_321) {
        write!(chunked, "{:x}\r\n", piece.len()).expect("memory");
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let mut stream = door.connect();
    for _ in 0..3 {
        stream.write_all(&[&post("Content-Length: 1000000\r\n")[..], &body].concat()).expect("sent");
        assert_eq!(read_answer(&mut stream).1, sum);
        stream.write_all(&[&post("Transfer-Encoding: chunked\r\n")[..], &chunked].concat()).expect("sent");
        assert_eq!(read_answer(&mut stream).1, sum);
    }
}

#[test]
fn the_client_that_waits_for_100_gets_it_only_when_the_body_is_read() {
    let door = Door::open(&config(), |exchange| {
        if exchange.head.target == "/no" {
            return Answer::new(429, b"no".to_vec());
        }
        echo(exchange)
    });
    let fields = "Expect: 100-continue\r\nContent-Length: 5\r\n";
    let mut stream = door.connect();
    stream.write_all(&post(fields)).expect("sent");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").expect("sent");
    assert_eq!(read_answer(&mut stream).1, "POST /x hello");
    // With the body at hand there is nothing to ask for.
    stream.write_all(&[&post(fields)[..], b"hello"].concat()).expect("sent");
    assert_eq!(read_answer(&mut stream).1, "POST /x hello");
    let mut refused = door.connect();
    refused
        .write_all(b"POST /no HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .expect("sent");
    let answer = read_to_end(&mut refused);
    assert!(
        answer.starts_with("HTTP/1.1 429 ") && answer.contains("\r\nConnection: close\r\n"),
        "{answer:?}"
    );
}

#[test]
fn a_body_beyond_the_bound_gets_413_that_is_read_and_not_reset() {
    let bound = crate::config::Frontend { max_body_bytes: 100_000, ..config() };
    let door = Door::open(&bound, |exchange| {
        let mut buffer = [0; 8192];
        loop {
            match exchange.body.read(&mut buffer) {
                Ok(0) => return Answer::new(200, Vec::new()),
                Ok(_) => {}
                Err(error) => {
                    let large = BodyFault::of(&error) == Some(BodyFault::TooLarge);
                    return Answer::new(if large { 413 } else { 400 }, Vec::new());
                }
            }
        }
    });
    for (fields, piece) in [
        ("Content-Length: 8000000\r\n", vec![b'x'; 80_000]),
        ("Transfer-Encoding: chunked\r\n", [b"10000\r\n".as_slice(), &[b'x'; 65536], b"\r\n"].concat()),
    ] {
        let mut stream = door.connect();
        stream.write_all(&post(fields)).expect("sent");
        // A client that sends everything before it reads: a reset would fail it.
        for _ in 0..100 {
            stream.write_all(&piece).expect("the engine takes it");
        }
        assert!(read_to_end(&mut stream).starts_with("HTTP/1.1 413 "));
    }
}

#[test]
fn uploads_take_a_quarter_of_the_workers_and_wait_for_each_other() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (hold, now, peak) = (gate.clone(), inside.clone(), most.clone());
    let door = Door::open(&config(), move |exchange| {
        if exchange.body.buffered().is_some() {
            return echo(exchange);
        }
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let mut open = hold.0.lock();
        while !*open {
            hold.1.wait_for(&mut open, PATIENCE);
        }
        drop(open);
        let mut buffer = vec![0; 65536];
        while exchange.body.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
        now.fetch_sub(1, Ordering::SeqCst);
        Answer::new(200, b"done".to_vec())
    });
    let mut uploads: Vec<_> = (0..12)
        .map(|_| {
            let mut stream = door.connect();
            stream
                .write_all(&[&post("Content-Length: 100000\r\n")[..], &[b'x'; 50_000]].concat())
                .expect("sent");
            stream
        })
        .collect();
    until("two of eight workers are at uploads", || inside.load(Ordering::SeqCst) == 2);
    door.until("the others wait", |stats| stats.uploads_waiting == 10);
    assert!(door.ask(b"GET /quick HTTP/1.0\r\n\r\n").ends_with("GET /quick "));
    *gate.0.lock() = true;
    gate.1.notify_all();
    // To all of them first: who is inside is not ours to know.
    for stream in &mut uploads {
        stream.write_all(&[b'x'; 50_000]).expect("the kernel takes it");
    }
    for stream in &mut uploads {
        assert_eq!(read_answer(stream).1, "done");
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[test]
fn a_streamed_body_that_stalls_or_ends_early_is_told_to_the_service() {
    let faults = Arc::new(Mutex::new(Vec::new()));
    let seen = faults.clone();
    let times = crate::config::Frontend { body_timeout: Duration::from_millis(200), ..config() };
    let door = Door::open(&times, move |exchange| {
        let mut buffer = vec![0; 65536];
        loop {
            match exchange.body.read(&mut buffer) {
                Ok(0) => return Answer::new(200, Vec::new()),
                Ok(_) => {}
                Err(error) => {
                    seen.lock().push(BodyFault::of(&error));
                    return Answer::new(408, Vec::new());
                }
            }
        }
    });
    let mut stalls = door.connect();
    stalls.write_all(&[&post("Content-Length: 100000\r\n")[..], &[b'x'; 10]].concat()).expect("sent");
    assert!(read_to_end(&mut stalls).starts_with("HTTP/1.1 408 "));
    let mut leaves = door.connect();
    leaves.write_all(&[&post("Content-Length: 100000\r\n")[..], &[b'x'; 10]].concat()).expect("sent");
    drop(leaves);
    until("both faults", || faults.lock().len() == 2);
    assert_eq!(*faults.lock(), [Some(BodyFault::TimedOut), Some(BodyFault::ClientGone)]);
}
