//! Limits and plans as callers write them.

use serde_json::json;

use super::patterns;
use crate::api::members::{Members, reference};
use balancer_importance::Importance;
use balancer_limiter::document::{self, BucketMembers, LimitMembers, check_count};
use balancer_limiter::identity::{ClientId, IdForm, MAX_KEY_BYTES, secret_id};
use balancer_limiter::limit::Limit;
use balancer_limiter::terms::{BucketSpec, ClientLimit, MAX_BUCKETS, MAX_IN_FLIGHT, Plan, PlanName, Terms};

/// Members of a limit, beside what names its client.
pub(super) const LIMIT_MEMBERS: [&str; 8] =
    ["plan", "buckets", "max_in_flight", "weight", "priority", "mode", "shared", "per_instance"];

/// Reads a client and its limit; `named` is the client that the target names, which the body may leave out. `None`: there
/// are faults.
pub(super) fn client_and_limit(
    members: &mut Members<'_, '_>,
    named: Option<ClientId>,
) -> Option<(ClientId, ClientLimit)> {
    let id = match named {
        None => client(members),
        Some(named) => {
            let in_body = client_if_given(members);
            if in_body.is_some_and(|other| other != named) {
                let member = if members.has("key") { "key" } else { "client_id" };
                members.fault(member, "names another client than the target");
            }
            Some(named)
        }
    };
    let limit = limit(members, id.as_ref());
    id.zip(limit)
}

/// The client that a body names: by `client_id`, or by the `key` that it has.
pub(super) fn client(members: &mut Members<'_, '_>) -> Option<ClientId> {
    let id = client_if_given(members);
    if !members.has("client_id") && !members.has("key") {
        members.fault("client_id", "missing; must be the client's id, or give its key");
    }
    id
}

fn client_if_given(members: &mut Members<'_, '_>) -> Option<ClientId> {
    let text = members.text("client_id", || reference("ClientId"));
    let key = members.text("key", || {
        json!({
            "type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES, "writeOnly": true,
            "pattern": "^[^\\u0000-\\u001f\\u007f]+$",
            "description": "The client's secret, instead of its id: `sha256:` and the first 32 hex digits of its SHA-256 \
                            are the id. It is never stored or shown.",
        })
    });
    match (members.has("client_id"), members.has("key")) {
        (true, true) => {
            members.fault("key", "a client is named by client_id or by key, not by both");
            None
        }
        (false, true) => {
            let id = secret_id(key?.as_bytes()).and_then(|id| ClientId::parse(&id).ok());
            if id.is_none() {
                let detail = format!("must have 1 to {MAX_KEY_BYTES} bytes without control characters");
                members.fault("key", detail);
            }
            id
        }
        _ => ClientId::parse(&text?).map_err(|fault| members.fault("client_id", fault.to_string())).ok(),
    }
}

/// Reads a limit. `id` is the client's, where that could be read. `None`: there are faults.
pub(super) fn limit(members: &mut Members<'_, '_>, id: Option<&ClientId>) -> Option<ClientLimit> {
    let plan =
        members.text_or_null("plan", || json!({ "oneOf": [reference("PlanName"), { "type": "null" }] }));
    let buckets = buckets(members, true);
    let max_in_flight = max_in_flight(members);
    let (weight, priority) = importance(members, "null: as its plan says, else ");
    let mode = members.text_or_null(
        "mode",
        || json!({ "enum": ["exempt", null], "description": "Never refused, still counted." }),
    );
    let read = LimitMembers {
        has_plan: members.has_value("plan"),
        plan: plan.as_deref(),
        buckets,
        max_in_flight,
        weight,
        priority: priority.as_deref(),
        mode: mode.as_deref(),
        shared: members
            .flag("shared", "One bucket for all of a range; of a range alone.")
            .unwrap_or_default(),
        per_instance: members
            .flag("per_instance", "Each instance counts alone, also where instances share one budget.")
            .unwrap_or_default(),
        is_range: id.is_none_or(|id| matches!(id.form(), IdForm::Range(_))),
    };
    read.check(&mut |member, detail| members.fault(member, detail))
}

/// Reads a plan; `named` is the one that the target names, which the body may leave out. `None`: there are faults.
pub(super) fn plan(members: &mut Members<'_, '_>, named: Option<PlanName>) -> Option<Plan> {
    let schema = || reference("PlanName");
    let text = match &named {
        Some(_) => members.text("name", schema),
        None => members.text_required("name", "the plan's name", schema),
    };
    let in_body = text.and_then(|text| {
        PlanName::parse(&text).map_err(|fault| members.fault("name", fault.to_string())).ok()
    });
    if named.is_some() && in_body.is_some() && named != in_body {
        members.fault("name", "names another plan than the target");
    }
    let buckets = buckets(members, false);
    if buckets.as_ref().is_some_and(Vec::is_empty) {
        members.fault("buckets", format!("missing; a plan has 1 to {MAX_BUCKETS}"));
    }
    let max_in_flight = max_in_flight(members);
    let (weight, priority) = importance(members, "null: ");
    let importance = document::importance(weight, priority.as_deref(), &mut |member, detail| {
        members.fault(member, detail);
    });
    let terms = Terms { max_in_flight, buckets: buckets?.into(), importance };
    Some(Plan { name: named.or(in_body)?, terms })
}

fn max_in_flight(members: &mut Members<'_, '_>) -> Option<u32> {
    members.whole_or_null("max_in_flight", 1, MAX_IN_FLIGHT, "Most requests at once, in one instance.")
}

/// `weight` and `priority`; `unsaid` is said in front of the default.
fn importance(members: &mut Members<'_, '_>, unsaid: &str) -> (Option<u32>, Option<String>) {
    let about = format!("Its clients' parts of the places, where requests wait for one; {unsaid}1.");
    let weight = members.whole_or_null("weight", 1, Importance::MAX_WEIGHT, &about);
    let priority = members.text_or_null("priority", || {
        json!({
            "enum": ["critical", "normal", "background", null],
            "description": format!("Where requests wait for a place, these have 16, 4 and 1 part of them; {unsaid}`normal`."),
        })
    });
    (weight, priority)
}

/// None at all when the member is not there, `null` or `[]`, which it may be where they are `optional`.
fn buckets(members: &mut Members<'_, '_>, optional: bool) -> Option<Vec<BucketSpec>> {
    let elements = members.elements("buckets", !optional, || {
        let mut list = json!({
            "type": "array", "maxItems": MAX_BUCKETS, "items": reference("NewBucket"), "uniqueItems": true,
        });
        match optional {
            true => list["type"] = json!(["array", "null"]),
            false => list["minItems"] = json!(1),
        }
        list
    });
    if !members.has_value("buckets") {
        return Some(Vec::new());
    }
    let elements = elements?;
    let count = elements.len();
    check_count(count).map_err(|detail| members.fault("buckets", detail)).ok()?;
    let specs = members.each("buckets", elements, bucket);
    (specs.len() == count).then_some(specs)
}

/// Reads a bucket; `beside` are those before it.
pub(super) fn bucket(members: &mut Members<'_, '_>, beside: &[BucketSpec]) -> Option<BucketSpec> {
    let name = members.text_required("name", "a name such as \"day\"", || {
        json!({
            "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[ -~]+$",
            "not": { "const": "concurrency" },
            "description": "Different from those beside it; levels carry over by it.",
        })
    });
    let amount_micro = members.amount("amount", "Tokens that flow in every `per`");
    let per = members.text_required("per", "a span such as \"1s\", \"1m\", \"1h\" or \"1d\"", || {
        json!({
            "type": "string", "pattern": patterns::per(),
            "description": "A whole number of `s`, `m`, `h` or `d`, from `1s` to `366d`; or `1mo`, 30 days.",
        })
    });
    let about = "Most tokens that it holds; `amount` when left out, which must be whole then.";
    let capacity = members.whole_if_given("capacity", 0, Limit::MAX_CAPACITY, about);
    let mode = members.text_or_null("mode", || {
        json!({
            "enum": ["enforced", "shadow", null],
            "description": "`shadow` takes tokens and counts what it would refuse, and refuses nothing.",
        })
    });
    let reset = members.text_or_null("reset", || {
        json!({
            "enum": ["utc", null],
            "description": "`utc`: filled at each full UTC hour, day or month (by `per`), and at no other time.",
        })
    });
    let read = BucketMembers {
        name: name.as_deref(),
        amount_micro,
        per: per.as_deref(),
        capacity: capacity.map(|capacity| capacity.map(u64::from)),
        mode: mode.as_deref(),
        reset: reset.as_deref(),
    };
    read.check(beside, &mut |member, detail| members.fault(member, detail))
}
