//! Finds the request that goes next, and keeps clients in the orders by which that is found.

use std::ops::Bound;

use super::super::record::Record;
use super::super::ticket::{LineTicket, Turn, WaitingClient, Who};
use super::{FairLine, MAX_DEBTORS};
use balancer_importance::Priority;
use balancer_time::Nanos;

/// A client's place in `Level::ready`: key, number, client.
type Ready = (u128, u64, u64);

impl FairLine {
    /// The clients with requests in line that have the most in flight, the most first; at most so many.
    pub fn busiest(&self, most: usize) -> impl Iterator<Item = WaitingClient> {
        self.busy.iter().rev().take(most).filter_map(|(_, who)| {
            let record = self.records.get(who)?;
            let ((arrived, number), _) = record.waiting.first_key_value()?;
            let first = LineTicket { who: *who, arrived: *arrived, number: *number };
            Some(WaitingClient { first, in_flight: record.in_flight(), waiting: record.waiting.len() })
        })
    }

    /// Takes the next request that has not tried this free place out of the line, and counts it as in flight. It is
    /// of the first client by key that has not tried the place; if all clients have, of the one that has tried with
    /// the fewest requests.
    pub(super) fn turn(&mut self, chain: u64, tries: u8, now: Nanos) -> Option<Turn> {
        let mut again: Option<(u32, Who)> = None;
        for priority in self.priorities(now) {
            let mut behind = None;
            while let Some(ready) = self.front(priority, behind, now) {
                let who = Who { client: ready.2, priority };
                self.dismiss_overdue(who, now);
                // Without overdue requests, the client may be at another place, or not in line any more.
                let Some(record) = self.records.get(&who).filter(|record| record.stands_at(ready)) else {
                    continue;
                };
                let passed = record.passed_in(chain);
                if passed == 0 {
                    return self.take(who, chain, tries, now);
                }
                if record.next_to_try(chain).is_some() && again.is_none_or(|(least, _)| passed < least) {
                    again = Some((passed, who));
                }
                behind = Some(ready);
            }
        }
        self.take(again?.1, chain, tries, now)
    }

    /// All priorities, the smallest key first.
    fn priorities(&mut self, now: Nanos) -> impl Iterator<Item = Priority> + use<> {
        let mut keys = Priority::ALL.map(|priority| {
            let level = &mut self.levels[priority as usize];
            (level.share.key(now), priority)
        });
        keys.sort_unstable();
        keys.into_iter().map(|(_, priority)| priority)
    }

    /// The client with the smallest key, of those behind a place. Keys that have grown since they were noted are
    /// updated.
    fn front(&mut self, priority: Priority, behind: Option<Ready>, now: Nanos) -> Option<Ready> {
        let level = &mut self.levels[priority as usize];
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        loop {
            let mut ready = level.ready.range((from, Bound::Unbounded));
            let (first, second) = (*ready.next()?, ready.next());
            let record = self.records.get_mut(&Who { client: first.2, priority })?;
            let key = record.share.key(now);
            if second.is_none_or(|second| key <= second.0) {
                return Some(first);
            }
            self.number += 1;
            level.ready.remove(&first);
            level.ready.insert((key, self.number, first.2));
            record.ready = Some((key, self.number));
        }
    }

    /// Gives a turn to the oldest request of a client that has not tried this free place.
    fn take(&mut self, who: Who, chain: u64, tries: u8, now: Nanos) -> Option<Turn> {
        let level = &mut self.levels[who.priority as usize];
        let record = self.records.get_mut(&who)?;
        let (place, joined) = record.next_to_try(chain)?;
        let ticket = LineTicket { who, arrived: place.0, number: place.1 };
        let (_, order) = record.ready?;
        let turn = Turn { ticket, joined, began: now, order, chain, tries };
        level.served = level.served.max(record.share.key(now));
        self.served = self.served.max(level.share.key(now));
        record.count(level, (record.sent + 1, record.straight), self.mean, now);
        self.stand_up(ticket);
        self.file(who, now);
        self.forget_paid(who.priority);
        Some(turn)
    }

    /// Puts a client into the orders in which it belongs after a change: of clients in line, of clients with many
    /// requests in line, of clients with debts. Forgets it, if it is in none.
    pub(super) fn file(&mut self, who: Who, now: Nanos) {
        let level = &mut self.levels[who.priority as usize];
        let Some(record) = self.records.get_mut(&who) else { return };
        if record.waiting.is_empty() && record.straight > 0 {
            record.count(level, (record.sent, 0), self.mean, now);
        }
        let before = record.ready.take();
        if let Some((key, number)) = before {
            level.ready.remove(&(key, number, who.client));
        }
        if let Some(load) = record.load.take() {
            self.heavy.remove(&(load, who));
        }
        if let Some(busy) = record.busy.take() {
            self.busy.remove(&(busy, who));
        }
        if let Some(number) = record.lone.take() {
            level.lone.remove(&number);
        }
        if let Some(debt) = record.debt.take() {
            level.debts.remove(&(debt, who.client));
        }
        match record.waiting.len() {
            0 => return self.file_away(who, now),
            1 => {
                record.lone = record.waiting.keys().next().map(|(_, number)| *number);
                level.lone.extend(record.lone.map(|number| (number, who.client)));
            }
            several => {
                let load = record.load_of(several, who.priority);
                record.load = Some(load);
                self.heavy.insert((load, who));
            }
        }
        let busy = (record.in_flight(), record.waiting.len());
        record.busy = Some(busy);
        self.busy.insert((busy, who));
        let key = record.share.key(now);
        self.number += 1;
        // Among equal keys, the client that came first stays first.
        let number = before.filter(|before| before.0 == key).map_or(self.number, |before| before.1);
        record.ready = Some((key, number));
        level.ready.insert((key, number, who.client));
    }

    /// [`FairLine::file`] for a client without requests in line.
    fn file_away(&mut self, who: Who, now: Nanos) {
        let level = &mut self.levels[who.priority as usize];
        let Some(record) = self.records.get_mut(&who).filter(|record| record.sent == 0) else { return };
        let used = record.share.used(now);
        if used <= level.served {
            self.records.remove(&who);
            return;
        }
        record.debt = Some(used);
        level.debts.insert((used, who.client));
        if level.debts.len() > MAX_DEBTORS
            && let Some((_, client)) = level.debts.pop_first()
        {
            self.records.remove(&Who { client, ..who });
        }
    }

    /// Forgets clients that have used no more than a newcomer starts with.
    fn forget_paid(&mut self, priority: Priority) {
        let level = &mut self.levels[priority as usize];
        while level.debts.first().is_some_and(|debt| debt.0 <= level.served)
            && let Some((_, client)) = level.debts.pop_first()
        {
            self.records.remove(&Who { client, priority });
        }
    }
}

#[cfg(test)]
impl FairLine {
    /// How many clients are remembered: with requests in line, with requests in flight that had waited, or with debts.
    pub fn remembered(&self) -> usize {
        self.records.len()
    }
}

impl Record {
    fn stands_at(&self, ready: Ready) -> bool {
        self.ready == Some((ready.0, ready.1))
    }
}
