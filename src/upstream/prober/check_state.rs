//! What the checks of one endpoint have found so far, and what the log and the API say about it.

use super::check::NotPassed;
use crate::config::HealthCheck;
use balancer_pool::backend_state::{self, Asked, State};
use balancer_pool::backends::{Backends, Endpoint};
use balancer_pool::health::{Health, LastCheck, Status, Thresholds, Transition};
use balancer_time::Nanos;

/// See the module.
pub(super) struct CheckState {
    asked: Asked,
    thresholds: Thresholds,
    health: Health,
    /// Why it is down, as the log last said.
    said: String,
    /// Another cause that was found since, and how often in a row.
    other: (String, u32),
    /// The last check could not be made, for want of descriptors or memory.
    short: bool,
}

impl CheckState {
    /// Goes on from the health that the endpoint has.
    pub fn new(settings: &HealthCheck, status: Status) -> Self {
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

    /// Records what a check of the endpoint found, and how long it took.
    pub fn take(
        &mut self,
        (result, took): (&Result<u16, NotPassed>, Nanos),
        endpoint: &Endpoint,
        backends: &Backends,
        now: Nanos,
    ) {
        let (cause, came) = match result {
            Ok(status) => (self.asked.passed(*status), self.asked.passed(*status)),
            Err(NotPassed::Failed(failed)) => (self.asked.failed(failed), self.asked.came(failed)),
            // What this process lacks says nothing about the backend.
            Err(NotPassed::Shortage(cause)) => {
                if !std::mem::replace(&mut self.short, true) {
                    let label = backend_state::label(&endpoint.group.title, Some(endpoint.address));
                    log::error!("{label} is not checked: {cause}");
                }
                return;
            }
        };
        self.short = false;
        endpoint.group.count_check(result.is_ok());
        endpoint.set_last_check(LastCheck { passed: result.is_ok(), came, took, ended: now });
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

    /// While it is down, a new cause replaces the one that was said, once it was found `fall` times in a row. `Some`:
    /// that is so now; the text for the log.
    fn changed(&mut self, cause: &str) -> Option<String> {
        let is_news = self.health.status() == Status::Down && cause != self.said;
        let times = if is_news && cause == self.other.0 { self.other.1 + 1 } else { u32::from(is_news) };
        self.other = (cause.to_owned(), times);
        (is_news && times >= self.thresholds.fall).then(|| format!("still, {times} in a row"))
    }
}

fn counted(transition: Transition) -> String {
    match transition {
        Transition { first: true, .. } => "first check".to_owned(),
        Transition { in_a_row, .. } => format!("{in_a_row} in a row"),
    }
}

/// One line for each change of state, with its cause.
fn change_line(endpoint: &Endpoint, state: State, cause: &str, count: &str) -> String {
    let line = backend_state::line(&endpoint.group.title, Some(endpoint.address), state, cause);
    format!("{line} ({count})")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{PATIENCE, pool, settings};
    use super::*;
    use balancer_pool::backend_state::Failed;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9001);

    #[test]
    fn a_change_of_state_is_one_line_with_its_cause() {
        let endpoint = Endpoint::alone("a", ADDRESS);
        for (state, cause, count, line) in [
            (State::Down, "x", "3 in a row", "backend a (127.0.0.1:9001) is down: x (3 in a row)"),
            (State::Up, "y", "first check", "backend a (127.0.0.1:9001) is up: y (first check)"),
        ] {
            assert_eq!(change_line(&endpoint, state, cause, count), line);
        }
    }

    /// The API has the cause that was said last. Another one replaces it after `fall` of them in a row, and not when it
    /// comes and goes.
    #[test]
    fn another_cause_is_said_once_it_lasts() {
        let pool = pool(&[ADDRESS]);
        let endpoint = Arc::clone(&pool.snapshot().endpoints()[0]);
        let mut state = CheckState::new(&settings(PATIENCE), Status::Unknown);
        let failed = |failed| Err(NotPassed::Failed(failed));
        let cause = || endpoint.cause().map(|cause| cause.split(';').next().unwrap_or_default().to_owned());
        for (result, expected) in [
            (Err(NotPassed::Shortage("too many open files".into())), None),
            (failed(Failed::Refused), Some("GET /: connection refused")),
            (failed(Failed::Status(500)), Some("GET /: connection refused")),
            (failed(Failed::Status(500)), Some("GET /: connection refused")),
            (failed(Failed::Refused), Some("GET /: connection refused")),
            (failed(Failed::Status(500)), Some("GET /: connection refused")),
            (failed(Failed::Status(500)), Some("GET /: connection refused")),
            (failed(Failed::Status(500)), Some("GET /: status 500")),
            (Err(NotPassed::Shortage("too many open files".into())), Some("GET /: status 500")),
            (Ok(200), Some("GET /: status 500")),
            (Ok(200), None),
            (Err(NotPassed::Shortage("too many open files".into())), None),
        ] {
            state.take((&result, 7), &endpoint, &pool, 0);
            assert_eq!(cause().as_deref(), expected, "{result:?}");
        }
        let last = endpoint.last_check().expect("it was checked");
        assert_eq!((last.passed, &*last.came, last.took), (true, "GET /: status 200", 7));
        assert_eq!(pool.backends()[0].checks(), (2, 7), "what could not be made is not counted");
    }
}
