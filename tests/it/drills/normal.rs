//! Clients that do nothing unusual, during a drill. Each of their answers is checked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::client::head;
use crate::support::{Conn, until};

/// How many of them there are.
const CLIENTS: usize = 4;
/// After that many failures a client gives up: more would tell nothing new.
const MOST_FAILURES: usize = 3;

#[derive(Default)]
struct Shared {
    /// How long each answered request took.
    took: Mutex<Vec<Duration>>,
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
}

/// Running clients.
pub struct Normal {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Normal {
    /// Starts them against a balancer in front of a [`super::farm::Farm`].
    pub fn start(to: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..CLIENTS)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || run(to, &shared))
            })
            .collect();
        Self { shared, threads }
    }

    /// Requests answered as they should be.
    pub fn answered(&self) -> usize {
        lock(&self.shared.took).len()
    }

    /// What at most 99 of 100 requests took, of those answered since there were that many.
    pub fn p99_since(&self, answered: usize) -> Duration {
        let mut took = lock(&self.shared.took)[answered..].to_vec();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }

    /// Waits until so many more were answered; their 99th percentile.
    #[track_caller]
    pub fn measure(&self, requests: usize) -> Duration {
        let before = self.answered();
        until("the normal requests were answered", || (self.answered() >= before + requests).then_some(()));
        self.p99_since(before)
    }

    /// Ends them; fails if any request failed. Gives the number of requests and the longest one.
    #[track_caller]
    pub fn finish(mut self) -> (usize, Duration) {
        self.end();
        let failures = lock(&self.shared.failures).clone();
        assert!(failures.is_empty(), "beside {} good answers: {failures:#?}", self.answered());
        let took = lock(&self.shared.took);
        (took.len(), took.iter().max().copied().unwrap_or_default())
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Normal {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(to: SocketAddr, shared: &Shared) {
    for _ in 0..MOST_FAILURES {
        match rounds(to, shared) {
            Ok(()) => return,
            Err(text) => lock(&shared.failures).push(text),
        }
    }
}

fn rounds(to: SocketAddr, shared: &Shared) -> Result<(), String> {
    while !shared.stop.load(Ordering::SeqCst) {
        let mut conn =
            Conn::try_from(IpAddr::V4(Ipv4Addr::LOCALHOST), to).map_err(|e| format!("connect: {e}"))?;
        for (method, target, sends, receives) in [
            ("GET", "/ok", 0, 2),
            ("POST", "/sink", 1000, 4),
            ("GET", "/bytes/16384", 0, 16384),
            ("GET", "/ok", 0, 2),
        ] {
            let began = Instant::now();
            let told = |what: String| format!("{method} {target} after {:?}: {what}", began.elapsed());
            let mut request = head(method, target, &[], (sends > 0).then_some(sends));
            request.resize(request.len() + sends, b'n');
            conn.try_send(request).map_err(|error| told(error.to_string()))?;
            let answer = conn.read(method).map_err(|fault| told(format!("{fault:?}")))?;
            if answer.status != 200 || answer.body.len() != receives {
                return Err(told(format!("{} {}", answer.status, answer.text())));
            }
            lock(&shared.took).push(began.elapsed());
        }
    }
    Ok(())
}
