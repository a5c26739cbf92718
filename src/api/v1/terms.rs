//! Limits and plans as callers write them.

use serde_json::json;

use super::patterns;
use crate::api::route::reference;
use crate::api::seed;
use crate::declare::{Form, OPTIONAL, Section, Shape, Spec, micro_of, owned, whole};
use balancer_importance::Importance;
use balancer_limiter::document::{self, BucketMembers, LimitMembers};
use balancer_limiter::identity::{ClientId, IdForm, MAX_KEY_BYTES, secret_id};
use balancer_limiter::limit::Limit;
use balancer_limiter::terms::{BucketSpec, ClientLimit, MAX_BUCKETS, MAX_IN_FLIGHT, Plan, PlanName, Terms};

/// Members of a limit, beside what names its client.
pub(super) const LIMIT_MEMBERS: [&str; 8] =
    ["plan", "buckets", "max_in_flight", "weight", "priority", "mode", "shared", "per_instance"];

/// Reads a client and its limit; `named` is the client that the target names, which the body may leave out. `None`:
/// there are faults.
pub(super) fn client_and_limit(
    body: &mut Section<'_>,
    named: Option<ClientId>,
) -> Option<(ClientId, ClientLimit)> {
    let id = match named {
        None => client(body),
        Some(named) => {
            let in_body = client_if_given(body);
            if in_body.is_some_and(|other| other != named) {
                let member = if body.has("key") { "key" } else { "client_id" };
                body.fault(member, "names another client than the target");
            }
            Some(named)
        }
    };
    let limit = limit(body, id.as_ref());
    id.zip(limit)
}

/// The client that a body names: by `client_id`, or by the `key` that it has.
pub(super) fn client(body: &mut Section<'_>) -> Option<ClientId> {
    let id = client_if_given(body);
    if !body.has("client_id") && !body.has("key") {
        body.fault("client_id", "is missing; must be the client's id, or give its key");
    }
    id
}

fn client_if_given(body: &mut Section<'_>) -> Option<ClientId> {
    let id = body.text(&Spec::of("client_id", seed::ID, OPTIONAL, ""), seed::parse_id);
    let about = "The client's secret, instead of its id: `sha256:` and the first 32 hex digits of its SHA-256 are the id. It is \
                 never stored or shown.";
    let key = body.text(&Spec::of("key", KEY, OPTIONAL, about).secret(), |text| {
        secret_id(text.as_bytes()).and_then(|id| ClientId::parse(&id).ok()).ok_or(None)
    });
    if body.has("client_id") && body.has("key") {
        body.fault("key", "a client is named by client_id or by key, not by both");
        return None;
    }
    id.or(key)
}

const _: () = assert!(MAX_KEY_BYTES == 4_096 && MAX_BUCKETS == 4, "messages say so");

const KEY: Form = Form::new("1 to 4096 bytes without control characters", || {
    json!({
        "type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES, "writeOnly": true,
        "pattern": "^[^\\u0000-\\u001f\\u007f]+$",
    })
});

pub(super) const PLAN_NAME: Form = Form::new("the plan's name", || reference("PlanName"));

/// Buckets, of which there must be one.
const BUCKETS: Spec = Spec::new(
    "buckets",
    Shape::Objects {
        words: "a list of 1 to 4 buckets",
        min: 1,
        max: MAX_BUCKETS,
        schema: Some(|| {
            json!({
                "type": "array", "minItems": 1, "maxItems": MAX_BUCKETS, "items": reference("NewBucket"),
                "uniqueItems": true,
            })
        }),
    },
    "",
    "",
);

/// Buckets, or none where the body has something else in their place.
const SOME_BUCKETS: Spec = Spec::new(
    "buckets",
    Shape::Objects {
        words: "a list of at most 4 buckets",
        min: 0,
        max: MAX_BUCKETS,
        schema: Some(|| {
            json!({
                "type": "array", "maxItems": MAX_BUCKETS, "items": reference("NewBucket"), "uniqueItems": true,
            })
        }),
    },
    OPTIONAL,
    "",
)
.or_null();

/// What a limit and a plan say of `weight` and `priority`.
const OF_LIMIT: [&str; 2] = [
    "Its clients' parts of the places, where requests wait for one; null: as its plan says, else 1.",
    "Where requests wait for a place, these have 16, 4 and 1 part of them; null: as its plan says, else `normal`.",
];
const OF_PLAN: [&str; 2] = [
    "Its clients' parts of the places, where requests wait for one; null: 1.",
    "Where requests wait for a place, these have 16, 4 and 1 part of them; null: `normal`.",
];

/// Reads a limit. `id` is the client's, where that could be read. `None`: there are faults.
pub(super) fn limit(body: &mut Section<'_>, id: Option<&ClientId>) -> Option<ClientLimit> {
    let plan = body.text(&Spec::of("plan", PLAN_NAME, OPTIONAL, "").or_null(), owned);
    let buckets = buckets(body, &SOME_BUCKETS);
    let max_in_flight = max_in_flight(body);
    let (weight, priority) = importance(body, OF_LIMIT);
    let mode = word(body, "mode", &["exempt"], "Never refused, still counted.");
    let read = LimitMembers {
        has_plan: body.has_value("plan"),
        plan: plan.as_deref(),
        buckets,
        max_in_flight,
        weight,
        priority: priority.as_deref(),
        mode: mode.as_deref(),
        shared: body.bool("shared", OPTIONAL, "One bucket for all of a range; of a range alone."),
        per_instance: body.bool(
            "per_instance",
            OPTIONAL,
            "Each instance counts alone, also where instances share one budget.",
        ),
        is_range: id.is_none_or(|id| matches!(id.form(), IdForm::Range(_))),
    };
    read.check(&mut |member, detail| body.fault(member, detail))
}

/// Reads a plan; `named` is the one that the target names, which the body may leave out. `None`: there are faults.
pub(super) fn plan(body: &mut Section<'_>, named: Option<PlanName>) -> Option<Plan> {
    let name = Spec::of("name", PLAN_NAME, "", "");
    let name = if named.is_some() { name.optional() } else { name };
    let in_body = body.text(&name, |text| PlanName::parse(text).map_err(|fault| Some(fault.to_string())));
    if named.is_some() && in_body.is_some() && named != in_body {
        body.fault("name", "names another plan than the target");
    }
    let buckets = buckets(body, &BUCKETS);
    let max_in_flight = max_in_flight(body);
    let (weight, priority) = importance(body, OF_PLAN);
    let importance = document::importance(weight, priority.as_deref(), &mut |member, detail| {
        body.fault(member, detail);
    });
    let terms = Terms { max_in_flight, buckets: buckets?.into(), importance };
    Some(Plan { name: named.or(in_body)?, terms })
}

fn max_in_flight(body: &mut Section<'_>) -> Option<u32> {
    let about = "Most requests at once, in one instance.";
    body.whole_or_null("max_in_flight", 1..=u64::from(MAX_IN_FLIGHT), OPTIONAL, about)
}

/// `weight` and `priority`.
fn importance(body: &mut Section<'_>, about: [&'static str; 2]) -> (Option<u32>, Option<String>) {
    let weight = body.whole_or_null("weight", 1..=u64::from(Importance::MAX_WEIGHT), OPTIONAL, about[0]);
    (weight, word(body, "priority", &["critical", "normal", "background"], about[1]))
}

/// A word or `null`; `limiter::document` checks that the word is a known one.
fn word(
    body: &mut Section<'_>,
    name: &'static str,
    words: &'static [&'static str],
    about: &'static str,
) -> Option<String> {
    body.text(&Spec::new(name, Shape::Choice(words.into()), OPTIONAL, about).or_null(), owned)
}

/// `None` after a fault.
fn buckets(body: &mut Section<'_>, spec: &Spec) -> Option<Vec<BucketSpec>> {
    let mut buckets = Vec::new();
    let read = body.each(spec, |one| {
        let bucket = bucket(one, &buckets);
        buckets.extend(bucket.clone());
        bucket
    });
    if body.faulty("buckets") { None } else { read.into_iter().collect() }
}

/// Reads a bucket; `beside` are those before it.
pub(super) fn bucket(body: &mut Section<'_>, beside: &[BucketSpec]) -> Option<BucketSpec> {
    let name = Form::new("a name such as \"day\"", || {
        json!({
            "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[ -~]+$", "not": { "const": "concurrency" },
        })
    });
    let about = "Different from those beside it; levels carry over by it.";
    let name = body.text(&Spec::of("name", name, "", about), owned);
    let about = "Tokens that flow in every `per`: 0, or 0.000001 to 1000000000 with at most 6 decimals.";
    let amount_micro = body.some(&Spec::of("amount", seed::AMOUNT, "", about), micro_of);
    let per = Form::new(
        "a span such as \"1s\", \"1m\", \"1h\" or \"1d\"",
        || json!({ "type": "string", "pattern": patterns::per() }),
    );
    let about = "A whole number of `s`, `m`, `h` or `d`, from `1s` to `366d`; or `1mo`, 30 days.";
    let per = body.text(&Spec::of("per", per, "", about), owned);
    let about = "Most tokens that it holds; `amount` when left out, which must be whole then.";
    let capacity: Option<u64> =
        body.number(&whole("capacity", &(0..=u64::from(Limit::MAX_CAPACITY)), OPTIONAL, about));
    let about = "`shadow` takes tokens and counts what it would refuse, and refuses nothing.";
    let mode = word(body, "mode", &["enforced", "shadow"], about);
    let about = "`utc`: filled at each full UTC hour, day or month (by `per`), and at no other time.";
    let reset = word(body, "reset", &["utc"], about);
    let read = BucketMembers {
        name: name.as_deref(),
        amount_micro,
        per: per.as_deref(),
        capacity: body.has("capacity").then_some(capacity),
        mode: mode.as_deref(),
        reset: reset.as_deref(),
    };
    read.check(beside, &mut |member, detail| body.fault(member, detail))
}
