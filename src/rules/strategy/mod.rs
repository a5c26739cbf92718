//! Which of several endpoints gets the next request. One small file a strategy, the same verb in each:
//! `pick(candidates, random) → index`. Who may be picked at all is decided before (`state::backends`).

mod least_connections;
mod round_robin;

/// What a strategy sees of an endpoint that may be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where the caller finds the endpoint again; no strategy looks at it.
    pub position: u32,
    /// Share relative to the others, at least 1. (Weight 0 is no candidate.)
    pub weight: u32,
    /// Requests on it now.
    pub in_flight: u32,
    /// What round robin remembers of this endpoint between two picks; starts at 0, and no other strategy touches it.
    pub turn: i64,
}

/// How one is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The fewest requests in flight per weight; ties at random, by weight.
    LeastConnections,
    /// Smooth weighted round robin.
    RoundRobin,
}

impl Strategy {
    /// The index of the one to use; `None` exactly when there are no candidates. `random` is 64 fresh random bits.
    /// Candidates may come back with another `turn`, which the caller keeps for the next pick.
    pub fn pick(self, candidates: &mut [Candidate], random: u64) -> Option<usize> {
        match self {
            Self::LeastConnections => least_connections::pick(candidates, random),
            Self::RoundRobin => round_robin::pick(candidates, random),
        }
    }

    /// Whether picks change `turn`, so that two of them must not run at once.
    pub const fn keeps_turns(self) -> bool {
        match self {
            Self::LeastConnections => false,
            Self::RoundRobin => true,
        }
    }
}
