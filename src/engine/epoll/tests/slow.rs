//! Clients that take their answers slowly or not at all.

use std::io::{Read, Write};
use std::time::Duration;

use super::parts::{Bytes, Outcomes, Told, Until, read_head};
use super::{Door, config, echo, get, read_answer, until};
use crate::clock::Clock;
use crate::proxy::exchange::{Answer, AnswerBody, Delivery};
use balancer_http::message::BodyLength;
use balancer_time::nanos;

#[test]
fn clients_that_do_not_read_hold_no_worker_and_get_everything_once_they_do() {
    const SIZE: usize = 20 << 20;
    let outcomes = Outcomes::default();
    let told = outcomes.clone();
    let few = crate::config::Frontend { workers: Some(2), ..config() };
    let door = Door::open(&few, move |exchange| {
        let mut answer = echo(exchange);
        if matches!(&answer.body, AnswerBody::Bytes(bytes) if bytes.starts_with(b"GET /big")) {
            answer.body = AnswerBody::Stream(BodyLength::Known(SIZE as u64), Box::new(Bytes(SIZE)));
            answer.ticket = Some(Box::new(Told(told.clone())));
        }
        answer
    });
    let mut slow: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = door.connect();
            stream.write_all(&get("/big")).expect("sent");
            stream
        })
        .collect();
    door.until("all parked", |stats| stats.parked == 20);
    assert!(door.ask(b"GET /quick HTTP/1.0\r\n\r\n").ends_with("GET /quick "));
    for stream in slow.iter_mut().take(5) {
        read_head(stream);
        let mut body = vec![0; SIZE];
        stream.read_exact(&mut body).expect("everything");
        stream.write_all(&get("/quick")).expect("kept");
        assert_eq!(read_answer(stream).1, "GET /quick ");
    }
    drop(slow);
    until("all settled", || outcomes.lock().len() == 20);
    let complete = outcomes.lock().iter().filter(|outcome| outcome.1 == Delivery::Complete).count();
    assert_eq!(complete, 5);
}

#[test]
fn a_client_that_takes_nothing_is_ended_and_a_slow_one_is_not() {
    const SIZE: usize = 20 << 20;
    let outcomes = Outcomes::default();
    let told = outcomes.clone();
    let times = crate::config::Frontend { write_timeout: Duration::from_millis(500), ..config() };
    let door = Door::open(&times, move |_| {
        let mut answer = Answer::new(200, Vec::new());
        answer.body = AnswerBody::Stream(BodyLength::Known(SIZE as u64), Box::new(Bytes(SIZE)));
        answer.ticket = Some(Box::new(Told(told.clone())));
        answer
    });
    let mut slow = door.connect();
    slow.write_all(&get("/")).expect("sent");
    let mut silent = door.connect();
    silent.write_all(&get("/")).expect("sent");
    let mut buffer = vec![0; 100_000];
    let mut read = 0;
    // For three times the time-out, far too slowly to ever free a third of the kernel's buffer at once.
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(50));
        read += slow.read(&mut buffer).expect("not ended");
    }
    assert_eq!(outcomes.lock().len(), 1, "the silent one");
    assert!(matches!(outcomes.lock()[0], (_, Delivery::ClientGone)));
    assert!(read > 0);
    let mut rest = vec![0; 1 << 20];
    while read < SIZE {
        read += slow.read(&mut rest).expect("everything");
    }
    until("the slow one is complete", || outcomes.lock().len() == 2);
    assert_eq!(outcomes.lock()[1], (SIZE as u64, Delivery::Complete));
}

#[test]
fn a_client_below_the_minimum_rate_is_ended() {
    const SIZE: usize = 64 << 20;
    let outcomes = Outcomes::default();
    let told = outcomes.clone();
    let times = crate::config::Frontend {
        min_bytes_per_sec: 100 << 20,
        slow_grace: Duration::from_millis(300),
        ..config()
    };
    let door = Door::open(&times, move |_| {
        let mut answer = Answer::new(200, Vec::new());
        answer.body = AnswerBody::Stream(BodyLength::Known(SIZE as u64), Box::new(Bytes(SIZE)));
        answer.ticket = Some(Box::new(Told(told.clone())));
        answer
    });
    let mut slow = door.connect();
    slow.write_all(&get("/")).expect("sent");
    let mut buffer = vec![0; 50_000];
    until("ended", || {
        std::thread::sleep(Duration::from_millis(10));
        let _ = slow.read(&mut buffer);
        !outcomes.lock().is_empty()
    });
    assert!(matches!(outcomes.lock()[0], (_, Delivery::ClientGone)), "{:?}", outcomes.lock());
}

#[test]
fn an_answer_that_a_slow_client_has_not_taken_by_its_deadline_ends_then() {
    const SIZE: usize = 200 << 20;
    const DEADLINE: Duration = Duration::from_millis(600);
    let outcomes = Outcomes::default();
    let told = outcomes.clone();
    let clock = Clock::real();
    let (theirs, began) = (clock.clone(), clock.now());
    let door = Door::open(&config(), move |_| {
        let until = theirs.now() + nanos(DEADLINE);
        let mut answer = Answer::new(200, Vec::new());
        answer.body = AnswerBody::Stream(BodyLength::Known(SIZE as u64), Box::new(Until(Bytes(SIZE), until)));
        answer.ticket = Some(Box::new(Told(told.clone())));
        answer
    });
    let mut client = door.connect();
    client.write_all(&get("/")).expect("sent");
    // write_timeout is 30 s: it is not that which ends it.
    until("it has ended", || outcomes.lock().len() == 1);
    let took = Duration::from_nanos(clock.now() - began);
    assert!(took >= DEADLINE && took < Duration::from_secs(15), "{took:?}");
    let (bytes, outcome) = outcomes.lock()[0].clone();
    assert_eq!(outcome, Delivery::BackendBroke("not over in time".into()));
    assert!(bytes > 0 && bytes < SIZE as u64);
}
