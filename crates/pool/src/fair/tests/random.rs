//! Random events, for the line and for a naive model of it that looks at all clients each time. If several requests may
//! be next, or may be refused, the model accepts each of them.

use std::collections::BTreeMap;

use super::*;
use crate::fair::line::DEBT;
use proptest::prelude::*;

const SIZE: usize = 8;

/// A client or a priority.
#[derive(Clone, Debug, Default)]
struct One {
    weight: u128,
    used: u128,
    in_flight: u128,
    ahead: Nanos,
    since: Nanos,
    waiting: Vec<(LineTicket, Nanos)>,
    passed: u8,
    served: u128,
}

impl One {
    fn key(&self) -> u128 {
        (self.used + self.in_flight * u128::from(self.ahead)) / self.weight
    }

    fn overdue(&self, now: Nanos) -> bool {
        let first = self.waiting.first().filter(|_| self.waiting.len() > 1);
        now - self.since > S && first.is_some_and(|(_, joined)| now - joined > 500 * MS)
    }
}

struct Naive {
    now: Nanos,
    emptied: Nanos,
    mean: Nanos,
    served: u128,
    clients: BTreeMap<Who, One>,
    levels: [One; 3],
}

impl Naive {
    fn new() -> Self {
        let levels = [16, 4, 1].map(|weight| One { weight, ..One::default() });
        Self { now: 0, emptied: 0, mean: 20 * MS, served: 0, clients: BTreeMap::new(), levels }
    }

    /// Charges all clients and priorities up to `now`.
    fn advance(&mut self, now: Nanos) {
        for one in self.clients.values_mut().chain(&mut self.levels) {
            one.used += one.in_flight * u128::from(now - self.now);
        }
        self.now = now;
    }

    fn waiting(&self) -> usize {
        self.clients.values().map(|client| client.waiting.len()).sum()
    }

    fn waits_at(&self, level: usize) -> bool {
        self.clients.iter().any(|(who, client)| who.priority as usize == level && !client.waiting.is_empty())
    }

    /// A client's requests in line, with `more` added, and its weight. The client with the largest fraction has the
    /// most.
    fn load(&self, who: Who, more: usize) -> (u128, u128) {
        let client = &self.clients[&who];
        ((client.waiting.len() + more) as u128, client.weight * u128::from(who.priority.weight()))
    }

    fn heavier(one: (u128, u128), other: (u128, u128)) -> bool {
        one.0 * other.1 > other.0 * one.1
    }

    /// The same of a priority.
    fn level_load(&self, level: usize, more: u128) -> (u128, u128) {
        let of = self.clients.iter().filter(|(who, _)| who.priority as usize == level);
        let waiting: usize = of.map(|(_, one)| one.waiting.len()).sum();
        (waiting as u128 + more, self.levels[level].weight)
    }

    fn may_lose_its_newest(&self, who: Who, newcomer: Who) -> bool {
        let own = self.load(who, 0);
        if own.0 == 1 && self.clients.values().all(|one| one.waiting.len() <= 1) {
            let level = self.level_load(who.priority as usize, 0);
            return (0..3).all(|other| !Self::heavier(self.level_load(other, 0), level))
                && Self::heavier(level, self.level_load(newcomer.priority as usize, 1));
        }
        own.0 >= 2
            && !self
                .clients
                .keys()
                .any(|one| self.load(*one, 0).0 >= 2 && Self::heavier(self.load(*one, 0), own))
    }

    fn remove(&mut self, ticket: LineTicket) {
        let client = self.clients.get_mut(&ticket.who).expect("known");
        let at = client.waiting.iter().position(|(one, _)| *one == ticket).expect("it waits");
        client.waiting.remove(at);
        if self.waiting() == 0 {
            self.emptied = self.now;
        }
    }

    fn insert(&mut self, ticket: LineTicket, joined: Nanos) {
        let client = self.clients.get_mut(&ticket.who).expect("known");
        client.waiting.push((ticket, joined));
        client.waiting.sort_by_key(|(ticket, _)| ticket.place());
    }

    fn count(&mut self, who: Who, more: u128, less: u128) {
        let level = &mut self.levels[who.priority as usize];
        for one in [self.clients.get_mut(&who).expect("known"), level] {
            one.in_flight = one.in_flight + more - less;
            one.ahead = self.mean;
        }
    }

    fn refused(&mut self, line: &mut FairLine, newcomer: Option<Who>) -> usize {
        let mut full = 0;
        while let Some((ticket, why)) = line.refused() {
            let client = &self.clients[&ticket.who];
            if why == LineRefusal::Full {
                assert!(
                    newcomer.is_some_and(|newcomer| self.may_lose_its_newest(ticket.who, newcomer)),
                    "{ticket:?}"
                );
                assert_eq!(client.waiting.last().map(|(one, _)| *one), Some(ticket));
                full += 1;
            } else {
                assert!(client.overdue(self.now) && client.waiting[0].0 == ticket, "{ticket:?}");
            }
            self.remove(ticket);
        }
        full
    }

    fn enroll(&mut self, who: Who, weight: u32) {
        if self.waiting() == 0 && self.now - self.emptied > DEBT {
            self.clients.retain(|_, client| client.in_flight > 0);
        }
        let weight = u128::from(weight);
        self.clients.entry(who).or_insert_with(|| One { weight, ..One::default() });
        self.count(who, 0, 0);
    }

    fn join(&mut self, line: &mut FairLine, joining: &Joining) {
        let who = joining.who;
        let joined = line.join(joining, self.now);
        let was_overdue = |naive: &Self| naive.clients.get(&who).is_some_and(|one| one.overdue(naive.now));
        let before = self.waiting();
        let full = self.refused(line, Some(who));
        assert!(!was_overdue(self), "its own overdue ones go first");
        self.enroll(who, joining.weight);
        let Ok(ticket) = joined else {
            assert!(self.waiting() >= SIZE && full == 0);
            let own = self.load(who, 1);
            assert!(!self.clients.keys().any(|one| {
                let other = self.load(*one, 0);
                other.0 >= 2 && *one != who && (own.0 == 1 || Self::heavier(other, own))
            }));
            let level = self.level_load(who.priority as usize, 1);
            assert!(own.0 > 1 || (0..3).all(|other| !Self::heavier(self.level_load(other, 0), level)));
            return;
        };
        assert!(before - full < SIZE || self.waiting() < SIZE, "more than there is room for");
        let level = &mut self.levels[who.priority as usize];
        let served = level.served;
        let client = self.clients.get_mut(&who).expect("enrolled");
        if client.waiting.is_empty() {
            client.since = self.now;
            let credit = if client.in_flight > 0 { DEBT.into() } else { 0 };
            let least = served.saturating_sub(credit);
            // The line forgets a client as soon as it has used no more than newcomers start with.
            let forgotten = client.in_flight == 0 && client.used / client.weight <= served;
            client.used =
                if forgotten { least * client.weight } else { client.used.max(least * client.weight) };
            client.used = client.used.min((served + u128::from(DEBT)) * client.weight);
        }
        if !self.waits_at(who.priority as usize) {
            let level = &mut self.levels[who.priority as usize];
            level.used = level.used.max(self.served * level.weight);
            level.used = level.used.min((self.served + u128::from(DEBT)) * level.weight);
        }
        self.insert(ticket, self.now);
    }

    /// Checks that it was this request's turn, and takes it out of the line.
    fn turn(&mut self, line: &mut FairLine, turn: Option<Turn>) {
        self.refused(line, None);
        let Some(Turn { ticket, .. }) = turn else { return };
        let least = self
            .clients
            .values()
            .filter(|one| one.waiting.len() > one.passed.into())
            .map(|one| one.passed)
            .min();
        let client = &self.clients[&ticket.who];
        assert_eq!(Some(client.passed), least, "others have tried less");
        assert_eq!(client.waiting[usize::from(client.passed)].0, ticket, "not its oldest");
        assert!(!client.overdue(self.now));
        let level = &self.levels[ticket.level()];
        let rivals = |level: usize| {
            let of = move |(who, one): &(&Who, &One)| {
                who.priority as usize == level && one.waiting.len() > one.passed.into()
            };
            self.clients.iter().filter(of).filter(|(_, one)| Some(one.passed) == least)
        };
        if least == Some(0) {
            let keys =
                (0..3).filter(|level| rivals(*level).next().is_some()).map(|level| self.levels[level].key());
            assert_eq!(keys.min(), Some(level.key()), "another priority goes first");
            let keys = rivals(ticket.level()).map(|(_, one)| one.key());
            assert_eq!(keys.min(), Some(client.key()), "another client goes first");
        }
        let (level_key, key) = (level.key(), client.key());
        self.served = self.served.max(level_key);
        self.levels[ticket.level()].served = self.levels[ticket.level()].served.max(key);
        self.count(ticket.who, 1, 0);
        self.remove(ticket);
    }

    fn pass(&mut self, line: &mut FairLine, turn: Turn) -> Option<Turn> {
        let next = line.pass(turn, self.now);
        self.count(turn.ticket.who, 0, 1);
        self.insert(turn.ticket, turn.joined);
        self.clients.get_mut(&turn.ticket.who).expect("known").passed += 1;
        self.turn(line, next);
        next
    }

    fn end(&mut self, line: &mut FairLine, who: Who, held: Option<Nanos>) {
        line.end(who, held, self.now);
        if let Some(held) = held {
            self.mean = (self.mean - self.mean / 50 + held.min(10 * self.mean) / 50).max(1000);
        }
        self.count(who, 0, 1);
        let level = &mut self.levels[who.priority as usize];
        let client = self.clients.get_mut(&who).expect("known");
        client.used = client.used.min((level.served + u128::from(DEBT)) * client.weight);
        level.used = level.used.min((self.served + u128::from(DEBT)) * level.weight);
    }
}

#[derive(Clone, Debug)]
enum Event {
    Join {
        client: u64,
        before: Nanos,
    },
    /// A place gets free, and the first `passes` requests can't use it.
    Next {
        passes: u8,
    },
    End {
        which: usize,
        held: Option<Nanos>,
    },
    Leave {
        which: usize,
    },
    Wait(Nanos),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..18u64, 0..50u64).prop_map(|(client, before)| Event::Join { client, before: before * MS }),
        4 => prop_oneof![3 => Just(0), 1 => 1..12u8].prop_map(|passes| Event::Next { passes }),
        4 => (any::<usize>(), prop::option::weighted(0.9, 0..200 * MS))
            .prop_map(|(which, held)| Event::End { which, held }),
        1 => any::<usize>().prop_map(|which| Event::Leave { which }),
        4 => (0..400 * MS).prop_map(Event::Wait),
        1 => (0..4 * S).prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 0..300)
}

proptest! {
    /// The client that goes next has the smallest key, the client whose request is refused has the most in line, and no
    /// request is lost.
    #[test]
    fn the_line_does_what_one_without_shortcuts_does(events in events()) {
        let (mut line, mut naive) = (line(SIZE, Some(500 * MS)), Naive::new());
        let mut sent: Vec<Who> = Vec::new();
        naive.advance(S);
        for event in events {
            match event {
                Event::Join { client, before } => {
                    let priority = Priority::ALL[client as usize / 6];
                    let weight = [1, 2, 1000][client as usize % 3];
                    let arrived = naive.now.saturating_sub(before);
                    let joining = Joining { who: Who { client, priority }, weight, arrived, straight: 0 };
                    naive.join(&mut line, &joining);
                }
                Event::Next { passes } => {
                    naive.clients.values_mut().for_each(|client| client.passed = 0);
                    let mut turn = line.next(naive.now);
                    naive.turn(&mut line, turn);
                    for tries in 1..=passes {
                        let Some(tried) = turn else { break };
                        turn = naive.pass(&mut line, tried);
                        prop_assert!(tries < 8 || turn.is_none());
                    }
                    sent.extend(turn.map(|turn| turn.ticket.who));
                }
                Event::End { which, held } if !sent.is_empty() => {
                    let who = sent.swap_remove(which % sent.len());
                    naive.end(&mut line, who, held);
                }
                Event::Leave { which } if naive.waiting() > 0 => {
                    let all = naive.clients.values().flat_map(|one| &one.waiting);
                    let ticket = all.map(|(ticket, _)| *ticket).nth(which % naive.waiting()).expect("one of them");
                    prop_assert!(line.leave(ticket, naive.now));
                    naive.remove(ticket);
                }
                Event::Wait(span) => naive.advance(naive.now + span),
                Event::End { .. } | Event::Leave { .. } => {}
            }
            prop_assert_eq!(line.len(), naive.waiting());
            let clients = naive.clients.values().filter(|client| !client.waiting.is_empty()).count();
            prop_assert_eq!(line.clients(), clients);
            prop_assert!(line.len() <= SIZE, "{} wait", line.len());
        }
        // All requests end, and no client stays remembered.
        let rest: Vec<Who> = std::iter::from_fn(|| line.next(naive.now)).map(|turn| turn.ticket.who).collect();
        sent.into_iter().chain(rest).for_each(|who| line.end(who, None, naive.now));
        naive.advance(naive.now + 3 * S);
        let joining = Joining { who: who(99), weight: 1, arrived: naive.now, straight: 0 };
        prop_assert!(line.join(&joining, naive.now).is_ok());
        prop_assert_eq!(line.remembered(), 1);
    }
}
