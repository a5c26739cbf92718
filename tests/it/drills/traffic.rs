//! Steady clients that count what became of each of their requests. Each drill checks these counts afterwards.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::client::head;
use crate::support::{Conn, Engine, Fault, until};

/// What requests came to, by number: a status, or how they failed.
pub type Tally = BTreeMap<String, usize>;

struct Shared {
    to: SocketAddr,
    /// Requests on one connection before the next one is opened.
    on_each: usize,
    sent: AtomicUsize,
    stop: AtomicBool,
    tally: Mutex<Tally>,
    slowest: Mutex<Duration>,
}

/// Running clients.
pub struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Eight clients that ask `GET /` again and again, a millisecond apart, on kept connections.
    pub fn start(to: SocketAddr, engine: Engine) -> Self {
        let on_each = if engine == Engine::Epoll { 50 } else { 10 };
        let shared = Arc::new(Shared {
            to,
            on_each,
            sent: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            tally: Mutex::default(),
            slowest: Mutex::default(),
        });
        let threads = (0..8)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.run())
            })
            .collect();
        Self { shared, threads }
    }

    /// Waits until that many more requests have ended, in whatever way.
    #[track_caller]
    pub fn goes_on(&self, requests: usize) {
        let from = self.done();
        until("the traffic goes on", || (self.done() >= from + requests).then_some(()));
    }

    /// How many requests have ended.
    pub fn done(&self) -> usize {
        lock(&self.shared.tally).values().sum()
    }

    /// What came of them so far.
    pub fn tally(&self) -> Tally {
        lock(&self.shared.tally).clone()
    }

    /// Ends it, each client with an answer to what it asked. Gives the tally and the longest request.
    #[track_caller]
    pub fn finish(mut self) -> (Tally, Duration) {
        self.end();
        let (tally, slowest) = (self.tally(), *lock(&self.shared.slowest));
        let sent = self.shared.sent.load(Ordering::SeqCst);
        assert_eq!(tally.values().sum::<usize>(), sent, "every request came to something: {tally:?}");
        (tally, slowest)
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn run(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let Ok(mut conn) = Conn::try_from(IpAddr::V4(Ipv4Addr::LOCALHOST), self.to) else {
                self.count("refused", Duration::ZERO);
                self.sent.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            for number in 0..self.on_each {
                if self.stop.load(Ordering::SeqCst) || !self.ask(&mut conn, number == 0) {
                    break;
                }
                // The machine has other things to do, and only so many ports.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Whether the connection may be used again.
    fn ask(&self, conn: &mut Conn, is_first: bool) -> bool {
        let began = Instant::now();
        self.sent.fetch_add(1, Ordering::SeqCst);
        let sent = conn.try_send(head("GET", "/", &[], None));
        let answer = if sent.is_ok() { conn.read("GET") } else { Err(Fault::Reset) };
        let (what, keeps) = match &answer {
            Ok(answer) => (answer.status.to_string(), !answer.all("connection").contains(&"close")),
            // The kernel had taken the connection; the process had not, and never will.
            Err(Fault::Closed | Fault::Reset) if is_first => ("turned away".to_owned(), false),
            Err(Fault::Closed) => ("closed".to_owned(), false),
            Err(Fault::Reset) => ("reset".to_owned(), false),
            Err(Fault::Truncated(_)) => ("truncated".to_owned(), false),
            Err(Fault::TimedOut) => ("timed out".to_owned(), false),
            // A chunk that `tiny_http` breaks off with.
            Err(Fault::Malformed(_)) => ("truncated".to_owned(), false),
        };
        self.count(&what, began.elapsed());
        keeps
    }

    fn count(&self, what: &str, took: Duration) {
        *lock(&self.tally).entry(what.to_owned()).or_default() += 1;
        let mut slowest = lock(&self.slowest);
        *slowest = slowest.max(took);
    }
}

/// How many came to something else than that.
pub fn others(tally: &Tally, what: &str) -> usize {
    tally.iter().filter(|(name, _)| *name != what).map(|(_, count)| count).sum()
}
