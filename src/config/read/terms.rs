//! Keys of limits: of their numbers, and of buckets with names.

use crate::config::json::{Node, Value};
use crate::config::keys::{Shape, Spec};
use crate::config::section::{Parsed, Section};
use balancer_limiter::limit::{Limit, Rate};
use balancer_limiter::terms::{
    BucketName, BucketSpec, MAX_BUCKETS, MAX_IN_FLIGHT, MAX_PER_SECS, Mode, Reset, Terms, parse_per,
};

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
        let with_buckets = ["buckets", "max_in_flight"].iter().any(|key| section.origin_of(key).is_some());
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
    };
    s.end();
    terms
}

/// 0 to 4 buckets whose names differ.
pub(super) fn buckets(s: &mut Section<'_>) -> Vec<BucketSpec> {
    let spec = (
        "buckets",
        "a list of 1 to 4 buckets: [{\"name\": \"day\", \"amount\": 1000, \"per\": \"1d\"}]",
        "What each request needs a token of.",
    );
    let mut origins = Vec::new();
    let read = s.objects(spec, MAX_BUCKETS, |section| {
        origins.push(section.origin_of("name").unwrap_or_else(|| section.origin()));
        bucket(section)
    });
    let mut buckets: Vec<BucketSpec> = Vec::with_capacity(read.len());
    for ((index, bucket), origin) in read.into_iter().enumerate().zip(origins) {
        let Some(bucket) = bucket else { continue };
        if buckets.iter().any(|other| other.id == bucket.id) {
            let text = format!("{:?} names another bucket of this limit already", bucket.name.as_str());
            s.fault(origin, &format!("buckets[{index}].name"), text);
        }
        buckets.push(bucket);
    }
    buckets
}

/// `None` after a fault.
fn bucket(mut s: Section<'_>) -> Option<BucketSpec> {
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
    let modes = [("enforced", Mode::Enforced), ("shadow", Mode::Shadow)];
    let reset = Spec::new(
        "reset",
        Shape::Choice(vec!["utc"]),
        "null",
        "utc: filled at each UTC hour, day or month (as per says) and at no other time.",
    )
    .or_null();
    let name = s.value(&name, |node| match &node.value {
        Value::Text(text) => BucketName::parse(text).map(Some).map_err(|_| None),
        _ => Err(None),
    });
    let micro = s.value(&amount, |node| micro(node).map(Some));
    let per_secs = s.value(&per, |node| match &node.value {
        Value::Text(text) => parse_per(text).map(Some).ok_or(None),
        _ => Err(None),
    });
    let capacity: Option<u32> = s.whole_or_null(
        "capacity",
        0..=u64::from(Limit::MAX_CAPACITY),
        "null",
        "Most tokens that it holds; null: the amount.",
    );
    let mode = s.choice(
        "mode",
        &modes,
        "\"enforced\"",
        "shadow: takes tokens and counts what it would refuse, refuses nothing.",
    );
    let resets = s.value(&reset, |node| match &node.value {
        Value::Null => Ok(false),
        Value::Text(text) if text == "utc" => Ok(true),
        _ => Err(None),
    });
    let period = per_secs.filter(|_| resets).and_then(Reset::of_per);
    if resets && per_secs.is_some() && period.is_none() {
        let origin = s.origin_of("reset").unwrap_or_else(|| s.origin());
        s.fault(origin, "reset", "needs a per of \"1h\", \"1d\" or \"1mo\"");
    }
    let (name, micro, per_secs) = (name?, micro?, per_secs?);
    let capacity = capacity.or_else(|| {
        let whole = micro.is_multiple_of(1_000_000).then(|| u32::try_from(micro / 1_000_000).ok()).flatten();
        if whole.is_none() {
            let text = "is missing: an amount that is no whole number needs one";
            s.fault(s.origin(), "capacity", text);
        }
        whole
    });
    let limit = Limit { capacity: capacity?, rate: Rate { micro, per_secs } };
    s.end();
    Some(BucketSpec { mode: mode?, reset: period, ..BucketSpec::new(name, limit) })
}
