//! Picking and sending again without I/O: the result of an attempt goes in, the endpoint to send to next comes out.

use super::refusal::{failed, unsent};
use super::retry_state::RetryState;
use super::sticky::{Sent, sent, set_cookie};
use super::{Forward, NoAnswer, Spent, is_in};
use crate::proxy::{Reuse, UpstreamError};
use balancer_http::message::RequestHead;
use balancer_pool::backends::Lease;
use balancer_pool::retry::Failure;

/// Where a request goes next.
pub(in crate::proxy) enum Next {
    /// To the endpoint of this lease.
    To(RetryState, Lease, Reuse),
    /// Every endpoint is full: it waits in line.
    Waits(RetryState),
    /// Nowhere: its answer is a refusal.
    Failed(NoAnswer),
}

/// What an answer's head means for a request.
pub(in crate::proxy) enum Received {
    /// It is the client's.
    Final { lease: Lease, spent: Spent, set_cookie: Option<String> },
    /// Its status asks for another try, at the endpoint of this lease.
    Again(Box<RetryState>, Lease, Reuse),
}

impl Forward {
    /// Picks an endpoint, or a place in line.
    pub(in crate::proxy) fn step(&self, mut state: RetryState, head: &RequestHead) -> Next {
        // The name of the cookie is borrowed, while `state` is moved.
        let sticks = state.snapshot.policy().sticky.is_some().then(|| state.snapshot.clone());
        let sticky = sticks.as_ref().and_then(|snapshot| snapshot.policy().sticky.as_ref());
        let preferred = sticky.map_or_else(Sent::new, |sticky| sent(sticky, &head.fields));
        match self.next(&mut state, &preferred, true) {
            Ok(Some((lease, reuse))) => {
                state.spent.backend = Some(lease.endpoint.backend.clone());
                Next::To(state, lease, reuse)
            }
            Ok(None) => Next::Waits(state),
            Err(why) => Next::Failed(unsent(why, state)),
        }
    }

    /// An answer's head came.
    pub(in crate::proxy) fn received(
        &self,
        mut state: RetryState,
        mut lease: Lease,
        head: &RequestHead,
        status: u16,
        replayable: bool,
    ) -> Received {
        self.conclude(&mut state, &mut lease, Ok(status));
        lease.answered(state.now);
        if self.frees_workers {
            lease.free_worker();
        }
        let snapshot = state.snapshot.clone();
        let policy = snapshot.policy();
        let sticky = policy.sticky.as_ref();
        if is_in(&policy.retry_statuses, status)
            && state.try_again_after(Failure::Status, &lease.endpoint, replayable)
        {
            let preferred = sticky.map_or_else(Sent::new, |sticky| sent(sticky, &head.fields));
            // There is an answer already: a second one is not waited for in line.
            if let Ok(Some((again, reuse))) = self.next(&mut state, &preferred, false) {
                state.spent.backend = Some(again.endpoint.backend.clone());
                return Received::Again(Box::new(state), again, reuse);
            }
        }
        let set_cookie = sticky.and_then(|sticky| set_cookie(sticky, head, &lease.endpoint));
        Received::Final { lease, spent: state.spent, set_cookie }
    }

    /// An attempt failed.
    pub(in crate::proxy) fn broke(
        &self,
        mut state: RetryState,
        mut lease: Lease,
        error: UpstreamError,
        head: &RequestHead,
        replayable: bool,
    ) -> Next {
        self.conclude(&mut state, &mut lease, Err(&error));
        let at = lease.endpoint.clone();
        // Its place may be the one that the next attempt needs.
        lease.end(state.now);
        if !state.try_again_after(error.phase.into(), &at, replayable) {
            return Next::Failed(failed(&error, &at, state.spent));
        }
        state.failed_with(error);
        self.step(state, head)
    }
}
