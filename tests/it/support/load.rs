//! Clients that send one request after the other, each on a connection of its own, which it keeps for as long as the
//! answers allow.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{Conn, Fault, Response};

/// Running clients, which end when this is dropped.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    keep: bool,
    stop: AtomicBool,
    answered: AtomicUsize,
    connections: AtomicUsize,
    faults: Mutex<Vec<String>>,
}

impl Load {
    /// Starts that many clients. Without `keep`, each request has a connection of its own.
    pub fn start(address: SocketAddr, clients: usize, keep: bool) -> Self {
        let shared = Arc::new(Shared {
            address,
            keep,
            stop: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            faults: Mutex::default(),
        });
        let client = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                while !shared.stop.load(Ordering::SeqCst) {
                    shared.one_connection();
                }
            })
        };
        let threads = (0..clients).map(client).collect();
        Self { shared, threads }
    }

    /// How many requests were answered with 200.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// How many connections were opened.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Everything that was not a 200 so far.
    pub fn faults(&self) -> Vec<String> {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the clients. Returns how many requests were answered with 200, and everything that was not a 200.
    pub fn finish(mut self) -> (usize, Vec<String>) {
        self.end();
        (self.answered(), self.faults())
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.fault("a client panicked".to_owned());
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn one_connection(&self) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut conn = match Conn::try_from("127.0.0.1".parse().expect("an address"), self.address) {
            Ok(conn) => conn,
            Err(error) => return self.fault(format!("connecting: {error}")),
        };
        let connection = if self.keep { "" } else { "Connection: close\r\n" };
        for asked in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let sent = conn.try_send(format!("GET /load HTTP/1.1\r\nHost: x\r\n{connection}\r\n"));
            if let Err(error) = sent {
                return self.fault(format!("sending request {asked} of a connection: {error}"));
            }
            match conn.read("GET") {
                Ok(answer) if answer.status == 200 => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    if closes(&answer) {
                        return;
                    }
                }
                Ok(answer) => self.fault(format!("{}: {}", answer.status, answer.text())),
                Err(fault) => return self.broken(asked, &fault),
            }
        }
    }

    fn broken(&self, asked: usize, fault: &Fault) {
        self.fault(format!("request {asked} of a connection: {fault:?}"));
    }

    fn fault(&self, text: String) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }
}

fn closes(answer: &Response) -> bool {
    answer.all("connection").iter().any(|value| value.eq_ignore_ascii_case("close"))
}
