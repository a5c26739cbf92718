//! Upgrades, PROXY headers, the gate.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::parts::{Outcomes, Told, pair, read_head};
use super::{Door, config, echo, get, read_answer, read_to_end, until};
use crate::proxy::exchange::{Answer, AnswerBody, Delivery, Upgrade};

#[test]
fn upgraded_connections_are_relayed_without_a_worker() {
    let backends = Arc::new(Mutex::new(Vec::new()));
    let outcomes = Outcomes::default();
    let (held, told) = (backends.clone(), outcomes.clone());
    let few = crate::config::Frontend { workers: Some(2), ..config() };
    let door = Door::open(&few, move |exchange| {
        if exchange.head.target == "/quick" {
            return echo(exchange);
        }
        assert!(exchange.can_upgrade);
        let (near, backend) = pair();
        held.lock().push(near);
        let mut answer = Answer::new(101, Vec::new()).with("Upgrade", "websocket");
        answer.body = AnswerBody::Upgrade(Upgrade { backend, early: b"early".to_vec() });
        answer.ticket = Some(Box::new(Told(told.clone())));
        answer
    });
    let mut clients: Vec<_> = (0..50)
        .map(|number| {
            let mut stream = door.connect();
            // The first bytes of the new protocol may come with the request.
            stream.write_all(&[get("/ws"), format!("from {number}").into_bytes()].concat()).expect("sent");
            assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
            let mut early = [0; 5];
            stream.read_exact(&mut early).expect("what came behind the 101");
            assert_eq!(&early, b"early");
            let mut first = vec![0; format!("from {number}").len()];
            backends.lock()[number].read_exact(&mut first).expect("relayed");
            assert_eq!(first, format!("from {number}").into_bytes());
            stream
        })
        .collect();
    door.until("all are relays", |stats| stats.relay == 50 && stats.workers_busy == 0);
    assert!(door.ask(b"GET /quick HTTP/1.0\r\n\r\n").ends_with("GET /quick "));
    // More than all buffers hold, both ways at once.
    let big = vec![b'x'; 8 << 20];
    let mut near = backends.lock().remove(7);
    let mut client = clients.remove(7);
    let (mut near_writer, mut client_writer) =
        (near.try_clone().expect("dup"), client.try_clone().expect("dup"));
    let (one, two) = (big.clone(), big.clone());
    let writers = [
        std::thread::spawn(move || near_writer.write_all(&one)),
        std::thread::spawn(move || client_writer.write_all(&two)),
    ];
    let (mut at_client, mut at_near) = (vec![0; big.len()], vec![0; big.len()]);
    let reader = std::thread::spawn(move || near.read_exact(&mut at_near).map(|()| (near, at_near)));
    client.read_exact(&mut at_client).expect("relayed");
    let (mut near, at_near) = reader.join().expect("ends").expect("relayed");
    assert!(at_client == big && at_near == big);
    for writer in writers {
        writer.join().expect("ends").expect("written");
    }
    // Half a close passes, the other half ends it.
    super::half_close(&client);
    assert_eq!(near.read(&mut [0]).expect("the end"), 0);
    near.write_all(b"bye").expect("sent");
    drop(near);
    assert_eq!(read_to_end(&mut client), "bye");
    until("settled", || outcomes.lock().len() == 1);
    assert_eq!(
        outcomes.lock()[0],
        ((8 << 20) + "early".len() as u64 + "bye".len() as u64, Delivery::Complete)
    );
    backends.lock().clear();
    drop(clients);
    until("all settled", || outcomes.lock().len() == 50);
    door.until("nothing is left", |stats| stats.relay == 0);
}

#[test]
fn an_idle_relay_is_ended() {
    let times = crate::config::Frontend { idle_timeout: Duration::from_millis(200), ..config() };
    let held = Arc::new(Mutex::new(Vec::new()));
    let backends = held.clone();
    let door = Door::open(&times, move |_| {
        let (near, backend) = pair();
        backends.lock().push(near);
        let mut answer = Answer::new(101, Vec::new());
        answer.body = AnswerBody::Upgrade(Upgrade { backend, early: Vec::new() });
        answer
    });
    let mut stream = door.connect();
    stream.write_all(&get("/ws")).expect("sent");
    read_head(&mut stream);
    assert_eq!(read_to_end(&mut stream), "");
    assert_eq!(held.lock()[0].read(&mut [0]).expect("the end"), 0);
}

#[test]
fn the_client_that_a_trusted_proxy_names_is_the_peer() {
    let option = crate::config::Frontend { proxy_protocol: true, ..config() };
    let door = Door::open(&option, |exchange| Answer::new(200, exchange.head.peer.to_string().into_bytes()));
    let mut stream = door.connect();
    for piece in ["PRO", "XY TCP4 192.0.2.7 127.0.0.1 1234 80\r", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        stream.write_all(piece.as_bytes()).expect("sent");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(read_answer(&mut stream).1, "192.0.2.7:1234");
    stream.write_all(&get("/again")).expect("kept");
    assert_eq!(read_answer(&mut stream).1, "192.0.2.7:1234");
    assert!(door.ask(b"GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 400 "), "it must send one");
    assert_eq!(door.served(), 2);
}

#[test]
fn nothing_that_was_taken_is_left_behind_when_fewer_workers_run() {
    let door = Door::open(&config(), |exchange| {
        // Away for a moment, so that others come for what is left.
        std::thread::sleep(Duration::from_micros(100));
        echo(exchange)
    });
    let gate = door.gate();
    let mut clients: Vec<_> = (0..8).map(|_| door.connect()).collect();
    for round in 0..400 {
        gate.set_limit(8);
        for turn in 0..3 {
            if turn == 1 + round % 2 {
                gate.set_limit(1);
            }
            clients.iter_mut().for_each(|client| client.write_all(&get("/")).expect("sent"));
            clients.iter_mut().for_each(|client| assert!(read_answer(client).0.starts_with("HTTP/1.1 200 ")));
        }
    }
    // However they parked, one is counted, and whoever waits for an event can have it.
    gate.set_limit(1);
    until("one runs", || {
        clients.iter_mut().for_each(|client| client.write_all(&get("/")).expect("sent"));
        clients.iter_mut().for_each(|client| assert!(read_answer(client).0.starts_with("HTTP/1.1 200 ")));
        gate.counted() == 1
    });
}
