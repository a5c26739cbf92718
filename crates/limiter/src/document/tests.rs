use proptest::prelude::*;

use super::*;
use crate::limit::{MAX_PER_SECS, MONTH_SECS};
use balancer_importance::Importance;

const DAY: BucketMembers<'_> = BucketMembers {
    name: Some("day"),
    amount_micro: Some(5_000_000),
    per: Some("1d"),
    capacity: None,
    mode: None,
    reset: None,
};

fn faults_of<T>(check: impl FnOnce(&mut Say<'_>) -> Option<T>) -> (Option<T>, Vec<String>) {
    let mut faults = Vec::new();
    let checked = check(&mut |member, text| faults.push(format!("{member} {text}")));
    (checked, faults)
}

#[test]
fn each_fault_of_a_bucket_is_said_of_its_member() {
    let rows: [(BucketMembers<'_>, &[&str]); 14] = [
        (BucketMembers { name: None, ..DAY }, &[]),
        (BucketMembers { name: Some(""), ..DAY }, &["name must have 1 to 64 bytes"]),
        (
            BucketMembers { name: Some("b"), ..DAY },
            &["name \"b\" names another bucket of this limit already"],
        ),
        (BucketMembers { per: Some("2w"), ..DAY }, &["per must be a span such as"]),
        (
            BucketMembers { capacity: Some(Some(1_000_000_001)), ..DAY },
            &["capacity must be at most 1000000000"],
        ),
        (BucketMembers { capacity: Some(None), ..DAY }, &[]),
        (
            BucketMembers { amount_micro: Some(500_000), ..DAY },
            &["capacity is missing: an amount that is no whole"],
        ),
        (BucketMembers { amount_micro: None, ..DAY }, &[]),
        (BucketMembers { mode: Some("exempt"), ..DAY }, &["mode must be \"enforced\" or \"shadow\""]),
        (BucketMembers { reset: Some("cet"), ..DAY }, &["reset must be \"utc\" or null"]),
        (BucketMembers { reset: Some("utc"), per: Some("2d"), ..DAY }, &["reset needs a per of"]),
        (BucketMembers { reset: Some("utc"), per: Some("2w"), ..DAY }, &["per must be"]),
        (BucketMembers { reset: Some("utc"), per: None, ..DAY }, &[]),
        (
            BucketMembers { name: Some("ä"), per: Some(""), mode: Some(""), reset: Some(""), ..DAY },
            &["name ", "per ", "mode ", "reset "],
        ),
    ];
    let beside =
        [BucketSpec::new(BucketName::parse("b").unwrap(), Limit { capacity: 1, rate: Rate::per_second(0) })];
    for (members, expected) in rows {
        let (bucket, faults) = faults_of(|say| members.check(&beside, say));
        let doubled = members.name == Some("b");
        assert_eq!(bucket.is_some(), doubled, "{members:?}");
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        for (fault, beginning) in faults.iter().zip(expected) {
            assert!(fault.starts_with(beginning), "{fault}");
        }
    }
}

#[test]
fn what_is_left_out_of_a_bucket_has_its_default() {
    let (bucket, faults) = faults_of(|say| DAY.check(&[], say));
    let limit = |capacity| Limit { capacity, rate: Rate { micro: 5_000_000, per_secs: 86_400 } };
    let name = BucketName::parse("day").unwrap();
    assert_eq!((bucket, faults), (Some(BucketSpec::new(name.clone(), limit(5))), vec![]));
    let all = BucketMembers { capacity: Some(Some(0)), mode: Some("shadow"), reset: Some("utc"), ..DAY };
    let expected =
        BucketSpec { mode: Mode::Shadow, reset: Some(Reset::Day), ..BucketSpec::new(name, limit(0)) };
    assert_eq!(faults_of(|say| all.check(&[], say)).0, Some(expected));
}

#[test]
fn a_limit_has_a_plan_or_buckets_or_an_exemption() {
    let buckets =
        || Some(Terms::of_numbers(Limit { capacity: 1, rate: Rate::per_second(1) }).buckets.to_vec());
    let plain = || LimitMembers { buckets: buckets(), ..LimitMembers::default() };
    let none = || LimitMembers { buckets: Some(Vec::new()), ..LimitMembers::default() };
    let on_plan = || LimitMembers { has_plan: true, plan: Some("pro"), ..none() };
    let rows: [(LimitMembers<'_>, &[&str]); 16] = [
        (plain(), &[]),
        (on_plan(), &[]),
        (LimitMembers { mode: Some("exempt"), ..none() }, &[]),
        (LimitMembers { mode: Some("exempt"), max_in_flight: Some(1), ..on_plan() }, &[]),
        (LimitMembers { shared: true, is_range: true, ..plain() }, &[]),
        (none(), &["buckets missing: neither a plan"]),
        (LimitMembers { buckets: buckets(), ..on_plan() }, &["buckets has a plan and buckets"]),
        (LimitMembers { buckets: None, plan: None, ..on_plan() }, &["buckets has a plan and buckets"]),
        (LimitMembers { plan: Some("a\n"), ..on_plan() }, &["plan must hold no control characters"]),
        (LimitMembers { mode: Some("shadow"), ..plain() }, &["mode must be \"exempt\""]),
        (LimitMembers { shared: true, ..plain() }, &["shared only a range"]),
        (
            LimitMembers { max_in_flight: Some(0), ..plain() },
            &["max_in_flight must be a whole number from 1"],
        ),
        (LimitMembers { max_in_flight: Some(1_000_001), ..plain() }, &["max_in_flight must be"]),
        (LimitMembers { weight: Some(0), ..plain() }, &["weight must be a whole number from 1 to 1000"]),
        (LimitMembers { weight: Some(1_001), ..on_plan() }, &["weight must be"]),
        (LimitMembers { priority: Some("high"), ..plain() }, &["priority must be \"critical\", \"normal\""]),
    ];
    for (members, expected) in rows {
        let (_, faults) = faults_of(|say| members.clone().check(say));
        assert_eq!(faults.len(), expected.len(), "{members:?}: {faults:?}");
        for (fault, beginning) in faults.iter().zip(expected) {
            assert!(fault.starts_with(beginning), "{fault}");
        }
    }
    let members = LimitMembers {
        max_in_flight: Some(3),
        weight: Some(5),
        priority: Some("background"),
        mode: Some("exempt"),
        shared: true,
        per_instance: true,
        is_range: true,
        ..on_plan()
    };
    let importance = GivenImportance { weight: Some(5), priority: Some(Priority::Background) };
    let own = Terms { buckets: Arc::new([]), max_in_flight: Some(3), importance };
    let limit = ClientLimit {
        plan: PlanName::parse("pro").ok(),
        own,
        exempt: true,
        shared: true,
        per_instance: true,
    };
    assert_eq!(faults_of(|say| members.check(say)), (Some(limit), vec![]));
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

#[test]
fn the_numbers_of_the_fixed_calls_read_as_one_bucket() {
    let limit = Limit { capacity: 10, rate: Rate::per_second(1_500_000) };
    let shown = text(&LimitDocument::new("a/\"b\"", &ClientLimit::of_numbers(limit)));
    assert_eq!(
        shown,
        r#"{"client_id":"a/\"b\"","plan":null,"buckets":[{"name":"default","amount":1.5,"per":"1s","capacity":10,"mode":"enforced","reset":null}],"max_in_flight":null,"shared":false}"#
    );
}

#[test]
fn what_a_hand_wrote_into_the_database_is_told_from_buckets() {
    let one = |change: &str| {
        let bucket = r#"{"name":"day","amount":5,"per":"1d","capacity":9,"mode":"shadow","reset":"utc"}"#;
        let (from, to) = change.split_once(" -> ").unwrap();
        format!("[{}]", bucket.replace(from, to))
    };
    assert!(buckets(&one("x -> x")).is_ok());
    for change in [
        "day -> concurrency",
        "5 -> -5",
        "5 -> 0.0000001",
        "5 -> \"5\"",
        "1d -> 2d",
        "1d -> d",
        "capacity -> burst",
        "9 -> 1000000001",
        "shadow -> exempt",
        "utc -> cet",
        "} -> },{\"name\":\"day\",\"amount\":5,\"per\":\"1s\",\"capacity\":9,\"mode\":\"shadow\",\"reset\":null}",
    ] {
        assert!(buckets(&one(change)).is_err(), "{change}");
    }
    assert!(buckets("[]").is_ok_and(|none| none.is_empty()));
}

fn any_importance() -> impl Strategy<Value = GivenImportance> {
    let priority = proptest::sample::select(Priority::ALL.to_vec());
    let given = (proptest::option::of(1..=Importance::MAX_WEIGHT), proptest::option::of(priority));
    given.prop_map(|(weight, priority)| GivenImportance { weight, priority })
}

fn any_bucket() -> impl Strategy<Value = BucketSpec> {
    let reset = prop_oneof![
        Just((None, 1)),
        (1..=MAX_PER_SECS).prop_map(|secs| (None, secs)),
        Just((Some(Reset::Hour), 3_600)),
        Just((Some(Reset::Day), 86_400)),
        Just((Some(Reset::Month), MONTH_SECS)),
    ];
    ("[ -~]{1,64}", 0..=Rate::MAX_MICRO, 0..=Limit::MAX_CAPACITY, any::<bool>(), reset).prop_filter_map(
        "a name",
        |(name, micro, capacity, shadow, (reset, per_secs))| {
            let name = BucketName::parse(&name).ok()?;
            let mode = if shadow { Mode::Shadow } else { Mode::Enforced };
            let limit = Limit { capacity, rate: Rate { micro, per_secs } };
            Some(BucketSpec { mode, reset, ..BucketSpec::new(name, limit) })
        },
    )
}

/// What is read back goes by the same rules as what a call of the API gives.
#[test]
fn a_document_that_no_call_could_have_made_is_refused() {
    let bucket = r#"{"name":"a","amount":5,"per":"1s","capacity":5,"mode":"enforced","reset":null}"#;
    for (text, fault) in [
        (format!(r#"{{"client_id":"a","plan":"p","buckets":[{bucket}],"max_in_flight":null}}"#), "buckets"),
        (r#"{"client_id":"a","plan":null,"buckets":[],"max_in_flight":null}"#.into(), "buckets missing"),
        (format!(r#"{{"client_id":"a","buckets":[{bucket}],"max_in_flight":0}}"#), "max_in_flight must be"),
        (format!(r#"{{"client_id":"a","buckets":[{bucket}],"mode":"free"}}"#), "mode must be"),
        (format!(r#"{{"client_id":"a","buckets":[{bucket}],"shared":true}}"#), "shared only a range"),
        (format!(r#"{{"client_id":"a","buckets":[{bucket}],"limit":3}}"#), "unknown field `limit`"),
        (format!(r#"{{"name":"p","buckets":[{bucket}],"mode":"exempt"}}"#), "unknown field `mode`"),
        (format!(r#"{{"name":"p","buckets":[{bucket}],"max_in_flight":1000001}}"#), "max_in_flight must be"),
        (r#"{"name":"p","buckets":[]}"#.into(), "buckets missing"),
        (format!(r#"{{"name":"","buckets":[{bucket}]}}"#), "name "),
        (format!(r#"{{"buckets":[{bucket}]}}"#), "missing field `client_id`"),
    ] {
        let said = Document::read(&text).unwrap_err();
        assert!(said.contains(fault), "{text}: {said}");
    }
    assert!(
        Document::read(&format!(r#"{{"client_id":"10.0.0.0/8","buckets":[{bucket}],"shared":true}}"#))
            .is_ok()
    );
}

proptest! {
    #[test]
    fn what_was_written_reads_back_the_same(
        mut list in proptest::collection::vec(any_bucket(), 0..=MAX_BUCKETS),
        bound in proptest::option::of(1..=MAX_IN_FLIGHT),
        importance in any_importance(),
    ) {
        list.dedup_by_key(|bucket| bucket.id);
        list.sort_by_key(|bucket| bucket.id);
        list.dedup_by_key(|bucket| bucket.id);
        let buckets = buckets(&text(&BucketDocument::list(&list))).unwrap();
        let terms = Terms { buckets, max_in_flight: bound, importance };
        prop_assert_eq!(&*terms.buckets, &*list);
        prop_assert_eq!(terms.max_in_flight, bound);
        let plan = Plan { name: PlanName::parse("p").unwrap(), terms };
        let shown = text(&PlanDocument::new(&plan));
        let plan_name = r#"{"name":"p","buckets":["#;
        prop_assert!(shown.starts_with(plan_name), "{shown}");
        if !list.is_empty() {
            let own = plan.terms.clone();
            prop_assert_eq!(Document::read(&shown), Ok(Document::Plan(plan)));
            let limit = ClientLimit { own, ..ClientLimit::unreadable() };
            let shown = text(&LimitDocument::new("a", &limit));
            prop_assert_eq!(Document::read(&shown), Ok(Document::Limit("a".into(), limit)));
        }
    }
}
