//! Names of backends become addresses: looked up on an interval, each name on a thread of its own, so that a name server
//! that hangs holds up neither the start nor the other names. Addresses are never looked up.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use crate::config::Backend;
use crate::state::backends::{Backends, Change};

/// Most addresses that one name may stand for; the others are left out, with a warning.
pub const MAX_ADDRESSES: usize = 256;

/// While a backend has no address at all it is looked up this often, if the interval is not shorter: what is missing
/// at start comes soon.
const MISSING_AGAIN: Duration = Duration::from_secs(1);

/// Look-ups come up to this share of the interval early, so that those of many names drift apart.
const JITTER: f64 = 0.1;

/// Stack of a look-up thread: the system's resolver loads modules and keeps its answers there.
const STACK_BYTES: usize = 512 * 1024;

/// Asks for the addresses of a name, at a port; may block for as long as it likes.
pub type Lookup = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// The system's resolver: hosts file, name servers, whatever it is set up to.
pub fn system() -> Lookup {
    Arc::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
}

/// The running look-ups; they end when this is dropped, each when its current one returns.
#[derive(Debug)]
pub struct Resolver {
    /// Never sent on: dropping it is the signal.
    _stop: Sender<Infallible>,
    /// Disconnected when every name had its first answer.
    first: Receiver<Infallible>,
}

impl Resolver {
    /// Gives the pool the addresses of backends that are configured by address, and starts looking up the others. Fails
    /// only when no thread can be had.
    pub fn start(
        backends: &Arc<Backends>,
        entries: &[Backend],
        interval: Duration,
        lookup: &Lookup,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let (answered, first) = bounded(0);
        for entry in entries {
            if let Some(ip) = literal(&entry.host) {
                let change = backends.replace_addresses(&entry.name, &[SocketAddr::new(ip, entry.port)]);
                if change.left_out > 0 {
                    log::warn!("{}", left_out_line(&entry.name, change.left_out));
                }
                continue;
            }
            let mut name = Name {
                backends: Arc::clone(backends),
                entry: entry.clone(),
                interval,
                failing: false,
                resolved: false,
                left_out: 0,
            };
            let (lookup, stopped, answered) = (Arc::clone(lookup), stopped.clone(), answered.clone());
            Builder::new()
                .name("resolve".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || name.keep_looking(&lookup, &stopped, answered))?;
        }
        Ok(Self { _stop: stop, first })
    }

    /// Waits until every name had its first answer, good or bad, at most `timeout`. Whether all had.
    pub fn wait_first(&self, timeout: Duration) -> bool {
        self.first.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }
}

/// An IP address as it may stand in a URL's host: IPv6 with or without brackets.
fn literal(host: &str) -> Option<IpAddr> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(host).parse().ok()
}

/// One name and what its thread remembers of it.
struct Name {
    backends: Arc<Backends>,
    entry: Backend,
    interval: Duration,
    /// The last look-up failed, and the log said so.
    failing: bool,
    /// The pool has addresses of it.
    resolved: bool,
    /// How many addresses were left out when last told.
    left_out: usize,
}

impl Name {
    fn keep_looking(
        &mut self,
        lookup: &Lookup,
        stopped: &Receiver<Infallible>,
        answered: Sender<Infallible>,
    ) {
        let mut answered = Some(answered);
        loop {
            let answer = lookup(&self.entry.host, self.entry.port);
            if matches!(stopped.try_recv(), Err(TryRecvError::Disconnected)) {
                return;
            }
            self.take(answer);
            answered.take();
            if stopped.recv_timeout(self.pause()) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn pause(&self) -> Duration {
        let pause = if self.resolved { self.interval } else { self.interval.min(MISSING_AGAIN) };
        pause.mul_f64(1.0 - JITTER * fastrand::f64())
    }

    /// A good answer replaces the addresses; an empty or a failed one keeps them. The log says so once each way.
    fn take(&mut self, answer: io::Result<Vec<SocketAddr>>) {
        let Backend { name, host, .. } = &self.entry;
        let mut addresses = match answer {
            Ok(addresses) if !addresses.is_empty() => addresses,
            bad => {
                if !self.failing {
                    let cause = bad.map_or_else(|error| error.to_string(), |_| "no addresses".to_owned());
                    let kept =
                        if self.resolved { "keeping its last addresses" } else { "it has no address yet" };
                    log::warn!("backend {name}: {host} does not resolve: {cause}; {kept}");
                }
                self.failing = true;
                return;
            }
        };
        if self.failing {
            log::info!("backend {name}: {host} resolves now");
        }
        self.failing = false;
        self.resolved = true;
        // Name servers rotate their answers: sorted first, the same ones are cut off each time.
        addresses.sort_unstable();
        addresses.dedup();
        let cut = addresses.len().saturating_sub(MAX_ADDRESSES);
        addresses.truncate(MAX_ADDRESSES);
        let change = self.backends.replace_addresses(name, &addresses);
        if !change.added.is_empty() || !change.removed.is_empty() {
            log::info!("backend {name}: {}", change_line(host, &addresses, &change));
        }
        let left_out = change.left_out + cut;
        if left_out > self.left_out {
            log::warn!("{}", left_out_line(name, left_out));
        }
        self.left_out = left_out;
    }
}

fn change_line(host: &str, addresses: &[SocketAddr], change: &Change) -> String {
    let list = |addresses: &[SocketAddr]| {
        addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ")
    };
    let mut line = format!("{host} resolves to {} addresses", addresses.len());
    for (word, some) in [("new", &change.added), ("gone", &change.removed)] {
        if !some.is_empty() {
            line.push_str(&format!("; {word}: {}", list(some)));
        }
    }
    line
}

fn left_out_line(name: &str, count: usize) -> String {
    format!("backend {name}: {count} addresses are left out: too many for one name or for the pool")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, nanos};
    use crate::config::Strategy;
    use crate::state::backends::Settings;
    use parking_lot::Mutex;
    use std::collections::HashMap;

    const TICK: Duration = Duration::from_millis(5);
    const PATIENCE: Duration = Duration::from_secs(30);

    /// What a host is answered; a host that is not there hangs.
    type Zone = Arc<Mutex<HashMap<&'static str, Result<Vec<SocketAddr>, io::ErrorKind>>>>;

    fn lookup(zone: &Zone, asked: &Arc<Mutex<Vec<String>>>) -> Lookup {
        let (zone, asked) = (Arc::clone(zone), Arc::clone(asked));
        Arc::new(move |host, _| {
            asked.lock().push(host.to_owned());
            loop {
                if let Some(answer) = zone.lock().get(host) {
                    return answer.clone().map_err(io::Error::from);
                }
                std::thread::sleep(TICK);
            }
        })
    }

    fn entries(hosts: &[&str]) -> Vec<Backend> {
        hosts.iter().map(|host| Backend::new(&format!("of {host}"), host, 80)).collect()
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    fn addresses(pool: &Backends) -> Vec<SocketAddr> {
        pool.snapshot().endpoints().iter().map(|one| one.address).collect()
    }

    fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
        let clock = Clock::real();
        let deadline = clock.now() + nanos(PATIENCE);
        while !holds() {
            assert!(clock.now() < deadline, "still not: {what}");
            std::thread::sleep(TICK);
        }
    }

    #[test]
    fn addresses_are_never_looked_up() {
        let entries = entries(&["127.0.0.1", "::1", "[::2]"]);
        let pool = Arc::new(Backends::new(&Settings::of(Strategy::RoundRobin), &entries, Clock::real()));
        let asked = Arc::default();
        let resolver = Resolver::start(&pool, &entries, TICK, &lookup(&Zone::default(), &asked)).unwrap();
        assert!(resolver.wait_first(PATIENCE));
        let expected = ["127.0.0.1:80", "[::1]:80", "[::2]:80"].map(|text| text.parse().unwrap());
        assert_eq!(addresses(&pool), expected);
        assert!(asked.lock().is_empty());
    }

    #[test]
    fn addresses_follow_the_name_and_bad_answers_change_nothing() {
        let entries = entries(&["a.test", "10.0.0.9"]);
        let pool = Arc::new(Backends::new(&Settings::of(Strategy::RoundRobin), &entries, Clock::real()));
        let (zone, asked) = (Zone::default(), Arc::default());
        zone.lock().insert("a.test", Ok(vec![address(2), address(1), address(2)]));
        let resolver = Resolver::start(&pool, &entries, TICK, &lookup(&zone, &asked)).unwrap();
        assert!(resolver.wait_first(PATIENCE));
        assert_eq!(addresses(&pool), [address(1), address(2), address(9)]);
        let kept = Arc::clone(&pool.snapshot().endpoints()[1]);

        for bad in [Ok(Vec::new()), Err(io::ErrorKind::TimedOut)] {
            zone.lock().insert("a.test", bad);
            let before = asked.lock().len();
            wait_until("it was asked twice more", || asked.lock().len() > before + 2);
            assert_eq!(addresses(&pool), [address(1), address(2), address(9)]);
        }
        zone.lock().insert("a.test", Ok(vec![address(2), address(3)]));
        wait_until("it moved", || addresses(&pool) == [address(2), address(3), address(9)]);
        assert!(Arc::ptr_eq(&kept, &pool.snapshot().endpoints()[0]), "the one that stayed is the same");
    }

    #[test]
    fn a_name_that_hangs_holds_up_no_other_and_one_that_is_missing_comes_later() {
        let entries = entries(&["hangs.test", "missing.test", "a.test"]);
        let pool = Arc::new(Backends::new(&Settings::of(Strategy::RoundRobin), &entries, Clock::real()));
        let (zone, asked) = (Zone::default(), Arc::default());
        zone.lock().insert("missing.test", Err(io::ErrorKind::NotFound));
        zone.lock().insert("a.test", Ok(vec![address(1)]));
        let resolver = Resolver::start(&pool, &entries, TICK, &lookup(&zone, &asked)).unwrap();
        wait_until("the good name is there", || addresses(&pool) == [address(1)]);
        assert!(!resolver.wait_first(TICK), "one is still without an answer");
        zone.lock().insert("missing.test", Ok(vec![address(2)]));
        wait_until("the missing name came", || addresses(&pool) == [address(2), address(1)]);
        zone.lock().insert("hangs.test", Ok(vec![address(3)]));
        assert!(resolver.wait_first(PATIENCE));
        assert_eq!(addresses(&pool), [address(3), address(2), address(1)]);
    }

    #[test]
    fn dropping_it_ends_the_look_ups() {
        let entries = entries(&["a.test"]);
        let pool = Arc::new(Backends::new(&Settings::of(Strategy::RoundRobin), &entries, Clock::real()));
        let zone = Zone::default();
        zone.lock().insert("a.test", Ok(vec![address(1)]));
        let resolver = Resolver::start(&pool, &entries, TICK, &lookup(&zone, &Arc::default())).unwrap();
        assert!(resolver.wait_first(PATIENCE));
        drop(resolver);
        wait_until("its thread has ended", || Arc::strong_count(&pool) == 1);
    }

    #[test]
    fn an_answer_is_bounded() {
        let entries = entries(&["a.test"]);
        let pool = Arc::new(Backends::new(&Settings::of(Strategy::RoundRobin), &entries, Clock::real()));
        let zone = Zone::default();
        let many = (0..300u16).map(|index| SocketAddr::from(([10, 1, (index >> 8) as u8, index as u8], 80)));
        zone.lock().insert("a.test", Ok(many.collect()));
        let resolver = Resolver::start(&pool, &entries, TICK, &lookup(&zone, &Arc::default())).unwrap();
        assert!(resolver.wait_first(PATIENCE));
        assert_eq!(addresses(&pool).len(), MAX_ADDRESSES);
    }

    #[test]
    fn a_change_is_told_in_one_line() {
        let change = Change { added: vec![address(1), address(2)], removed: vec![address(3)], left_out: 0 };
        assert_eq!(
            change_line("a.test", &[address(1), address(2)], &change),
            "a.test resolves to 2 addresses; new: 10.0.0.1, 10.0.0.2; gone: 10.0.0.3"
        );
    }
}
