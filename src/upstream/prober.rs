//! Health checks: one thread an endpoint, so that one that hangs delays nobody else's check, and one that follows the
//! pool: new endpoints get a thread and a first check at once, threads of removed ones end.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, after, bounded, never, select};

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::config::HealthCheck;
use balancer_pool::backend_state::{self, Asked, State};
use balancer_pool::backends::{Backends, Endpoint};
use balancer_pool::health::{Health, Status, Thresholds, Transition};
use balancer_time::Nanos;
use balancer_time::nanos;

mod check;
#[cfg(test)]
mod tests;

use check::NotPassed;

/// Stack of a checking thread: its buffers are on the heap and small, and there may be
/// [`balancer_pool::backends::MAX_ENDPOINTS`] of them.
const CHECKER_STACK_BYTES: usize = 128 * 1024;

/// When no thread could be started for an endpoint, it is tried again after this.
const SPAWN_AGAIN: Duration = Duration::from_secs(1);

/// Checks start up to this share of the interval early, so that those of many endpoints, or of many balancers, drift
/// apart. Early and never late: `rise` checks then always fit in `rise` intervals.
const JITTER: f64 = 0.1;

/// The running health checks; they end when this is dropped.
#[derive(Debug)]
pub struct Prober {
    backends: Arc<Backends>,
    clock: Clock,
    /// Never sent on: dropping it is the signal.
    stop: Option<Sender<Infallible>>,
    supervisor: Option<JoinHandle<()>>,
    checks: Arc<Checks>,
}

impl Prober {
    /// Starts checking every endpoint of the pool, now and as they come. Fails only when no thread can be had.
    pub fn start(backends: Arc<Backends>, settings: HealthCheck, clock: Clock) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let checks = {
            let (backends, clock) = (Arc::clone(&backends), clock.clone());
            Arc::new(Checks { backends, settings, clock, ended: Mutex::new(false) })
        };
        let supervisor = {
            let checks = Arc::clone(&checks);
            Builder::new().name("health".to_owned()).spawn(move || supervise(&checks, &stopped))?
        };
        Ok(Self { backends, clock, stop: Some(stop), supervisor: Some(supervisor), checks })
    }

    /// Waits until every endpoint that the pool now has was checked once, at most `timeout`. Whether all were.
    pub fn wait_first(&self, timeout: Duration) -> bool {
        let changes = self.backends.changes();
        let deadline = self.clock.now().saturating_add(nanos(timeout));
        loop {
            let snapshot = self.backends.snapshot();
            if snapshot.endpoints().iter().all(|endpoint| endpoint.health() != Status::Unknown) {
                return true;
            }
            let left = Duration::from_nanos(deadline.saturating_sub(self.clock.now()));
            if changes.recv_timeout(left).is_err() {
                return false;
            }
        }
    }
}

/// When it is dropped, nobody's health is changed any more.
impl Drop for Prober {
    fn drop(&mut self) {
        *self.checks.ended.lock() = true;
        drop(self.stop.take());
        if let Some(supervisor) = self.supervisor.take() {
            // It waits for nobody: checks that are under way end by themselves within their time-out.
            let _ = supervisor.join();
        }
    }
}

/// What every checking thread needs.
#[derive(Debug)]
struct Checks {
    backends: Arc<Backends>,
    settings: HealthCheck,
    clock: Clock,
    /// Held while a result is written down; over no I/O.
    ended: Mutex<bool>,
}

fn supervise(checks: &Arc<Checks>, stopped: &Receiver<Infallible>) {
    let changes = checks.backends.changes();
    // By endpoint id; dropping a sender ends its thread.
    let mut checkers: HashMap<u64, Sender<Infallible>> = HashMap::new();
    loop {
        let snapshot = checks.backends.snapshot();
        let present: HashSet<u64> = snapshot.endpoints().iter().map(|endpoint| endpoint.id).collect();
        checkers.retain(|id, _| present.contains(id));
        let mut again = never();
        for endpoint in snapshot.endpoints() {
            if checkers.contains_key(&endpoint.id) {
                continue;
            }
            match start_checker(checks, endpoint) {
                Ok(stop) => {
                    checkers.insert(endpoint.id, stop);
                }
                Err(error) => {
                    log::error!("no thread to check {}: {error}; trying again", label(endpoint));
                    again = after(SPAWN_AGAIN);
                    break;
                }
            }
        }
        drop(snapshot);
        select! {
            recv(stopped) -> _ => return,
            recv(changes) -> _ => {}
            recv(again) -> _ => {}
        }
    }
}

fn start_checker(checks: &Arc<Checks>, endpoint: &Arc<Endpoint>) -> io::Result<Sender<Infallible>> {
    let (stop, stopped) = bounded(0);
    let (checks, endpoint) = (Arc::clone(checks), Arc::clone(endpoint));
    Builder::new()
        .name("health-check".to_owned())
        .stack_size(CHECKER_STACK_BYTES)
        .spawn(move || keep_checking(&checks, &endpoint, &stopped))?;
    Ok(stop)
}

fn keep_checking(checks: &Checks, endpoint: &Endpoint, stopped: &Receiver<Infallible>) {
    let Checks { backends, settings, clock, ended } = checks;
    let request = check::request(&settings.path, &endpoint.group.authority);
    let mut course = Course::new(settings, endpoint.health());
    loop {
        let started = clock.now();
        let result = check::check(endpoint.address, &request, settings, clock);
        if matches!(stopped.try_recv(), Err(TryRecvError::Disconnected)) {
            // Removed while the check ran: what it found concerns nobody, and may be the removal itself.
            return;
        }
        let ended = ended.lock();
        if *ended {
            return;
        }
        course.take(&result, endpoint, backends, clock.now());
        drop(ended);
        let took = Duration::from_nanos(clock.now().saturating_sub(started));
        if stopped.recv_timeout(pause(settings.interval, took, fastrand::f64()))
            != Err(RecvTimeoutError::Timeout)
        {
            return;
        }
    }
}

/// What the checks of one endpoint have found so far, and what was said of it.
struct Course {
    asked: Asked,
    thresholds: Thresholds,
    health: Health,
    /// Why it is down, as it was said last.
    said: String,
    /// Another cause, and how often in a row it was found since.
    other: (String, u32),
    /// The last check could not be made.
    short: bool,
}

impl Course {
    fn new(settings: &HealthCheck, status: Status) -> Self {
        let HealthCheck { path, expect, timeout, rise, fall, .. } = settings;
        Self {
            asked: Asked { path: path.clone(), expect: expect.clone(), timeout: *timeout },
            thresholds: Thresholds { rise: *rise, fall: *fall },
            health: Health::from_status(status),
            said: String::new(),
            other: (String::new(), 0),
            short: false,
        }
    }

    fn take(
        &mut self,
        result: &Result<u16, NotPassed>,
        endpoint: &Endpoint,
        backends: &Backends,
        now: Nanos,
    ) {
        let cause = match result {
            Ok(status) => self.asked.passed(*status),
            Err(NotPassed::Failed(failed)) => self.asked.failed(failed),
            // What this process lacks says nothing about the backend.
            Err(NotPassed::Shortage(cause)) => {
                if !std::mem::replace(&mut self.short, true) {
                    log::error!("{} is not checked: {cause}", label(endpoint));
                }
                return;
            }
        };
        self.short = false;
        endpoint.group.count_check(result.is_ok());
        let transition = self.health.observe(result.is_ok(), self.thresholds);
        let count = transition.map(counted).or_else(|| self.changed(&cause));
        let Some(count) = count else { return };
        let state = if self.health.status() == Status::Up { State::Up } else { State::Down };
        let line = change_line(endpoint, state, &cause, &count);
        if state == State::Up {
            log::info!("{line}");
        } else {
            endpoint.set_failing(&cause);
            log::warn!("{line}");
            (self.said, self.other) = (cause, (String::new(), 0));
        }
        if let Some(transition) = transition {
            backends.set_health(endpoint, transition.to, now);
        }
    }

    /// While it is down, a cause that is not the one that was said takes its place when it was found as often in a row as
    /// it takes to go. `Some`: it does, and how often that was.
    fn changed(&mut self, cause: &str) -> Option<String> {
        let is_news = self.health.status() == Status::Down && cause != self.said;
        let times = if is_news && cause == self.other.0 { self.other.1 + 1 } else { u32::from(is_news) };
        self.other = (cause.to_owned(), times);
        (is_news && times >= self.thresholds.fall).then(|| format!("still, {times} in a row"))
    }
}

/// How long to wait after a check that took so long: from start to start it is the interval or a little less. `random`
/// is in 0..1.
fn pause(interval: Duration, took: Duration, random: f64) -> Duration {
    interval.mul_f64(1.0 - JITTER * random).saturating_sub(took)
}

fn counted(transition: Transition) -> String {
    match transition {
        Transition { first: true, .. } => "first check".to_owned(),
        Transition { in_a_row, .. } => format!("{in_a_row} in a row"),
    }
}

/// One line for each change of state, with its cause.
fn change_line(endpoint: &Endpoint, state: State, cause: &str, count: &str) -> String {
    let line = backend_state::line(&endpoint.backend, Some(endpoint.address), state, cause);
    format!("{line} ({count})")
}

fn label(endpoint: &Endpoint) -> String {
    backend_state::label(&endpoint.backend, Some(endpoint.address))
}
