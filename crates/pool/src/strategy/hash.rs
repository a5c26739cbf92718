//! Rendezvous hashing (Thaler, Ravishankar: "Using Name-Based Mappings to Increase Hit Rates", 1998) with bounded load
//! (Mirrokni, Thorup, Zadimoghaddam: "Consistent Hashing with Bounded Loads", 2016). Every endpoint draws a number from
//! the key and its own identity; the highest wins. When an endpoint comes, only the keys move that it wins; when one
//! goes, only its own. One that has its share and a quarter on it already is passed over, so that a popular key can't
//! drown an endpoint, nor one that hangs hold its keys for ever; a handful of requests floods none.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{Candidate, Draw, weighted};

/// An endpoint takes at most this share of the mean load per weight, in percent, rounded up to a whole request.
const BOUND_PERCENT: u64 = 125;

/// Below this many requests no endpoint is overloaded: in a quiet pool of many, the mean is a fraction of a request, and
/// what one browser asks for at once (6 connections) belongs together.
const CALM: u32 = 8;

/// What requests are hashed on: `balancing.hash_on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// The client's address.
    Ip,
    /// Whom the limiter takes the client for.
    Client,
    /// The request's target with its query.
    Uri,
    /// A request field of that name; without it, the client's address.
    Header(String),
    /// A cookie of that name; without it, the client's address.
    Cookie(String),
}

/// The same in every process and version: instances of Balancer agree, and so does one that was restarted.
pub fn key_of(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The value of a cookie in a `Cookie` field (RFC 6265 §4.2.1), without the quotes that may be around it; the first
/// where there are several.
pub fn cookie<'a>(field: &'a [u8], name: &'a str) -> Option<&'a [u8]> {
    cookies(field, name).next()
}

/// The values of all cookies of that name in a `Cookie` field.
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
    let best = |bounded: bool| {
        candidates
            .iter()
            .enumerate()
            .filter(|(_, one)| !bounded || has_room(**one, with_next, weights))
            .map(|(index, one)| (index, score(*one, draw.key)))
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
            .map(|(index, _)| index)
    };
    // All bounds together are above what is in flight, so somebody has room; the other way is for what the compiler
    // can't know.
    best(true).or_else(|| best(false))
}

/// `in_flight < max(8, ceil(1.25 × with_next × weight / weights))`, in whole numbers.
fn has_room(one: Candidate, with_next: u64, weights: u64) -> bool {
    if one.in_flight < CALM {
        return true;
    }
    let bound = u128::from(BOUND_PERCENT) * u128::from(with_next) * u128::from(one.weight);
    u128::from(one.in_flight) * 100 * u128::from(weights) < bound
}

/// `ln(u) / weight` for a `u` in (0, 1) drawn from key and identity: the highest of several wins with a chance in
/// proportion to its weight.
fn score(one: Candidate, key: u64) -> f64 {
    let bits = weighted::mix(key ^ weighted::mix(one.identity));
    // 53 bits, the middle of each step: neither 0 nor 1.
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
        // Written down: instances of different versions run side by side.
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// An endpoint that comes takes keys for itself, about its share, and no key moves between two others; and that
        /// is what one that goes gives back.
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
            // Six standard deviations of a draw of so many keys.
            let slack = 6.0 * (share * (1.0 - share) / f64::from(KEYS)).sqrt();
            prop_assert!((f64::from(moved) / f64::from(KEYS) - share).abs() < slack, "{moved} for {share}");
        }

        /// However few keys there are and however long requests stay: nobody is given more than a quarter above the
        /// mean, to a whole request, or eight in all.
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
