//! `kill -9` during a series of creates: every limit that was answered 201 is there afterwards.

use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::support::engine::each_store;
use crate::support::{Backend, Conn, Database, Setup, until};

each_store! { every_201_outlives_kill_9 }

fn every_201_outlives_kill_9(database: &Database) {
    let backend = Backend::named("a");
    let setup = Setup::auto().store(database).backend(backend.address());
    let mut seen: Vec<String> = Vec::new();
    for round in 0..3 {
        let mut balancer = setup.start();
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (acknowledged, address) = (Arc::clone(&acknowledged), balancer.admin);
                std::thread::spawn(move || {
                    let mut conn = Conn::open(address);
                    for i in 0.. {
                        let client = format!("round-{round}/writer-{writer}/{i}");
                        let body =
                            json!({ "client_id": client, "capacity": 1, "rate_per_sec": 1 }).to_string();
                        let head =
                            crate::support::client::head("POST", "/limits/create", &[], Some(body.len()));
                        if conn.try_send(head).and_then(|()| conn.try_send(&body)).is_err() {
                            return;
                        }
                        match conn.read("POST") {
                            Ok(answer) => {
                                assert_eq!(answer.status, 201, "{}", answer.text());
                                acknowledged.lock().unwrap().push(client);
                            }
                            Err(_) => return,
                        }
                    }
                })
            })
            .collect();
        until("enough was acknowledged", || (acknowledged.lock().unwrap().len() >= 100).then_some(()));
        balancer.proc.kill();
        for writer in writers {
            writer.join().expect("only the kill ends a writer");
        }
        seen.append(&mut acknowledged.lock().unwrap());
    }
    let balancer = setup.start();
    let mut conn = Conn::open(balancer.admin);
    for client in &seen {
        let encoded: String = client.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = conn.get(&format!("/limits/get?client_id={encoded}"));
        assert_eq!(answer.status, 200, "{client} was answered 201 and is gone");
    }
}
