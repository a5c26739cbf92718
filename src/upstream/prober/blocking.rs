//! Checks by ureq's public interface, for systems and engines without epoll. One thread hands the checks out to a fixed
//! number of threads, each of which waits for one check at a time.
//!
//! A backend that hangs holds one of [`THREADS`] threads until the time-out. Once it is known to hang, it gets a thread
//! only while fewer than half of them are with such backends. So `n` backends that begin to hang at the same time delay
//! the other checks of their pool once, by at most `n / THREADS` time-outs. They delay those of another pool until the
//! first of their checks ends, since the pool with the fewest checks under way gets the next thread. A check whose pool
//! is gone holds its thread until it ends. (ureq counts the time-out anew for connecting, sending and receiving: a
//! backend that is slow in each holds its thread up to three times as long.)
//!
//! ureq judges answers in another way than our own checks: it takes lines that end with a bare line feed. It refuses
//! versions other than 1.0 and 1.1, and what `upstream.accept_invalid` allows. It does not tell TLS or a malformed
//! status line from an answer that is no HTTP at all.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
use http::header::{CONNECTION, HOST};
use parking_lot::Mutex;
use ureq::{Agent, Timeout};

use super::RunningProber;
use super::check::{CheckResult, NotPassed, USER_AGENT, judge};
use super::schedule::{DueCheck, Schedule};
use crate::clock::Clock;
use crate::config::HealthCheck;
use balancer_pool::backend_state::Failed;
use balancer_pool::backends::Endpoint;
use balancer_time::{Nanos, nanos};

/// How many checks are made at once, of all pools.
const THREADS: usize = 16;
/// A thread's stack: deep enough for ureq without TLS. The system gives memory only for the part that is used.
const STACK_BYTES: usize = 512 * 1024;

/// What a check has found.
struct Found {
    number: u64,
    started: Nanos,
    result: CheckResult,
}

/// Starts the threads, and fails only if that can't be done. At the end, a thread that waits ends with its check.
pub(super) fn start(clock: Clock) -> io::Result<RunningProber> {
    // As many places as threads, so that neither side ever waits to send.
    let ((jobs, taken), (done, found)) = (bounded(THREADS), bounded(THREADS));
    let agent = agent();
    for _ in 0..THREADS {
        let worker = Worker { agent: agent.clone(), clock: clock.clone() };
        let (taken, done) = (taken.clone(), done.clone());
        Builder::new()
            .name("health-check".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || worker.run(&taken, &done))?;
    }
    let schedule = Arc::new(Mutex::new(Schedule::new(THREADS)));
    let (call, called) = bounded(1);
    let hand_out = HandOut { schedule: Arc::clone(&schedule), clock, jobs, found, busy: 0 };
    let thread = Builder::new().name("health".to_owned()).spawn(move || hand_out.run(&called))?;
    let wake = Arc::new(move || {
        // Fails if a call waits already, which is enough.
        let _ = call.try_send(());
    });
    Ok(RunningProber { schedule, wake, thread: Some(thread) })
}

/// The thread that hands the checks out. It alone records what they found, so nothing is recorded after its end.
struct HandOut {
    schedule: Arc<Mutex<Schedule>>,
    clock: Clock,
    jobs: Sender<DueCheck>,
    found: Receiver<Found>,
    /// Threads with a check.
    busy: usize,
}

impl HandOut {
    fn run(mut self, called: &Receiver<()>) {
        loop {
            let now = self.clock.now();
            while self.busy < THREADS
                && let Some(due) = self.next(now)
            {
                self.busy += 1;
                if self.jobs.send(due).is_err() {
                    return log::error!("health checks have ended: their threads have");
                }
            }
            let due = (self.busy < THREADS).then(|| self.schedule.lock().until()).flatten();
            let due = due.map_or_else(never, |at| after(Duration::from_nanos(at.saturating_sub(now))));
            select! {
                recv(called) -> _ => {
                    let mut schedule = self.schedule.lock();
                    schedule.follow(self.clock.now());
                    if schedule.is_over() {
                        return;
                    }
                }
                recv(self.found) -> found => {
                    self.busy -= 1;
                    if let Ok(Found { number, started, result }) = found {
                        self.schedule.lock().ended(number, started, &result, self.clock.now());
                    }
                }
                recv(due) -> _ => {}
            }
        }
    }

    /// The next check that is due. Releases the lock at once.
    fn next(&self, now: Nanos) -> Option<DueCheck> {
        self.schedule.lock().next(now)
    }
}

/// One thread that checks.
struct Worker {
    agent: Agent,
    clock: Clock,
}

impl Worker {
    fn run(&self, jobs: &Receiver<DueCheck>, done: &Sender<Found>) {
        for DueCheck { number, endpoint, settings } in jobs {
            let started = self.clock.now();
            let check = || self.check(&endpoint, &settings);
            // The panic was logged. Without a result this thread's place would stay taken.
            let result = catch_unwind(AssertUnwindSafe(check))
                .unwrap_or_else(|_| Err(Failed::Other("the check broke".to_owned()).into()));
            let took = self.clock.now().saturating_sub(started);
            let is_late = result.is_ok() && took > nanos(settings.timeout);
            let result = if is_late { Err(Failed::NoAnswer.into()) } else { result };
            if done.send(Found { number, started, result }).is_err() {
                return;
            }
        }
    }

    /// Makes a check. It sets no time-out for the whole call: with one, ureq starts a thread for each look-up, even of
    /// an address.
    fn check(&self, endpoint: &Endpoint, settings: &HealthCheck) -> CheckResult {
        if endpoint.group.is_tls {
            return Err(Failed::Other("the tiny_http engine speaks no TLS to backends".to_owned()).into());
        }
        let HealthCheck { path, head_rules, timeout, .. } = settings;
        let url = format!("http://{}{path}", endpoint.address);
        let request = (self.agent.get(url).config())
            .max_response_header_size(head_rules.max_head_bytes)
            .timeout_connect(Some(*timeout))
            .timeout_send_request(Some(*timeout))
            .timeout_recv_response(Some(*timeout))
            .build();
        match request.header(HOST, &endpoint.group.authority).header(CONNECTION, "close").call() {
            Ok(answer) => judge(answer.status().as_u16(), settings),
            Err(error) => Err(cause(error, head_rules.max_head_bytes)),
        }
    }
}

/// Keeps no connection, follows no redirect, and sends what the other driver sends.
fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(USER_AGENT)
        .accept_encoding("")
        .proxy(None)
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .build();
    Agent::new_with_config(config)
}

/// The cause in the words of the other driver, as far as ureq tells it.
fn cause(error: ureq::Error, max_head_bytes: usize) -> NotPassed {
    match error {
        ureq::Error::Timeout(Timeout::Connect) => Failed::NoConnection.into(),
        ureq::Error::Timeout(_) => Failed::NoAnswer.into(),
        ureq::Error::LargeResponseHeader(..) => Failed::HeadTooLarge(max_head_bytes).into(),
        ureq::Error::Protocol(error) => Failed::Other(format!("the answer is not HTTP/1: {error}")).into(),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Failed::Closed.into(),
        ureq::Error::Io(error) => match NotPassed::lost(&error) {
            // Only a connection that was made can be reset.
            lost @ NotPassed::Failed(Failed::Reset) => lost,
            _ => NotPassed::unconnected(&error),
        },
        error => Failed::Other(error.to_string()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn what_this_process_lacks_is_not_the_backends_fault() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            let cause = cause(ureq::Error::Io(errno.into()), 1);
            assert!(matches!(cause, NotPassed::Shortage(_)), "{cause:?}");
        }
    }
}
