//! What the client and the operator are told about a request that no backend answered.

use super::line::Unsent;
use super::retry_state::{FailedAttempt, RetryState};
use super::{NoAnswer, Spent};
use crate::error::Reject;
use crate::metrics::QueueRefusal;
use crate::proxy::exchange::BodyFault;
use crate::proxy::{Phase, UpstreamError};
use balancer_http::message::Reason;
use balancer_pool::backends::{DEFAULT_POOL, Endpoint};

/// Seconds that a client is told to wait when no backend can answer now.
const RETRY_AFTER_S: u64 = 1;

/// The refusal of a request that was not sent, or not sent again. Counts it if the line refused it.
pub(super) fn unsent(why: Unsent, state: RetryState) -> NoAnswer {
    let RetryState { failed_attempt, spent, pool, .. } = state;
    // The error log suppresses repeats of one text. With the pool's name in it, one pool's trouble does not hide
    // another's.
    let of_pool =
        if **pool.name() == *DEFAULT_POOL { String::new() } else { format!(" of pool {}", pool.name()) };
    let before = match failed_attempt {
        Some(FailedAttempt { error: Some(error), at, .. }) => match why {
            // Why the attempt failed says more than why it could not be sent again.
            Unsent::Nobody | Unsent::Refused(QueueRefusal::Full) | Unsent::OverBudget => {
                return failed(&error, &at, spent);
            }
            Unsent::Refused(_) | Unsent::Deadline => {
                format!(", after backend {} failed: {}", at.group.title, error.cause)
            }
        },
        _ => String::new(),
    };
    let (reason, detail, cause) = match why {
        // Over budget is only what was sent before, which has its answer above.
        Unsent::Nobody | Unsent::OverBudget => {
            (Reason::Unavailable, "no backend is healthy at the moment", "no healthy backend")
        }
        Unsent::Refused(why) => (Reason::Unavailable, "the service is busy", refused(why)),
        Unsent::Deadline => (
            Reason::GatewayTimeout,
            "the request was not answered in time",
            "every backend was full until the request's time was over (upstream.request_timeout, or its route's)",
        ),
    };
    let mut reject = Reject::new(reason, detail)
        .because(format!("{}{before}", cause.replacen("backend", &format!("backend{of_pool}"), 1)))
        .retry_after(RETRY_AFTER_S);
    if let Unsent::Refused(why) = why {
        pool.metrics.queue_refused(why);
        reject.cause_word = Some(why.cause());
    }
    NoAnswer { reject, client_gone: false, spent }
}

/// Why a request may not wait, or not any longer.
fn refused(why: QueueRefusal) -> &'static str {
    match why {
        QueueRefusal::Full => {
            "every backend is full, and as many wait as may (balancing.queue_size; on tiny_http half of the workers)"
        }
        QueueRefusal::Target => {
            "every backend is full, and its client always has others that wait (balancing.queue_target)"
        }
        QueueRefusal::Timeout => {
            "every backend was full for as long as a request may wait (balancing.queue_timeout)"
        }
    }
}

/// The refusal of a request whose last attempt failed.
pub(super) fn failed(error: &UpstreamError, endpoint: &Endpoint, spent: Spent) -> NoAnswer {
    let (reason, detail, wait) = match error.phase {
        Phase::Connect | Phase::ConnectTimedOut => (Reason::BadGateway, "no backend could be reached", true),
        Phase::Stale | Phase::Reset => {
            (Reason::BadGateway, "the backend closed the connection without an answer", true)
        }
        Phase::TimedOut => (Reason::GatewayTimeout, "the backend did not answer in time", true),
        Phase::Malformed => (Reason::BadGateway, "the backend's answer is not valid HTTP", false),
        Phase::RequestBody(fault) => (fault.reason(), fault_detail(fault), false),
        Phase::Cancelled => (Reason::BadRequest, "the client left", false),
        Phase::Shortage => (Reason::Unavailable, "this server is short of resources at the moment", true),
    };
    let client_gone = matches!(error.phase, Phase::Cancelled | Phase::RequestBody(BodyFault::ClientGone));
    let mut reject = Reject::new(reason, detail)
        .because(format_args!("backend {}: {}", endpoint.group.title, error.cause));
    reject.retry_after_s = wait.then_some(RETRY_AFTER_S);
    NoAnswer { reject, client_gone, spent }
}

fn fault_detail(fault: BodyFault) -> &'static str {
    match fault {
        BodyFault::TooLarge => "the request's body is larger than this server takes",
        BodyFault::Malformed => "the request's chunked body is malformed",
        BodyFault::TimedOut => "the request's body came too slowly",
        BodyFault::ClientGone => "the client left before its body ended",
    }
}
