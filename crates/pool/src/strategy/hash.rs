//! Rendezvous hashing (Thaler, Ravishankar: "Using Name-Based Mappings to Increase Hit Rates", 1998) with bounded
//! load (Mirrokni, Thorup, Zadimoghaddam: "Consistent Hashing with Bounded Loads", 2016). Each endpoint gets a number
//! from the key and its own identity; the highest one wins. When an endpoint is added, only the keys that it wins
//! move; when one is removed, only its own keys move. An endpoint with more than a quarter above its share of the
//! load is passed over, so that a popular key can't overload it, and one that hangs does not keep its keys. That
//! holds from a few requests on.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{Candidate, Draw, weighted};

/// Most requests on an endpoint, in percent of the mean load by weight, rounded up to a whole request.
const BOUND_PERCENT: u64 = 125;

/// With fewer requests an endpoint is never passed over. In a quiet pool the mean may be a fraction of a request, and
/// the requests that one browser sends at once (over 6 connections) belong together.
const CALM: u32 = 8;

/// What requests are hashed on: `balancing.hash_on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// The client's address.
    Ip,
    /// The client as the limiter identifies it.
    Client,
    /// The request's target with its query.
    Uri,
    /// The request field of that name; without it, the client's address.
    Header(String),
    /// The cookie of that name; without it, the client's address.
    Cookie(String),
}

/// The key of what a request is hashed on. The same in every process and version, so that all instances agree, also
/// after a restart.
pub fn key_of(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The value of a cookie in a `Cookie` field (RFC 6265 §4.2.1), without quotes around it. If there are several, the
/// first.
pub fn cookie<'a>(field: &'a [u8], name: &'a str) -> Option<&'a [u8]> {
    cookies(field, name).next()
}

/// The values of all cookies of that name in a `Cookie` field, without quotes around them.
pub fn cookies<'a>(field: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    field.split(|byte| *byte == b';').filter_map(move |pair| {
        let value =
            pair.trim_ascii_start().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.trim_ascii_end();
        Some(value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// See [`super::Strategy::pick`]. Needs no random bits.
pub(super) fn pick(candidates: &mut [Candidate], draw: Draw) -> Option<usize> {
    let with_next = candidates.iter().map(|one| u64::from(one.in_flight)).sum::<u64>() + 1;
    let weights: u64 = candidates.iter().map(|one| u64::from(one.weight)).sum();
    // The bounds of all add up to more than what is in flight, so there is always one with room.
    candidates
        .iter()
        .enumerate()
        .filter(|(_, one)| has_room(**one, with_next, weights))
        .map(|(index, one)| (index, score(*one, draw.key)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(index, _)| index)
}

/// `in_flight < max(8, ceil(1.25 × with_next × weight / weights))`, in whole numbers.
fn has_room(one: Candidate, with_next: u64, weights: u64) -> bool {
    if one.in_flight < CALM {
        return true;
    }
    let bound = u128::from(BOUND_PERCENT) * u128::from(with_next) * u128::from(one.weight);
    u128::from(one.in_flight) * 100 * u128::from(weights) < bound
}

/// The number of an endpoint for a key: `ln(u) / weight`, with a `u` in (0, 1) made from key and identity. So the
/// chance to have the highest number is in proportion to the weight.
fn score(one: Candidate, key: u64) -> f64 {
    let bits = weighted::mix(key ^ weighted::mix(one.identity));
    // 53 bits, in the middle between two steps, so that it is neither 0 nor 1.
    let unit = ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    unit.ln() / f64::from(one.weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(weights: &[u32]) -> Vec<Candidate> {
        weights
            .iter()
            .zip(0u64..)
            .map(|(weight, index)| Candidate {
                weight: *weight,
                identity: key_of(format!("10.0.0.{index}:80").as_bytes()),
                ..Candidate::default()
            })
            .collect()
    }

    fn owner(pool: &mut [Candidate], key: u64) -> u64 {
        let index = pick(pool, Draw { random: 0, key }).unwrap();
        pool[index].identity
    }

    #[test]
    fn keys_are_spread_by_weight() {
        let mut pool = pool(&[1, 2, 5]);
        let mut picks = [0u32; 3];
        for key in 0..100_000u64 {
            picks[pick(&mut pool, Draw { random: 0, key: key_of(&key.to_le_bytes()) }).unwrap()] += 1;
        }
        for (count, share) in picks.iter().zip([0.125, 0.25, 0.625]) {
            assert!((f64::from(*count) / 100_000.0 - share).abs() < 0.01, "{picks:?}");
        }
    }

    #[test]
    fn keys_are_the_same_in_every_version() {
        // Fixed values, since instances of different versions run side by side.
        assert_eq!(key_of(b"198.51.100.7"), 0x6A15_11EE_8110_CEFF);
        for (field, value) in [
            ("a=1; b=2", Some("2")),
            ("ab=1;b=\"x y\" ", Some("x y")),
            ("b=", Some("")),
            ("b=1; b=2", Some("1")),
            ("bb=1", None),
            ("b", None),
            ("", None),
        ] {
            assert_eq!(cookie(field.as_bytes(), "b"), value.map(str::as_bytes), "{field:?}");
        }
    }

    #[test]
    fn keys_have_the_same_endpoints_in_every_version() {
        let mut pool = pool(&[1, 2, 3, 4, 5]);
        let owners: String = (0..32u64)
            .map(|key| {
                pick(&mut pool, Draw { random: 0, key: key_of(&key.to_le_bytes()) }).unwrap().to_string()
            })
            .collect();
        assert_eq!(owners, "24432334314112043424124320332432");
        // A key for which all bits are 0: the number is the lowest of all, and still one.
        let lowest = 0u64.wrapping_sub(0x9E37_79B9_7F4A_7C15);
        let found = score(pool[1], lowest ^ weighted::mix(pool[1].identity));
        assert!((found + 27.0 * std::f64::consts::LN_2).abs() < 1e-9, "{found}");
    }

    #[test]
    fn an_endpoint_has_room_up_to_a_quarter_above_its_share() {
        // Requests in flight, those of all and the next one; the endpoint's weight and that of all.
        for (in_flight, with_next, weight, weights, expected) in [
            (7, 1, 1, 10, true),
            (8, 1, 1, 10, false),
            (8, 13, 1, 2, true),
            // Its bound is exactly 8.
            (8, 64, 1, 10, false),
            (9, 15, 2, 3, true),
        ] {
            let one = Candidate { weight, in_flight, ..Candidate::default() };
            assert_eq!(
                has_room(one, with_next, weights),
                expected,
                "{in_flight} {with_next} {weight} {weights}"
            );
        }
        // The request that is to be picked counts among all: 8 of 13 are below 1.25 times a half, 8 of 12 are not.
        let mut pool = pool(&[1, 1]);
        let first = pick(&mut pool, Draw { random: 0, key: 1 }).unwrap();
        for (others, keeps) in [(4, true), (3, false)] {
            (pool[first].in_flight, pool[1 - first].in_flight) = (8, others);
            assert_eq!(pick(&mut pool, Draw { random: 0, key: 1 }) == Some(first), keeps, "{others}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// An endpoint that is added takes about its share of the keys, and no key moves between two others. The same
        /// keys move when it is removed.
        #[test]
        fn one_that_comes_moves_only_its_share(
            weights in prop::collection::vec(1u32..=20, 2..10),
            seed in any::<u64>(),
        ) {
            const KEYS: u32 = 2_000;
            let mut after = pool(&weights);
            let mut before = after.clone();
            let new = before.pop().unwrap();
            let mut moved = 0u32;
            for key in 0..u64::from(KEYS) {
                let key = key_of(&(seed ^ key).to_le_bytes());
                let (was, is) = (owner(&mut before, key), owner(&mut after, key));
                if was != is {
                    prop_assert_eq!(is, new.identity);
                    moved += 1;
                }
            }
            let share = f64::from(new.weight) / f64::from(weights.iter().sum::<u32>());
            // Six standard deviations for so many keys.
            let slack = 6.0 * (share * (1.0 - share) / f64::from(KEYS)).sqrt();
            prop_assert!((f64::from(moved) / f64::from(KEYS) - share).abs() < slack, "{moved} for {share}");
        }

        /// However few keys there are and however long requests last, an endpoint never has more than a quarter above
        /// the mean, rounded up, or eight in all.
        #[test]
        fn load_is_bounded(
            weights in prop::collection::vec(1u32..=20, 1..10),
            keys in prop::collection::vec(any::<u64>(), 1..4),
            steps in prop::collection::vec((any::<u8>(), any::<bool>()), 1..400),
        ) {
            let mut pool = pool(&weights);
            let total_weight: u32 = weights.iter().sum();
            for (at, ends) in steps {
                if ends {
                    let one = usize::from(at) % pool.len();
                    pool[one].in_flight = pool[one].in_flight.saturating_sub(1);
                    continue;
                }
                let key = keys[usize::from(at) % keys.len()];
                let winner = pick(&mut pool, Draw { random: 0, key }).unwrap();
                pool[winner].in_flight += 1;
                let held: u32 = pool.iter().map(|one| one.in_flight).sum();
                let mean = f64::from(held) * f64::from(pool[winner].weight) / f64::from(total_weight);
                let bound = (1.25 * mean).ceil().max(f64::from(CALM));
                prop_assert!(f64::from(pool[winner].in_flight) <= bound, "{pool:?}");
            }
        }
    }
}
