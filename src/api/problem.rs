//! Refusals of the API as answers: `application/problem+json` (RFC 9457) with the request's id as `instance`.

use crate::error::Reject;
use crate::proxy::exchange::Answer;
use balancer_http::message::Reason;

/// The answer of a refusal. After a body that was too large to be read the connection is at its end.
pub(super) fn answer(reject: &Reject, request_id: &str) -> Answer {
    let mut answer = reject.answer(request_id);
    answer.close = matches!(reject.reason, Reason::ContentTooLarge | Reason::RequestTimeout);
    answer
}
