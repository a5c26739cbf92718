//! The power of two choices (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001): draws two
//! endpoints by weight, and picks the one with fewer requests in flight per weight. So several balancers that know
//! nothing of each other do not all pick the same endpoint, as they would with the least loaded of all.

use super::{Candidate, Draw, less_loaded, weighted};

/// See [`super::Strategy::pick`]. If both have the same load, the first one drawn wins, so that an idle pool is used
/// by weight.
pub(super) fn pick(candidates: &mut [Candidate], draw: Draw) -> Option<usize> {
    match candidates {
        [] => None,
        [_] => Some(0),
        many => {
            let (one, two) = weighted::draw_two(many, draw.random)?;
            Some(if less_loaded(many[two], many[one]) { two } else { one })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_idle_pool_is_used_by_weight() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut pool = [1, 2, 5].map(|weight| Candidate { weight, ..Candidate::default() });
        let mut picks = [0u32; 3];
        for _ in 0..100_000 {
            picks[pick(&mut pool, Draw { random: random.u64(..), key: 0 }).unwrap()] += 1;
        }
        for (count, share) in picks.iter().zip([0.125, 0.25, 0.625]) {
            assert!((f64::from(*count) / 100_000.0 - share).abs() < 0.01, "{picks:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// An endpoint with more requests per weight than all others is not picked; so one that hangs gets no more
        /// requests.
        #[test]
        fn the_most_loaded_is_never_picked(
            pool in prop::collection::vec((1u32..1000, 0u32..1000), 2..20),
            random in any::<u64>(),
        ) {
            let mut pool: Vec<_> = pool
                .into_iter()
                .map(|(weight, in_flight)| Candidate { weight, in_flight, ..Candidate::default() })
                .collect();
            let winner = pick(&mut pool, Draw { random, key: 0 }).unwrap();
            let others = || pool.iter().enumerate().filter(|(index, _)| *index != winner);
            prop_assert!(!others().all(|(_, one)| less_loaded(*one, pool[winner])), "{pool:?} {winner}");
        }

        /// Requests that stay in flight are spread far better than by chance alone.
        #[test]
        fn held_requests_spread(count in 2usize..20, seed in any::<u64>()) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut pool = vec![Candidate { weight: 1, ..Candidate::default() }; count];
            for _ in 0..count * 200 {
                let winner = pick(&mut pool, Draw { random: random.u64(..), key: 0 }).unwrap();
                pool[winner].in_flight += 1;
            }
            // With high probability the most are ln ln n / ln 2 above the mean; by chance alone they would be about
            // 40 above.
            let most = pool.iter().map(|one| one.in_flight).max().unwrap();
            prop_assert!(most <= 200 + 8, "{pool:?}");
        }
    }
}
