//! Fair under overload, simulated on the product's own line and bounds: `cargo bench --bench fair` prints two tables, each
//! the mean of five seeds. No clock and no thread. Run as a test it takes one seed and holds both to what they are for.
//!
//! Three backends share their work among all requests that they have, a client leaves after 10 s, `queue_timeout` is 5 s,
//! and an answer is good within 2 s. "Wasted" is backends' work for answers that came later, or to nobody.
//!
//! What it shows that nothing helps against: a greedy client with a name for each request is many modest ones. And where a
//! measured bound loses: below some twenty answers a second a backend it knows too little, and stays where it began.

#![forbid(unsafe_code)]

#[path = "fair/backend.rs"]
mod backend;
#[path = "fair/loads.rs"]
mod loads;
#[path = "fair/world.rs"]
mod world;

use backend::{AUTO, Bound};
use balancer_importance::Priority;
use balancer_pool::fair::Who;
use loads::{Change, Service, Source};
use world::{Line, World};

const SEEDS: [u64; 5] = [101, 102, 103, 104, 105];

/// The lines' table: backends of 4 places and 50 ms, for 30 s.
const PLACES: u32 = 4;
const MEAN_S: f64 = 0.05;
const LINES_S: f64 = 30.0;
/// Requests a second that all backends can answer.
const CAPACITY: f64 = 3.0 * PLACES as f64 / MEAN_S;

/// The bounds' table: backends of 8 processors and 20 ms, for 60 s.
const PROCESSORS: u32 = 8;
const QUICK_S: f64 = 0.02;
const BOUNDS_S: f64 = 60.0;

/// What a run came to; parts are of 1.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// Shown clients' requests that were answered in time.
    good: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Answers in time, all clients', as a part of what the backends can do.
    goodput: f64,
    wasted: f64,
    /// The bound before 20 s, before 40 s, at the end, and the greatest.
    bounds: [f64; 4],
}

fn row(world: &World, capacity: f64, seconds: f64) -> Row {
    let (mut offered, mut good, mut all_good, mut latencies) = (0, 0, 0, Vec::new());
    for (who, told) in &world.told {
        all_good += told.good;
        if world.is_shown(*who) {
            offered += told.offered;
            good += told.good;
            latencies.extend_from_slice(&told.latencies_s);
        }
    }
    latencies.sort_unstable_by(f64::total_cmp);
    let at =
        |part: f64| latencies.get((latencies.len() as f64 * part) as usize).map_or(f64::NAN, |s| s * 1e3);
    let done: f64 = world.backends.iter().map(|backend| backend.done_s).sum();
    let mean_between = |from_s: f64, to_s: f64| {
        let of = |(when, _): &&(f64, f64)| (from_s..to_s).contains(when);
        let found: Vec<f64> = world.bounds.iter().filter(of).map(|(_, bound)| *bound).collect();
        found.iter().sum::<f64>() / found.len().max(1) as f64
    };
    let greatest = world.bounds.iter().fold(0.0, |most: f64, (_, bound)| most.max(*bound));
    Row {
        good: f64::from(good) / f64::from(offered.max(1)),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        goodput: f64::from(all_good) / seconds / capacity,
        wasted: world.wasted_s / done.max(1e-9),
        bounds: [mean_between(15.0, 20.0), mean_between(33.0, 40.0), mean_between(53.0, 60.0), greatest],
    }
}

/// Means over the seeds, and the smallest `good`.
fn over_seeds(seeds: &[u64], run: impl Fn(u64) -> Row) -> (Row, f64) {
    let rows: Vec<Row> = seeds.iter().map(|seed| run(*seed)).collect();
    let mean = |of: fn(&Row) -> f64| rows.iter().map(of).sum::<f64>() / rows.len() as f64;
    let row = Row {
        good: mean(|row| row.good),
        p50_ms: mean(|row| row.p50_ms),
        p99_ms: mean(|row| row.p99_ms),
        goodput: mean(|row| row.goodput),
        wasted: mean(|row| row.wasted),
        bounds: [0, 1, 2, 3]
            .map(|at: usize| rows.iter().map(|row| row.bounds[at]).sum::<f64>() / rows.len() as f64),
    };
    (row, rows.iter().fold(1.0, |least: f64, row| least.min(row.good)))
}

const LOADS: [&str; 7] = [
    "nobody greedy",
    "greedy",
    "split over 50",
    "20 times as dear",
    "heavy tail",
    "a name for each request",
    "crowd in the background",
];

/// The first word is what the line is.
const LINES: [&str; 3] = ["fifo", "fair", "fair, no target"];

fn line_run(load: &str, line: &str, service: Service, seed: u64) -> Row {
    let line = if line == "fifo" { Line::fifo() } else { Line::fair(line == "fair") };
    let mut world = World::new(seed, f64::from(PLACES), line, Bound::Static(PLACES));
    let with = |source: Source| Source { service, ..source };
    match load {
        "greedy" => world.add(with(Source::new(100, 10.0 * CAPACITY, MEAN_S).hidden())),
        "split over 50" => {
            (100..150).for_each(|one| world.add(with(Source::new(one, CAPACITY / 5.0, MEAN_S).hidden())))
        }
        "20 times as dear" => world.add(with(Source::new(100, CAPACITY / 4.0, 20.0 * MEAN_S).hidden())),
        "a name for each request" => {
            let source = Source { made_up: true, ..Source::new(100, 10.0 * CAPACITY, MEAN_S) };
            world.add(with(source.hidden()));
        }
        "crowd in the background" => {
            for one in 100..2100 {
                let source = Source::new(one, CAPACITY / 200.0, MEAN_S).hidden();
                world.add(with(Source { priority: Priority::Background, ..source }));
            }
        }
        _ => {}
    }
    if load == "heavy tail" {
        // A thousand clients, the first of which asks for a thousand times what the last does; shown are the last 900.
        let parts: f64 = (1..=1000).map(|one| 1.0 / f64::from(one)).sum();
        for one in 1..=1000u32 {
            let source = with(Source::new(one.into(), 2.0 * CAPACITY / parts / f64::from(one), MEAN_S));
            world.add(Source { shown: one > 100, ..source });
        }
    } else {
        // Twenty modest ones; the first row is what they do when all the rest of the capacity is theirs too.
        let rate = match load {
            "nobody greedy" => CAPACITY / 20.0,
            "20 times as dear" => 8.0,
            _ => 3.0,
        };
        let priority = if load == "crowd in the background" { Priority::Critical } else { Priority::Normal };
        (0..20).for_each(|one| world.add(with(Source { priority, ..Source::new(one, rate, MEAN_S) })));
    }
    world.run(LINES_S);
    row(&world, CAPACITY, LINES_S)
}

/// What parts of the answers in time clients of weight 1, 2 and 4 get under twice the load each.
fn weights(seed: u64) -> [f64; 3] {
    let mut world = World::new(seed, f64::from(PLACES), Line::fair(true), Bound::Static(PLACES));
    let weights = [1u32, 2, 4];
    for (client, weight) in (0..).zip(weights) {
        world.add(Source { weight, ..Source::new(client, 2.0 * CAPACITY, MEAN_S) });
    }
    world.run(LINES_S);
    let good = weights.map(|weight| {
        let client = u64::from(weight.trailing_zeros());
        f64::from(world.told[&Who { client, priority: Priority::Normal }].good)
    });
    good.map(|one| one / good.iter().sum::<f64>() * 7.0)
}

/// The parts of each priority's requests that are answered in time: 0.6 of the capacity is asked for in each.
fn priorities(seed: u64) -> [f64; 3] {
    let mut world = World::new(seed, f64::from(PLACES), Line::fair(true), Bound::Static(PLACES));
    for (level, priority) in (0..).zip(Priority::ALL) {
        for client in 0..20 {
            world
                .add(Source { priority, ..Source::new(100 * level + client, 0.6 * CAPACITY / 20.0, MEAN_S) });
        }
    }
    world.run(LINES_S);
    Priority::ALL.map(|priority| {
        let of = world.told.iter().filter(|(who, _)| who.priority == priority).map(|(_, told)| told);
        let (good, offered) =
            of.fold((0, 0), |(good, offered), told| (good + told.good, offered + told.offered));
        f64::from(good) / f64::from(offered)
    })
}

const CASES: [&str; 9] =
    ["over", "fine", "halves", "slower", "slow URL", "long polls", "cold", "20 a second", "5 a second"];

const BOUNDS: [(&str, Bound); 3] =
    [("none", Bound::None), ("8", Bound::Static(PROCESSORS)), ("auto", Bound::Auto)];

fn bound_run(case: &str, bound: Bound, service: Service, seed: u64) -> Row {
    let processors = f64::from(PROCESSORS);
    let mean_s = match case {
        "5 a second" => processors / 5.0,
        "20 a second" => processors / 20.0,
        _ => QUICK_S,
    };
    let capacity = 3.0 * processors / mean_s;
    let mut world = World::new(seed, processors, Line::fair(true), bound);
    let load = match case {
        "over" | "5 a second" | "20 a second" => 2.0,
        "halves" | "slower" => 1.3,
        "slow URL" => 0.56,
        _ => 0.7,
    };
    for client in 0..20 {
        world.add(Source { service, ..Source::new(client, load * capacity / 20.0, mean_s) });
    }
    let mut change = |at_s, processors, speed| world.change(Change { at_s, processors, speed });
    match case {
        "halves" => {
            [(20.0, 0.5), (40.0, 1.0)].into_iter().for_each(|(at, part)| change(at, part * processors, 1.0))
        }
        "slower" => {
            [(20.0, 0.5), (40.0, 1.0)].into_iter().for_each(|(at, speed)| change(at, processors, speed))
        }
        "cold" => [(0.0, 0.1), (5.0, 1.0)].into_iter().for_each(|(at, speed)| change(at, processors, speed)),
        "slow URL" => {
            let source =
                Source { service, hold_s: 0.5, from_s: 20.0, ..Source::new(100, 0.14 * capacity, mean_s) };
            world.add(source.hidden());
        }
        "long polls" => (100..400).for_each(|client| {
            let source = Source { hold_s: 20.0, from_s: 10.0, ..Source::new(client, 0.05, 0.001) };
            world.add(source.hidden());
        }),
        _ => {}
    }
    world.run(BOUNDS_S);
    row(&world, capacity, BOUNDS_S)
}

fn print_lines(service: Service) {
    println!("\n## The line, service times {service:?}\n");
    println!(
        "| load | line | modest answered in 2 s, % (worst of 5) | p50, ms | p99, ms | goodput, % of capacity | wasted, % |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|");
    for load in LOADS {
        for line in LINES {
            let (row, worst) = over_seeds(&SEEDS, |seed| line_run(load, line, service, seed));
            let Row { good, p50_ms, p99_ms, goodput, wasted, .. } = row;
            println!(
                "| {load} | {line} | {:.1} ({:.1}) | {p50_ms:.0} | {p99_ms:.0} | {:.1} | {:.1} |",
                100.0 * good,
                100.0 * worst,
                100.0 * goodput,
                100.0 * wasted
            );
        }
    }
}

fn print_bounds(service: Service) {
    println!("\n## The bound, service times {service:?}\n");
    println!(
        "| case | bound | answered in 2 s, % (worst of 5) | p50, ms | p99, ms | goodput, % of capacity | wasted, % | bound at 20, 40, 60 s, greatest |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    for case in CASES {
        for (name, bound) in BOUNDS {
            let (row, worst) = over_seeds(&SEEDS, |seed| bound_run(case, bound, service, seed));
            let Row { good, p50_ms, p99_ms, goodput, wasted, bounds } = row;
            let bounds = if name == "auto" {
                bounds.map(|bound| format!("{bound:.0}")).join(", ")
            } else {
                String::new()
            };
            println!(
                "| {case} | {name} | {:.1} ({:.1}) | {p50_ms:.0} | {p99_ms:.0} | {:.1} | {:.1} | {bounds} |",
                100.0 * good,
                100.0 * worst,
                100.0 * goodput,
                100.0 * wasted
            );
        }
    }
}

fn print_tables() {
    for service in [Service::Exponential, Service::Constant, Service::HeavyTail] {
        print_lines(service);
    }
    println!(
        "\nWeights 1, 2, 4 under six times the load, parts of seven; critical, normal, background of 0.6 each, answered:\n"
    );
    for seed in SEEDS {
        println!("    {:.2?}  {:.3?}", weights(seed), priorities(seed));
    }
    for service in [Service::Exponential, Service::Constant, Service::HeavyTail] {
        print_bounds(service);
    }
}

/// What both are for, with one seed.
fn check() {
    let line = |load, line| line_run(load, line, Service::Exponential, 7);
    for (load, least, times) in
        [("greedy", 0.97, 5.0), ("split over 50", 0.7, 10.0), ("20 times as dear", 0.9, 5.0)]
    {
        let (fair, fifo) = (line(load, "fair"), line(load, "fifo"));
        assert!(fair.good >= least && fair.good >= times * fifo.good, "{load}: {fair:?} {fifo:?}");
    }
    let crowd = line("crowd in the background", "fair");
    assert!(crowd.good >= 0.9, "{crowd:?}");
    let (alone, greedy) = (line("nobody greedy", "fair"), line("greedy", "fair"));
    assert!(greedy.goodput >= 0.9 * alone.goodput, "{greedy:?} {alone:?}");
    let parts = weights(7);
    assert!(
        parts.iter().zip([1.0, 2.0, 4.0]).all(|(part, due)| (part / due - 1.0).abs() <= 0.15),
        "{parts:?}"
    );
    let [critical, _, background] = priorities(7);
    assert!(critical >= 0.97 && background >= 0.02, "{critical} {background}");
    let bound = |case, at: usize| bound_run(case, BOUNDS[at].1, Service::Exponential, 7);
    let (none, eight, auto) = (bound("over", 0), bound("over", 1), bound("over", 2));
    assert!(
        auto.goodput >= 0.93 * eight.goodput && auto.goodput >= 3.0 * none.goodput,
        "{auto:?} {eight:?} {none:?}"
    );
    for case in ["slow URL", "long polls"] {
        let (none, auto) = (bound(case, 0), bound(case, 2));
        assert!(auto.good >= 0.97 * none.good, "{case}: {auto:?} {none:?}");
    }
    let few = bound("5 a second", 2).bounds;
    assert!(few[3] <= f64::from(AUTO.start), "{few:?}");
}

fn main() {
    // `cargo bench` says so; `cargo test` does not.
    if std::env::args().any(|arg| arg == "--bench") { print_tables() } else { check() }
}
