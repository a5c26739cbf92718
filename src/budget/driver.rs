//! Decides what to do next. The driver is told what came and what time it is, and says what the sender is to do. It
//! waits for nothing and does no I/O.

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

/// Least time between two readings of the key because of messages that are signed with another one.
const DOUBTED_AGAIN: Nanos = 60_000_000_000;

/// After how long a message that the database has not taken counts as not sent. That is before this instance counts as
/// cut off, since a cut off instance limits itself by what it told the others. If the message was sent after all, no
/// harm is done: reports are counters that only grow.
const OVERDUE: Nanos = 1_000_000_000;

/// Least time between two questions to the budget for what is to be told.
const SHORTEST: Nanos = 1_000_000;

/// How often the state that others can see is renewed.
const SHOW_EVERY: Nanos = 200_000_000;

/// Most of our own messages whose return is awaited: more than we send within the time after which an instance is cut
/// off.
const MAX_AWAITED: usize = 256;

/// What a driver is made of.
pub(super) struct DriverParts {
    pub budget: Budget,
    pub shown: Arc<SharedBudget>,
    /// Counts texts that the mailbox had no room for.
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
    /// The address that the others are told.
    address: String,
    sender: SenderState,
    /// Why the last order failed; `None` since it last connected.
    cause: Option<String>,
    /// How often in a row the database refused for that cause.
    refusals: u32,
    /// A message was signed with another key than ours: the key in the database may have been replaced.
    is_key_doubtful: bool,
    /// When the key was last read for that reason.
    doubted_at: Option<Nanos>,
    sequence: u64,
    told_at: Nanos,
    /// When the next heartbeat is due.
    heartbeat_at: Nanos,
    /// Sequence numbers of our own messages that have not come back yet, and when they were sent.
    awaited: VecDeque<(u64, Nanos)>,
    /// How long our last message took to come back.
    lag: Option<Nanos>,
    /// When the last message was heard, ours or another's.
    heard_at: Nanos,
    /// When one of our own messages last came back.
    own_heard_at: Nanos,
    cut_off: bool,
    known: KnownInstances,
    tick_at: Nanos,
    /// The reports that were given to the sender last, until it has told them.
    reports: Vec<SpentReport>,
    /// How much of the sum in [`Driver::count_what_was_left_out`] is counted already.
    left_out: u64,
    shown_at: Nanos,
}

impl Driver {
    /// For an instance that no other has heard yet.
    pub fn new(parts: DriverParts, when: Moment) -> Self {
        Self {
            own: InstanceId(parts.shown.own()),
            // Ids are made at each start. Where one is set by hand and used again, the epoch tells the two starts
            // apart.
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

    /// What the sender is to do now, if anything. The caller has to give the order to the sender, and its reply to
    /// [`Driver::replied`].
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

    /// An order for an open connection: to read the key again if it is doubtful, else to tell what there is to tell.
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

    /// When the next heartbeat is due: each second, and sooner if no message was heard for a while, so that a short
    /// stall of the database does not cut off instances that have nothing else to say.
    fn says_at(&self, now: Nanos) -> Nanos {
        let is_alone = !self.known.is_anyone_there(now);
        let quiet = if is_alone { Nanos::MAX } else { self.heard_at.max(self.told_at) + TICK };
        self.heartbeat_at.min(quiet)
    }

    /// The budget has something to tell that must not wait for the next tick.
    pub fn woken(&mut self, now: Nanos) {
        self.tick_at = self.tick_at.min(now);
    }

    /// Takes the sender's reply to the last order.
    pub fn replied(&mut self, reply: Reply, now: Nanos) {
        match reply {
            Reply::Opened(opened) => {
                self.key = Some(opened.key);
                self.address = shown_address(self.parts.address, opened.seen_from);
                (self.sender, self.cause, self.refusals) = (SenderState::Ready, None, 0);
                // A heartbeat at once, so that the others hear of this instance.
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

    /// The connection is closed; the next attempt comes after a while.
    fn fail(&mut self, cause: String, now: Nanos) {
        self.sender = SenderState::Closed(now + nanos(retry_after(self.refusals)));
        self.cause = Some(cause);
        self.take_back();
    }

    /// Whether the sender waits for the database.
    pub fn is_busy(&self) -> bool {
        self.sender == SenderState::Busy
    }

    /// The last reports count as not told, unless all our messages have come back.
    fn take_back(&mut self) {
        if !self.awaited.is_empty() {
            self.parts.budget.not_sent(&self.reports);
        }
        self.reports.clear();
    }

    /// The last order: to tell what was not told yet, and that this instance ends. `None` when nothing can be sent now.
    /// Nothing is told after it.
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
            // An instance that is cut off sends more of them, since it is connected again as soon as one comes back.
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

    /// How long our messages take to come back: the last one that did, or the oldest that has not yet if that one takes
    /// longer.
    fn lag_at(&self, now: Nanos) -> Option<Nanos> {
        let overdue = self.awaited.front().map(|(_, told_at)| now.saturating_sub(*told_at));
        self.lag.map(|lag| lag.max(overdue.unwrap_or(0)))
    }

    fn hot_clients(&self, now: Nanos) -> u32 {
        u32::try_from(self.parts.budget.stats(now).hot_clients).unwrap_or(u32::MAX)
    }

    /// Finds out whether this instance is cut off, logs each change of that, and renews what others can see.
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

    /// Counts as dropped: texts, instances and reports that there was no room for, reports that are older than what is
    /// known, and requests that no other instance is told of because their bucket could not become hot.
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
