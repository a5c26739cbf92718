//! Routes over real sockets: which one a request goes by, which clients it lets in, what it answers, and what reaches the
//! backend.

mod answers;
mod bad_input;
mod forward;
mod guards;
mod limits;
mod matching;
mod order;
mod passwords;
mod pools;

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Backend, Balancer, Engine, Setup};

/// One backend, called `a`, and those routes.
fn setup(engine: Engine, backend: &Backend, routes: Value) -> Setup {
    Setup::on(engine).backend(backend.address()).set("routes", routes)
}

/// The same, started.
fn routed(engine: Engine, routes: Value) -> (Backend, Balancer) {
    let backend = Backend::named("a");
    let balancer = setup(engine, &backend, routes).start();
    (backend, balancer)
}

/// A route that answers with its own name.
fn named(name: &str, host: Value, path: &str) -> Value {
    json!({ "name": name, "host": host, "path": path, "respond": { "body": name } })
}

/// Users and the bcrypt hashes of their passwords, of the least cost.
fn users(folder: &Path, name: &str, all: &[(&str, &str)]) {
    let text: String = all.iter().map(|(user, password)| user_line(user, password, 4)).collect();
    std::fs::write(folder.join(name), text).expect("written");
}

/// A user's line in such a file. The hash takes twice as long for each step of the cost.
pub fn user_line(user: &str, password: &str, cost: u32) -> String {
    let hash = bcrypt::hash_with_salt(password, cost, [7; 16]).expect("a hash");
    format!("{user}:{}\n", hash.format_for_version(bcrypt::Version::TwoY))
}
