//! What to do next: a value that is told what came and what time it is, and says what the sender is to do. Waits for nothing.

mod hear;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use balancer_limiter::budget::{Budget, DEAD_AFTER, HEARTBEAT, InstanceId, SILENT_AFTER, SpentReport, TICK};
use balancer_limiter::message::{BudgetKey, BudgetMessage};
use balancer_time::{Moment, Nanos, nanos};

use super::bodies::packed;
use super::known::{KnownInstances, rounded};
use super::sender::{Order, Reply, SenderState};
use super::shown::{BudgetState, InstanceShown, SharedBudget, shown_address, shown_id};
use crate::store::retry_after;

/// Least time between two looks at the key because of messages that are signed with another one.
const DOUBTED_AGAIN: Nanos = 60_000_000_000;

/// What the database has not taken after so long counts as not told, before this instance is cut off: what it holds itself to then
/// follows from what it told. If it was told after all, no harm is done: counters only grow.
const OVERDUE: Nanos = 1_000_000_000;

/// Least time between two looks for what is to be told.
const SHORTEST: Nanos = 1_000_000;

/// How often what there is to see is shown anew.
const SHOW_EVERY: Nanos = 200_000_000;

/// Own messages whose return is waited for: more than go out within the time after which an instance is cut off.
const MAX_AWAITED: usize = 256;

/// What a driver is made of.
pub(super) struct DriverParts {
    pub budget: Budget,
    pub shown: Arc<SharedBudget>,
    /// Texts that found no room.
    pub missed: Arc<AtomicU64>,
    /// Where this instance listens.
    pub address: SocketAddr,
}

/// See the module.
pub(super) struct Driver {
    parts: DriverParts,
    own: InstanceId,
    epoch: u64,
    key: Option<BudgetKey>,
    /// As the others are told it.
    address: String,
    sender: SenderState,
    /// Why nothing could be sent last.
    cause: Option<String>,
    /// How often the database refused in a row for that reason.
    refusals: u32,
    /// Something was heard that is signed with another key than this one: the database's may have been replaced.
    is_key_doubtful: bool,
    /// When it last looked for that reason.
    doubted_at: Option<Nanos>,
    sequence: u64,
    told_at: Nanos,
    /// When it says at the latest that it is there.
    heartbeat_at: Nanos,
    /// Own messages that have not come back yet, and when they went.
    awaited: VecDeque<(u64, Nanos)>,
    lag: Option<Nanos>,
    /// When a message of anybody was heard last.
    heard_at: Nanos,
    /// When a message of its own came back last.
    own_heard_at: Nanos,
    cut_off: bool,
    known: KnownInstances,
    tick_at: Nanos,
    /// What was told last, for the case that it was not.
    reports: Vec<SpentReport>,
    /// What of that is counted: see [`Driver::count_what_was_left_out`].
    left_out: u64,
    shown_at: Nanos,
}

impl Driver {
    /// Of an instance that nobody has heard of.
    pub fn new(parts: DriverParts, when: Moment) -> Self {
        Self {
            own: InstanceId(parts.shown.own()),
            // An id is never used twice; it tells where one is set by hand.
            epoch: when.wall_s,
            key: None,
            address: parts.address.to_string(),
            sender: SenderState::Closed(when.now),
            cause: None,
            refusals: 0,
            is_key_doubtful: false,
            doubted_at: None,
            sequence: 0,
            told_at: 0,
            heartbeat_at: when.now,
            awaited: VecDeque::new(),
            lag: None,
            heard_at: when.now,
            own_heard_at: when.now,
            cut_off: false,
            known: KnownInstances::new(parts.shown.own()),
            tick_at: when.now,
            reports: Vec::new(),
            left_out: 0,
            shown_at: 0,
            parts,
        }
    }

    /// What the sender is to do now, if anything. It has to be given that, and [`Driver::replied`] what came of it.
    pub fn step(&mut self, when: Moment) -> Option<Order> {
        if self.sender == SenderState::Busy && when.now >= self.told_at + OVERDUE {
            self.take_back();
        }
        self.look(when.now);
        let order = match self.sender {
            SenderState::Closed(at) if when.now >= at => Some(Order::Open),
            SenderState::Ready => self.tell(when),
            SenderState::Closed(_) | SenderState::Busy => None,
        };
        if order.is_some() {
            self.sender = SenderState::Busy;
        }
        order
    }

    /// What is to be told, or the key is read anew first, on the connection that there is.
    fn tell(&mut self, when: Moment) -> Option<Order> {
        if self.is_key_doubtful && self.doubted_at.is_none_or(|last| when.now >= last + DOUBTED_AGAIN) {
            (self.is_key_doubtful, self.doubted_at) = (false, Some(when.now));
            return Some(Order::ReadKey);
        }
        self.texts(when).map(Order::Tell)
    }

    /// When [`Driver::step`] is to be called at the latest.
    pub fn wake_at(&self) -> Nanos {
        let look = self.shown_at + SHOW_EVERY;
        match self.sender {
            SenderState::Busy => look,
            SenderState::Closed(at) => look.min(at),
            SenderState::Ready => look.min(self.tick_at).min(self.says_at(self.told_at)),
        }
    }

    /// When it says that it is there: each second, and sooner where nothing was heard of anybody for a while, so that a short stall does
    /// not cut off those who have nothing else to say.
    fn says_at(&self, now: Nanos) -> Nanos {
        let is_alone = !self.known.is_anyone_there(now);
        let quiet = if is_alone { Nanos::MAX } else { self.heard_at.max(self.told_at) + TICK };
        self.heartbeat_at.min(quiet)
    }

    /// The budget has something that is not to wait for its turn.
    pub fn woken(&mut self, now: Nanos) {
        self.tick_at = self.tick_at.min(now);
    }

    /// What became of the last order.
    pub fn replied(&mut self, reply: Reply, now: Nanos) {
        match reply {
            Reply::Opened(opened) => {
                self.key = Some(opened.key);
                self.address = shown_address(self.parts.address, opened.seen_from);
                (self.sender, self.cause, self.refusals) = (SenderState::Ready, None, 0);
                // The others hear at once that it is there.
                self.heartbeat_at = now;
            }
            Reply::Told => {
                self.sender = SenderState::Ready;
                self.reports.clear();
            }
            Reply::Failed(cause) => {
                log::debug!("budget: {cause}");
                self.refusals = 0;
                self.fail(cause, now);
            }
            Reply::Refused(cause) => {
                if self.refusals == 0 || self.cause.as_ref() != Some(&cause) {
                    log::warn!("budget: the database lets this instance take no part: {cause}");
                    self.refusals = 0;
                }
                self.refusals += 1;
                self.fail(cause, now);
            }
        }
    }

    /// It is not connected, and tries again after a while.
    fn fail(&mut self, cause: String, now: Nanos) {
        self.sender = SenderState::Closed(now + nanos(retry_after(self.refusals)));
        self.cause = Some(cause);
        self.take_back();
    }

    /// Whether the sender waits for the database.
    pub fn is_busy(&self) -> bool {
        self.sender == SenderState::Busy
    }

    /// What was to be told last was not, unless all of it has come back.
    fn take_back(&mut self) {
        if !self.awaited.is_empty() {
            self.parts.budget.not_sent(&self.reports);
        }
        self.reports.clear();
    }

    /// What was not told yet, and that it ends, if that can be told. Nothing is told after it.
    pub fn leave(&mut self, when: Moment) -> Option<Order> {
        if self.sender != SenderState::Ready {
            return None;
        }
        self.sender = SenderState::Busy;
        self.parts.budget.last_words(when, &mut self.reports);
        let bodies = packed(&self.reports).into_iter().map(|body| (body, false));
        let texts = bodies.chain([(Vec::new(), true)]);
        Some(Order::Tell(texts.filter_map(|(body, leaving)| self.text(body, leaving, when.now)).collect()))
    }

    /// What is to be told now.
    fn texts(&mut self, when: Moment) -> Option<Vec<String>> {
        let mut bodies = Vec::new();
        if when.now >= self.tick_at {
            let next = self.parts.budget.tick(when, &mut self.reports);
            self.tick_at = next.max(when.now + SHORTEST);
            bodies = packed(&self.reports);
        }
        let is_heartbeat = when.now >= self.says_at(when.now);
        if is_heartbeat {
            bodies.push(Vec::new());
        }
        let texts: Vec<String> =
            bodies.into_iter().filter_map(|body| self.text(body, false, when.now)).collect();
        if texts.is_empty() {
            return None;
        }
        self.told_at = when.now;
        if is_heartbeat {
            // Who is cut off is back when the first of these is heard.
            self.heartbeat_at = when.now + if self.cut_off { HEARTBEAT / 4 } else { HEARTBEAT };
        }
        self.parts.shown.sent.fetch_add(texts.len() as u64, Ordering::Relaxed);
        Some(texts)
    }

    fn text(&mut self, reports: Vec<u8>, leaving: bool, now: Nanos) -> Option<String> {
        let key = self.key.as_ref()?;
        self.sequence += 1;
        if self.awaited.len() == MAX_AWAITED {
            self.awaited.pop_front();
        }
        self.awaited.push_back((self.sequence, now));
        let lag = self.lag_at(now).map(|lag| u32::try_from(lag.div_ceil(1_000_000)).unwrap_or(u32::MAX));
        let message = BudgetMessage {
            instance: self.own.0,
            epoch: self.epoch,
            sequence: self.sequence,
            lag_ms: lag.unwrap_or(BudgetMessage::NO_LAG),
            hot_clients: self.hot_clients(now),
            cut_off: self.cut_off,
            leaving,
            address: self.address.clone(),
            heard: if reports.is_empty() { self.known.heard(now) } else { Vec::new() },
            reports,
        };
        Some(message.to_text(key))
    }

    /// What own messages take: the last one that came back, or the first one that did not yet if that takes longer.
    fn lag_at(&self, now: Nanos) -> Option<Nanos> {
        let overdue = self.awaited.front().map(|(_, told_at)| now.saturating_sub(*told_at));
        self.lag.map(|lag| lag.max(overdue.unwrap_or(0)))
    }

    fn hot_clients(&self, now: Nanos) -> u32 {
        u32::try_from(self.parts.budget.stats(now).hot_clients).unwrap_or(u32::MAX)
    }

    /// Looks whether it is cut off, says so once each way, and shows what there is to see.
    fn look(&mut self, now: Nanos) {
        let cut_off = now > (self.heard_at + SILENT_AFTER).min(self.own_heard_at + DEAD_AFTER);
        if cut_off != self.cut_off {
            (self.cut_off, self.heartbeat_at) = (cut_off, now);
            self.say(now);
        } else if now < self.shown_at + SHOW_EVERY {
            return;
        }
        self.shown_at = now;
        self.count_what_was_left_out(now);
        let others = self.known.shown(now);
        let lag = self.lag_at(now);
        let hot_clients = self.hot_clients(now);
        let own = InstanceShown {
            id: shown_id(self.own.0),
            address: self.address.clone(),
            age: 0.0,
            lag: lag.map(|lag| rounded(lag as f64 / 1e9)),
            cut_off,
            hot_clients,
        };
        self.parts.shown.show(BudgetState {
            peers: others.len(),
            hot_clients,
            lag: lag.map(Duration::from_nanos),
            cut_off,
            instances: std::iter::once(own).chain(others).collect(),
        });
    }

    fn say(&self, now: Nanos) {
        if !self.cut_off {
            return log::info!("budget: the other instances are heard again");
        }
        let cause = match (&self.cause, self.sender) {
            (Some(cause), _) => cause,
            (None, SenderState::Busy) => "the database does not answer",
            (None, _) => {
                "what it tells does not come back; where database.url leads to a pooler, \
                 database.listen_url has to lead to the server"
            }
        };
        let stats = self.parts.budget.stats(now);
        let stands = "budget: this instance is cut off from others and";
        match (stats.members < 2, stats.cut_off) {
            (true, _) => log::warn!("{stands} counts alone: {cause}"),
            (false, true) => log::warn!("{stands} holds each client to a part of its limits: {cause}"),
            (false, false) => log::warn!("{stands} hears them, but they do not hear it: {cause}"),
        }
    }

    /// Texts and instances that found no room, reports that found none or are older than what is known, and requests whose bucket
    /// could not become hot, so that nobody is told of them.
    fn count_what_was_left_out(&mut self, now: Nanos) {
        let stats = self.parts.budget.stats(now);
        let texts = self.parts.missed.load(Ordering::Relaxed);
        let left_out = texts + stats.too_many_peers + stats.went_back + stats.no_room + stats.not_hot;
        self.parts.shown.dropped.fetch_add(left_out.saturating_sub(self.left_out), Ordering::Relaxed);
        self.left_out = left_out;
    }
}

#[cfg(test)]
mod tests;
