//! Refusals of the API as answers: `application/problem+json` (RFC 9457) with the request's id as `instance`.

use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::store::{CallOutcome, StoreError};
use balancer_http::message::Reason;

/// The answer of a refusal. The connection is closed after a body that was not read to its end.
pub(super) fn answer(reject: &Reject, request_id: &str) -> Answer {
    let mut answer = reject.answer(request_id);
    answer.close = matches!(reject.reason, Reason::ContentTooLarge | Reason::RequestTimeout);
    answer
}

/// Seconds after which a caller may try again when the store is down: it is probed about once a second.
const STORE_RETRY_AFTER_S: u64 = 1;

/// The refusal of a call that the store refused. `what` names the object, such as `limit` or `plan`; `at` is its
/// pointer in the body.
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
        StoreError::Schema(cause) | StoreError::Refused { cause, .. } => {
            unavailable(CallOutcome::NotDone, cause)
        }
        StoreError::Unavailable { cause, outcome } => unavailable(outcome, cause),
    }
}

fn unavailable(outcome: CallOutcome, cause: String) -> Reject {
    let detail = match outcome {
        CallOutcome::Question => "the store cannot be reached",
        CallOutcome::NotDone => "the store cannot be reached; nothing was changed",
        CallOutcome::Unknown => {
            "the store did not answer in time: whether the change was made is unknown, get tells"
        }
    };
    Reject::new(Reason::Unavailable, detail).because(cause).retry_after(STORE_RETRY_AFTER_S)
}
