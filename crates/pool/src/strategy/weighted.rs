//! Weights: how the share of an endpoint that has just come up grows, and drawing at random by weight, which several
//! strategies do.

use super::Candidate;
use balancer_time::Nanos;

/// The weight of an endpoint that has just come up, in percent of its full weight.
const COLD_PERCENT: u64 = 10;

/// The weight that strategies see of an endpoint that came up `up_for` nanoseconds ago: it grows evenly from a tenth of
/// `full` to all of it in the time `slow_start`. At least 1.
pub fn warming_weight(full: u32, up_for: Nanos, slow_start: Nanos) -> u32 {
    if up_for >= slow_start {
        return full.max(1);
    }
    let warmed = u128::from(100 - COLD_PERCENT) * u128::from(up_for) / u128::from(slow_start);
    // Fits, since it is at most `full`.
    ((u128::from(full) * (u128::from(COLD_PERCENT) + warmed) / 100) as u32).max(1)
}

/// The index of one of the candidates for which `accept` is true, each with a chance in proportion to its weight.
pub(super) fn draw(
    candidates: &[Candidate],
    random: u64,
    accept: impl Fn(usize, Candidate) -> bool,
) -> Option<usize> {
    let weight = |index: usize, one: Candidate| if accept(index, one) { u64::from(one.weight) } else { 0 };
    let total: u64 = candidates.iter().enumerate().map(|(index, one)| weight(index, *one)).sum();
    // Small remainders are more likely than others, but by less than total / 2^64.
    let mut left = random.checked_rem(total)?;
    candidates.iter().enumerate().position(|(index, one)| {
        let share = weight(index, *one);
        let found = left < share;
        left = left.saturating_sub(share);
        found
    })
}

/// The indices of two different candidates, drawn by weight: the first among all, the second among the rest. `None`:
/// there are fewer than two.
pub(super) fn draw_two(candidates: &[Candidate], random: u64) -> Option<(usize, usize)> {
    let one = draw(candidates, random, |_, _| true)?;
    let two = draw(candidates, mix(random), |index, _| index != one)?;
    Some((one, two))
}

/// Mixes bits so well that the result looks independent of them: the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast
/// Splittable Pseudorandom Number Generators", 2014).
pub(super) const fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_warms_up() {
        for (weight, up_for, slow_start, expected) in [
            (100, 0, 0, 100),
            (100, 0, 30, 10),
            (100, 15, 30, 55),
            (100, 29, 30, 97),
            (100, 30, 30, 100),
            (100_000, 10, 100, 19_000),
            (0, 0, 0, 1),
            (0, 0, 30, 1),
            (1, 0, 30, 1),
            (u32::MAX, Nanos::MAX - 1, Nanos::MAX, 4_252_017_622),
        ] {
            assert_eq!(
                warming_weight(weight, up_for, slow_start),
                expected,
                "{weight} {up_for} {slow_start}"
            );
        }
    }

    #[test]
    fn bits_are_mixed_as_published() {
        assert_eq!([0, 1_234_567].map(mix), [0xE220_A839_7B1D_CDAF, 6_457_827_717_110_365_317]);
    }

    #[test]
    fn pairs_are_two_different_ones_and_come_by_weight() {
        let mut random = fastrand::Rng::with_seed(11);
        let weights = [1u32, 2, 5];
        let pool: Vec<_> =
            weights.iter().map(|weight| Candidate { weight: *weight, ..Candidate::default() }).collect();
        let (mut first, mut second) = ([0u32; 3], [0u32; 3]);
        for _ in 0..80_000 {
            let (one, two) = draw_two(&pool, random.u64(..)).unwrap();
            assert_ne!(one, two);
            first[one] += 1;
            second[two] += 1;
        }
        // For the second one, P(j) is the sum over i of P(i) × w(j) / (W − w(i)).
        let expected = [[0.125, 0.25, 0.625], [0.25, 0.4524, 0.2976]];
        for (counts, shares) in [first, second].iter().zip(expected) {
            for (count, share) in counts.iter().zip(shares) {
                assert!((f64::from(*count) / 80_000.0 - share).abs() < 0.01, "{counts:?}");
            }
        }
        assert_eq!(draw_two(&pool[..1], 7), None);
        assert_eq!(draw_two(&[], 7), None);
    }
}
