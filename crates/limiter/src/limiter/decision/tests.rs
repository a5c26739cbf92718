use super::*;
use crate::limit::{Limit, Rate};
use crate::limiter::Grant;
use crate::terms::{BucketName, Mode, Terms};

const NOW: Moment = Moment { now: 1, wall_s: 1 };

/// Buckets of these capacities, each with whether it is enforced.
fn grant(buckets: &[(u32, bool)], max_in_flight: Option<u32>) -> Grant {
    let spec = |(place, (capacity, enforced)): (usize, &(u32, bool))| {
        let limit = Limit { capacity: *capacity, rate: Rate::per_second(1_000_000) };
        let mode = if *enforced { Mode::Enforced } else { Mode::Shadow };
        BucketSpec { mode, ..BucketSpec::new(BucketName::parse(&format!("b{place}")).unwrap(), limit) }
    };
    let buckets = buckets.iter().enumerate().map(spec).collect();
    Grant::of_default(Terms { buckets, max_in_flight, ..Terms::default() })
}

/// A request for two tokens: the buckets, the bound on requests at once, and what full buckets say if they refuse:
/// whether the request is one too many, and what each bucket answers.
type Row<'a> = (&'a [(u32, bool)], Option<u32>, Option<(bool, &'a [bool])>);

#[test]
fn what_full_buckets_refuse_is_refused_and_each_of_them_says_what_it_would_do() {
    let rows: [Row<'_>; 8] = [
        (&[(2, true)], None, None),
        (&[(3, true)], Some(1), None),
        (&[(1, false)], None, None),
        (&[(1, true)], None, Some((false, &[false]))),
        (&[(5, true), (1, true)], None, Some((false, &[true, false]))),
        (&[(2, true), (1, false), (0, true)], Some(9), Some((false, &[true, false, false]))),
        (&[(5, true)], Some(0), Some((true, &[]))),
        (&[(1, true)], Some(0), Some((true, &[]))),
    ];
    for (buckets, most, expected) in rows {
        let grant = grant(buckets, most);
        let refused = refused_by_full(Ask { cost: 2, ..Ask::of(&grant) }, NOW);
        let said = refused.as_ref().map(|decision| {
            assert!(!decision.allowed && !decision.shadow_denied && !decision.overflow);
            let answers = if decision.crowded { 0 } else { buckets.len() };
            let allowed = decision.verdicts()[..answers].iter().map(|verdict| verdict.outcome.allowed);
            (decision.crowded, allowed.collect::<Vec<bool>>())
        });
        assert_eq!(
            said,
            expected.map(|(crowded, allowed)| (crowded, allowed.to_vec())),
            "{buckets:?} {most:?}"
        );
        if let Some(decision) = refused.filter(|decision| decision.crowded) {
            assert!(decision.verdicts().iter().all(|verdict| *verdict == UNASKED));
        }
    }
}

#[test]
fn the_bound_on_requests_at_once_is_asked_before_the_buckets() {
    let bounded = grant(&[(5, true), (1, false)], Some(2));
    let mut slots = Slots::default();
    for (in_flight, allowed, shadow_denied, left) in
        [(1, true, false, 4), (0, true, true, 3), (2, false, false, 0)]
    {
        let decision = decide(&mut slots, in_flight, Ask::of(&bounded), NOW, None);
        assert_eq!((decision.allowed, decision.crowded), (allowed, !allowed), "{in_flight}");
        assert_eq!((decision.shadow_denied, decision.first().left), (shadow_denied, left), "{in_flight}");
        assert!(decision.told_by(true).overflow);
    }
}
