//! The API's v1: limits and plans, and what an instance is doing. One file a resource; each is a line in
//! [`RESOURCES`].

mod audit;
pub mod backends;
pub mod batch;
mod check;
mod conditions;
pub mod control;
mod import;
mod limited;
mod limits;
pub mod live;
mod patterns;
mod plans;
pub mod reload;
mod schemas;
pub mod status;
mod terms;
mod usage;

use super::input::{BodyFaults, Members};
use super::problem::refused;
use super::route::Resource;
use balancer_limiter::identity::{ClientId, MAX_KEY_BYTES, secret_id};

/// In the order of the documentation.
pub(super) const RESOURCES: &[Resource] = &[
    limits::RESOURCE,
    usage::RESOURCE,
    plans::RESOURCE,
    batch::RESOURCE,
    import::RESOURCE,
    check::RESOURCE,
    limited::RESOURCE,
    audit::RESOURCE,
    status::RESOURCE,
    backends::RESOURCE,
    reload::RESOURCE,
];

/// The client that a body names: by `client_id`, or by the `key` that it has.
fn client_of(members: &Members<'_>, faults: &mut BodyFaults) -> Option<ClientId> {
    let text = members.text("client_id", faults);
    let key = members.text("key", faults);
    match (members.has("client_id"), members.has("key")) {
        (true, true) => {
            members.fault("key", "a client is named by client_id or by key, not by both", faults);
            return None;
        }
        (false, true) => {
            let id = secret_id(key?.as_bytes()).and_then(|id| ClientId::parse(&id).ok());
            if id.is_none() {
                let detail = format!("must have 1 to {MAX_KEY_BYTES} bytes without control characters");
                members.fault("key", detail, faults);
            }
            return id;
        }
        _ => {}
    }
    ClientId::parse(&text?).map_err(|fault| members.fault("client_id", fault.to_string(), faults)).ok()
}

#[cfg(test)]
mod tests;
