//! The line, ordered by use.
//!
//! A client's *use* is the integral of its requests in flight over time, divided by its weight. Its *key* is the use
//! that it will have when its requests in flight end. The client with the smallest key goes next. Priorities are
//! compared first, by the same rule. Between two events of a client its key only grows, so an old key is too small,
//! and it is enough to compute the key of the client in front again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};

use super::record::{Level, Record};
use super::share::{UseKey, UseShare};
use super::ticket::{Joining, LineRefusal, LineTicket, Turn, Who};
use balancer_importance::Priority;
use balancer_time::Nanos;

mod order;

/// The largest *debt* of a client or a priority: use, by weight, beyond what is served now. A client may have used much
/// while no other wanted it, or in requests that lasted longer than expected; it waits at most this long for that.
pub(super) const DEBT: Nanos = 2_000_000_000;

/// A client's own line *stands* if it was not empty for so long: the client asks for more than it gets.
const STANDING: Nanos = 1_000_000_000;

/// Most requests that are woken for one free place.
const MAX_TRIES: u8 = 8;

/// Most clients of a priority that are remembered only for their debts. The smallest debt is forgotten first.
pub(super) const MAX_DEBTORS: usize = 1024;

/// How long a request is expected to last before any has ended.
const FIRST_MEAN: Nanos = 20_000_000;

/// Each new value counts a fiftieth in the mean, and at most as ten means.
const MEAN_PART: Nanos = 50;
const MEAN_MOST: Nanos = 10;
const LEAST_MEAN: Nanos = 1_000;

/// How a line is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinePolicy {
    /// Most requests in line: `queue_size`.
    pub size: usize,
    /// How long a request may wait if its client's line stands, in ns: `queue_target`. `None`: until its time-out.
    pub target: Option<Nanos>,
}

/// The line. Time-outs are up to the caller, which calls [`FairLine::leave`].
#[derive(Debug)]
pub struct FairLine {
    policy: LinePolicy,
    /// The latest time that it was given. Threads read the clock before they get the lock, so times may come unordered.
    now: Nanos,
    /// When the last request left the line.
    emptied: Nanos,
    waiting: usize,
    /// The last number of a request, or of a place among clients with equal keys.
    number: u64,
    /// The number of the last free place.
    chain: u64,
    /// How long a request is in flight on average.
    mean: Nanos,
    /// The greatest key of a priority that was served.
    served: UseKey,
    /// By priority.
    levels: [Level; 3],
    records: HashMap<Who, Record>,
    /// Clients with two or more requests in line, by the number of these divided by weight.
    heavy: BTreeSet<(u64, Who)>,
    /// Clients with requests in line, by the numbers of their requests in flight and in line.
    busy: BTreeSet<((u32, usize), Who)>,
    /// Requests that were refused, and that the caller has not taken yet.
    refused: VecDeque<(LineTicket, LineRefusal)>,
}

impl FairLine {
    /// An empty line.
    pub fn new(policy: LinePolicy) -> Self {
        Self {
            policy,
            now: 0,
            emptied: 0,
            waiting: 0,
            number: 0,
            chain: 0,
            mean: FIRST_MEAN,
            served: 0,
            levels: Priority::ALL.map(Level::new),
            records: HashMap::new(),
            heavy: BTreeSet::new(),
            busy: BTreeSet::new(),
            refused: VecDeque::new(),
        }
    }

    /// An empty line without debts, which takes over this one's time, mean and numbers.
    pub fn renewed(&self) -> Self {
        let Self { policy, now, number, chain, mean, .. } = *self;
        Self { now, emptied: now, number, chain, mean, ..Self::new(policy) }
    }

    /// Adds a request of the line from which this one was renewed, with its number, as if it had waited here from
    /// `since` on. Adds it even if the line is full.
    pub fn seat(&mut self, number: u64, joining: &Joining, since: Nanos) -> LineTicket {
        let now = self.now;
        self.enroll(joining, now);
        let ticket = LineTicket { who: joining.who, arrived: joining.arrived.min(now), number };
        self.begin_waiting(ticket, since, now);
        self.sit(ticket, since, now);
        ticket
    }

    /// Sets another policy. If the line is too long for that, all its requests wait on.
    pub fn configure(&mut self, policy: LinePolicy) {
        self.policy = policy;
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// How many clients have requests in line; one with requests of two priorities counts twice.
    pub fn clients(&self) -> usize {
        self.levels.iter().map(|level| level.ready.len()).sum()
    }

    /// How many requests of a client are counted as in flight.
    pub fn in_flight(&self, who: Who) -> u32 {
        self.records.get(&who).map_or(0, Record::in_flight)
    }

    /// The next request in line that was refused, and why. To be called after every `join`, `next` and `pass` until
    /// it returns `None`.
    pub fn refused(&mut self) -> Option<(LineTicket, LineRefusal)> {
        self.refused.pop_front()
    }

    /// Takes a place in the line. If that is full, a request is refused: the newest one of the client with the most in
    /// line by weight, or this one if it is of that client. A client's only request is not refused for this one, unless
    /// all clients have only one, and its priority has more requests in line by weight than this one's.
    ///
    /// # Errors
    /// The line is full, and this request is refused.
    pub fn join(&mut self, joining: &Joining, now: Nanos) -> Result<LineTicket, LineRefusal> {
        let (who, now) = (joining.who, self.advance(now));
        self.dismiss_overdue(who, now);
        self.enroll(joining, now);
        if self.waiting >= self.policy.size && !self.make_room(who, now) {
            self.file(who, now);
            return Err(LineRefusal::Full);
        }
        self.number += 1;
        let ticket = LineTicket { who, arrived: joining.arrived.min(now), number: self.number };
        self.begin_waiting(ticket, now, now);
        self.sit(ticket, now, now);
        Ok(ticket)
    }

    /// A place is free: gives the next request its turn. It counts as in flight from now on. `None`: none waits.
    pub fn next(&mut self, now: Nanos) -> Option<Turn> {
        let now = self.advance(now);
        self.chain += 1;
        self.turn(self.chain, 1, now)
    }

    /// The place of `last` is still free after eight requests could not use it: gives a turn to one that has not tried.
    pub fn pass_on(&mut self, last: &Turn, now: Nanos) -> Option<Turn> {
        let now = self.advance(now);
        self.turn(last.chain, 1, now)
    }

    /// The request can't use the free place, and waits on where it was, even if the line is full. Gives the next one
    /// a turn: of another client, if there is one that has not tried. `None`: none is left, or eight have tried.
    pub fn pass(&mut self, turn: Turn, now: Nanos) -> Option<Turn> {
        self.put_back(turn, now);
        if turn.tries < MAX_TRIES { self.turn(turn.chain, turn.tries + 1, self.now) } else { None }
    }

    /// There is no free place: the request waits on where it was, even if the line is full, and is not charged.
    pub fn put_back(&mut self, turn: Turn, now: Nanos) {
        let now = self.advance(now);
        let who = turn.ticket.who;
        let Some(record) = self.records.get_mut(&who) else { return };
        let level = &mut self.levels[turn.ticket.level()];
        record.pass(turn.chain, turn.ticket.place());
        record.count(level, (record.sent.saturating_sub(1), record.straight), self.mean, now);
        record.share.uncharge(turn.began, now);
        level.share.uncharge(turn.began, now);
        if let Some((key, number)) = record.ready.take() {
            level.ready.remove(&(key, number, who.client));
        }
        record.ready = Some((record.share.key(now), turn.order));
        self.sit(turn.ticket, turn.joined, now);
    }

    /// A request leaves the line: its client left, or its time is over. False: it was not in line any more.
    pub fn leave(&mut self, ticket: LineTicket, now: Nanos) -> bool {
        let now = self.advance(now);
        let left = self.stand_up(ticket);
        if left {
            self.file(ticket.who, now);
        }
        left
    }

    /// A request that had its turn has ended. `held`: how long it was in flight; `None`: it was never sent.
    pub fn end(&mut self, who: Who, held: Option<Nanos>, now: Nanos) {
        let now = self.advance(now);
        self.learn(held);
        let Some(record) = self.records.get(&who) else { return };
        self.recount(who, (record.sent.saturating_sub(1), record.straight), now);
    }

    /// A request that had never waited has ended. `straight`: how many such requests of that client are still in
    /// flight. Need only be called while there is a line.
    pub fn straight_ended(&mut self, who: Who, straight: u32, held: Option<Nanos>, now: Nanos) {
        let now = self.advance(now);
        self.learn(held);
        let Some(record) = self.records.get(&who).filter(|record| !record.waiting.is_empty()) else { return };
        self.recount(who, (record.sent, straight), now);
    }

    fn advance(&mut self, now: Nanos) -> Nanos {
        self.now = self.now.max(now);
        self.now
    }

    /// Takes the time of a request into the mean.
    fn learn(&mut self, held: Option<Nanos>) {
        if let Some(held) = held {
            let held = held.min(MEAN_MOST * self.mean);
            self.mean = (self.mean - self.mean / MEAN_PART + held / MEAN_PART).max(LEAST_MEAN);
        }
    }

    /// Sets a client's requests in flight after one has ended, and bounds its debt and that of its priority.
    fn recount(&mut self, who: Who, counts: (u32, u32), now: Nanos) {
        let level = &mut self.levels[who.priority as usize];
        let Some(record) = self.records.get_mut(&who) else { return };
        record.count(level, counts, self.mean, now);
        record.share.at_most(level.served + UseKey::from(DEBT), now);
        level.share.at_most(self.served + UseKey::from(DEBT), now);
        self.file(who, now);
    }

    /// Makes the client's record, or updates it.
    fn enroll(&mut self, joining: &Joining, now: Nanos) {
        if self.waiting == 0 && now.saturating_sub(self.emptied) > DEBT {
            self.forget_debts();
        }
        let level = &mut self.levels[joining.who.priority as usize];
        let record = match self.records.entry(joining.who) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(Record::new(UseShare::new(joining.weight, level.served, now)))
            }
        };
        record.share.reweigh(joining.weight);
        record.count(level, (record.sent, joining.straight), self.mean, now);
        if !record.waiting.is_empty() {
            self.file(joining.who, now);
        }
    }

    /// A request begins to wait. If it is the client's first one in line, the client gets no credit for the time
    /// without, and no more debt than the most. The same for its priority.
    fn begin_waiting(&mut self, ticket: LineTicket, since: Nanos, now: Nanos) {
        let level = &mut self.levels[ticket.level()];
        let Some(record) = self.records.get_mut(&ticket.who) else { return };
        record.forget_passed_behind(ticket.place());
        if record.waiting.is_empty() {
            record.since = since;
            // A client with requests in flight was not away, so it may be up to the largest debt behind what is served.
            record.share.at_least(level.served.saturating_sub(DEBT.into()), now);
            record.share.at_most(level.served + UseKey::from(DEBT), now);
        }
        if level.waiting == 0 {
            level.share.at_least(self.served, now);
            level.share.at_most(self.served + UseKey::from(DEBT), now);
        }
    }

    /// Forgets all debts: no request waited for a while, so no client took anything from another.
    fn forget_debts(&mut self) {
        for (priority, level) in Priority::ALL.into_iter().zip(&mut self.levels) {
            for (_, client) in std::mem::take(&mut level.debts) {
                self.records.remove(&Who { client, priority });
            }
        }
    }

    /// Refuses another request of a full line, if one may be refused for the newcomer. Returns whether it did.
    fn make_room(&mut self, newcomer: Who, now: Nanos) -> bool {
        let record = &self.records[&newcomer];
        let own = record.waiting.len();
        let ticket = match self.heavy.last() {
            Some((load, _)) if own > 0 && record.load_of(own + 1, newcomer.priority) >= *load => None,
            Some((_, heaviest)) => self.newest(*heaviest),
            None if own > 0 => None,
            None => self.newest_of_heavier_priority(newcomer.priority),
        };
        if let Some(ticket) = ticket {
            self.refuse(ticket, LineRefusal::Full, now);
        }
        ticket.is_some()
    }

    /// The newest request of a client in line.
    fn newest(&self, who: Who) -> Option<LineTicket> {
        let ((arrived, number), _) = self.records.get(&who)?.waiting.last_key_value()?;
        Some(LineTicket { who, arrived: *arrived, number: *number })
    }

    /// The newest request of the priority that has the most in line by weight, if that is more than the newcomer's has.
    /// For a line of single requests: otherwise many clients of one priority could keep all others out.
    fn newest_of_heavier_priority(&self, newcomer: Priority) -> Option<LineTicket> {
        let load = |priority: &Priority| self.levels[*priority as usize].load_with(0);
        let heaviest = Priority::ALL.into_iter().max_by_key(load)?;
        if load(&heaviest) <= self.levels[newcomer as usize].load_with(1) {
            return None;
        }
        let (_, client) = self.levels[heaviest as usize].lone.last_key_value()?;
        self.newest(Who { client: *client, priority: heaviest })
    }

    /// Refuses requests of a client that have waited for too long, if its line stands.
    fn dismiss_overdue(&mut self, who: Who, now: Nanos) {
        let Some(target) = self.policy.target else { return };
        let overdue = |record: &Record| record.overdue(target, STANDING, now);
        while let Some((arrived, number)) = self.records.get(&who).and_then(overdue) {
            self.refuse(LineTicket { who, arrived, number }, LineRefusal::Target, now);
        }
    }

    fn refuse(&mut self, ticket: LineTicket, why: LineRefusal, now: Nanos) {
        if self.leave(ticket, now) {
            self.refused.push_back((ticket, why));
        }
    }

    /// Puts a request into its client's line.
    fn sit(&mut self, ticket: LineTicket, joined: Nanos, now: Nanos) {
        let record = self.records.get_mut(&ticket.who).expect("a request in flight, or enrolled");
        record.waiting.insert(ticket.place(), joined);
        self.levels[ticket.level()].waiting += 1;
        self.waiting += 1;
        self.file(ticket.who, now);
    }

    /// Takes a request out of its client's line. False: it is not there. The record has to be filed afterwards.
    fn stand_up(&mut self, ticket: LineTicket) -> bool {
        let record = self.records.get_mut(&ticket.who);
        if record.is_none_or(|record| !record.stand_up(ticket.place())) {
            return false;
        }
        self.levels[ticket.level()].waiting -= 1;
        self.waiting -= 1;
        if self.waiting == 0 {
            self.emptied = self.now;
        }
        true
    }
}

#[cfg(test)]
mod tests;
