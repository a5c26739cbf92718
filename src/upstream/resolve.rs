//! Looks up the names of backends at an interval, each on a thread of its own, so that a name server that hangs delays
//! neither the start nor the other names. Backends that are configured by address are not looked up.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, after, bounded, select};

use crate::clock::Clock;
use balancer_pool::backend::{BackendEntry, Located};
use balancer_pool::backend_state::{self, State};
use balancer_pool::backends::{AddressChange, Backends, title};

mod server;
mod system;
mod targets;

use server::NameServer;
use system::System;
use targets::{SrvRecord, Targets};

/// Most addresses of one name, and most targets of its SRV records. The others are left out, with a warning.
pub const MAX_ADDRESSES: usize = 256;

/// A backend that has no address at all is looked up this often, unless the interval is shorter: what is missing at the
/// start comes soon.
const MISSING_AGAIN: Duration = Duration::from_secs(1);

/// Look-ups come up to this share of the interval early, so that those of many names drift apart.
const JITTER: f64 = 0.1;

/// The stack of a look-up thread: the system's resolver loads modules and keeps its answers there.
const STACK_BYTES: usize = 512 * 1024;

/// Answers what is asked about names. It may block for as long as it likes.
pub trait NameLookup: Send + Sync {
    /// The addresses of a host, at a port.
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    /// The SRV records of a name.
    fn services(&self, name: &str) -> io::Result<Vec<SrvRecord>>;
}

/// A [`NameLookup`] that all look-ups share.
pub type Lookup = Arc<dyn NameLookup>;

/// Asks the name server at that address (`discovery.resolver`), or else the system's resolver, which may use the hosts
/// file, name servers and more.
pub fn lookup(server: Option<SocketAddr>) -> Lookup {
    match server {
        Some(address) => Arc::new(NameServer { address, patience: server::PATIENCE }),
        None => Arc::new(System),
    }
}

/// An answer to where a backend is.
#[derive(Default)]
struct Answer {
    /// At most [`MAX_ADDRESSES`]. If there are none, the SRV records say that the service is not offered.
    addresses: Vec<Located>,
    /// How many more there were.
    cut: usize,
    /// Targets of SRV records that could not be looked up, with a sentence about each.
    troubled: Vec<(String, String)>,
}

impl Answer {
    /// Asks where that backend is. `targets`: what is remembered of the last answer.
    fn of(entry: &BackendEntry, targets: &mut Targets, lookup: &Lookup) -> io::Result<Self> {
        if entry.is_srv() {
            return targets.find(&entry.host, lookup);
        }
        let addresses = lookup.addresses(&entry.host, entry.port)?;
        if addresses.is_empty() {
            return Err(io::Error::other("no addresses"));
        }
        let (addresses, cut) = bounded_list(addresses.into_iter().map(Located::from).collect());
        Ok(Self { addresses, cut, troubled: Vec::new() })
    }
}

/// The running look-ups. They end when this is dropped, each when its current question returns.
pub struct Resolver {
    backends: Arc<Backends>,
    clock: Clock,
    interval: Duration,
    lookup: Lookup,
    /// By the backends' names.
    followed: HashMap<String, Followed>,
    /// Disconnected when every name that was new at the last change had its first answer.
    first: Receiver<Infallible>,
}

/// A name that a thread looks up.
struct Followed {
    host: String,
    port: u16,
    /// Never sent on: dropping it is the signal.
    _stop: Sender<Infallible>,
}

impl Resolver {
    /// Gives the pool the addresses of backends that are configured by address, and starts looking up the others. Fails
    /// only if no thread can be started.
    pub fn start(
        backends: &Arc<Backends>,
        entries: &[BackendEntry],
        interval: Duration,
        lookup: &Lookup,
        clock: &Clock,
    ) -> io::Result<Self> {
        let (_, first) = bounded(0);
        let (backends, own) = (Arc::clone(backends), Arc::clone(lookup));
        let clock = clock.clone();
        let mut resolver = Self { backends, clock, interval, lookup: own, followed: HashMap::new(), first };
        resolver.follow(entries, interval, lookup)?;
        Ok(resolver)
    }

    /// Follows a changed list of backends. Look-ups of names that stay go on, unless the interval or the resolver
    /// changes. A new name whose backend has addresses already is looked up after the interval, the others at once.
    /// Another resolver is asked about all names at once. Fails if no thread can be started.
    pub fn follow(
        &mut self,
        entries: &[BackendEntry],
        interval: Duration,
        lookup: &Lookup,
    ) -> io::Result<()> {
        let asks_another = !Arc::ptr_eq(&self.lookup, lookup);
        if asks_another || self.interval != interval {
            (self.interval, self.lookup) = (interval, Arc::clone(lookup));
            self.followed.clear();
        }
        let is_at = |entry: &BackendEntry, name: &str, followed: &Followed| {
            entry.name == *name && entry.host == followed.host && entry.port == followed.port
        };
        self.followed.retain(|name, followed| entries.iter().any(|entry| is_at(entry, name, followed)));
        let (answered, first) = bounded(0);
        self.first = first;
        for entry in entries {
            if let Some(address) = literal(&entry.host, entry.port) {
                let change = self.backends.resolved(entry, &[address], self.clock.now());
                if change.left_out > 0 {
                    say_left_out(&self.backends, entry, change.left_out);
                }
            } else if !self.followed.contains_key(&entry.name) {
                let followed = self.look_up(entry, asks_another, answered.clone())?;
                self.followed.insert(entry.name.clone(), followed);
            }
        }
        Ok(())
    }

    fn look_up(
        &self,
        entry: &BackendEntry,
        at_once: bool,
        answered: Sender<Infallible>,
    ) -> io::Result<Followed> {
        let snapshot = self.backends.snapshot();
        let resolved = snapshot.endpoints().iter().any(|endpoint| *endpoint.backend == entry.name);
        let mut name = Name {
            backends: Arc::clone(&self.backends),
            clock: self.clock.clone(),
            entry: entry.clone(),
            interval: self.interval,
            targets: Targets::default(),
            said: Said::Nothing,
            resolved,
            troubled: Vec::new(),
            left_out: 0,
        };
        let (stop, stopped) = bounded(0);
        let lookup = Arc::clone(&self.lookup);
        Builder::new().name("resolve".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            let is_due = at_once || !name.resolved;
            if is_due || stopped.recv_timeout(name.pause()) == Err(RecvTimeoutError::Timeout) {
                name.keep_looking(&lookup, &stopped, answered);
            }
        })?;
        Ok(Followed { host: entry.host.clone(), port: entry.port, _stop: stop })
    }

    /// Waits until every new name had its first answer, good or bad, at most `timeout`. True: all had.
    pub fn wait_first(&self, timeout: Duration) -> bool {
        self.first.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }
}

/// The addresses of these backends, looked up once and all at the same time. A backend without a good answer within
/// `timeout` has none. The cause is not told here: the look-ups that go on say it.
pub fn look_up_once(entries: &[&BackendEntry], lookup: &Lookup, timeout: Duration) -> Vec<Vec<Located>> {
    let mut found: Vec<Vec<Located>> = vec![Vec::new(); entries.len()];
    let (send, answers) = bounded(entries.len());
    let mut waiting = 0;
    for (index, entry) in entries.iter().enumerate() {
        if let Some(address) = literal(&entry.host, entry.port) {
            found[index] = vec![address.into()];
            continue;
        }
        let (send, lookup, asked) = (send.clone(), Arc::clone(lookup), BackendEntry::clone(entry));
        // There is room for every answer. One that comes too late is dropped.
        let ask = move || drop(send.send((index, Answer::of(&asked, &mut Targets::default(), &lookup))));
        match Builder::new().name("resolve".to_owned()).stack_size(STACK_BYTES).spawn(ask) {
            Ok(_) => waiting += 1,
            Err(error) => log::error!("{}: no thread to look it up: {error}", entry.host),
        }
    }
    let deadline = after(timeout);
    for _ in 0..waiting {
        select! {
            recv(answers) -> answer => match answer {
                Ok((index, Ok(answer))) => found[index] = answer.addresses,
                Ok((_, Err(_))) => {}
                Err(_) => break,
            },
            recv(deadline) -> _ => {
                log::warn!("some backends' names were not resolved within {timeout:?}: they come later");
                break;
            }
        }
    }
    found
}

/// Sorts addresses in the order of use, without duplicates, at most [`MAX_ADDRESSES`]; also returns how many were cut
/// off. Name servers rotate their answers: since they are sorted first, the same ones are cut off each time.
fn bounded_list(mut addresses: Vec<Located>) -> (Vec<Located>, usize) {
    addresses.sort_unstable();
    addresses.dedup();
    let cut = addresses.len().saturating_sub(MAX_ADDRESSES);
    addresses.truncate(MAX_ADDRESSES);
    (addresses, cut)
}

/// An IP address as it may be written in a URL's host (IPv6 with or without brackets), with its port.
pub fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(host).parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port))
}

/// One name and what its thread remembers of it.
struct Name {
    backends: Arc<Backends>,
    clock: Clock,
    entry: BackendEntry,
    interval: Duration,
    targets: Targets,
    said: Said,
    /// The pool has addresses of it.
    resolved: bool,
    /// Targets of its SRV records that can't be looked up, as the log last said.
    troubled: Vec<String>,
    /// How many addresses were left out at the last look-up.
    left_out: usize,
}

/// What the log said of the last look-up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    /// Nothing: it was good.
    Nothing,
    /// That it failed.
    Failed,
    /// That the service is not offered.
    NotOffered,
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
            let answer = Answer::of(&self.entry, &mut self.targets, lookup);
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

    /// A good answer replaces the addresses, a failed one keeps them, and SRV records that say that the service is not
    /// offered remove them. The log tells of each change once.
    fn take(&mut self, answer: io::Result<Answer>) {
        let Answer { addresses, cut, troubled } = match answer {
            Ok(answer) if answer.addresses.is_empty() => return self.take_away(),
            Ok(answer) => answer,
            Err(error) => return self.keep(&error),
        };
        let (host, name) = (&self.entry.host, title(self.backends.name(), &self.entry.name));
        let was_troubled = !self.troubled.is_empty();
        let (targets, causes): (Vec<_>, Vec<_>) = troubled.into_iter().unzip();
        if !targets.is_empty() && targets != self.troubled {
            log::warn!("backend {name}: {host}: {}", causes.join("; "));
        }
        self.troubled = targets;
        if self.said != Said::Nothing || (was_troubled && self.troubled.is_empty()) {
            log::info!("backend {name}: {host} resolves now");
        }
        self.said = Said::Nothing;
        self.resolved = true;
        let change = self.backends.located(&self.entry, &addresses, self.clock.now());
        if change != (AddressChange { left_out: change.left_out, ..AddressChange::default() }) {
            log::info!("backend {name}: {}", change_line(&self.entry, addresses.len(), &change));
        }
        let left_out = change.left_out + cut;
        if left_out > self.left_out {
            say_left_out(&self.backends, &self.entry, left_out);
        }
        self.left_out = left_out;
    }

    fn keep(&mut self, error: &io::Error) {
        let name = title(self.backends.name(), &self.entry.name);
        let cause = backend_state::unresolved(&self.entry.host, error);
        if self.said != Said::Failed {
            if self.resolved {
                log::warn!("backend {name} is keeping its last addresses: {cause}");
            } else {
                self.backends.set_absence(&self.entry, &cause);
                log::warn!("{}", backend_state::line(&name, None, State::Down, &cause));
            }
        }
        self.said = Said::Failed;
    }

    /// Removes the addresses. This is no failure: the SRV records say that the service is not offered.
    fn take_away(&mut self) {
        let cause = backend_state::not_offered(&self.entry.host);
        if self.said != Said::NotOffered {
            let name = title(self.backends.name(), &self.entry.name);
            log::warn!("{}", backend_state::line(&name, None, State::Down, &cause));
        }
        self.said = Said::NotOffered;
        self.resolved = false;
        self.backends.set_absence(&self.entry, &cause);
        self.backends.located(&self.entry, &[], self.clock.now());
    }
}

fn change_line(entry: &BackendEntry, count: usize, change: &AddressChange) -> String {
    let shown =
        |address: &SocketAddr| if entry.is_srv() { address.to_string() } else { address.ip().to_string() };
    let list = |addresses: &[SocketAddr]| addresses.iter().map(shown).collect::<Vec<_>>().join(", ");
    let mut line = format!("{} resolves to {count} addresses", entry.host);
    for (word, some) in [
        ("new", &change.added),
        ("gone", &change.removed),
        ("of another weight or priority", &change.changed),
    ] {
        if !some.is_empty() {
            line.push_str(&format!("; {word}: {}", list(some)));
        }
    }
    line
}

/// Logs that addresses are left out. If all of a backend's are, this is why it is down.
fn say_left_out(backends: &Backends, entry: &BackendEntry, count: usize) {
    let cause = backend_state::left_out(count);
    log::warn!("backend {}: {cause}", title(backends.name(), &entry.name));
    backends.set_absence(entry, &cause);
}

#[cfg(test)]
mod tests;
