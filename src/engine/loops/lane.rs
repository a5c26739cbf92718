//! Threads for calls of the API, which may block or take long. A loop hands over a call whose body is whole, and gets
//! the answer as a letter. Calls that may wait for the database have threads of their own: when it hangs, the others
//! are still answered.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Sender, bounded};

use super::keys::ClientSlot;
use super::shared::LoopsShared;
use super::state::Letter;
use crate::error::Reject;
use crate::proxy::exchange::{Answer, BlockingRequest, BodyFault, FrontendEvent, RequestBody};
use balancer_http::message::{Reason, RequestHead};
use balancer_time::Nanos;

/// How many threads there are for calls that may wait for the database, and for those that do not.
const THREADS: [usize; 2] = [2, 1];
/// Most requests that wait for either kind of thread.
const MOST_WAITING: usize = 256;

/// A request for the lane.
pub(super) struct LaneJob {
    pub number: usize,
    pub client: ClientSlot,
    pub head: RequestHead,
    pub body: Vec<u8>,
    /// More of the body came than the call may have.
    pub is_too_large: bool,
    pub received_at: Nanos,
}

/// The running threads. They end when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Lane {
    waiting: Sender<LaneJob>,
    quick: Sender<LaneJob>,
}

impl Lane {
    /// Starts the threads. `shared`: the loops that they answer to.
    pub fn start(shared: &Arc<LoopsShared>) -> io::Result<Self> {
        let [waiting, quick] = THREADS;
        Ok(Self { waiting: start("lane", waiting, shared)?, quick: start("quick-lane", quick, shared)? })
    }

    /// Hands a request over. It is given back when too many wait. `waits`: it may wait for the database.
    pub fn send(&self, job: LaneJob, waits: bool) -> Result<(), Box<LaneJob>> {
        let lane = if waits { &self.waiting } else { &self.quick };
        lane.try_send(job).map_err(|refused| Box::new(refused.into_inner()))
    }
}

/// Starts so many threads that answer what is sent to them.
fn start(name: &str, threads: usize, shared: &Arc<LoopsShared>) -> io::Result<Sender<LaneJob>> {
    let (send, receive) = bounded::<LaneJob>(MOST_WAITING);
    for number in 0..threads {
        let (receive, shared) = (receive.clone(), Arc::clone(shared));
        thread::Builder::new().name(format!("{name}-{number}")).spawn(move || {
            for job in receive {
                let (number, client) = (job.number, job.client);
                let answer = answer(&shared, job);
                shared.loops[number].post(Letter::Answered(client, answer));
            }
        })?;
    }
    Ok(send)
}

fn answer(shared: &LoopsShared, mut job: LaneJob) -> Answer {
    let served = catch_unwind(AssertUnwindSafe(|| {
        let mut body = Whole { bytes: &job.body, at: 0, is_too_large: job.is_too_large };
        shared.service.work(BlockingRequest {
            head: &mut job.head,
            body: &mut body,
            received_at: job.received_at,
        })
    }));
    match served {
        Ok(answer) => answer,
        Err(_) => {
            shared.service.observe(FrontendEvent::Panicked);
            let reject = Reject::new(Reason::Internal, "the request could not be handled");
            shared.service.refuse(&job.head, &reject, job.received_at)
        }
    }
}

/// A body in memory.
struct Whole<'a> {
    bytes: &'a [u8],
    at: usize,
    is_too_large: bool,
}

impl RequestBody for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() && self.is_too_large {
            return Err(io::Error::other(BodyFault::TooLarge));
        }
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}
