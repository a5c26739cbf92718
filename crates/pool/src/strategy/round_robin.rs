//! Smooth weighted round robin, as in nginx (`ngx_http_upstream_round_robin.c`): each pick adds every candidate's
//! weight to its turn, picks the candidate with the highest turn, and subtracts the sum of all weights from that
//! turn. Weights 5, 1, 1 give `a a b a c a a`, and not five `a` in a row.

use super::{Candidate, Draw};

/// See [`super::Strategy::pick`]. Needs neither random bits nor a key.
pub(super) fn pick(candidates: &mut [Candidate], _draw: Draw) -> Option<usize> {
    match candidates {
        [] => None,
        // A single candidate would gain and lose the same, so its turn stays.
        [_] => Some(0),
        many => {
            let mut total = 0;
            let mut winner = 0;
            for index in 0..many.len() {
                let weight = i64::from(many[index].weight);
                total += weight;
                many[index].turn = many[index].turn.saturating_add(weight);
                if many[index].turn > many[winner].turn {
                    winner = index;
                }
            }
            many[winner].turn = many[winner].turn.saturating_sub(total);
            Some(winner)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        weights.iter().map(|weight| Candidate { weight: *weight, ..Candidate::default() }).collect()
    }

    fn pick(candidates: &mut [Candidate], random: u64) -> Option<usize> {
        super::pick(candidates, Draw { random, key: 0 })
    }

    #[test]
    fn picks_are_spread_and_not_in_a_row() {
        let table: &[(&[u32], &str)] =
            &[(&[1], "aaa"), (&[1, 1], "abab"), (&[5, 1, 1], "aabacaaaabacaa"), (&[2, 1], "abaaba")];
        for (weights, order) in table {
            let mut pool = candidates(weights);
            let picked: String = (0..order.len())
                .map(|_| char::from(b'a' + u8::try_from(pick(&mut pool, 0).unwrap()).unwrap()))
                .collect();
            assert_eq!(picked, *order, "{weights:?}");
        }
        assert_eq!(pick(&mut [], 0), None);
    }

    #[test]
    fn one_that_was_left_out_for_a_while_does_not_catch_up_all_at_once() {
        let mut pool = candidates(&[1, 1]);
        for _ in 0..1_000 {
            assert_eq!(pick(&mut pool[..1], 0), Some(0));
        }
        let next: Vec<_> = (0..4).filter_map(|_| pick(&mut pool, 0)).collect();
        assert_eq!(next, [0, 1, 0, 1]);
    }

    proptest! {
        /// In as many picks as the sum of the weights, each candidate is picked exactly as often as its weight says.
        #[test]
        fn every_round_is_exact(weights in prop::collection::vec(1u32..=50, 1..12)) {
            let mut pool = candidates(&weights);
            let round: u32 = weights.iter().sum();
            for _ in 0..3 {
                let mut picks = vec![0; weights.len()];
                for _ in 0..round {
                    picks[pick(&mut pool, 0).unwrap()] += 1;
                }
                prop_assert_eq!(&picks, &weights);
            }
        }

        #[test]
        fn ten_thousand_picks_are_within_one_percent(weights in prop::collection::vec(1u32..=1000, 2..10)) {
            let mut pool = candidates(&weights);
            let mut picks = vec![0u32; weights.len()];
            for _ in 0..10_000 {
                picks[pick(&mut pool, 0).unwrap()] += 1;
            }
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (count, weight) in picks.iter().zip(&weights) {
                let off = f64::from(*count) / 10_000.0 - f64::from(*weight) / total;
                prop_assert!(off.abs() < 0.01, "{picks:?} for {weights:?}");
            }
        }

        /// However candidates come and go, turns stay bounded, so that none is picked too often or never.
        #[test]
        fn turns_stay_bounded_while_candidates_come_and_go(
            weights in prop::collection::vec(1u32..=1000, 2..6),
            present in prop::collection::vec(any::<u8>(), 0..500),
        ) {
            let mut pool = candidates(&weights);
            let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
            for mask in present {
                let here: Vec<usize> = (0..pool.len()).filter(|index| mask >> index & 1 == 1).collect();
                let mut some: Vec<Candidate> = here.iter().map(|index| pool[*index]).collect();
                pick(&mut some, 0);
                for (index, one) in here.iter().zip(some) {
                    pool[*index] = one;
                }
                prop_assert_eq!(pool.iter().map(|one| one.turn).sum::<i64>(), 0);
                prop_assert!(pool.iter().all(|one| one.turn.abs() <= total * pool.len() as i64), "{:?}", pool);
            }
        }
    }
}
