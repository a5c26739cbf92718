//! Simulates several instances in one thread, with a clock of its own. Limiter and budget are the real ones; messages
//! take time, get lost or are held up; instances die and join; the database stops. For `tests/budget.rs`,
//! `tests/one_way.rs` and `benches/budget.rs`.
#![allow(dead_code)]

pub mod loads;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use balancer_limiter::bucket::{Bucket, MICRO};
use balancer_limiter::budget::{Budget, DEAD_AFTER, GAP, HEARTBEAT, InstanceId, SpentReport, TICK};
use balancer_limiter::identity::ClientKey;
use balancer_limiter::limit::Limit;
use balancer_limiter::limiter::{Ask, Grant, Limiter, Saved};
use balancer_limiter::terms::{BucketId, Terms};
use balancer_time::{Moment, Nanos};

pub const SEC: Nanos = 1_000_000_000;

/// When every simulation begins. Later than 0, so that instances can be started before it.
pub const START: Nanos = 1_000 * SEC;

/// What happens beside requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    Die(usize),
    Join(usize),
}

/// How messages travel.
#[derive(Clone, Copy, Debug)]
pub struct Carrier {
    /// From the call of a tick to the call of `heard`.
    pub delay: Nanos,
    /// Messages in a thousand that are lost on the way to one instance.
    pub lost_permille: u32,
    /// Messages in a thousand that come twice, the second time up to half a second later, and so out of order.
    pub again_permille: u32,
    /// From when to when the database is stopped: nothing is sent, and senders know it.
    pub stopped: Option<(Nanos, Nanos)>,
}

impl Default for Carrier {
    fn default() -> Self {
        Self { delay: 8_000_000, lost_permille: 0, again_permille: 0, stopped: None }
    }
}

/// One process.
struct Instance {
    id: InstanceId,
    limiter: Arc<Limiter>,
    budget: Budget,
    woken: Arc<AtomicBool>,
    /// When the next tick is due. Ticks that were planned for another time are ignored.
    due: Nanos,
    sent_at: Nanos,
}

enum Event {
    Tick(usize),
    Message(usize, InstanceId, Arc<Vec<SpentReport>>),
}

pub struct World {
    pub grant: Grant,
    pub client: ClientKey,
    /// In that time the first instance can't send, but hears the others.
    pub mute: Option<(Nanos, Nanos)>,
    /// In that time messages to the first instance are held up until its end.
    pub deaf: Option<(Nanos, Nanos)>,
    carrier: Carrier,
    instances: Vec<Option<Instance>>,
    queue: BinaryHeap<Reverse<(Nanos, u64)>>,
    events: std::collections::HashMap<u64, Event>,
    number: u64,
    random: fastrand::Rng,
    pub messages: u64,
    pub reports: u64,
}

fn at(now: Nanos) -> Moment {
    Moment { now, wall_s: 1_800_000_000 }
}

impl World {
    pub fn new(instances: usize, limit: Limit, carrier: Carrier, seed: u64) -> Self {
        let mut world = Self {
            grant: Grant::of_default(Terms::of_numbers(limit)),
            client: ClientKey::digest(b"tenant"),
            mute: None,
            deaf: None,
            carrier,
            instances: Vec::new(),
            queue: BinaryHeap::new(),
            events: Default::default(),
            number: 0,
            random: fastrand::Rng::with_seed(seed),
            messages: 0,
            reports: 0,
        };
        for number in 0..instances {
            // Started at different times, and early enough to hear each other before the load begins.
            let first = START - 5 * SEC + world.random.u64(..TICK);
            world.instances.push(None);
            world.start(number, first);
        }
        world.run_until(START);
        world
    }

    fn start(&mut self, number: usize, now: Nanos) {
        let limiter = Arc::new(Limiter::new(100_000));
        let id = InstanceId(self.random.u64(..));
        let budget = Budget::new(Arc::clone(&limiter), id, now);
        let woken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&woken);
        budget.wake_by(move || flag.store(true, Ordering::SeqCst));
        self.instances[number] = Some(Instance { id, limiter, budget, woken, due: now, sent_at: 0 });
        self.plan(now, Event::Tick(number));
    }

    fn plan(&mut self, when: Nanos, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((when, self.number)));
        self.events.insert(self.number, event);
    }

    /// Runs all events up to that instant.
    pub fn run_until(&mut self, until: Nanos) {
        while let Some(Reverse((now, number))) = self.queue.peek().copied() {
            if now > until {
                return;
            }
            self.queue.pop();
            match self.events.remove(&number) {
                Some(Event::Tick(instance)) => self.tick(instance, now),
                Some(Event::Message(to, from, reports)) => {
                    if let Some(instance) = &self.instances[to] {
                        instance.budget.heard(from, &reports, at(now));
                    }
                }
                None => {}
            }
        }
    }

    fn is_stopped(&self, now: Nanos) -> bool {
        self.carrier.stopped.is_some_and(|(from, to)| (from..to).contains(&now))
    }

    fn tick(&mut self, number: usize, now: Nanos) {
        let is_mute = number == 0 && self.mute.is_some_and(|(from, to)| (from..to).contains(&now));
        let stopped = is_mute || self.is_stopped(now);
        let Some(instance) = &mut self.instances[number] else { return };
        if instance.due != now {
            return;
        }
        if stopped {
            // The real driver can't send now, and does not ask for reports.
            instance.due = now + GAP;
            return self.plan(now + GAP, Event::Tick(number));
        }
        let mut reports = Vec::new();
        let due = instance.budget.tick(at(now), &mut reports).min(now + HEARTBEAT).max(now + 1);
        instance.due = due;
        instance.woken.store(false, Ordering::SeqCst);
        let from = instance.id;
        let is_time = !reports.is_empty() || now - instance.sent_at >= HEARTBEAT;
        if is_time {
            instance.sent_at = now;
            self.messages += reports.len().div_ceil(125).max(1) as u64;
            self.reports += reports.len() as u64;
            self.send(from, reports, now);
        }
        let due = self.instances[number].as_ref().map_or(due, |instance| instance.due);
        self.plan(due, Event::Tick(number));
    }

    fn send(&mut self, from: InstanceId, reports: Vec<SpentReport>, now: Nanos) {
        let reports = Arc::new(reports);
        for to in 0..self.instances.len() {
            if self.random.u32(..1000) < self.carrier.lost_permille {
                continue;
            }
            let arrival = match self.deaf {
                Some((from, end)) if to == 0 && (from..end).contains(&now) => end,
                _ => now + self.carrier.delay,
            };
            let is_own = self.instances[to].as_ref().is_some_and(|instance| instance.id == from);
            if is_own && arrival - now > DEAD_AFTER {
                // The real driver ignores an own message that took so long: it does not show that the others hear it
                // now.
                continue;
            }
            self.plan(arrival, Event::Message(to, from, Arc::clone(&reports)));
            if self.random.u32(..1000) < self.carrier.again_permille {
                let later = arrival + self.random.u64(..TICK);
                self.plan(later, Event::Message(to, from, Arc::clone(&reports)));
            }
        }
    }

    /// Sends a request to an instance at `now`. Returns whether it is allowed.
    pub fn ask(&mut self, number: usize, now: Nanos) -> bool {
        self.ask_as(self.client, number, now)
    }

    /// The same for another client.
    pub fn ask_as(&mut self, client: ClientKey, number: usize, now: Nanos) -> bool {
        self.run_until(now);
        let Some(instance) = &mut self.instances[number] else { return false };
        let allowed = instance.limiter.acquire(client, Ask::of(&self.grant), at(now)).allowed;
        if instance.woken.swap(false, Ordering::SeqCst) {
            instance.due = now;
            self.plan(now, Event::Tick(number));
            self.run_until(now);
        }
        allowed
    }

    pub fn act(&mut self, act: Act, now: Nanos) {
        self.run_until(now);
        match act {
            Act::Die(number) => self.instances[number] = None,
            Act::Join(number) => {
                let lowest = (self.instances.iter().flatten())
                    .filter_map(|other| other.limiter.peek(self.client, BucketId::of("default"), at(now)))
                    .min_by_key(Bucket::level_micro);
                self.start(number, now);
                if let (Some(instance), Some(bucket)) = (&self.instances[number], lowest) {
                    // The real program restores the lowest of the saved levels.
                    let saved = Saved {
                        id: BucketId::of("default"),
                        of_rule: false,
                        limit: bucket.limit(),
                        level_micro: bucket.level_micro(),
                        reset: None,
                    };
                    instance.limiter.restore(self.client, &saved, 0, at(now));
                }
                self.run_until(now);
            }
        }
    }

    /// The budgets of the instances that are alive.
    pub fn budgets(&self) -> impl Iterator<Item = &Budget> {
        self.instances.iter().flatten().map(|instance| &instance.budget)
    }

    /// How many tokens of the client's bucket others spent, as each instance knows it.
    pub fn spent_elsewhere(&self, now: Nanos) -> Vec<u64> {
        let look = |instance: &Option<Instance>| {
            let levels = instance.as_ref()?.limiter.levels(self.client, Ask::of(&self.grant), at(now));
            levels.spent_elsewhere.first().copied()
        };
        self.instances.iter().map(|instance| look(instance).unwrap_or(0)).collect()
    }
}

/// The results of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub offered: u64,
    pub admitted: u64,
    /// What one bucket would have admitted of the same requests.
    pub ideal: u64,
    /// Requests that were refused although all that was admitted left a token in one bucket.
    pub falsely: u64,
    /// The most tokens beyond C + r·T that were admitted in any span T.
    pub excess: u64,
    /// Messages a second of all instances.
    pub messages: f64,
    /// The most tokens that an instance was charged beyond what the others had admitted.
    pub charged_twice: u64,
}

/// A bucket that is charged with everything that was admitted anywhere. Its lowest level below 0 is the excess.
struct Account {
    bucket: Bucket,
    lowest: i64,
}

impl Account {
    fn charge(&mut self, now: Nanos) {
        self.bucket.flow(now);
        self.bucket.pay(MICRO);
        self.lowest = self.lowest.min(self.bucket.level_micro());
    }

    fn has_one(&mut self, now: Nanos) -> bool {
        self.bucket = self.bucket.refilled(now);
        self.bucket.level_micro() >= MICRO
    }
}

/// Runs a load.
pub fn run(instances: usize, limit: Limit, load: &loads::Load, carrier: Carrier, seed: u64) -> Outcome {
    let mut world = World::new(instances, limit, Carrier { stopped: load.stopped, ..carrier }, seed);
    let before = world.messages;
    let mut ideal = Bucket::full(limit, START);
    let mut account = Account { bucket: Bucket::full(limit, START), lowest: 0 };
    let mut outcome = Outcome::default();
    let mut admitted = vec![0; instances];
    let mut acts = load.acts.iter().peekable();
    for (now, instance) in &load.requests {
        while let Some((when, act)) = acts.next_if(|(when, _)| when <= now) {
            world.act(*act, *when);
        }
        outcome.offered += 1;
        outcome.ideal += u64::from(ideal.acquire(1, *now).allowed);
        if world.ask(*instance, *now) {
            outcome.admitted += 1;
            admitted[*instance] += 1;
            account.charge(*now);
        } else {
            outcome.falsely += u64::from(account.has_one(*now));
        }
        let all: u64 = admitted.iter().sum();
        for (own, told) in admitted.iter().zip(world.spent_elsewhere(*now)) {
            outcome.charged_twice = outcome.charged_twice.max(told.saturating_sub(all - own));
        }
    }
    world.run_until(load.end);
    outcome.excess = (-account.lowest).max(0).unsigned_abs().div_ceil(MICRO as u64);
    outcome.messages = (world.messages - before) as f64 / ((load.end - START) as f64 / SEC as f64);
    outcome
}

/// The bound on what may be admitted beyond C + r·T, with `offered` requests a second and messages that take `delay`.
pub fn bound(instances: usize, limit: Limit, offered: f64, delay: Nanos) -> f64 {
    let (n, delay_s) = (instances as f64, delay as f64 / SEC as f64);
    let (gap_s, tick_s) = (GAP as f64 / SEC as f64, TICK as f64 / SEC as f64);
    let untold = (f64::from(limit.capacity) / (4.0 * n)).max(1.0);
    let rate = loads::per_second(limit);
    // Every other instance admits at most what its bucket holds until it hears of the first.
    let untold_at_once = (n - 1.0) * (f64::from(limit.capacity) + rate * (gap_s + delay_s));
    // A small bucket is not charged what flowed in and found no room.
    let flow = rate * (gap_s + tick_s);
    let untold_at_once = untold_at_once + (flow + 2.0 - f64::from(limit.capacity) / 2.0).clamp(0.0, flow);
    (n * untold + offered * (gap_s + delay_s) + rate * (tick_s + delay_s)).min(untold_at_once)
}
