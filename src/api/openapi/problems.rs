//! An example of each problem, so that a tool can show what a refusal looks like.

use serde_json::{Value, json};

use balancer_http::message::Reason;

/// What the API refuses with.
const REASONS: [Reason; 17] = [
    Reason::BadRequest,
    Reason::Unauthorized,
    Reason::Forbidden,
    Reason::NotFound,
    Reason::MethodNotAllowed,
    Reason::RequestTimeout,
    Reason::Conflict,
    Reason::PreconditionFailed,
    Reason::ContentTooLarge,
    Reason::UriTooLong,
    Reason::ExpectationFailed,
    Reason::TooManyRequests,
    Reason::HeadTooLarge,
    Reason::Internal,
    Reason::NotImplemented,
    Reason::Unavailable,
    Reason::VersionNotSupported,
];

/// The problem of a status; `about` says when that is answered.
pub(super) fn example(status: u16, about: &str) -> Value {
    let title = REASONS.iter().map(|reason| reason.status()).find(|(code, _)| *code == status);
    let title = title.map_or("", |(_, title)| title);
    let mut problem = json!({
        "type": "about:blank", "title": title, "status": status, "detail": about,
        "instance": "01a227a0-297f-7d74-bde6-7a1389fdb5ec",
    });
    if status == 400 {
        problem["errors"] =
            json!([{ "pointer": "/buckets/0/per", "detail": "must be a span such as 1s, 1m, 1h or 1d" }]);
    }
    problem
}
