//! What a frontend calls.

use super::exchange::{Answer, BlockingRequest, FrontendEvent};
use super::story::{NewRequest, Step};
use crate::error::Reject;
use balancer_http::message::RequestHead;
use balancer_time::Nanos;

/// What requests are asked of. A panic in it costs that request a 500.
pub trait Service: Send + Sync + 'static {
    /// Begins a request: what the engine is to do with it. Never blocks.
    fn begin(&self, asked: NewRequest<'_>) -> Step;

    /// Whether [`Service::work`] may have to wait for the database to answer that request.
    fn waits(&self, _head: &RequestHead) -> bool {
        true
    }

    /// Answers a request for which [`Service::begin`] asked that ([`Step::Work`]), on a thread that may block.
    fn work(&self, exchange: BlockingRequest<'_>) -> Answer;

    /// The answer to a request that the frontend itself refuses (framing, bounds, a panic): with a request id, counted and
    /// logged like every other. `head` holds what was understood. Must not panic.
    fn refuse(&self, head: &RequestHead, reject: &Reject, received_at: Nanos) -> Answer;

    /// Counts what happens outside of any exchange. Cheap.
    fn observe(&self, event: FrontendEvent);
}
