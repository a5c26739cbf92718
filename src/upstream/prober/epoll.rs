//! Checks on one thread that waits for all of them at once (Linux). It never blocks, so a backend that hangs costs a
//! descriptor and delays no other check.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::check::{Check, CheckResult, NotPassed};
use super::schedule::Schedule;
use super::wire::Wire;
use crate::clock::Clock;
use crate::config::HealthCheck;
use crate::tls::upstream::BackendTls;
use balancer_pool::backend_state::Failed;
use balancer_pool::backends::{Backends, Endpoint};
use balancer_time::{Nanos, nanos};

/// Most checks under way, each with a descriptor: half of those that are counted on beside clients' connections.
pub(super) const MAX_UNDER_WAY: usize = 512;
/// Most events that are taken at once.
const MAX_EVENTS: usize = 256;
/// The event data of a call; endpoints' ids begin at 1.
const CALL: u64 = 0;

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct EpollProber {
    call: Arc<Call>,
    thread: Option<JoinHandle<()>>,
}

/// What wakes the thread.
#[derive(Debug)]
struct Call {
    descriptor: OwnedFd,
    /// To its end, and not because the pool has changed.
    is_last: AtomicBool,
}

impl Call {
    fn call(&self) {
        // Fails only when the counter is full: then it is readable already.
        let _ = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes());
    }
}

/// Starts the thread. Fails only when it, or a descriptor, can't be had.
pub(super) fn start(
    backends: Arc<Backends>,
    settings: Arc<HealthCheck>,
    tls: Arc<BackendTls>,
    clock: Clock,
) -> io::Result<EpollProber> {
    let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let call = Arc::new(Call { descriptor, is_last: AtomicBool::new(false) });
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &call.descriptor, EventData::new_u64(CALL), EventFlags::IN)?;
    let checks = Checks {
        schedule: Schedule::new(Arc::clone(&backends), Arc::clone(&settings), MAX_UNDER_WAY),
        settings,
        tls,
        clock,
        epoll,
        call: Arc::clone(&call),
        under_way: HashMap::new(),
        deadlines: BTreeSet::new(),
    };
    let thread = Builder::new().name("health".to_owned()).spawn(move || checks.run())?;
    let listener = Arc::downgrade(&call);
    backends.on_change(move || listener.upgrade().map(|call| call.call()).is_some());
    Ok(EpollProber { call, thread: Some(thread) })
}

impl Drop for EpollProber {
    fn drop(&mut self) {
        self.call.is_last.store(true, Ordering::SeqCst);
        self.call.call();
        if let Some(thread) = self.thread.take() {
            // It waits for nothing but events.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Checks {
    schedule: Schedule,
    settings: Arc<HealthCheck>,
    tls: Arc<BackendTls>,
    clock: Clock,
    epoll: OwnedFd,
    call: Arc<Call>,
    /// By [`Endpoint::id`], which is the event data of its socket.
    under_way: HashMap<u64, UnderWay>,
    /// When the time of each is over.
    deadlines: BTreeSet<(Nanos, u64)>,
}

impl Checks {
    fn run(mut self) {
        let mut events = [MaybeUninit::uninit(); MAX_EVENTS];
        loop {
            let timeout = self.start_due(self.clock.now());
            let ready = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
                Ok((ready, _)) => ready,
                Err(Errno::INTR) => continue,
                // Nothing that the kernel documents for a valid instance.
                Err(error) => return log::error!("health checks have ended: epoll_wait: {error}"),
            };
            // First what changed: a check of an endpoint that was removed is not judged any more.
            if ready.iter().any(|event| event.data.u64() == CALL) && self.answer_call() {
                return;
            }
            for event in ready.iter() {
                self.advance(event.data.u64());
            }
            self.expire(self.clock.now());
        }
    }

    /// Starts what is due and has room; how long the next event is then waited for.
    fn start_due(&mut self, now: Nanos) -> Option<Timespec> {
        while self.under_way.len() < MAX_UNDER_WAY
            && let Some(endpoint) = self.schedule.next(now)
        {
            match UnderWay::begin(&endpoint, self, now) {
                Ok(one) => {
                    self.deadlines.insert((one.deadline(&self.settings), endpoint.id));
                    self.under_way.insert(endpoint.id, one);
                }
                Err(not_passed) => self.schedule.ended(endpoint.id, now, &Err(not_passed), now),
            }
        }
        let due = self.schedule.until().filter(|_| self.under_way.len() < MAX_UNDER_WAY);
        let first = due.into_iter().chain(self.deadlines.first().map(|(at, _)| *at)).min()?;
        Timespec::try_from(Duration::from_nanos(first.saturating_sub(now))).ok()
    }

    /// Whether it is the end. If not, the pool has changed.
    fn answer_call(&mut self) -> bool {
        let _ = rustix::io::read(&self.call.descriptor, &mut [0; 8]);
        self.schedule.follow(self.clock.now());
        let Self { schedule, under_way, deadlines, settings, .. } = self;
        under_way.retain(|id, one| {
            let stays = schedule.has(*id);
            if !stays {
                deadlines.remove(&(one.deadline(settings), *id));
            }
            stays
        });
        self.call.is_last.load(Ordering::SeqCst)
    }

    /// Goes on with a check of whose socket something was heard.
    fn advance(&mut self, id: u64) {
        if let Some(result) = self.under_way.get_mut(&id).and_then(UnderWay::advance) {
            self.end(id, &result);
        }
    }

    /// Ends the checks whose time is over.
    fn expire(&mut self, now: Nanos) {
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let Some(one) = self.under_way.get(&id) else { return };
            let result = Err(one.check.timed_out());
            self.end(id, &result);
        }
    }

    fn end(&mut self, id: u64, result: &CheckResult) {
        if let Some(one) = self.under_way.remove(&id) {
            self.deadlines.remove(&(one.deadline(&self.settings), id));
            self.schedule.ended(id, one.started, result, self.clock.now());
        }
    }
}

/// A check and its connection, which ends with it.
struct UnderWay {
    check: Check,
    wire: Wire,
    started: Nanos,
}

impl UnderWay {
    fn begin(endpoint: &Endpoint, checks: &Checks, now: Nanos) -> Result<Self, NotPassed> {
        let group = &endpoint.group;
        let session = group.is_tls.then(|| checks.tls.session(&group.pool, &group.host)).transpose();
        let session = session.map_err(|cause| NotPassed::from(Failed::Handshake(cause)))?;
        let open = || {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let family = if endpoint.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = socket_with(family, SocketType::STREAM, flags, None)?;
            match connect(&socket, &endpoint.address) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(error) => return Err(error),
            }
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&checks.epoll, &socket, EventData::new_u64(endpoint.id), flags)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| NotPassed::unconnected(&error.into()))?;
        let check = Check::new(&checks.settings, &group.authority);
        Ok(Self { check, wire: Wire::new(socket, session), started: now })
    }

    fn deadline(&self, settings: &HealthCheck) -> Nanos {
        self.started.saturating_add(nanos(settings.timeout))
    }

    /// Goes as far as it can without waiting. The first event of a socket says that it is connected, or can't be.
    fn advance(&mut self) -> Option<CheckResult> {
        match self.try_advance() {
            Ok(result) => result,
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(self.check.broken(&error))),
        }
    }

    fn try_advance(&mut self) -> io::Result<Option<CheckResult>> {
        if !self.check.is_connected() {
            sockopt::socket_error(self.wire.socket())??;
            self.check.connected();
        }
        self.wire.exchange(&mut self.check)
    }
}
