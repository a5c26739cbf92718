//! Reports about backends: state, health and cause. [`crate::backend_state`] has the words.

use std::sync::Arc;

use super::endpoint::{Backend, Endpoint, Operator};
use super::snapshot::Snapshot;
use crate::backend_state::{NO_ADDRESS_YET, State, withheld};
use crate::health::Status;

/// Most addresses of one backend whose causes are named; the others are only counted.
const NAMED: usize = 3;

/// A report about a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendReport {
    /// Its state: by the operator's word, else by its health.
    pub state: State,
    /// Whether it gets requests; an ejected one does, one at a time.
    pub up: bool,
    /// Its health by checks and answers, whatever the operator's word: `up`, `unknown`, `ejected` or `down`.
    pub health: &'static str,
    /// Why it gets no requests, or not its share: all causes, in the words of the log.
    pub cause: Option<String>,
}

impl Snapshot {
    /// The endpoints of one backend.
    pub fn own<'a>(&'a self, backend: &'a Arc<Backend>) -> impl Iterator<Item = &'a Arc<Endpoint>> {
        self.endpoints().iter().filter(move |endpoint| Arc::ptr_eq(&endpoint.group, backend))
    }

    /// The report about one backend. Takes no lock.
    pub fn told(&self, backend: &Arc<Backend>) -> BackendReport {
        let own: Vec<_> = self.own(backend).collect();
        let healthy = || own.iter().filter(|one| one.health() != Status::Down);
        let usable = |one: &&&Arc<Endpoint>| !one.is_ejected();
        let (state, health) = if healthy().any(|one| usable(&one)) {
            let known = healthy().any(|one| one.health() == Status::Up);
            (State::Up, if known { "up" } else { "unknown" })
        } else if healthy().next().is_some() {
            (State::Ejected, "ejected")
        } else {
            (State::Down, "down")
        };
        let word = backend.withheld();
        let mut causes: Vec<String> = word.iter().map(|(_, cause)| (*cause).to_owned()).collect();
        causes.extend(why(backend, &own));
        BackendReport {
            state: word.map_or(state, |(state, _)| state),
            up: word.is_none() && state != State::Down,
            health,
            cause: (!causes.is_empty()).then(|| causes.join("; ")),
        }
    }
}

/// Why its endpoints are not up, by checks and answers. If there is only one, its address is left out.
fn why(backend: &Backend, own: &[&Arc<Endpoint>]) -> Option<String> {
    if own.is_empty() {
        return Some(backend.absence().as_deref().unwrap_or(NO_ADDRESS_YET).to_owned());
    }
    let failing: Vec<_> = own.iter().filter_map(|one| Some((one.address, one.cause()?))).collect();
    if let ([_], [(_, cause)]) = (own, failing.as_slice()) {
        return Some(cause.to_string());
    }
    let mut named: Vec<_> =
        failing.iter().take(NAMED).map(|(address, cause)| format!("{address}: {cause}")).collect();
    if failing.len() > NAMED {
        named.push(format!("{} more of {} addresses", failing.len() - NAMED, own.len()));
    }
    (!named.is_empty()).then(|| named.join("; "))
}

impl Backend {
    /// State and cause if the operator wants no new requests to go there; else `None`.
    pub fn withheld(&self) -> Option<(State, &'static str)> {
        let operator = self.operator();
        withheld(operator == Operator::Drain, operator == Operator::Down, self.weight())
    }
}

impl Endpoint {
    /// Its health in one word: `up`, `down`, `ejected`, or `unknown` before the first check.
    pub fn health_word(&self) -> &'static str {
        match self.health() {
            Status::Down => "down",
            _ if self.is_ejected() => "ejected",
            Status::Up => "up",
            Status::Unknown => "unknown",
        }
    }

    /// Why it is down or ejected, in the words of the log; `None`: it is neither.
    pub fn cause(&self) -> Option<Arc<str>> {
        match self.health_word() {
            "down" => Some(
                self.failing.load().as_deref().map_or_else(|| "its health checks fail".into(), Arc::clone),
            ),
            "ejected" => Some(self.standing.cause().unwrap_or_else(|| "its answers took it out".into())),
            _ => None,
        }
    }
}
