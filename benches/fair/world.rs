//! The simulation: discrete events around the product's own line and bounds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use balancer_pool::fair::{AutoAttempt, FairLine, Joining, LinePolicy, LineTicket, StraightCounts, Who};

use crate::backend::{Backend, Bound};
use crate::loads::{Change, Source};

/// An answer is good within so many seconds of the request.
const GOOD_S: f64 = 2.0;
/// After so many its client leaves, and the backend goes on working for nobody.
const PATIENCE_S: f64 = 10.0;
/// `queue_timeout`, `queue_size`, `queue_target`.
const TIMEOUT_S: f64 = 5.0;
const SIZE: usize = 1024;
const TARGET_NS: u64 = 500_000_000;
/// Between two looks at a bound.
const TICK_S: f64 = 0.5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(usize),
    Work(usize),
    Finish(usize, u64),
    Timeout(usize),
    Leave(usize),
    Tick(usize),
    Change(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waiting(Option<LineTicket>),
    /// On a backend since then; whether it waited before, and was counted if not.
    Flying {
        backend: usize,
        since_s: f64,
        waited: bool,
        counted: bool,
        attempt: Option<AutoAttempt>,
    },
    /// Nobody is there for the answer.
    Zombie,
    Over,
}

struct Request {
    source: usize,
    who: Who,
    came_s: f64,
    cpu_s: f64,
    state: State,
}

/// Whose turn it is when all are full.
pub enum Line {
    Fifo(VecDeque<usize>, usize),
    Fair(Box<FairLine>, HashMap<u64, usize>),
}

impl Line {
    pub fn fifo() -> Self {
        Self::Fifo(VecDeque::new(), 0)
    }

    pub fn fair(target: bool) -> Self {
        let policy = LinePolicy { size: SIZE, target: target.then_some(TARGET_NS) };
        Self::Fair(Box::new(FairLine::new(policy)), HashMap::new())
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Fifo(_, waiting) => *waiting == 0,
            Self::Fair(line, _) => line.is_empty(),
        }
    }
}

/// What became of a client's requests.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub offered: u32,
    pub good: u32,
    pub latencies_s: Vec<f64>,
}

pub struct World {
    pub now_s: f64,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    random: fastrand::Rng,
    pub backends: Vec<Backend>,
    line: Line,
    straight: StraightCounts,
    requests: Vec<Request>,
    sources: Vec<Source>,
    changes: Vec<Change>,
    pub told: BTreeMap<Who, Told>,
    /// Work that came to nothing: too late, or for nobody.
    pub wasted_s: f64,
    /// (when, mean bound of the backends).
    pub bounds: Vec<(f64, f64)>,
}

impl World {
    pub fn new(seed: u64, processors: f64, line: Line, bound: Bound) -> Self {
        let mut world = Self {
            now_s: 0.0,
            order: 0,
            events: BinaryHeap::new(),
            random: fastrand::Rng::with_seed(seed),
            backends: (0..3).map(|_| Backend::new(processors, bound)).collect(),
            line,
            straight: StraightCounts::new(),
            requests: Vec::new(),
            sources: Vec::new(),
            changes: Vec::new(),
            told: BTreeMap::new(),
            wasted_s: 0.0,
            bounds: Vec::new(),
        };
        if matches!(bound, Bound::Auto) {
            (0..3).for_each(|backend| world.at(TICK_S * (1.0 + backend as f64 / 3.0), Event::Tick(backend)));
        }
        world
    }

    pub fn add(&mut self, source: Source) {
        self.sources.push(source);
        let gap = self.gap(source.rate);
        self.at(source.from_s + gap, Event::Arrive(self.sources.len() - 1));
    }

    pub fn change(&mut self, change: Change) {
        self.changes.push(change);
        self.at(change.at_s, Event::Change(self.changes.len() - 1));
    }

    fn gap(&mut self, rate: f64) -> f64 {
        -(1.0 - self.random.f64()).ln() / rate
    }

    fn at(&mut self, at_s: f64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at_s.to_bits(), self.order, event)));
    }

    fn now(&self) -> u64 {
        (self.now_s * 1e9) as u64
    }

    pub fn run(&mut self, until_s: f64) {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if f64::from_bits(at) > until_s {
                return;
            }
            self.now_s = f64::from_bits(at);
            self.on(event);
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Arrive(source) => self.arrive(source),
            Event::Work(request) => {
                if let State::Flying { backend, .. } = self.requests[request].state {
                    self.work(request, backend);
                }
            }
            Event::Finish(backend, version) if version == self.backends[backend].version => {
                let request = self.backends[backend].finish(self.now_s);
                let next = self.backends[backend].next();
                self.foresee(backend, next);
                self.finished(request, backend);
            }
            Event::Finish(..) => {}
            Event::Timeout(request) => {
                if let State::Waiting(ticket) = self.requests[request].state {
                    self.leave_line(ticket);
                    self.requests[request].state = State::Over;
                }
            }
            Event::Leave(request) => self.leave(request),
            Event::Tick(backend) => {
                let now = self.now();
                let _ = self.backends[backend].auto.tick(now);
                if backend == 0 {
                    let sum: f64 = self.backends.iter().map(|one| f64::from(one.auto.bound())).sum();
                    self.bounds.push((self.now_s, sum / self.backends.len() as f64));
                }
                self.at(self.now_s + TICK_S, event);
                self.fill();
            }
            Event::Change(change) => {
                let Change { processors, speed, .. } = self.changes[change];
                for backend in 0..self.backends.len() {
                    let next = self.backends[backend].set(processors, speed, self.now_s);
                    self.foresee(backend, next);
                }
            }
        }
    }

    fn arrive(&mut self, index: usize) {
        let source = self.sources[index];
        let cpu_s = source.service.draw(source.mean_s, &mut self.random);
        let gap = self.gap(source.rate);
        self.at(self.now_s + gap, Event::Arrive(index));
        let request = self.requests.len();
        let client = if source.made_up { u64::MAX - request as u64 } else { source.client };
        let who = Who { client, priority: source.priority };
        self.requests.push(Request { source: index, who, came_s: self.now_s, cpu_s, state: State::Over });
        self.told.entry(who).or_default().offered += 1;
        self.at(self.now_s + PATIENCE_S, Event::Leave(request));
        match if self.line.is_empty() { self.room() } else { None } {
            Some(backend) => self.dispatch(request, backend, false),
            None => self.join(request, who, source.weight),
        }
    }

    fn join(&mut self, request: usize, who: Who, weight: u32) {
        let (now, straight) = (self.now(), self.straight.of(who));
        let ticket = match &mut self.line {
            Line::Fifo(_, waiting) if *waiting >= SIZE => return,
            Line::Fifo(queue, waiting) => {
                queue.push_back(request);
                *waiting += 1;
                None
            }
            Line::Fair(line, requests) => {
                match line.join(&Joining { who, weight, arrived: now, straight }, now) {
                    Ok(ticket) => {
                        requests.insert(ticket.number(), request);
                        Some(ticket)
                    }
                    Err(_) => return self.take_refused(),
                }
            }
        };
        self.requests[request].state = State::Waiting(ticket);
        self.take_refused();
        self.at(self.now_s + TIMEOUT_S, Event::Timeout(request));
    }

    fn take_refused(&mut self) {
        let Line::Fair(line, requests) = &mut self.line else { return };
        while let Some((ticket, _)) = line.refused() {
            let request = requests.remove(&ticket.number()).expect("it waited");
            self.requests[request].state = State::Over;
        }
    }

    fn leave_line(&mut self, ticket: Option<LineTicket>) {
        let now = self.now();
        match (&mut self.line, ticket) {
            (Line::Fair(line, requests), Some(ticket)) => {
                assert!(line.leave(ticket, now), "it waits");
                requests.remove(&ticket.number());
            }
            (Line::Fifo(_, waiting), _) => *waiting -= 1,
            (Line::Fair(..), None) => unreachable!("it has a ticket"),
        }
    }

    /// The backend with the fewest in flight, of those with room.
    fn room(&self) -> Option<usize> {
        let with_room = (0..self.backends.len()).filter(|one| {
            let backend = &self.backends[*one];
            backend.in_flight < backend.limit()
        });
        with_room.min_by_key(|one| self.backends[*one].in_flight)
    }

    fn dispatch(&mut self, request: usize, backend: usize, waited: bool) {
        let (now, who) = (self.now(), self.requests[request].who);
        let attempt = matches!(self.backends[backend].bound, Bound::Auto)
            .then(|| self.backends[backend].auto.began(now));
        self.backends[backend].in_flight += 1;
        let counted = !waited && self.straight.begin(who);
        self.requests[request].state =
            State::Flying { backend, since_s: self.now_s, waited, counted, attempt };
        let hold_s = self.sources[self.requests[request].source].hold_s;
        if hold_s > 0.0 {
            self.at(self.now_s + hold_s, Event::Work(request));
        } else {
            self.work(request, backend);
        }
    }

    fn work(&mut self, request: usize, backend: usize) {
        let next = self.backends[backend].work(request, self.requests[request].cpu_s, self.now_s);
        self.foresee(backend, next);
    }

    fn foresee(&mut self, backend: usize, at_s: Option<f64>) {
        if let Some(at_s) = at_s {
            self.at(at_s, Event::Finish(backend, self.backends[backend].version));
        }
    }

    fn fill(&mut self) {
        while let Some(backend) = self.room() {
            let now = self.now();
            let request = match &mut self.line {
                Line::Fifo(queue, waiting) => loop {
                    let Some(request) = queue.pop_front() else { return };
                    if matches!(self.requests[request].state, State::Waiting(_)) {
                        *waiting -= 1;
                        break Some(request);
                    }
                },
                Line::Fair(line, requests) => {
                    line.next(now).and_then(|turn| requests.remove(&turn.ticket.number()))
                }
            };
            self.take_refused();
            let Some(request) = request else { return };
            self.dispatch(request, backend, true);
        }
    }

    /// It is on no backend any more, or nobody is there for it.
    fn land(&mut self, request: usize, answered: bool) {
        let State::Flying { backend, since_s, waited, counted, attempt } = self.requests[request].state
        else {
            return;
        };
        let (now, who, held) =
            (self.now(), self.requests[request].who, ((self.now_s - since_s) * 1e9) as u64);
        self.backends[backend].in_flight -= 1;
        if let Some(attempt) = attempt {
            self.backends[backend].auto.ended(attempt, answered, now);
        }
        if counted {
            self.straight.end(who);
        }
        if let Line::Fair(line, _) = &mut self.line {
            if waited {
                line.end(who, Some(held), now);
            } else if !line.is_empty() {
                line.straight_ended(who, self.straight.of(who), Some(held), now);
            }
        }
    }

    fn finished(&mut self, request: usize, backend: usize) {
        let Request { cpu_s, came_s, state, who, .. } = self.requests[request];
        self.backends[backend].done_s += cpu_s;
        if state == State::Zombie {
            self.wasted_s += cpu_s;
            return;
        }
        self.land(request, true);
        self.requests[request].state = State::Over;
        let latency_s = self.now_s - came_s;
        let told = self.told.entry(who).or_default();
        told.latencies_s.push(latency_s);
        if latency_s <= GOOD_S {
            told.good += 1;
        } else {
            self.wasted_s += cpu_s;
        }
        self.fill();
    }

    fn leave(&mut self, request: usize) {
        match self.requests[request].state {
            State::Waiting(ticket) => {
                self.leave_line(ticket);
                self.requests[request].state = State::Over;
            }
            State::Flying { .. } => {
                self.land(request, false);
                self.requests[request].state = State::Zombie;
                self.fill();
            }
            State::Zombie | State::Over => {}
        }
    }

    /// Whether the table is about it.
    pub fn is_shown(&self, who: Who) -> bool {
        self.sources.iter().any(|source| source.client == who.client && source.shown)
    }
}
