//! Picks the endpoint with the fewest requests in flight per weight. Of several such endpoints it picks one at
//! random, by weight, so that a pool that is mostly idle is used in proportion to the weights.

use super::{Candidate, Draw, less_loaded, weighted};

/// See [`super::Strategy::pick`]. Does not change turns.
pub(super) fn pick(candidates: &mut [Candidate], draw: Draw) -> Option<usize> {
    match candidates {
        [] => None,
        [_] => Some(0),
        many => {
            let least = many.iter().copied().reduce(|a, b| if less_loaded(b, a) { b } else { a })?;
            weighted::draw(many, draw.random, |_, one| !less_loaded(least, one))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pick(candidates: &mut [Candidate], random: u64) -> Option<usize> {
        super::pick(candidates, Draw { random, key: 0 })
    }

    /// Weight and requests in flight of each.
    type Load = [(u32, u32)];

    fn candidates(load: &Load) -> Vec<Candidate> {
        load.iter()
            .map(|(weight, in_flight)| Candidate {
                weight: *weight,
                in_flight: *in_flight,
                ..Candidate::default()
            })
            .collect()
    }

    #[test]
    fn the_least_loaded_per_weight_wins() {
        // Loads, and which one wins whatever the random bits are.
        let table: &[(&Load, Option<usize>)] = &[
            (&[], None),
            (&[(1, 9)], Some(0)),
            (&[(1, 2), (1, 1)], Some(1)),
            (&[(1, 1), (1, 2)], Some(0)),
            (&[(3, 2), (1, 1)], Some(0)),
            (&[(3, 4), (1, 1)], Some(1)),
            (&[(1000, 999), (1, 1), (1, 2)], Some(0)),
            (&[(1, u32::MAX), (u32::MAX, u32::MAX)], Some(1)),
        ];
        for (load, winner) in table {
            for random in [0, 1, u64::MAX / 2, u64::MAX] {
                assert_eq!(pick(&mut candidates(load), random), *winner, "{load:?}");
            }
        }
    }

    #[test]
    fn ties_are_drawn_by_weight() {
        // Weights 3 and 1 are tied at no load, the third is busier: four draws in a row cover the tie once.
        let mut pool = candidates(&[(3, 0), (1, 0), (5, 1)]);
        let drawn: Vec<_> = (0..4).map(|random| pick(&mut pool, random)).collect();
        assert_eq!(drawn, [Some(0), Some(0), Some(0), Some(1)]);
    }

    #[test]
    fn shares_of_an_idle_pool_are_those_of_the_weights() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut pool = candidates(&[(1, 0), (2, 0), (5, 0)]);
        let mut picks = [0u32; 3];
        for _ in 0..100_000 {
            picks[pick(&mut pool, random.u64(..)).unwrap()] += 1;
        }
        for (count, share) in picks.iter().zip([0.125, 0.25, 0.625]) {
            assert!((f64::from(*count) / 100_000.0 - share).abs() < 0.01, "{picks:?}");
        }
    }

    proptest! {
        /// Requests that stay in flight are spread by weight: no endpoint ever has more than one request above its
        /// share.
        #[test]
        fn held_requests_spread_by_weight(
            weights in prop::collection::vec(1u32..=100, 1..12),
            seed in any::<u64>(),
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut pool = candidates(&weights.iter().map(|weight| (*weight, 0)).collect::<Vec<_>>());
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for held in 1..=2_000u64 {
                let winner = pick(&mut pool, random.u64(..)).unwrap();
                pool[winner].in_flight += 1;
                for one in &pool {
                    // The load is at most the ideal one plus 1; both sides are multiplied by the total weight.
                    let ahead = u64::from(one.in_flight) * total;
                    prop_assert!(ahead <= held * u64::from(one.weight) + total + u64::from(one.weight));
                }
            }
        }
    }
}
