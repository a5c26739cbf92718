//! One budget over several instances of one database: which instances are there, what they tell each other, and what they
//! allow.

mod admitted;
mod load;
mod seen;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Backend, Balancer, Database, Setup, until};

/// Instances of one database, in front of one backend.
struct Instances {
    list: Vec<Balancer>,
    _backend: Backend,
}

fn setup(database: &Database, backend: &Backend) -> Setup {
    Setup::auto().store(database).backend(backend.address())
}

/// That many, all of which know each other.
fn instances(database: &Database, count: usize) -> Instances {
    let backend = Backend::named("a");
    let setup = setup(database, &backend);
    let list: Vec<Balancer> = (0..count).map(|_| setup.start()).collect();
    for balancer in &list {
        knows(balancer, count);
    }
    Instances { list, _backend: backend }
}

/// `instances` of `/v1/status`.
fn told_of(balancer: &Balancer) -> Vec<Value> {
    let status = balancer.api("GET", "/-/v1/status", &json!(null)).expect(200).json();
    status["instances"].as_array().expect("a list").clone()
}

/// Waits until this instance hears that many, itself among them, and each of them hears itself.
#[track_caller]
fn knows(balancer: &Balancer, count: usize) {
    until(&format!("it knows {count} instances"), || {
        let instances = told_of(balancer);
        let hear = |one: &Value| one["lag"].is_number() && one["cut_off"] == false;
        (instances.len() == count && instances.iter().all(hear)).then_some(())
    });
}

/// How long it takes until that holds.
#[track_caller]
fn takes(what: &str, condition: impl FnMut() -> Option<()>) -> Duration {
    let started = Instant::now();
    until(what, condition);
    started.elapsed()
}
