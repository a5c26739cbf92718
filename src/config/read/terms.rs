//! Keys of limits: of their numbers, and of buckets with names.

use crate::declare::{Node, Parsed, Section, Shape, Spec, Value};
use balancer_importance::{Importance, Priority};
use balancer_limiter::document::BucketMembers;
use balancer_limiter::importance::GivenImportance;
use balancer_limiter::limit::{Limit, MAX_PER_SECS, Rate, parse_per};
use balancer_limiter::terms::{BucketName, BucketSpec, MAX_BUCKETS, MAX_IN_FLIGHT, Terms};

const _: () = assert!(MAX_PER_SECS == 366 * 86_400 && MAX_BUCKETS == 4, "messages say so");

/// `null`, `"100/s burst 20"`, an object with both numbers, or one with buckets.
pub(super) fn terms_or_null(s: &mut Section<'_>, name: &'static str, about: &'static str) -> Option<Terms> {
    let spec = Spec::new(
        name,
        Shape::Other(
            "a limit: \"100/s\", \"600/m burst 50\", {\"capacity\": 100, \"rate_per_sec\": 10} or {\"buckets\": […]}",
        ),
        "null",
        about,
    )
    .or_null();
    if s.peek_object(name) {
        s.declare(&spec);
        let node = s.take(name)?;
        let section = s.open_at(name, node);
        let with_buckets = ["buckets", "max_in_flight", "weight", "priority"]
            .iter()
            .any(|key| section.origin_of(key).is_some());
        return if with_buckets {
            Some(of_buckets(section))
        } else {
            Some(Terms::of_numbers(numbers(section)))
        };
    }
    s.value(&spec, |node| match &node.value {
        Value::Null => Ok(None),
        _ => written(node).map(|limit| Some(Terms::of_numbers(limit))),
    })
}

/// `"100/s burst 20"`.
pub(super) fn written(node: &Node) -> Parsed<Limit> {
    match &node.value {
        Value::Text(text) => Limit::parse(text).map_err(|fault| Some(fault.to_string())),
        _ => Err(None),
    }
}

/// `{"capacity": 100, "rate_per_sec": 10}`.
fn numbers(mut s: Section<'_>) -> Limit {
    let rate = Spec::new(
        "rate_per_sec",
        Shape::Number("a number: 0, or 0.000001 to 1000000000 with at most 6 decimals"),
        "",
        "Tokens that come back each second; 0: none.",
    );
    let capacity = s.whole_required(
        "capacity",
        0..=u64::from(Limit::MAX_CAPACITY),
        "Most tokens that a bucket holds; 0 refuses everything.",
    );
    let micro = s.value(&rate, micro);
    s.end();
    Limit { capacity, rate: Rate::per_second(micro) }
}

fn micro(node: &Node) -> Parsed<u64> {
    match &node.value {
        Value::Number(text) => match Rate::parse_decimal(text) {
            Ok(rate) => Ok(rate.micro),
            Err(fault) => Err(Some(format!("{fault}; found {}", node.describe(true)))),
        },
        _ => Err(None),
    }
}

/// `{"buckets": […], "max_in_flight": 20}`.
fn of_buckets(mut s: Section<'_>) -> Terms {
    let buckets = buckets(&mut s);
    if buckets.is_empty() && s.is_sound() {
        s.fault(s.origin(), "buckets", "is missing; a limit has 1 to 4");
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
    let words = Shape::Choice(Priority::ALL.map(Priority::name).to_vec());
    let spec = Spec::new("priority", words, "null", about).or_null();
    s.value(&spec, |node| match &node.value {
        Value::Null => Ok(None),
        Value::Text(text) => Priority::of_name(text).map(Some).ok_or(None),
        _ => Err(None),
    })
}

/// 0 to 4 buckets whose names differ.
pub(super) fn buckets(s: &mut Section<'_>) -> Vec<BucketSpec> {
    let spec = (
        "buckets",
        "a list of 1 to 4 buckets: [{\"name\": \"day\", \"amount\": 1000, \"per\": \"1d\"}]",
        "What each request needs a token of.",
    );
    let mut buckets = Vec::new();
    s.objects(spec, 0..=MAX_BUCKETS, |section| {
        let bucket = bucket(section, &buckets);
        buckets.extend(bucket);
    });
    buckets
}

/// `None` after a fault. `beside` are the buckets before it.
fn bucket(mut s: Section<'_>, beside: &[BucketSpec]) -> Option<BucketSpec> {
    let name_at = s.origin_of("name").unwrap_or_else(|| s.origin());
    let name = Spec::new(
        "name",
        Shape::Text("1 to 64 printable ASCII characters, and not \"concurrency\""),
        "",
        "What answers call it; levels carry over by it.",
    );
    let amount = Spec::new(
        "amount",
        Shape::Number("a number: 0, or 0.000001 to 1000000000 with at most 6 decimals"),
        "",
        "Tokens that come back each span; 0: none.",
    );
    let per = Spec::new(
        "per",
        Shape::Text("a span such as \"1s\", \"1m\", \"1h\" or \"1d\", at most \"366d\", or \"1mo\""),
        "",
        "The span.",
    );
    let reset = Spec::new(
        "reset",
        Shape::Choice(vec!["utc"]),
        "null",
        "utc: filled at each UTC hour, day or month (as per says) and at no other time.",
    )
    .or_null();
    let text_if = |node: &Node, is_one: fn(&str) -> bool| match &node.value {
        Value::Text(text) if is_one(text) => Ok(Some(text.clone())),
        _ => Err(None),
    };
    let name = s.value(&name, |node| text_if(node, |text| BucketName::parse(text).is_ok()));
    let amount_micro = s.value(&amount, |node| micro(node).map(Some));
    let per = s.value(&per, |node| text_if(node, |text| parse_per(text).is_some()));
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
    let reset = s.value(&reset, |node| match &node.value {
        Value::Null => Ok(None),
        Value::Text(text) if text == "utc" => Ok(Some("utc")),
        _ => Err(None),
    });
    let read = BucketMembers {
        name: name.as_deref(),
        amount_micro,
        per: per.as_deref(),
        capacity: capacity.map(Some),
        mode,
        reset,
    };
    let bucket = read.check(beside, &mut |member, text| {
        let origin = if member == "name" { name_at.clone() } else { s.origin() };
        s.fault(origin, member, text);
    })?;
    s.end();
    Some(bucket)
}
