//! The keeper: one thread with an epoll of its own that never waits for a backend or the store. It keeps deadlines,
//! watches whether clients of long calls are still there, relays upgraded connections, pauses accepting when there are no
//! descriptors, looks at the gate, and stands in when no worker is free.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::conn::{Conn, Link, Relayed};
use super::core::Core;
use super::pressure::Pressure;
use super::relay::Relays;
use super::table::Token;
use super::wake::Wake;
use super::wire::timespec;
use super::worker::Worker;
use balancer_time::Nanos;

/// What workers leave for the keeper.
pub(super) struct Mail {
    wake: Wake,
    letters: Mutex<Vec<Letter>>,
    /// The keeper sleeps long, since there was no connection.
    asleep: AtomicBool,
}

enum Letter {
    /// A listener that can't accept.
    Paused(usize, Errno),
    /// An upgraded connection.
    Relay(Box<Conn>, Box<Relayed>),
}

impl Mail {
    pub fn new(wake: Wake) -> Self {
        Self { wake, letters: Mutex::default(), asleep: AtomicBool::new(false) }
    }

    /// At most one a listener at a time.
    pub fn pause_accepting(&self, listener: usize, why: Errno) {
        self.send(Letter::Paused(listener, why));
    }

    /// At most one a connection.
    pub fn relay(&self, conn: Box<Conn>, relayed: Box<Relayed>) {
        self.send(Letter::Relay(conn, relayed));
    }

    fn send(&self, letter: Letter) {
        self.letters.lock().push(letter);
        self.wake.wake();
    }

    /// There is a connection: deadlines matter again. Costs a system call only when the keeper sleeps long.
    pub fn first_connection(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake.wake();
        }
    }

    /// Makes the keeper look now.
    pub fn wake(&self) {
        self.wake.wake();
    }
}

/// How long the keeper sleeps when there is no connection.
const LONG_SLEEP_NS: Nanos = 5_000_000_000;
/// How long accepting pauses when there are no descriptors.
const ACCEPT_PAUSE_NS: Nanos = 100_000_000;
/// And how often the log says so.
const PAUSE_LOG_NS: Nanos = 10_000_000_000;
/// The keeper looks no sooner again than this.
const SHORTEST_LOOK_NS: Nanos = 5_000_000;
/// A call this long has its client looked at.
const LOOK_AFTER_NS: Nanos = 200_000_000;
/// Kept connections may be idle this long while the engine drains.
const DRAIN_IDLE_NS: Nanos = 2_000_000_000;

/// Event data of the keeper's own wake-up; no descriptor is that large.
const WAKE: u64 = u64::MAX;

pub(super) struct Keeper {
    pub core: Arc<Core>,
    pub epoll: OwnedFd,
    wake: Wake,
    pub relays: Relays,
    /// What it stands in for workers with.
    pub worker: Worker,
    pressure: Pressure,
    paused: Vec<(usize, Nanos)>,
    pause_logged_at: Option<Nanos>,
    pub draining_since: Option<Nanos>,
}

impl Keeper {
    pub fn new(core: Arc<Core>, wake: Wake) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Self {
            worker: Worker::new(Arc::clone(&core), usize::MAX, false),
            core,
            epoll,
            wake,
            relays: Relays::default(),
            pressure: Pressure::new(),
            paused: Vec::new(),
            pause_logged_at: None,
            draining_since: None,
        })
    }

    /// Keeps until the engine stops.
    pub fn run(mut self) {
        let mut next_walk = 0;
        while !self.core.is_stopping() {
            let now = self.core.clock.now();
            self.wait(self.sleep(next_walk, now));
            let now = self.core.clock.now();
            self.read_mail(now);
            if self.core.gate.tick_span().is_some() {
                self.core.gate.tick(now);
            }
            if let Some(look) = self.pressure.look(now) {
                self.core.gate.adapt(&look);
            }
            if now >= next_walk {
                let soonest = self.look(now);
                next_walk = (now + self.core.spans.tick).min(soonest.max(now + SHORTEST_LOOK_NS));
            }
        }
        self.relays.end_all(&self.core, &self.epoll);
        self.close_all();
    }

    fn sleep(&self, next_walk: Nanos, now: Nanos) -> Nanos {
        if let Some(span) = self.core.gate.tick_span() {
            return span;
        }
        let idle = self.core.connections.load(Ordering::SeqCst) == 0 && self.paused.is_empty();
        if !idle {
            return next_walk.saturating_sub(now);
        }
        self.core.mail.asleep.store(true, Ordering::SeqCst);
        // Whoever connected before the flag stood saw a keeper awake.
        if self.core.connections.load(Ordering::SeqCst) == 0 { LONG_SLEEP_NS } else { self.core.spans.tick }
    }

    fn wait(&mut self, timeout_ns: Nanos) {
        const EVENTS: usize = 64;
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let events = match epoll::wait(&self.epoll, &mut events, Some(&timespec(timeout_ns))) {
            Ok((events, _)) => events,
            Err(_) => return,
        };
        for event in events {
            match event.data.u64() {
                WAKE => self.wake.clear(),
                token => {
                    let scratch = &mut self.worker.desk.scratch;
                    self.relays.handle(&self.core, &self.epoll, Token(token), event.flags, scratch);
                }
            }
        }
    }

    fn read_mail(&mut self, now: Nanos) {
        let letters = std::mem::take(&mut *self.core.mail.letters.lock());
        for letter in letters {
            match letter {
                Letter::Paused(listener, why) => self.pause(listener, why, now),
                Letter::Relay(conn, relayed) => {
                    let scratch = &mut self.worker.desk.scratch;
                    self.relays.add(&self.core, &self.epoll, conn, *relayed, scratch);
                }
            }
        }
        let core = &self.core;
        self.paused.retain(|(listener, until)| {
            if *until <= now {
                core.arm_listener(*listener);
            }
            *until > now
        });
    }

    fn pause(&mut self, listener: usize, why: Errno, now: Nanos) {
        if self.pause_logged_at.is_none_or(|at| now.saturating_sub(at) > PAUSE_LOG_NS) {
            self.pause_logged_at = Some(now);
            log::warn!("no new connections for now: {why}; raise the limit of open files");
        }
        self.core.reject("descriptors");
        // One descriptor more may be all that is missing; if it is the process's own bound that was met, it is.
        let made_room = self.core.evict_longest_idle();
        if made_room && why == Errno::MFILE {
            return self.core.arm_listener(listener);
        }
        self.paused.push((listener, now + ACCEPT_PAUSE_NS));
    }

    /// One look at everything that has a deadline.
    /// When the soonest deadline of an answer passes, as far as it was seen: those may be shorter than a look's interval.
    fn look(&mut self, now: Nanos) -> Nanos {
        if self.draining_since.is_none() && self.core.draining.load(Ordering::SeqCst) {
            self.draining_since = Some(now);
        }
        // Workers away for long count no more, even while nobody waits at the door.
        self.core.gate.tick(now);
        let soonest = self.expire(now);
        self.watch_clients(now);
        let idle_since = now.saturating_sub(self.core.spans.idle);
        self.relays.end_idle(&self.core, &self.epoll, idle_since);
        self.core.uploads.forget(|token| self.core.table.link(token).is_some());
        self.core.admit_uploads();
        self.core.forget_seatless();
        self.core.admit_waiting(now);
        let stuck_since = now.saturating_sub(self.core.spans.worker_wait);
        if self.core.gate.is_exhausted() && self.core.gate.all_at_work_since(stuck_since) {
            self.worker.stand_in();
        }
        soonest
    }

    /// Looks whether the clients of long backend calls are still there, and ends the calls of those that are not.
    fn watch_clients(&self, now: Nanos) {
        let mut links: Vec<Arc<Link>> = Vec::new();
        self.core.gate.at_work_since(now.saturating_sub(LOOK_AFTER_NS), |token| {
            links.extend(self.core.table.link(Token(token)));
        });
        if links.is_empty() {
            return;
        }
        let flags = if self.core.abort_on_close { PollFlags::RDHUP } else { PollFlags::empty() };
        let mut fds: Vec<PollFd<'_>> = links.iter().map(|link| PollFd::new(&link.wire, flags)).collect();
        if poll(&mut fds, Some(&timespec(0))).is_err() {
            return;
        }
        for (link, fd) in links.iter().zip(&fds) {
            if fd.revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::RDHUP) {
                link.abort.cancel();
            }
        }
    }

    /// How long a connection may still be idle when the engine drains.
    pub fn drain_idle_since(&self, now: Nanos) -> Option<Nanos> {
        let since = self.draining_since?;
        (now.saturating_sub(since) >= DRAIN_IDLE_NS).then(|| now.saturating_sub(DRAIN_IDLE_NS))
    }
}
