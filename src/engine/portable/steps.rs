//! Drives a request's story on its worker, which waits for whatever the story waits for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::Shared;
use super::body::Body;
use super::call::Incoming;
use crate::error::Reject;
use crate::proxy::exchange::{Answer, BlockingRequest, FrontendEvent};
use crate::proxy::story::{Event, NewRequest, Step, Story};
use balancer_http::message::{Reason, RequestHead};
use balancer_time::Nanos;

/// An answer, and the body that goes with it if a backend's is relayed.
pub(super) type AnswerAndBody = (Answer, Option<Incoming>);

impl Shared {
    /// Has a request answered; a panic costs it a 500.
    pub(super) fn answer(
        &self,
        head: &mut RequestHead,
        body: &mut Body<'_>,
        received_at: Nanos,
    ) -> AnswerAndBody {
        let caught = catch_unwind(AssertUnwindSafe(|| self.follow(head, body, received_at)));
        caught.unwrap_or_else(|_| {
            self.service.observe(FrontendEvent::Panicked);
            let reject = Reject::new(Reason::Internal, "the request could not be handled")
                .because("a panic while it was served; see the message of the panic above");
            (self.service.refuse(head, &reject, received_at), None)
        })
    }

    /// Does what the story asks for until it has an answer.
    fn follow(&self, head: &mut RequestHead, body: &mut Body<'_>, received_at: Nanos) -> AnswerAndBody {
        let mut step = self.service.begin(NewRequest {
            head,
            in_memory: body.in_memory(),
            body_bytes: body.came(),
            received_at,
            can_upgrade: false,
            bound_to: None,
        });
        let mut incoming = None;
        loop {
            step = match step {
                Step::Answer(answer) => return (answer, incoming),
                Step::Work(_) => return (self.serve_own(head, body, received_at), None),
                Step::Wait(story, until) => {
                    let late = self.wait(&story, until);
                    story.resume(head, late)
                }
                Step::Call(story, call) => {
                    // The backend's answer is not the client's answer: its connection is closed.
                    drop(incoming.take());
                    body.bound(call.max_body_bytes);
                    let event = match self.caller.call(&story, &call, head, body) {
                        Ok((answer, rest)) => {
                            incoming = Some(rest);
                            Event::Head(answer)
                        }
                        Err(error) => Event::Failed(error),
                    };
                    story.on(event, head, body.is_replayable())
                }
            };
        }
    }

    /// Answers a call of the API. Those that may wait for the database never hold more than half of the workers: while
    /// it hangs, all else is still answered.
    fn serve_own(&self, head: &mut RequestHead, body: &mut Body<'_>, received_at: Nanos) -> Answer {
        let mut place = None;
        if self.service.waits(head) {
            place = WaitingCall::begin(&self.waiting_calls, (self.workers / 2).max(1));
            if place.is_none() {
                let reject = Reject::new(Reason::Unavailable, "too many calls at once").retry_after(1);
                return self.service.refuse(head, &reject, received_at);
            }
        }
        let answer = self.service.work(BlockingRequest { head, body, received_at });
        drop(place);
        answer
    }

    /// Waits until a story can go on. True: its time is over.
    fn wait(&self, story: &Story, until: Nanos) -> bool {
        let woken = Arc::new(AtomicBool::new(false));
        let (told, worker) = (Arc::clone(&woken), thread::current());
        let waker = move || {
            told.store(true, Ordering::Release);
            worker.unpark();
        };
        if !story.listen(Box::new(waker)) {
            return false;
        }
        while !woken.load(Ordering::Acquire) {
            let left = until.saturating_sub(self.clock.now());
            if left == 0 {
                return true;
            }
            // Parking may end for no reason, or for the waker of an earlier request.
            thread::park_timeout(Duration::from_nanos(left));
        }
        false
    }
}

/// A worker that may wait for the database for a call of the API; it is none any more when this is dropped.
struct WaitingCall<'a>(&'a AtomicUsize);

impl<'a> WaitingCall<'a> {
    /// `None`: there are `most` already.
    fn begin(calls: &'a AtomicUsize, most: usize) -> Option<Self> {
        let more = |now| (now < most).then_some(now + 1);
        calls.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok().then(|| Self(calls))
    }
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
