//! The line, ordered by use.
//!
//! A client's use is the integral of its requests in flight over time, divided by its weight; its key adds what those in
//! flight will have used at their ends. The smallest key goes next. Priorities are compared first, by the same rule.
//! A client's keys only grow between two of its own events, so a key that is out of date is too small, and it is enough
//! to look again at the one in front.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};

use super::record::{Level, Record};
use super::share::{UseKey, UseShare};
use super::ticket::{Joining, LineRefusal, LineTicket, Turn, Who};
use balancer_importance::Priority;
use balancer_time::Nanos;

mod order;

/// Most use, by weight, that a client or a priority can be behind what is served: who took much while nobody else wanted
/// it, or in requests longer than anybody knew, is back after this.
pub(super) const DEBT: Nanos = 2_000_000_000;

/// A client's line that was not empty for so long stands: the client asks for more than it gets.
const STANDING: Nanos = 1_000_000_000;

/// Most requests that are woken for one free place.
const MAX_TRIES: u8 = 8;

/// Most clients of a priority that are remembered for nothing but their debts; beyond, the smallest debt is forgotten.
pub(super) const MAX_DEBTORS: usize = 1024;

/// How long a request is taken to last before any has ended.
const FIRST_MEAN: Nanos = 20_000_000;

/// The mean takes a fiftieth of what is new; and what is longer than ten means is taken for ten.
const MEAN_PART: Nanos = 50;
const MEAN_MOST: Nanos = 10;
const LEAST_MEAN: Nanos = 1_000;

/// How a line is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinePolicy {
    /// Most requests in line: `queue_size`.
    pub size: usize,
    /// How long a request may wait in a client's line that stands: `queue_target`, in nanoseconds. `None`: until its time-out.
    pub target: Option<Nanos>,
}

/// See the module. Time-outs are the caller's: it calls [`FairLine::leave`].
#[derive(Debug)]
pub struct FairLine {
    policy: LinePolicy,
    /// The latest time that was told: threads read their clocks before they get the lock.
    now: Nanos,
    /// When the last one left the line.
    emptied: Nanos,
    waiting: usize,
    /// Of requests, and of places in an order.
    number: u64,
    /// Of free places.
    chain: u64,
    /// How long a request is in flight.
    mean: Nanos,
    /// The greatest key of a priority that was served.
    served: UseKey,
    levels: [Level; 3],
    records: HashMap<Who, Record>,
    /// Clients with two requests in line or more, by how many there are by weight.
    heavy: BTreeSet<(u64, Who)>,
    /// Clients with requests in line, by how many they have in flight and in line.
    busy: BTreeSet<((u32, usize), Who)>,
    /// Refused, and not yet taken by the caller.
    refused: VecDeque<(LineTicket, LineRefusal)>,
}

impl FairLine {
    /// An empty one.
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

    /// A line with nobody in it and no debts, which goes on with this one's time, mean and numbers.
    pub fn renewed(&self) -> Self {
        let Self { policy, now, number, chain, mean, .. } = *self;
        Self { now, emptied: now, number, chain, mean, ..Self::new(policy) }
    }

    /// Lets somebody in with a number of the line that this one was renewed from, as if it had waited here since then,
    /// even when it is full.
    pub fn seat(&mut self, number: u64, joining: &Joining, since: Nanos) -> LineTicket {
        let now = self.now;
        self.enroll(joining, now);
        let ticket = LineTicket { who: joining.who, arrived: joining.arrived.min(now), number };
        self.begin_waiting(ticket, since, now);
        self.sit(ticket, since, now);
        ticket
    }

    /// Another policy, from now on. Who waits in a line that became too small goes on waiting.
    pub fn configure(&mut self, policy: LinePolicy) {
        self.policy = policy;
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// How many clients wait; one with requests of two priorities counts twice.
    pub fn clients(&self) -> usize {
        self.levels.iter().map(|level| level.ready.len()).sum()
    }

    /// How many clients are remembered: those that wait, have requests in flight that waited, or debts.
    pub fn remembered(&self) -> usize {
        self.records.len()
    }

    /// How many requests of a client are in flight, as far as they are counted.
    pub fn in_flight(&self, who: Who) -> u32 {
        self.records.get(&who).map_or(0, Record::in_flight)
    }

    /// The next one that was refused since it stood in line, and why. To be asked after every `join`, `next` and `pass`
    /// until there is none.
    pub fn refused(&mut self) -> Option<(LineTicket, LineRefusal)> {
        self.refused.pop_front()
    }

    /// Takes a place in the line. When that is full, the newest request of the client with the most in line by weight is
    /// refused, or this one if it is that client's; never somebody's only one, unless all have only one and it is of a
    /// priority with more of them by weight.
    ///
    /// # Errors
    /// The line is full, and it is this request that has to go.
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

    /// A place got free: whose turn it is. Counted as in flight from now on. `None`: nobody waits.
    pub fn next(&mut self, now: Nanos) -> Option<Turn> {
        let now = self.advance(now);
        self.chain += 1;
        self.turn(self.chain, 1, now)
    }

    /// The place that eight could not use is still free, and may be tried by who has not tried it.
    pub fn pass_on(&mut self, last: &Turn, now: Nanos) -> Option<Turn> {
        let now = self.advance(now);
        self.turn(last.chain, 1, now)
    }

    /// It can't use the place that got free, and waits on where it was, even in a full line. The next that may try: of
    /// another client while there is one; `None` when nobody is left or eight have tried.
    pub fn pass(&mut self, turn: Turn, now: Nanos) -> Option<Turn> {
        self.put_back(turn, now);
        if turn.tries < MAX_TRIES { self.turn(turn.chain, turn.tries + 1, self.now) } else { None }
    }

    /// There is no place after all, for anybody: it waits on where it was, even in a full line, and was not charged.
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

    /// Gives its place up: the client left, or its time is over. False: it did not wait any more.
    pub fn leave(&mut self, ticket: LineTicket, now: Nanos) -> bool {
        let now = self.advance(now);
        let left = self.stand_up(ticket);
        if left {
            self.file(ticket.who, now);
        }
        left
    }

    /// A request that had its turn has ended, and was in flight for so long; `None`: it was never sent.
    pub fn end(&mut self, who: Who, held: Option<Nanos>, now: Nanos) {
        let now = self.advance(now);
        self.learn(held);
        let Some(record) = self.records.get(&who) else { return };
        self.recount(who, (record.sent.saturating_sub(1), record.straight), now);
    }

    /// A request that never waited has ended; `straight` of that client are still in flight. Only to be told while
    /// somebody waits.
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

    fn learn(&mut self, held: Option<Nanos>) {
        if let Some(held) = held {
            let held = held.min(MEAN_MOST * self.mean);
            self.mean = (self.mean - self.mean / MEAN_PART + held / MEAN_PART).max(LEAST_MEAN);
        }
    }

    /// After an end: debts are bounded, and the key may have become smaller.
    fn recount(&mut self, who: Who, counts: (u32, u32), now: Nanos) {
        let level = &mut self.levels[who.priority as usize];
        let Some(record) = self.records.get_mut(&who) else { return };
        record.count(level, counts, self.mean, now);
        record.share.at_most(level.served + UseKey::from(DEBT), now);
        level.share.at_most(self.served + UseKey::from(DEBT), now);
        self.file(who, now);
    }

    /// Makes or renews the client's record.
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

    /// Who begins to wait has no credit from when it did not, and no debt beyond the most, whatever goes on.
    fn begin_waiting(&mut self, ticket: LineTicket, since: Nanos, now: Nanos) {
        let level = &mut self.levels[ticket.level()];
        let Some(record) = self.records.get_mut(&ticket.who) else { return };
        record.forget_passed_behind(ticket.place());
        if record.waiting.is_empty() {
            record.since = since;
            // Who has something in flight was never away, and may have had less than what is served; others have not.
            record.share.at_least(level.served.saturating_sub(DEBT.into()), now);
            record.share.at_most(level.served + UseKey::from(DEBT), now);
        }
        if level.waiting == 0 {
            level.share.at_least(self.served, now);
            level.share.at_most(self.served + UseKey::from(DEBT), now);
        }
    }

    /// Nobody waited for a while, so nobody took anything from anybody.
    fn forget_debts(&mut self) {
        for (priority, level) in Priority::ALL.into_iter().zip(&mut self.levels) {
            for (_, client) in std::mem::take(&mut level.debts) {
                self.records.remove(&Who { client, priority });
            }
        }
    }

    /// Whether there is room in a full line once somebody else was refused.
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

    fn newest(&self, who: Who) -> Option<LineTicket> {
        let ((arrived, number), _) = self.records.get(&who)?.waiting.last_key_value()?;
        Some(LineTicket { who, arrived: *arrived, number: *number })
    }

    /// Everybody in line has one request there, and so has the newcomer: what is left to tell them apart is that another
    /// priority has more in line by weight than its own. Else a crowd in the background would keep all others out.
    fn newest_of_heavier_priority(&self, newcomer: Priority) -> Option<LineTicket> {
        let load = |priority: &Priority| self.levels[*priority as usize].load_with(0);
        let heaviest = Priority::ALL.into_iter().max_by_key(load)?;
        if load(&heaviest) <= self.levels[newcomer as usize].load_with(1) {
            return None;
        }
        let (_, client) = self.levels[heaviest as usize].lone.last_key_value()?;
        self.newest(Who { client: *client, priority: heaviest })
    }

    /// Refuses what has waited for too long in a client's line that stands.
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

    /// Into its client's line.
    fn sit(&mut self, ticket: LineTicket, joined: Nanos, now: Nanos) {
        let record = self.records.get_mut(&ticket.who).expect("a request in flight, or enrolled");
        record.waiting.insert(ticket.place(), joined);
        self.levels[ticket.level()].waiting += 1;
        self.waiting += 1;
        self.file(ticket.who, now);
    }

    /// Out of its client's line; false: it is not there. The record has to be filed afterwards.
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
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_learnt_slowly() {
        let (ms, client) = (1_000_000, Who { client: 1, priority: Priority::Normal });
        // How long so many were in flight; the mean afterwards, in ms.
        for (held, times, mean) in [
            (None, 100, 20),
            (Some(20 * ms), 100, 20),
            (Some(0), 35, 9),
            (Some(100 * ms), 35, 60),
            // One that took an hour counts as ten means.
            (Some(3_600_000 * ms), 1, 23),
            (Some(0), 10_000, 0),
        ] {
            let mut line = FairLine::new(LinePolicy { size: 1, target: None });
            (0..times).for_each(|_| line.end(client, held, ms));
            assert_eq!(line.mean / ms, mean, "{held:?} {times}");
            assert!(line.mean >= LEAST_MEAN);
        }
    }
}
