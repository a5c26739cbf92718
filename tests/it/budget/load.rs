//! A client that sends at fixed times and counts what became of its requests.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::Conn;

/// One request to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Shot {
    /// When, after the beginning.
    pub at: Duration,
    /// The instance that it is sent to.
    pub to: usize,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    /// When it was sent, after the beginning.
    pub sent: Duration,
    pub is_allowed: bool,
    pub took: Duration,
}

/// What became of all of them, in the order of their times.
pub struct Hits(pub Vec<Hit>);

/// Connections to each instance.
const CONNECTIONS: usize = 12;

/// `rate` requests a second for `span`, the request with number `n` to `to(n, …)`.
pub fn steady(rate: f64, span: Duration, to: impl Fn(usize, Duration) -> usize) -> Vec<Shot> {
    let count = (rate * span.as_secs_f64()) as usize;
    let shot = |number| {
        let at = Duration::from_secs_f64(number as f64 / rate);
        Shot { at, to: to(number, at) }
    };
    (0..count).map(shot).collect()
}

/// Sends all of it as `client`, at the given times unless answers come too slowly, and calls `meanwhile` on this
/// thread.
pub fn send<T>(
    instances: &[SocketAddr],
    client: &str,
    shots: &[Shot],
    meanwhile: impl FnOnce(Instant) -> T,
) -> (Hits, T) {
    send_as(instances, |_| client.to_owned(), shots, meanwhile)
}

/// The same with another client for each number.
pub fn send_as<T>(
    instances: &[SocketAddr],
    client: impl Fn(usize) -> String + Sync,
    shots: &[Shot],
    meanwhile: impl FnOnce(Instant) -> T,
) -> (Hits, T) {
    let hits = Mutex::new(Vec::with_capacity(shots.len()));
    let began = Instant::now();
    let done = std::thread::scope(|scope| {
        for (to, address) in instances.iter().enumerate() {
            let own: Vec<usize> = (0..shots.len()).filter(|number| shots[*number].to == to).collect();
            let (own, next) = (std::sync::Arc::new(own), std::sync::Arc::new(AtomicUsize::new(0)));
            for _ in 0..CONNECTIONS.min(own.len()) {
                let (own, next, hits, client) = (own.clone(), next.clone(), &hits, &client);
                scope.spawn(move || {
                    let mut lane = Lane { address: *address, conn: None, used: Duration::ZERO };
                    while let Some(number) = own.get(next.fetch_add(1, Ordering::SeqCst)) {
                        let hit = lane.shoot(&client(*number), shots[*number], began);
                        hits.lock().expect("nobody failed").push(hit);
                    }
                });
            }
        }
        meanwhile(began)
    });
    let mut hits = hits.into_inner().expect("nobody failed");
    hits.sort_by_key(|hit| hit.sent);
    (Hits(hits), done)
}

/// Connections, one after the other: one that was idle for long may be about to be closed, so it is replaced.
struct Lane {
    address: SocketAddr,
    conn: Option<Conn>,
    used: Duration,
}

/// Shorter than any time-out of a silent connection.
const IDLE: Duration = Duration::from_secs(5);

impl Lane {
    fn shoot(&mut self, client: &str, shot: Shot, began: Instant) -> Hit {
        std::thread::sleep(shot.at.saturating_sub(began.elapsed()));
        let sent = began.elapsed();
        if sent.saturating_sub(self.used) > IDLE {
            self.conn = None;
        }
        self.used = sent;
        let conn = self.conn.get_or_insert_with(|| Conn::open(self.address));
        conn.send(format!("GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\n\r\n"));
        let answer = conn.read("GET").expect("an answer");
        assert!(matches!(answer.status, 200 | 429), "{}: {}", answer.status, answer.text());
        Hit { sent, is_allowed: answer.status == 200, took: began.elapsed() - sent }
    }
}

impl Hits {
    /// How many were let through.
    pub fn allowed(&self) -> usize {
        self.0.iter().filter(|hit| hit.is_allowed).count()
    }

    /// How many were refused.
    pub fn refused(&self) -> usize {
        self.0.len() - self.allowed()
    }

    /// What part was let through.
    pub fn part(&self) -> f64 {
        self.allowed() as f64 / self.0.len().max(1) as f64
    }

    /// From the first request to the last, in seconds.
    pub fn seconds(&self) -> f64 {
        match (self.0.first(), self.0.last()) {
            (Some(first), Some(last)) => (last.sent - first.sent).as_secs_f64(),
            _ => 0.0,
        }
    }

    /// Those that were sent between these times after the beginning.
    pub fn between(&self, from: Duration, to: Duration) -> Self {
        Self(self.0.iter().filter(|hit| hit.sent >= from && hit.sent < to).copied().collect())
    }

    /// The median over slices of a second of what 99 % of their requests took at most.
    pub fn p99(&self) -> Duration {
        let mut slices: Vec<Duration> = Vec::new();
        let last = self.0.last().map_or(0, |hit| hit.sent.as_secs());
        for second in 0..=last {
            let slice = self.between(Duration::from_secs(second), Duration::from_secs(second + 1));
            let mut took: Vec<Duration> = slice.0.iter().map(|hit| hit.took).collect();
            took.sort();
            slices.extend(took.get(took.len().saturating_sub(1) * 99 / 100));
        }
        slices.sort();
        slices.get(slices.len() / 2).copied().unwrap_or_default()
    }
}
