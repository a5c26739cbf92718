//! Keys of limits: of their numbers, and of buckets with names.

use crate::config::words;
use crate::declare::{Parsed, Section, Shape, Spec, micro_of};
use balancer_importance::{Importance, Priority};
use balancer_limiter::document::BucketMembers;
use balancer_limiter::importance::GivenImportance;
use balancer_limiter::limit::{Limit, MAX_PER_SECS, Rate, parse_per};
use balancer_limiter::terms::{BucketName, BucketSpec, MAX_BUCKETS, MAX_IN_FLIGHT, Terms};

const _: () = assert!(MAX_PER_SECS == 366 * 86_400 && MAX_BUCKETS == 4, "messages say so");

/// `null`, `"100/s burst 20"`, an object with both numbers, or one with buckets.
pub(super) fn terms_or_null(s: &mut Section<'_>, name: &'static str, about: &'static str) -> Option<Terms> {
    let spec = Spec::of(name, words::LIMIT, "null", about).or_null();
    if let Some(node) = s.get(name).filter(|node| node.clone().members().is_some()) {
        s.declare(&spec);
        let section = s.open_at(name, node);
        let with_buckets =
            ["buckets", "max_in_flight", "weight", "priority"].iter().any(|key| section.has(key));
        return if with_buckets {
            Some(of_buckets(section))
        } else {
            Some(Terms::of_numbers(numbers(section)))
        };
    }
    s.text(&spec, written).map(Terms::of_numbers)
}

/// `"100/s burst 20"`.
pub(super) fn written(text: &str) -> Parsed<Limit> {
    Limit::parse(text).map_err(|fault| Some(fault.to_string()))
}

/// `{"capacity": 100, "rate_per_sec": 10}`.
fn numbers(mut s: Section<'_>) -> Limit {
    let about = "Tokens that come back each second; 0: none.";
    let rate = Spec::of("rate_per_sec", words::AMOUNT, "", about);
    let about = "Most tokens that a bucket holds; 0 refuses everything.";
    let capacity = s.whole("capacity", 0..=u64::from(Limit::MAX_CAPACITY), "", about);
    let micro = s.some(&rate, micro_of).unwrap_or_default();
    s.end();
    Limit { capacity, rate: Rate::per_second(micro) }
}

/// `{"buckets": […], "max_in_flight": 20}`.
fn of_buckets(mut s: Section<'_>) -> Terms {
    let buckets = buckets(&mut s);
    if buckets.is_empty() && s.is_sound() {
        s.fault("buckets", "is missing; a limit has 1 to 4");
    }
    let terms = Terms {
        buckets: buckets.into(),
        max_in_flight: s.whole_or_null(
            "max_in_flight",
            1..=u64::from(MAX_IN_FLIGHT),
            "null",
            "Most requests at once of one client, in one instance; null: no bound.",
        ),
        importance: GivenImportance {
            weight: s.whole_or_null(
                "weight",
                1..=u64::from(Importance::MAX_WEIGHT),
                "null",
                "Parts of the places that a client has where requests wait for one; null: 1.",
            ),
            priority: priority(&mut s, "Of its requests where they wait for a place; null: normal."),
        },
    };
    s.end();
    terms
}

/// `priority`: `critical`, `normal` or `background`.
pub(super) fn priority(s: &mut Section<'_>, about: &'static str) -> Option<Priority> {
    s.choice("priority", &Priority::ALL.map(|one| (one.name(), one)), "null", about)
}

/// 0 to 4 buckets whose names differ.
pub(super) fn buckets(s: &mut Section<'_>) -> Vec<BucketSpec> {
    let shape = Shape::objects(
        "a list of 1 to 4 buckets: [{\"name\": \"day\", \"amount\": 1000, \"per\": \"1d\"}]",
        0,
        MAX_BUCKETS,
    );
    let mut buckets = Vec::new();
    s.objects(&Spec::new("buckets", shape, "[]", "What each request needs a token of."), |section| {
        let bucket = bucket(section, &buckets);
        buckets.extend(bucket);
    });
    buckets
}

/// `None` after a fault. `beside` are the buckets before it.
fn bucket(mut s: Section<'_>, beside: &[BucketSpec]) -> Option<BucketSpec> {
    let name = Spec::of("name", words::BUCKET_NAME, "", "What answers call it; levels carry over by it.");
    let amount = Spec::of("amount", words::AMOUNT, "", "Tokens that come back each span; 0: none.");
    let per = Spec::of("per", words::PER, "", "The span.");
    let text_if = |text: &str, is_one: bool| is_one.then(|| text.to_owned()).ok_or(None);
    let name = s.text(&name, |text| text_if(text, BucketName::parse(text).is_ok()));
    let amount_micro = s.some(&amount, micro_of);
    let per = s.text(&per, |text| text_if(text, parse_per(text).is_some()));
    let capacity: Option<u64> = s.whole_or_null(
        "capacity",
        0..=u64::from(Limit::MAX_CAPACITY),
        "null",
        "Most tokens that it holds; null: the amount.",
    );
    let mode = s.choice(
        "mode",
        &[("enforced", "enforced"), ("shadow", "shadow")],
        "\"enforced\"",
        "shadow: takes tokens and counts what it would refuse, refuses nothing.",
    );
    let about = "utc: filled at each UTC hour, day or month (as per says) and at no other time.";
    let reset = s.choice("reset", &[("utc", "utc")], "null", about);
    let read = BucketMembers {
        name: name.as_deref(),
        amount_micro,
        per: per.as_deref(),
        capacity: capacity.map(Some),
        mode,
        reset,
    };
    let bucket = read.check(beside, &mut |member, text| s.fault(member, text));
    s.end();
    bucket
}
