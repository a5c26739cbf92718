//! What a frontend calls.

use super::exchange::{Answer, Exchange, FrontendEvent, Served};
use super::story::{Asked, Step};
use crate::error::Reject;
use balancer_http::message::RequestHead;
use balancer_time::Nanos;

/// What a frontend calls for each request, on one of its workers. It may block only up to the response head and while
/// it streams a large request body. A panic in it costs that request a 500.
pub trait Service: Send + Sync + 'static {
    /// Begins a request: what the engine is to do with it. Never blocks.
    fn begin(&self, _asked: Asked<'_>) -> Step {
        Step::Work(usize::MAX)
    }

    /// Answers one exchange, or parks it.
    fn serve(&self, exchange: Exchange<'_>) -> Served;

    /// The answer to a request that the frontend itself refuses (framing, bounds, a panic in [`Service::serve`]): with a
    /// request id, counted and logged like every other. `head` holds what was understood. Must not panic.
    fn refuse(&self, head: &RequestHead, reject: &Reject, received_at: Nanos) -> Answer;

    /// Counts what happens outside of any exchange. Cheap.
    fn observe(&self, event: FrontendEvent);

    /// The answer to a request that no worker is free for, when it can be had without waiting for anything: the
    /// process's own liveness. Called on a thread that must never block. `None`: the request is refused with 503.
    fn unattended(&self, _head: &RequestHead) -> Option<Answer> {
        None
    }
}
