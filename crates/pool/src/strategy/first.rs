//! Picks the first endpoint in the order of the configuration. Others are used only when it is full or gone.

use super::{Candidate, Draw};

/// See [`super::Strategy::pick`]. Needs neither random bits nor a key.
pub(super) fn pick(candidates: &mut [Candidate], _draw: Draw) -> Option<usize> {
    let first = candidates.iter().enumerate().min_by_key(|(_, one)| one.position)?;
    Some(first.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// No candidate comes before the picked one, whatever the load.
        #[test]
        fn nobody_stands_before_it(
            pool in prop::collection::vec((any::<u32>(), 1u32..1000, any::<u32>()), 1..20),
            random in any::<u64>(),
        ) {
            let mut pool: Vec<_> = pool
                .into_iter()
                .map(|(position, weight, in_flight)| Candidate {
                    position, weight, in_flight, ..Candidate::default()
                })
                .collect();
            let winner = pick(&mut pool, Draw { random, key: 0 }).unwrap();
            prop_assert!(pool.iter().all(|one| pool[winner].position <= one.position));
        }
    }
}
