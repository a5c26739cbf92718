//! What an engine calls to have requests answered.

use super::exchange::{Answer, BlockingRequest, FrontendEvent};
use super::story::{NewRequest, Step};
use crate::error::Reject;
use balancer_http::message::RequestHead;
use balancer_time::Nanos;

/// Answers requests. A panic in it costs only the request that caused it, which is answered with 500.
pub trait Service: Send + Sync + 'static {
    /// Begins a request: what the engine is to do with it. Never blocks.
    fn begin(&self, asked: NewRequest<'_>) -> Step;

    /// Whether [`Service::work`] may have to wait for the database before it can answer that request.
    fn waits(&self, _head: &RequestHead) -> bool {
        true
    }

    /// Answers a request for which [`Service::begin`] returned [`Step::Work`], on a thread that may block.
    fn work(&self, exchange: BlockingRequest<'_>) -> Answer;

    /// The answer to a request that the engine itself refuses (framing, bounds, a panic): with a request id, counted
    /// and logged like every other. `head` holds what was understood. Must not panic.
    fn refuse(&self, head: &RequestHead, reject: &Reject, received_at: Nanos) -> Answer;

    /// Counts what happens outside of any exchange. Cheap.
    fn observe(&self, event: FrontendEvent);
}
