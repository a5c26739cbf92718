//! Answers of our own: their framing, and clients that take them slowly or not at all.

use super::*;
use std::net::Shutdown;

use crate::proxy::exchange::AnswerBody;

#[test]
fn an_answers_framing_follows_from_status_method_and_version() {
    let door = Door::open(&config(), |asked| {
        let (status, body) = match &*asked.head.target {
            "/204" => (204, AnswerBody::None { declared: None }),
            "/304" => (304, AnswerBody::None { declared: Some(9) }),
            "/none" => (200, AnswerBody::None { declared: None }),
            _ => (200, AnswerBody::Bytes(b"four".to_vec())),
        };
        let mut answer = Answer::new(status, Vec::new());
        answer.body = body;
        Step::Answer(answer)
    });
    let mut stream = door.connect();
    for (method, path, expected) in [
        ("GET", "/", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour"),
        ("HEAD", "/", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
        ("GET", "/204", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "/304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        ("GET", "/none", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut bytes = vec![0; expected.len()];
        stream.read_exact(&mut bytes).expect("an answer");
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }
    assert_eq!(
        door.ask(b"GET / HTTP/1.0\r\n\r\n"),
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfour"
    );
}

const SIZE: usize = 20 << 20;

/// A door that answers with [`SIZE`] bytes, or at once for `/now`.
fn large(config: &Frontend) -> Door {
    let ends = Ends::default();
    let told = Arc::clone(&ends);
    Door::telling(config, ends, move |asked| {
        if asked.head.target.starts_with("/now") {
            return now(&asked);
        }
        let mut answer = Answer::new(200, vec![b'x'; SIZE]);
        answer.ticket = Some(Box::new(Told(Arc::clone(&told), 200)));
        Step::Answer(answer)
    })
}

#[test]
fn clients_that_do_not_read_get_everything_once_they_do() {
    let door = large(&config());
    let mut slow: Vec<_> = (0..10).map(|_| door.send(&[get("/"), get("/now/next")].concat())).collect();
    door.until("all wait", |stats| stats.parked == 10);
    assert!(door.ask(b"GET /now HTTP/1.0\r\n\r\n").ends_with("/now"));
    for stream in slow.iter_mut().take(3) {
        assert_eq!(read_answer(stream).1.len(), SIZE);
        assert_eq!(read_answer(stream).1, "/now/next");
    }
    drop(slow);
    until("all settled", || door.service.ends.lock().len() == 10);
    let complete = door.service.ends.lock().iter().filter(|end| end.2 == DeliveryOutcome::Complete).count();
    assert_eq!(complete, 3);
    assert!(
        door.service.ends.lock().iter().all(|end| end.2 == DeliveryOutcome::Complete || end.1 < SIZE as u64)
    );
}

#[test]
fn a_client_that_takes_nothing_is_ended_and_a_slow_one_is_not() {
    let times = Frontend { write_timeout: Duration::from_millis(1_500), ..config() };
    let door = large(&times);
    let mut slow = door.send(&get("/"));
    let silent = door.send(&get("/"));
    let mut buffer = vec![0; 100_000];
    let mut read = read_head(&mut slow).len();
    let whole = read + SIZE;
    // For twice the time-out, far too slowly to ever free a third of the kernel's buffer at once.
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(150));
        read += slow.read(&mut buffer).expect("not ended");
    }
    until("the silent one is ended", || door.service.ends.lock().len() == 1);
    assert_eq!(door.service.ends.lock()[0].2, DeliveryOutcome::ClientGone);
    drop(silent);
    while read < whole {
        match slow.read(&mut buffer).expect("everything") {
            0 => panic!("it ended after {read} bytes"),
            count => read += count,
        }
    }
    until("the slow one is complete", || door.service.ends.lock().len() == 2);
    assert_eq!(door.service.ends.lock()[1], (200, SIZE as u64, DeliveryOutcome::Complete));
}

#[test]
fn a_client_below_the_minimum_rate_is_ended() {
    let times = Frontend { min_bytes_per_sec: 100 << 20, slow_grace: Duration::from_millis(300), ..config() };
    let door = large(&times);
    let mut slow = door.send(&get("/"));
    let mut buffer = vec![0; 50_000];
    until("ended", || {
        thread::sleep(Duration::from_millis(10));
        let _ = slow.read(&mut buffer);
        !door.service.ends.lock().is_empty()
    });
    assert_eq!(door.service.ends.lock()[0].2, DeliveryOutcome::ClientGone);
}

/// A client that has ended its side counts as gone only when there is nothing to send to it. Here there is: it reads
/// slowly.
#[test]
fn a_half_closed_client_that_reads_late_gets_everything() {
    let door = large(&config());
    let mut slow = door.send(&get("/"));
    slow.shutdown(Shutdown::Write).expect("open");
    let clock = Clock::real();
    let begun = clock.now();
    until("it is late", || clock.now() - begun > 2_500_000_000);
    assert_eq!(read_answer(&mut slow).1.len(), SIZE);
    until("settled", || !door.service.ends.lock().is_empty());
    assert_eq!(door.service.ends.lock()[0].2, DeliveryOutcome::Complete);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_answer_is_told_to_the_ticket() {
    let door = large(&config());
    for by_reset in [true, false] {
        let mut stream = door.send(&get("/"));
        read_head(&mut stream);
        if by_reset {
            reset(stream);
        } else {
            drop(stream);
        }
        until("it is settled", || !door.service.ends.lock().is_empty());
        let (_, bytes, end) = door.service.ends.lock().remove(0);
        assert!(end == DeliveryOutcome::ClientGone && bytes < SIZE as u64, "{bytes}");
    }
    door.until_empty();
}
