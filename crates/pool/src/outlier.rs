//! Passive health: the health of an endpoint by the requests that it gets. Failures in a row, or too large a share of
//! failures within a window of time, take it out for a while, which grows with every relapse. Here is the arithmetic;
//! [`crate::backends`] counts and takes endpoints out.

use std::fmt;

use balancer_time::Nanos;

/// With fewer requests than this in a window, the share of failures does not count: two of three is no statistic.
const MIN_REQUESTS: u32 = 20;

/// The longest time for which an endpoint is out, however often it relapses (unless `base_time` is longer).
const MAX_TIME: Nanos = 300_000_000_000;

/// When an endpoint is taken out: `outlier`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierPolicy {
    /// So many failures in a row take it out; 0: they do not matter.
    pub consecutive: u32,
    /// This share of failures within a window takes it out, above 0 to 1; `None`: it does not matter.
    pub ratio: Option<f64>,
    /// The length of a window, above 0.
    pub window: Nanos,
    /// How long it is out the first time.
    pub base_time: Nanos,
}

/// Why an endpoint is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// So many failures in a row.
    Consecutive(u32),
    /// So many failures of so many requests within a window.
    Ratio(u32, u32),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive(failures) => write!(f, "{failures} failures in a row"),
            Self::Ratio(failed, of) => write!(f, "{failed} of {of} requests failed"),
        }
    }
}

/// The counts of one endpoint, which fit into an atomic: the number of the window, failures in a row, requests and
/// failures within the window, 16 bits each. If a count would not fit, requests and failures are both halved, which
/// keeps the share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    window: u16,
    in_a_row: u16,
    requests: u16,
    failures: u16,
}

impl Tally {
    /// Reads what [`Tally::bits`] gave; 0: nothing was counted.
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            window: (bits >> 48) as u16,
            in_a_row: (bits >> 32) as u16,
            requests: (bits >> 16) as u16,
            failures: bits as u16,
        }
    }

    /// As one number, for an atomic.
    pub const fn bits(self) -> u64 {
        (self.window as u64) << 48
            | (self.in_a_row as u64) << 32
            | (self.requests as u64) << 16
            | self.failures as u64
    }

    /// Counts one more request. Returns the new counts, and a cause if the endpoint is to be taken out.
    pub fn observe(self, failed: bool, now: Nanos, policy: &OutlierPolicy) -> (Self, Option<Cause>) {
        // The number wraps around: without a request for 65,536 windows, two windows would count as one.
        let window = (now / policy.window.max(1)) as u16;
        let mut next =
            if window == self.window { self } else { Self { window, requests: 0, failures: 0, ..self } };
        if next.requests == u16::MAX {
            (next.requests, next.failures) = (next.requests / 2, next.failures / 2);
        }
        next.requests += 1;
        if !failed {
            next.in_a_row = 0;
            return (next, None);
        }
        next.failures += 1;
        next.in_a_row = next.in_a_row.saturating_add(1);
        (next, next.cause(policy))
    }

    fn cause(self, policy: &OutlierPolicy) -> Option<Cause> {
        let (in_a_row, requests, failures) =
            (u32::from(self.in_a_row), u32::from(self.requests), u32::from(self.failures));
        if policy.consecutive > 0 && in_a_row >= policy.consecutive {
            return Some(Cause::Consecutive(in_a_row));
        }
        let share = f64::from(failures) / f64::from(requests);
        let too_many = requests >= MIN_REQUESTS && policy.ratio.is_some_and(|ratio| share >= ratio);
        too_many.then_some(Cause::Ratio(failures, requests))
    }
}

/// How long an endpoint is out the `relapse`-th time in a row, counted from 1. The time doubles with each relapse.
pub fn time_out(policy: &OutlierPolicy, relapse: u32) -> Nanos {
    let doubled = 1u64.checked_shl(relapse.saturating_sub(1)).unwrap_or(Nanos::MAX);
    policy.base_time.saturating_mul(doubled).min(MAX_TIME.max(policy.base_time))
}

/// How many of so many endpoints may be out at once. `max_ejected`: their share, 0 to 1.
pub fn most_out(max_ejected: f64, endpoints: usize) -> usize {
    // The small number makes up for rounding: 0.1 of 30 has to be 3.
    (max_ejected * endpoints as f64 + 1e-9) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Nanos = 1_000_000_000;
    const POLICY: OutlierPolicy =
        OutlierPolicy { consecutive: 3, ratio: Some(0.5), window: 10 * S, base_time: 5 * S };

    /// Each letter is a request: `+` answered, `-` failed; `|` is ten seconds later. Returns the first cause, and
    /// after how many requests it came.
    fn run(requests: &str, policy: &OutlierPolicy) -> Option<(usize, Cause)> {
        let (mut tally, mut now, mut seen) = (Tally::default(), S, 0);
        for letter in requests.chars() {
            if letter == '|' {
                now += 10 * S;
                continue;
            }
            seen += 1;
            let (next, cause) = tally.observe(letter == '-', now, policy);
            assert_eq!(Tally::from_bits(next.bits()), next);
            tally = next;
            if let Some(cause) = cause {
                return Some((seen, cause));
            }
        }
        None
    }

    #[test]
    fn failures_in_a_row_or_a_share_of_them() {
        let mixed = "+-".repeat(10);
        let apart = "+-".repeat(9);
        for (requests, expected) in [
            ("---", Some((3, Cause::Consecutive(3)))),
            ("--+--+--", None),
            // Failures in a row count across windows.
            ("--|-", Some((3, Cause::Consecutive(3)))),
            (mixed.as_str(), Some((20, Cause::Ratio(10, 20)))),
            // Shares are counted anew in every window.
            (&format!("{apart}|{apart}|{apart}"), None),
            (&format!("{}{apart}", "+".repeat(40)), None),
            (&format!("|{mixed}"), Some((20, Cause::Ratio(10, 20)))),
            (&format!("{}|{mixed}", "+".repeat(20)), Some((40, Cause::Ratio(10, 20)))),
            (&format!("{apart}|{}{apart}", "+".repeat(11)), None),
        ] {
            assert_eq!(run(requests, &POLICY), expected, "{requests}");
        }
        assert_eq!(run("-----", &OutlierPolicy { consecutive: 0, ..POLICY }), None);
        assert_eq!(run(&mixed, &OutlierPolicy { ratio: None, ..POLICY }), None);
        let all = OutlierPolicy { consecutive: 0, ratio: Some(1.0), ..POLICY };
        assert_eq!(run(&"-".repeat(20), &all), Some((20, Cause::Ratio(20, 20))));
        assert_eq!(run(&format!("+{}", "-".repeat(100)), &all), None);
        let told = [Cause::Consecutive(3), Cause::Ratio(10, 20)].map(|cause| cause.to_string());
        assert_eq!(told, ["3 failures in a row", "10 of 20 requests failed"]);
    }

    #[test]
    fn counts_that_do_not_fit_are_halved_together() {
        let policy = OutlierPolicy { consecutive: 0, ratio: Some(0.26), ..POLICY };
        let mut tally = Tally::default();
        for index in 0..400_000u32 {
            let (next, cause) = tally.observe(index % 4 == 0, S, &policy);
            assert!(cause.is_none() || index < 100, "{index}: {cause:?}");
            tally = next;
        }
        assert!(tally.requests > 30_000 && tally.failures.abs_diff(tally.requests / 4) < 10, "{tally:?}");
    }

    #[test]
    fn times_double_up_to_a_bound() {
        let seconds: Vec<_> = (1..=8).map(|relapse| time_out(&POLICY, relapse) / S).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(time_out(&POLICY, 0), 5 * S);
        assert_eq!(time_out(&POLICY, u32::MAX), MAX_TIME);
        assert_eq!(time_out(&OutlierPolicy { base_time: 2 * MAX_TIME, ..POLICY }, 9), 2 * MAX_TIME);
    }

    #[test]
    fn some_always_stay() {
        for (share, of, most) in
            [(0.5, 0, 0), (0.5, 1, 0), (0.5, 2, 1), (0.5, 3, 1), (0.1, 30, 3), (1.0, 7, 7)]
        {
            assert_eq!(most_out(share, of), most, "{share} of {of}");
        }
    }

    proptest! {
        /// A request that was answered never ejects an endpoint.
        #[test]
        fn answers_take_nobody_out(requests in prop::collection::vec(any::<bool>(), 0..200), ratio in 0.01f64..=1.0) {
            let policy = OutlierPolicy { ratio: Some(ratio), ..POLICY };
            let mut tally = Tally::default();
            for (index, failed) in requests.into_iter().enumerate() {
                let (next, cause) = tally.observe(failed, index as u64 * S / 3, &policy);
                prop_assert!(failed || cause.is_none());
                tally = next;
            }
        }
    }
}
