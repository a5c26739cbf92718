//! Checks on one thread that waits for all of them at once (Linux). Nothing in it blocks, so a backend that hangs costs
//! one descriptor, and delays no other check.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::RunningProber;
use super::check::{Check, CheckResult, NotPassed};
use super::schedule::{DueCheck, Schedule};
use super::wire::Wire;
use crate::clock::Clock;
use crate::tls::upstream::BackendTls;
use balancer_pool::backend_state::Failed;
use balancer_time::{Nanos, nanos};

/// Most checks under way, of all pools. Each has a descriptor: together half of those that are reserved beside clients'
/// connections.
const MAX_UNDER_WAY: usize = 512;
/// Most events that are taken at once.
const MAX_EVENTS: usize = 256;
/// The event data that says that the thread was called. No check has that number.
const CALL: u64 = 0;

/// Starts the thread. Fails only if that can't be done, or no descriptor is left.
pub(super) fn start(tls: Arc<BackendTls>, clock: Clock) -> io::Result<RunningProber> {
    let call = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &call, EventData::new_u64(CALL), EventFlags::IN)?;
    let schedule = Arc::new(Mutex::new(Schedule::new(MAX_UNDER_WAY)));
    let checks = Checks {
        schedule: Arc::clone(&schedule),
        tls,
        clock,
        epoll,
        call: Arc::clone(&call),
        under_way: HashMap::new(),
        deadlines: BTreeSet::new(),
    };
    let thread = Builder::new().name("health".to_owned()).spawn(move || checks.run())?;
    let wake = Arc::new(move || {
        // Fails only if the counter is full: then it is readable already.
        let _ = rustix::io::write(&call, &1u64.to_ne_bytes());
    });
    Ok(RunningProber { schedule, wake, thread: Some(thread) })
}

/// What the thread owns.
struct Checks {
    schedule: Arc<Mutex<Schedule>>,
    tls: Arc<BackendTls>,
    clock: Clock,
    epoll: OwnedFd,
    /// Readable once the thread was called.
    call: Arc<OwnedFd>,
    /// By [`DueCheck::number`], which is the event data of the check's socket.
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
                // The kernel documents no other error for a valid instance.
                Err(error) => return log::error!("health checks have ended: epoll_wait: {error}"),
            };
            if ready.iter().any(|event| event.data.u64() == CALL) && self.answer_call() {
                return;
            }
            for event in ready.iter() {
                self.advance(event.data.u64());
            }
            self.expire(self.clock.now());
        }
    }

    /// Starts the checks that are due, while there is room. Returns how long to wait for the next event; `None`:
    /// without limit.
    fn start_due(&mut self, now: Nanos) -> Option<Timespec> {
        while self.under_way.len() < MAX_UNDER_WAY
            && let Some(due) = self.next(now)
        {
            match UnderWay::begin(&due, self, now) {
                Ok(one) => {
                    self.deadlines.insert((one.deadline, due.number));
                    self.under_way.insert(due.number, one);
                }
                Err(not_passed) => self.schedule.lock().ended(due.number, now, &Err(not_passed), now),
            }
        }
        let has_room = self.under_way.len() < MAX_UNDER_WAY;
        let due = has_room.then(|| self.schedule.lock().until()).flatten();
        let first = due.into_iter().chain(self.deadlines.first().map(|(at, _)| *at)).min()?;
        Timespec::try_from(Duration::from_nanos(first.saturating_sub(now))).ok()
    }

    /// The next check that is due. Releases the lock before the check begins.
    fn next(&self, now: Nanos) -> Option<DueCheck> {
        self.schedule.lock().next(now)
    }

    /// Follows the pools after a call, and drops checks that are not wanted any more. True: the thread is to end.
    fn answer_call(&mut self) -> bool {
        let _ = rustix::io::read(&self.call, &mut [0; 8]);
        let mut schedule = self.schedule.lock();
        schedule.follow(self.clock.now());
        let deadlines = &mut self.deadlines;
        self.under_way.retain(|number, one| {
            let stays = schedule.has(*number);
            if !stays {
                deadlines.remove(&(one.deadline, *number));
            }
            stays
        });
        schedule.is_over()
    }

    /// Goes on with a check that an event was about.
    fn advance(&mut self, number: u64) {
        if let Some(result) = self.under_way.get_mut(&number).and_then(UnderWay::advance) {
            self.end(number, &result);
        }
    }

    /// Ends the checks whose time is over.
    fn expire(&mut self, now: Nanos) {
        while let Some((_, number)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let Some(one) = self.under_way.get(&number) else { return };
            let result = Err(one.check.timed_out());
            self.end(number, &result);
        }
    }

    fn end(&mut self, number: u64, result: &CheckResult) {
        if let Some(one) = self.under_way.remove(&number) {
            self.deadlines.remove(&(one.deadline, number));
            self.schedule.lock().ended(number, one.started, result, self.clock.now());
        }
    }
}

/// A check and its connection, which ends with it.
struct UnderWay {
    check: Check,
    wire: Wire,
    started: Nanos,
    /// When its time is over.
    deadline: Nanos,
}

impl UnderWay {
    fn begin(due: &DueCheck, checks: &Checks, now: Nanos) -> Result<Self, NotPassed> {
        let DueCheck { number, endpoint, settings } = due;
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
            epoll::add(&checks.epoll, &socket, EventData::new_u64(*number), flags)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| NotPassed::unconnected(&error.into()))?;
        let check = Check::new(settings, &group.authority);
        let deadline = now.saturating_add(nanos(settings.timeout));
        Ok(Self { check, wire: Wire::new(socket, session), started: now, deadline })
    }

    /// Goes as far as it can without waiting. The first event of a socket says that it is connected, or that connecting
    /// failed.
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
