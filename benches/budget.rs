//! One budget over several instances, simulated: the product's own limiter and budget on a made-up clock, under the loads that
//! the scheme was chosen with. Prints what was admitted beside what one bucket would have, what was refused falsely, the
//! messages, and the bound with the share of it that was used.
//!
//! `cargo bench --bench budget`
#![forbid(unsafe_code)]

#[path = "../crates/limiter/tests/simulation/mod.rs"]
mod simulation;

use balancer_limiter::limit::{Limit, Rate};

use simulation::loads::{self, Load};
use simulation::{Carrier, Outcome, run};

/// Each load is run with these, and the worst counts.
const SEEDS: [u64; 3] = [1, 2, 3];

fn main() {
    let limit = Limit { capacity: 100, rate: Rate::per_second(50_000_000) };
    println!("C = 100, r = 50/s; messages take 8 ms; worst of {} runs of 60 s each", SEEDS.len());
    for instances in [2, 3, 10, 15] {
        println!("\n{instances} instances");
        println!(
            "| {:44} | {:>17} | {:>13} | {:>8} | {:>10} | {:>15} |",
            "load", "admitted/expected", "falsely, in %", "E, in C", "of bound", "messages/s each"
        );
        let loads = SEEDS.map(|seed| loads::all(instances, limit, seed));
        for at in 0..loads[0].len() {
            row(instances, limit, &loads.each_ref().map(|loads| &loads[at]));
        }
    }
}

fn row(instances: usize, limit: Limit, loads: &[&Load]) {
    let carrier = Carrier::default();
    let outcomes: Vec<Outcome> =
        loads.iter().zip(SEEDS).map(|(load, seed)| run(instances, limit, load, carrier, seed)).collect();
    let worst = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).fold(0.0, f64::max);
    let ratio = |outcome: &Outcome| outcome.admitted as f64 / outcome.ideal as f64;
    let (least, most) = outcomes
        .iter()
        .map(ratio)
        .fold((f64::MAX, 0.0_f64), |(least, most), ratio| (least.min(ratio), most.max(ratio)));
    let falsely = worst(|outcome| 100.0 * outcome.falsely as f64 / outcome.offered as f64);
    let excess = worst(|outcome| outcome.excess as f64);
    let bound = simulation::bound(instances, limit, loads[0].offered, carrier.delay);
    println!(
        "| {:44} | {:>8.3} to {:>5.3} | {:>13.1} | {:>8.2} | {:>9.0}% | {:>15.1} |",
        loads[0].name,
        least,
        most,
        falsely,
        excess / f64::from(limit.capacity),
        100.0 * excess / bound,
        worst(|outcome| outcome.messages) / instances as f64,
    );
}
