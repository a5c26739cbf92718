//! The API's v1: limits and plans, and what an instance is doing. One file a resource; each is a line in
//! `route::RESOURCES`.

pub mod audit;
pub mod backends;
pub mod batch;
pub mod check;
mod conditions;
pub mod import;
pub mod limited;
pub mod limits;
pub mod live;
mod page;
mod patterns;
pub mod plans;
pub mod reload;
mod schemas;
pub mod status;
mod terms;
pub mod usage;

use super::input::{Faults, Members};
use crate::error::Reject;
use crate::store::StoreError;
use balancer_http::message::Reason;
use balancer_limiter::identity::{ClientId, MAX_KEY_BYTES, secret_id};

/// Seconds after which a caller may try again when the store is down: it is probed about once a second.
const STORE_RETRY_AFTER_S: u64 = 1;

/// The refusal of a call that the store refused. `what`: `limit` or `plan`; `at`: the pointer of the object in the body.
pub(super) fn refused(error: StoreError, what: &str, at: &str) -> Reject {
    match error {
        StoreError::Exists => Reject::new(Reason::Conflict, format!("there is such a {what} already")),
        StoreError::NotFound => Reject::new(Reason::NotFound, format!("there is no such {what}")),
        StoreError::Full(bound) => Reject::new(Reason::Conflict, bound),
        StoreError::Precondition => Reject::new(
            Reason::PreconditionFailed,
            format!("the {what} has another version, or is not there"),
        ),
        StoreError::NoPlan => {
            let detail = "there is no such plan";
            Reject::new(Reason::BadRequest, detail).field(format!("{at}/plan"), detail)
        }
        StoreError::InUse(count) => Reject::new(Reason::Conflict, format!("{count} limits name this plan")),
        StoreError::Unread { cause } => Reject::new(Reason::Unavailable, "the store cannot be reached")
            .because(cause)
            .retry_after(STORE_RETRY_AFTER_S),
        StoreError::Unavailable { cause, outcome_unknown } => {
            let detail = if outcome_unknown {
                "the store did not answer in time: whether the change was made is unknown, get tells"
            } else {
                "the store cannot be reached; nothing was changed"
            };
            Reject::new(Reason::Unavailable, detail).because(cause).retry_after(STORE_RETRY_AFTER_S)
        }
    }
}

/// The client that a body names: by `client_id`, or by the `key` that it has.
fn client_of(members: &Members<'_>, faults: &mut Faults) -> Option<ClientId> {
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
