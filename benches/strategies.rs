//! What each balancing strategy does to the same load, simulated: `cargo bench --bench strategies` prints a table for
//! docs/measuring.md. No clock and no thread: arrivals, service times and draws come from fixed seeds, so that two runs and two
//! machines agree. Run as a test it takes a shorter load and holds the strategies to what they are for.
//!
//! A backend serves so many requests at once and queues the rest, first come, first served. Service times are exponential;
//! what a slow backend does, it does so many times slower.

#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use balancer_pool::backend::WHOLE;
use balancer_pool::strategy::{Candidate, Draw, Latency, Strategy, key_of, warming_weight};

const SECOND: u64 = 1_000_000_000;
/// Mean service time of a backend of speed 1.
const SERVICE_NS: f64 = 10e6;
/// Requests that a backend serves at once.
const SLOTS: usize = 8;
const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];

/// One backend of a scenario.
#[derive(Clone, Copy)]
struct Kind {
    speed: f64,
    /// When it comes, as a share of the load.
    joins_at: f64,
    /// So much slower it is in its first five seconds after it came.
    cold: f64,
    slow_start: u64,
}

const PLAIN: Kind = Kind { speed: 1.0, joins_at: 0.0, cold: 1.0, slow_start: 0 };
const NEW: Kind = Kind { joins_at: 0.3, cold: 8.0, ..PLAIN };
/// How long a newcomer is cold, and how long its slow start is.
const COLD: u64 = 5 * SECOND;

struct Scenario {
    name: &'static str,
    kinds: [Kind; 4],
    /// Arrivals, as a share of what all together can serve.
    load: f64,
}

const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "four alike", kinds: [PLAIN; 4], load: 0.7 },
    Scenario {
        name: "speeds 1, 1, 2, 4",
        kinds: [PLAIN, PLAIN, Kind { speed: 2.0, ..PLAIN }, Kind { speed: 4.0, ..PLAIN }],
        load: 0.7,
    },
    Scenario {
        name: "one ten times slower",
        kinds: [Kind { speed: 0.1, ..PLAIN }, PLAIN, PLAIN, PLAIN],
        load: 0.7,
    },
    Scenario { name: "one joins, cold", kinds: [NEW, PLAIN, PLAIN, PLAIN], load: 0.6 },
    Scenario {
        name: "the same with slow_start",
        kinds: [Kind { slow_start: COLD, ..NEW }, PLAIN, PLAIN, PLAIN],
        load: 0.6,
    },
];

struct Server {
    kind: Kind,
    since: u64,
    busy: usize,
    /// When each waiting request came.
    queue: VecDeque<u64>,
    pace: Latency,
    turn: i64,
    served: u64,
}

/// What became of one run.
struct Outcome {
    latencies_ns: Vec<u64>,
    /// Requests for each backend.
    served: Vec<u64>,
}

struct Simulation {
    strategy: Strategy,
    servers: Vec<Server>,
    random: fastrand::Rng,
    /// (when, backend, when it came).
    ends: BinaryHeap<Reverse<(u64, usize, u64)>>,
    latencies_ns: Vec<u64>,
}

impl Simulation {
    fn run(strategy: Strategy, scenario: &Scenario, requests: usize, seed: u64) -> Outcome {
        let speed: f64 = scenario.kinds.iter().map(|kind| kind.speed).sum();
        let mean_gap_ns = SERVICE_NS / (speed * SLOTS as f64 * scenario.load);
        let length = requests as f64 * mean_gap_ns;
        let servers = scenario.kinds.iter().map(|kind| Server {
            kind: *kind,
            since: (kind.joins_at * length) as u64,
            busy: 0,
            queue: VecDeque::new(),
            pace: Latency::default(),
            turn: 0,
            served: 0,
        });
        let mut simulation = Self {
            strategy,
            servers: servers.collect(),
            random: fastrand::Rng::with_seed(seed),
            ends: BinaryHeap::new(),
            latencies_ns: Vec::with_capacity(requests),
        };
        let mut now = 0;
        for _ in 0..requests {
            now += simulation.exponential(mean_gap_ns);
            simulation.finish_until(now);
            simulation.arrive(now);
        }
        simulation.finish_until(u64::MAX);
        let served = simulation.servers.iter().map(|server| server.served).collect();
        Outcome { latencies_ns: simulation.latencies_ns, served }
    }

    fn exponential(&mut self, mean: f64) -> u64 {
        (-mean * (1.0 - self.random.f64()).ln()) as u64
    }

    fn arrive(&mut self, now: u64) {
        let mut candidates: Vec<Candidate> = (0u32..)
            .zip(&self.servers)
            .filter(|(_, server)| server.since <= now)
            .map(|(position, server)| {
                let in_flight = u32::try_from(server.busy + server.queue.len()).expect("few");
                let up_for = if server.kind.joins_at > 0.0 { now - server.since } else { u64::MAX };
                Candidate {
                    position,
                    weight: warming_weight(WHOLE, up_for, server.kind.slow_start),
                    in_flight,
                    turn: server.turn,
                    identity: u64::from(position),
                    latency_ns: server.pace.expected_ns(in_flight, now + SECOND),
                }
            })
            .collect();
        // One in two requests is for one of twenty popular keys.
        let key = if self.random.bool() { self.random.u64(..20) } else { self.random.u64(..) };
        let draw = Draw { random: self.random.u64(..), key: key_of(&key.to_le_bytes()) };
        let index = self.strategy.pick(&mut candidates, draw).expect("somebody is there");
        for candidate in &candidates {
            self.servers[candidate.position as usize].turn = candidate.turn;
        }
        let chosen = candidates[index].position as usize;
        self.servers[chosen].served += 1;
        if self.servers[chosen].busy < SLOTS {
            self.begin(chosen, now, now);
        } else {
            self.servers[chosen].queue.push_back(now);
        }
    }

    fn begin(&mut self, at: usize, came: u64, now: u64) {
        let server = &mut self.servers[at];
        server.busy += 1;
        let is_cold = server.kind.joins_at > 0.0 && now < server.since + COLD;
        let slower = if is_cold { server.kind.cold } else { 1.0 };
        let mean = SERVICE_NS / server.kind.speed * slower;
        let end = now + self.exponential(mean);
        self.ends.push(Reverse((end, at, came)));
    }

    fn finish_until(&mut self, now: u64) {
        while let Some(Reverse((end, at, came))) = self.ends.peek().copied() {
            if end > now {
                return;
            }
            self.ends.pop();
            let latency = end - came;
            self.latencies_ns.push(latency);
            let server = &mut self.servers[at];
            server.busy -= 1;
            server.pace = server.pace.observe(latency, end + SECOND);
            if let Some(came) = server.queue.pop_front() {
                self.begin(at, came, end);
            }
        }
    }
}

/// One line of the table, over all seeds; shares in percent.
struct Row {
    mean_ms: f64,
    p99_ms: f64,
    shares: Vec<f64>,
}

fn row(strategy: Strategy, scenario: &Scenario, requests: usize) -> Row {
    let mut latencies = Vec::new();
    let mut served = vec![0u64; scenario.kinds.len()];
    for seed in SEEDS {
        let outcome = Simulation::run(strategy, scenario, requests, seed);
        latencies.extend(outcome.latencies_ns);
        served.iter_mut().zip(outcome.served).for_each(|(all, one)| *all += one);
    }
    latencies.sort_unstable();
    let total = latencies.len();
    let mean = latencies.iter().map(|ns| *ns as f64).sum::<f64>() / total as f64;
    Row {
        mean_ms: mean / 1e6,
        p99_ms: latencies[total * 99 / 100] as f64 / 1e6,
        shares: served.iter().map(|one| 100.0 * *one as f64 / total as f64).collect(),
    }
}

fn print_table(requests: usize) {
    println!("| load | strategy | share of each backend, % | mean, ms | p99, ms |");
    println!("|---|---|---|---:|---:|");
    for scenario in &SCENARIOS {
        for (name, strategy) in Strategy::ALL.into_iter().filter(|(_, one)| *one != Strategy::First) {
            let row = row(strategy, scenario, requests);
            let shares: Vec<String> = row.shares.iter().map(|share| format!("{share:.0}")).collect();
            let (mean, p99) = (row.mean_ms, row.p99_ms);
            println!("| {} | `{name}` | {} | {mean:.1} | {p99:.0} |", scenario.name, shares.join(" / "));
        }
    }
}

/// What the strategies are for, on a shorter load.
fn check(requests: usize) {
    let p99 = |strategy, scenario: usize| row(strategy, &SCENARIOS[scenario], requests).p99_ms;
    let blind = p99(Strategy::RoundRobin, 2);
    for strategy in [Strategy::LeastConnections, Strategy::RandomTwo, Strategy::PeakEwma, Strategy::Hash] {
        let found = p99(strategy, 2);
        assert!(found < blind / 4.0, "{strategy:?} with one slow backend: p99 {found} ms, blind {blind} ms");
    }
    for strategy in [Strategy::RoundRobin, Strategy::RandomTwo] {
        let (cold, warmed) = (p99(strategy, 3), p99(strategy, 4));
        assert!(warmed < cold, "{strategy:?}: slow_start makes p99 {warmed} ms out of {cold} ms");
    }
    for (_, strategy) in Strategy::ALL.into_iter().filter(|(_, one)| *one != Strategy::First) {
        let shares = row(strategy, &SCENARIOS[0], requests).shares;
        assert!(shares.iter().all(|share| (20.0..=30.0).contains(share)), "{strategy:?}: {shares:?}");
    }
}

fn main() {
    // `cargo bench` says so; `cargo test` does not.
    if std::env::args().any(|arg| arg == "--bench") {
        print_table(60_000);
    } else {
        check(20_000);
    }
}
