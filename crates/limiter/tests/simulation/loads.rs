//! The loads of the simulation. In their names, C is the capacity and r the rate of the limit.

use balancer_limiter::limit::Limit;
use balancer_time::Nanos;

use super::{Act, SEC, START};

/// Requests, and events beside them.
#[derive(Clone, Debug)]
pub struct Load {
    pub name: String,
    /// When each request comes, and to which instance; in order.
    pub requests: Vec<(Nanos, usize)>,
    pub acts: Vec<(Nanos, Act)>,
    /// From when to when the database is stopped.
    pub stopped: Option<(Nanos, Nanos)>,
    pub end: Nanos,
    /// The highest rate of requests, per second.
    pub offered: f64,
}

/// The instant so many seconds after the start.
fn second(seconds: f64) -> Nanos {
    START + (seconds * SEC as f64) as Nanos
}

/// Requests at random, `rate` a second on average; `pick` chooses the instance of each.
fn poisson(
    random: &mut fastrand::Rng,
    rate: f64,
    span: (f64, f64),
    mut pick: impl FnMut(&mut fastrand::Rng) -> usize,
) -> Vec<(Nanos, usize)> {
    let (mut now, until) = span;
    let mut requests = Vec::new();
    loop {
        now += -(1.0 - random.f64()).ln() / rate;
        if now >= until {
            return requests;
        }
        requests.push((second(now), pick(random)));
    }
}

impl Load {
    /// A load of these requests.
    pub fn of(name: impl Into<String>, requests: Vec<(Nanos, usize)>, offered: f64) -> Self {
        let mut requests = requests;
        requests.sort_unstable();
        let end = requests.last().map_or(START, |(when, _)| *when).max(second(5.0));
        Self { name: name.into(), requests, acts: Vec::new(), stopped: None, end, offered }
    }

    /// `times` times the rate, spread over all instances.
    pub fn spread(n: usize, limit: Limit, times: f64, seed: u64) -> Self {
        let random = &mut fastrand::Rng::with_seed(seed);
        let rate = times * per_second(limit);
        Self::of(
            format!("spread evenly, {times} r"),
            poisson(random, rate, (0.0, 60.0), |r| r.usize(..n)),
            rate,
        )
    }

    /// Three times the rate; 80 % of it at one instance, 15 % and 5 % at two others.
    pub fn skewed(n: usize, limit: Limit, seed: u64) -> Self {
        let random = &mut fastrand::Rng::with_seed(seed);
        let rate = 3.0 * per_second(limit);
        let pick = |r: &mut fastrand::Rng| match r.u32(..100) {
            0..80 => 0,
            80..95 => 1,
            _ => 2 % n,
        };
        Self::of("skewed 80/15/5, 3 r", poisson(random, rate, (0.0, 60.0), pick), rate)
    }

    /// `times` times the rate, all at one instance.
    pub fn at_one(limit: Limit, times: f64, seed: u64) -> Self {
        let random = &mut fastrand::Rng::with_seed(seed);
        let rate = times * per_second(limit);
        Self::of(format!("at one instance, {times} r"), poisson(random, rate, (0.0, 60.0), |_| 0), rate)
    }

    /// Three times the capacity at once; then twice the rate.
    pub fn burst(n: usize, limit: Limit, within_s: f64, seed: u64) -> Self {
        let random = &mut fastrand::Rng::with_seed(seed);
        let count = 3 * limit.capacity;
        let mut requests: Vec<_> =
            (0..count).map(|_| (second(1.0 + within_s * random.f64()), random.usize(..n))).collect();
        let rate = 2.0 * per_second(limit);
        requests.extend(poisson(random, rate, (1.1 + within_s, 60.0), |r| r.usize(..n)));
        Self::of(format!("3 C in {within_s} s from idle"), requests, f64::from(count) / within_s)
    }

    /// The whole capacity at one idle instance.
    pub fn capacity_at_one(limit: Limit) -> Self {
        let count = limit.capacity;
        let requests =
            (0..count).map(|at| (second(1.0 + 0.02 * f64::from(at) / f64::from(count)), 0)).collect();
        Self::of("C at one idle instance", requests, f64::from(count) / 0.02)
    }

    /// A light load at all instances; then half of the capacity at once at one of them.
    pub fn burst_warm(n: usize, limit: Limit, seed: u64) -> Self {
        let random = &mut fastrand::Rng::with_seed(seed);
        let mut requests = poisson(random, 0.3 * per_second(limit), (0.0, 20.0), |r| r.usize(..n));
        let count = limit.capacity / 2;
        requests.extend((0..count).map(|at| (second(20.0 + 0.02 * f64::from(at) / f64::from(count)), 0)));
        Self::of("C/2 at one warm instance", requests, f64::from(count) / 0.02)
    }

    /// `times` times the rate, at another instance every `each_s` seconds.
    pub fn moving(n: usize, limit: Limit, times: f64, each_s: u32, seed: u64) -> Self {
        let random = &mut fastrand::Rng::with_seed(seed);
        let rate = times * per_second(limit);
        let mut requests = Vec::new();
        for step in 0..60 / each_s {
            let span = (f64::from(step * each_s), f64::from((step + 1) * each_s));
            requests.extend(poisson(random, rate, span, |_| step as usize % n));
        }
        Self::of(format!("moving each {each_s} s, {times} r"), requests, rate)
    }

    /// Six times the rate for one second of every six.
    pub fn on_and_off(n: usize, limit: Limit, seed: u64) -> Self {
        let random = &mut fastrand::Rng::with_seed(seed);
        let rate = 6.0 * per_second(limit);
        let span = |step: u32| (f64::from(6 * step), f64::from(6 * step + 1));
        let requests = (0..10).flat_map(|step| poisson(random, rate, span(step), |r| r.usize(..n))).collect();
        Self::of("1 s on, 5 s off, 6 r", requests, rate)
    }

    /// The first instance dies after 20 s and comes back after 40 s.
    pub fn dying(n: usize, limit: Limit, times: f64, seed: u64) -> Self {
        let random = &mut fastrand::Rng::with_seed(seed);
        let rate = times * per_second(limit);
        let mut requests = poisson(random, rate, (0.0, 20.0), |r| r.usize(..n));
        requests.extend(poisson(random, rate, (20.0, 40.0), |r| r.usize(1..n)));
        requests.extend(poisson(random, rate, (40.0, 60.0), |r| r.usize(..n)));
        let acts = vec![(second(20.0), Act::Die(0)), (second(40.0), Act::Join(0))];
        Self { acts, ..Self::of(format!("one dies and joins, {times} r"), requests, rate) }
    }

    /// The same load, while the database is stopped from 20 s to 50 s.
    pub fn stopped(self) -> Self {
        let name = format!("{}, database stopped 30 s", self.name);
        Self { name, stopped: Some((second(20.0), second(50.0))), ..self }
    }
}

/// The rate of a limit in tokens a second.
pub fn per_second(limit: Limit) -> f64 {
    limit.rate.micro as f64 / 1e6 / f64::from(limit.rate.per_secs)
}

/// All loads, for `n` instances.
pub fn all(n: usize, limit: Limit, seed: u64) -> Vec<Load> {
    vec![
        Load::spread(n, limit, 12.0, seed),
        Load::spread(n, limit, 1.5, seed),
        Load::spread(n, limit, 0.9, seed),
        Load::skewed(n, limit, seed),
        Load::at_one(limit, 12.0, seed),
        Load::burst(n, limit, 0.02, seed),
        Load::burst(n, limit, 0.3, seed),
        Load::capacity_at_one(limit),
        Load::burst_warm(n, limit, seed),
        Load::moving(n, limit, 3.0, 10, seed),
        Load::moving(n, limit, 3.0, 1, seed),
        Load::moving(n, limit, 0.9, 10, seed),
        Load::on_and_off(n, limit, seed),
        Load::dying(n, limit, 3.0, seed),
        Load::dying(n, limit, 0.9, seed),
        Load::spread(n, limit, 12.0, seed).stopped(),
        Load::at_one(limit, 0.9, seed).stopped(),
    ]
}
