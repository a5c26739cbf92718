//! JSON Schemas of limits and plans, as they are read and shown. The functions that read single members make the
//! members' schemas; here are the rules between members.

use serde_json::{Value, json};

use super::terms;
use crate::api::route::{Schema, reference};
use crate::declare::schema_of;

/// All of them.
pub(super) fn schemas() -> Vec<Schema> {
    let bucket = schema_of(|body| terms::bucket(body, &[]));
    let limit = schema_of(|body| terms::client_and_limit(body, None));
    let plan = schema_of(|body| terms::plan(body, None));
    let mut plan_terms = plan.clone();
    plan_terms["required"] = json!(["buckets"]);
    let terms = json!({ "buckets": [examples::new_bucket()] });
    let either = format!("{TERMS} `client_id` or `key`, not both.");
    let of_target =
        format!("{TERMS} The target names the client; a `client_id` or a `key` must name the same one.");
    let at_most_one_name = json!({ "not": { "required": ["client_id", "key"] } });
    vec![
        Schema::part("Bucket", shown_bucket(&bucket)),
        Schema::part("NewBucket", bounded(bucket)),
        Schema::part("PlanName", plan_name()),
        Schema::new(
            "Limit",
            shown(&limit, TERMS, &["weight", "priority", "mode", "per_instance"]),
            examples::limit(),
        ),
        Schema::new("NewLimit", of_client(limit.clone(), &either, &[some_terms()]), examples::new_limit()),
        Schema::new(
            "LimitTerms",
            with(limit, &of_target, &[at_most_one_name, some_terms()]),
            json!({ "buckets": [examples::new_bucket()], "max_in_flight": 20 }),
        ),
        Schema::new("Plan", shown(&plan, "", &["weight", "priority"]), examples::plan()),
        Schema::new("NewPlan", plan, json!({ "name": "pro", "buckets": [examples::new_bucket()] })),
        Schema::new("PlanTerms", plan_terms, terms),
    ]
}

/// What a limit is made of.
const TERMS: &str = "A plan or 1 to 4 buckets, not both; neither only with `\"mode\": \"exempt\"`.";

/// [`TERMS`] as a schema: one of three forms.
pub(super) fn some_terms() -> Value {
    let no_plan = json!({ "type": "null" });
    let no_buckets = json!({ "type": ["array", "null"], "maxItems": 0 });
    json!({ "anyOf": [
        { "required": ["plan"], "properties": { "plan": { "type": "string" }, "buckets": no_buckets } },
        { "required": ["buckets"], "properties": { "buckets": { "type": "array", "minItems": 1 }, "plan": no_plan } },
        {
            "required": ["mode"],
            "properties": { "mode": { "const": "exempt" }, "plan": no_plan, "buckets": no_buckets },
        },
    ] })
}

/// The schema of an object that names its client in one of two ways, and holds to the rest.
pub(super) fn of_client(object: Value, description: &str, more: &[Value]) -> Value {
    let one_name = json!({ "oneOf": [{ "required": ["client_id"] }, { "required": ["key"] }] });
    with(object, description, &[&[one_name], more].concat())
}

fn with(mut object: Value, description: &str, all_of: &[Value]) -> Value {
    if !description.is_empty() {
        object["description"] = json!(description);
    }
    if !all_of.is_empty() {
        object["allOf"] = json!(all_of);
    }
    object
}

/// What is shown of what was read: whole, but for `absent`, and without secrets.
fn shown(read: &Value, description: &str, absent: &[&str]) -> Value {
    let mut shown = with(read.clone(), description, &[]);
    if let Some(Value::Object(members)) = shown.get_mut("properties") {
        members.retain(|name, _| name != "key");
        if let Some(buckets) = members.get_mut("buckets") {
            buckets["items"] = reference("Bucket");
        }
        let required = members.keys().filter(|name| !absent.contains(&name.as_str()));
        shown["required"] = required.map(String::as_str).collect();
    }
    shown
}

/// What is shown has no `multipleOf`: readers that divide by floats get it wrong.
fn shown_bucket(read: &Value) -> Value {
    let mut bucket = shown(read, "", &[]);
    let members = &mut bucket["properties"];
    members["amount"] = json!({
        "type": "number", "minimum": 0, "maximum": 1_000_000_000,
        "description": "Tokens that flow in every `per`.",
    });
    members["mode"]["enum"] = json!(["enforced", "shadow"]);
    members["capacity"]["description"] = json!("Most tokens that it holds.");
    bucket
}

/// A bucket whose members fit each other.
fn bounded(bucket: Value) -> Value {
    let with_capacity = json!({ "anyOf": [
        { "required": ["capacity"] },
        { "properties": { "amount": { "type": "integer" } } },
    ] });
    let with_period = json!({ "anyOf": [
        { "properties": { "reset": { "const": null } } },
        { "properties": { "per": { "enum": PERIODS } } },
    ] });
    with(bucket, "", &[with_capacity, with_period])
}

/// An hour, a day and a month of 30 days, as they may be written.
const PERIODS: [&str; 12] =
    ["1h", "60m", "3600s", "1d", "24h", "1440m", "86400s", "1mo", "30d", "720h", "43200m", "2592000s"];

fn plan_name() -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$",
        "description": "1 to 64 bytes of UTF-8 without control characters.",
    })
}

/// Examples of limits, plans and what is left of them.
pub(super) mod examples {
    use serde_json::{Value, json};

    /// JSON as text.
    pub const PLAN_NAME: &str = r#""pro""#;

    fn bucket() -> Value {
        json!({ "name": "day", "amount": 1000, "per": "1d", "capacity": 1000, "mode": "enforced", "reset": "utc" })
    }

    pub fn new_bucket() -> Value {
        json!({ "name": "day", "amount": 1000, "per": "1d", "reset": "utc" })
    }

    pub fn limit() -> Value {
        json!({
            "client_id": "10.0.0.7", "plan": null, "buckets": [bucket()], "max_in_flight": 20, "weight": 4,
            "shared": false,
        })
    }

    pub fn new_limit() -> Value {
        json!({ "client_id": "10.0.0.7", "buckets": [new_bucket()], "max_in_flight": 20, "weight": 4 })
    }

    pub fn plan() -> Value {
        json!({ "name": "pro", "buckets": [bucket()], "max_in_flight": null, "priority": "background" })
    }

    pub fn level() -> Value {
        json!({ "name": "day", "capacity": 1000, "level": 993 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balancer_limiter::limit::parse_per;
    use balancer_limiter::terms::Reset;

    #[test]
    fn every_period_is_one() {
        for period in PERIODS {
            assert!(parse_per(period).and_then(Reset::of_per).is_some(), "{period}");
        }
    }
}
