//! Waiting for a backend with room, when every one that could take a request is full.

use std::sync::Arc;

use super::Forward;
use super::course::{Counted, Course, Wait};
use crate::proxy::Reuse;
use balancer_pool::backends::{Lease, Unavailable};
use balancer_pool::queue::Waker;
use balancer_time::Nanos;
use balancer_time::nanos;

/// Why a request is not sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// There is nobody to send it to.
    Nobody,
    /// All are full, and so is the line, or there is none.
    LineFull,
    /// All were full for `balancing.queue_timeout`.
    QueueTimeout,
    /// All were full until `upstream.request_timeout` was over.
    Deadline,
    /// All are full, and this request can't wait.
    Full,
    /// It was sent before, and too many are sent again.
    OverBudget,
    /// It waits; its course holds the place.
    Waits,
}

impl Forward {
    /// Somebody to send it to, waited for in line if need be. Newcomers don't overtake who is in it; a request that goes
    /// to another backend after a failure came before them, and tries first.
    pub(super) fn seek(
        &self,
        course: &mut Course,
        preferred: &[&[u8]],
        may_wait: bool,
    ) -> Result<(Lease, Reuse), Unsent> {
        if course.wait.is_none() && (course.setback.is_some() || self.backends.queue().is_empty()) {
            match course.pick(preferred) {
                Ok(found) => return Ok(found),
                Err(Unavailable::Nobody) => return Err(Unsent::Nobody),
                Err(Unavailable::Full) => {}
            }
        }
        if !may_wait {
            return Err(Unsent::Full);
        }
        let mut wait = match course.wait.take() {
            Some(wait) => wait,
            None => self.join(course)?,
        };
        loop {
            if !wait.place.may_try() {
                course.wait = Some(wait);
                return Err(Unsent::Waits);
            }
            course.now = self.clock.now();
            if course.deadline.is_some_and(|deadline| course.now >= deadline) {
                return Err(Unsent::Deadline);
            }
            // What came or changed meanwhile counts.
            course.snapshot = self.backends.snapshot();
            match course.pick(preferred) {
                Ok(found) => {
                    wait.place.leave();
                    return Ok(found);
                }
                Err(Unavailable::Nobody) => return Err(Unsent::Nobody),
                Err(Unavailable::Full) if course.now >= wait.until => return Err(wait.too_late()),
                Err(Unavailable::Full) => {}
            }
            let choosy = !course.tried.is_empty();
            // False: something was freed between its try and its sleep.
            let _ = wait.place.sleep(choosy);
        }
    }

    fn join(&self, course: &Course) -> Result<Wait, Unsent> {
        let policy = course.snapshot.policy();
        let most = policy.queue_size.min(self.most_waiting);
        let place = self.backends.queue().join(most).ok_or(Unsent::LineFull)?;
        self.metrics.queued();
        let since = self.clock.now();
        let patience = since.saturating_add(nanos(policy.queue_timeout));
        let until = course.deadline.map_or(patience, |deadline| deadline.min(patience));
        let counted = Counted { metrics: Arc::clone(&self.metrics), clock: self.clock.clone(), since };
        Ok(Wait { place, until, until_deadline: until < patience, _counted: counted })
    }
}

impl Wait {
    fn too_late(&self) -> Unsent {
        if self.until_deadline { Unsent::Deadline } else { Unsent::QueueTimeout }
    }
}

/// A request that waits, as whoever keeps it sees it.
impl Course {
    /// When it has waited long enough.
    pub fn waits_until(&self) -> Nanos {
        self.wait.as_ref().map_or(0, |wait| wait.until)
    }

    /// Names whom to tell that it can go on. False: it can already.
    pub fn on_turn(&self, waker: Waker) -> bool {
        self.wait.as_ref().is_some_and(|wait| wait.place.on_turn(waker))
    }

    /// Why it is given up.
    pub(super) fn too_late(&self) -> Unsent {
        self.wait.as_ref().map_or(Unsent::QueueTimeout, Wait::too_late)
    }
}
