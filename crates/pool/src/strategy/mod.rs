//! Strategies: which of several endpoints gets the next request. Each has a file of its own with the same function,
//! `pick(candidates, draw) → index`. [`crate::backends`] decides before which endpoints are candidates.

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
    /// Its place in the order of the configuration, by which the caller finds the endpoint again.
    pub position: u32,
    /// Its share relative to the others, at least 1. (An endpoint of weight 0 is no candidate.)
    pub weight: u32,
    /// Its requests in flight.
    pub in_flight: u32,
    /// What round robin remembers of the endpoint between two picks; 0 at first. No other strategy touches it.
    pub turn: i64,
    /// For `hash`: a number that is the same in every process, and different for every endpoint.
    pub identity: u64,
    /// For `peak_ewma`: the expected latency in nanoseconds; 0: not known yet.
    pub latency_ns: u64,
}

/// What a pick needs beside the candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// 64 fresh random bits.
    pub random: u64,
    /// The key of the request, as [`key_of`] makes it.
    pub key: u64,
}

/// A way to pick one of several endpoints.
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
    /// Rendezvous hashing with bounded load: the same key goes to the same endpoint, while that is not overloaded.
    Hash,
    /// The first in the order of the configuration.
    First,
}

impl Strategy {
    /// All strategies, each with its name in the configuration.
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

    /// The index of the candidate to use; `None` if and only if there are no candidates. May change the `turn` of
    /// candidates, which the caller has to keep for the next pick.
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

    /// Whether picks change `turn`, so that two picks must not run at once.
    pub const fn keeps_turns(self) -> bool {
        matches!(self, Self::RoundRobin)
    }

    /// Whether picks look at `latency_ns`.
    pub const fn needs_latency(self) -> bool {
        matches!(self, Self::PeakEwma)
    }
}

/// Whether `a.in_flight / a.weight < b.in_flight / b.weight`, exactly: both products fit into 64 bits.
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
            assert_eq!(strategy.keeps_turns(), name == "round_robin");
            assert_eq!(strategy.needs_latency(), name == "peak_ewma");
        }
    }
}
