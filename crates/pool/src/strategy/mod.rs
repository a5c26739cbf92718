//! Which of several endpoints gets the next request. One small file a strategy, the same verb in each:
//! `pick(candidates, draw) → index`. Who may be picked at all is decided before (`backends`).

mod first;
mod hash;
mod least_connections;
mod peak_ewma;
mod random_two;
mod round_robin;
mod weighted;

pub use hash::{HashOn, cookie, cookies, key_of};
pub use peak_ewma::{FAILURE_COUNTS_AS, Latency};
pub use weighted::warming_weight;

/// What a strategy sees of an endpoint that may be picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Where the caller finds the endpoint again: its place in the order of the configuration.
    pub position: u32,
    /// Share relative to the others, at least 1. (Weight 0 is no candidate.)
    pub weight: u32,
    /// Requests on it now.
    pub in_flight: u32,
    /// What round robin remembers of this endpoint between two picks; starts at 0, and no other strategy touches it.
    pub turn: i64,
    /// What `hash` knows it by: the same in every process, and other than everybody else's.
    pub identity: u64,
    /// What `peak_ewma` expects of it, in nanoseconds; 0: nothing is known yet.
    pub latency_ns: u64,
}

/// What a pick is made with, beside the candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// 64 fresh random bits.
    pub random: u64,
    /// [`key_of`] what the request is hashed on.
    pub key: u64,
}

/// How one is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The fewest requests in flight per weight; ties at random, by weight.
    LeastConnections,
    /// Smooth weighted round robin.
    RoundRobin,
    /// The less loaded of two that are drawn by weight.
    RandomTwo,
    /// Of two that are drawn by weight, the one with the lower latency times requests in flight.
    PeakEwma,
    /// Rendezvous hashing with bounded load: the same key to the same endpoint while that is not overloaded.
    Hash,
    /// The first in the order of the configuration.
    First,
}

impl Strategy {
    /// Each with its name in the configuration.
    pub const ALL: [(&'static str, Self); 6] = [
        ("least_connections", Self::LeastConnections),
        ("round_robin", Self::RoundRobin),
        ("random_two", Self::RandomTwo),
        ("peak_ewma", Self::PeakEwma),
        ("hash", Self::Hash),
        ("first", Self::First),
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, one)| *one == self).map_or("", |(name, _)| name)
    }

    /// The index of the one to use; `None` exactly when there are no candidates. Candidates may come back with another
    /// `turn`, which the caller keeps for the next pick.
    pub fn pick(self, candidates: &mut [Candidate], draw: Draw) -> Option<usize> {
        match self {
            Self::LeastConnections => least_connections::pick(candidates, draw),
            Self::RoundRobin => round_robin::pick(candidates, draw),
            Self::RandomTwo => random_two::pick(candidates, draw),
            Self::PeakEwma => peak_ewma::pick(candidates, draw),
            Self::Hash => hash::pick(candidates, draw),
            Self::First => first::pick(candidates, draw),
        }
    }

    /// Whether picks change `turn`, so that two of them must not run at once.
    pub const fn keeps_turns(self) -> bool {
        matches!(self, Self::RoundRobin)
    }

    /// Whether picks look at `latency_ns`.
    pub const fn needs_latency(self) -> bool {
        matches!(self, Self::PeakEwma)
    }
}

/// `a.in_flight / a.weight < b.in_flight / b.weight`, exactly: both products fit 64 bits.
fn less_loaded(a: Candidate, b: Candidate) -> bool {
    u64::from(a.in_flight) * u64::from(b.weight) < u64::from(b.in_flight) * u64::from(a.weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_picks_the_only_one_and_nobody_of_none() {
        for (name, strategy) in Strategy::ALL {
            assert_eq!(strategy.name(), name);
            for random in [0, 1, u64::MAX] {
                let draw = Draw { random, key: random };
                assert_eq!(strategy.pick(&mut [], draw), None, "{name}");
                let only = Candidate { weight: 1, in_flight: u32::MAX, ..Candidate::default() };
                assert_eq!(strategy.pick(&mut [only], draw), Some(0), "{name}");
            }
        }
    }
}
