//! JSON Schemas of limits and plans, as they are read and shown.

use serde_json::{Map, Value, json};

use super::patterns;
use crate::api::members::amount_schema;
use crate::api::route::Schema;
use balancer_limiter::identity::MAX_KEY_BYTES;
use balancer_limiter::limit::Limit;
use balancer_limiter::terms::{MAX_BUCKETS, MAX_IN_FLIGHT};

/// All of them.
#[expect(clippy::too_many_lines, reason = "a table: one schema after the other")]
pub(super) fn schemas() -> Vec<Schema> {
    let id = json!({ "$ref": "#/components/schemas/ClientId" });
    let key = json!({
        "type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES, "writeOnly": true,
        "pattern": "^[^\\u0000-\\u001f\\u007f]+$",
        "description": "The client's secret, instead of its id: `sha256:` and the first 32 hex digits of its SHA-256 are \
                        the id. It is never stored or shown.",
    });
    let shown = json!(["client_id", "plan", "buckets", "max_in_flight", "shared"]);
    let client = json!({ "client_id": id, "key": key });
    let create = json!({ "op": { "enum": ["create", "put"] }, "client_id": id, "key": key });
    let delete = json!({ "op": { "const": "delete" }, "client_id": id, "key": key });
    let one_name = json!({ "oneOf": [{ "required": ["client_id"] }, { "required": ["key"] }] });
    let terms = json!({ "anyOf": some_terms() });
    let at_most_one_name = json!({ "not": { "required": ["client_id", "key"] } });
    vec![
        Schema::part(
            "Bucket",
            object(&json!(["name", "amount", "per", "capacity", "mode", "reset"]), &bucket(), ""),
        ),
        Schema::part("NewBucket", new_bucket()),
        Schema::part("PlanName", plan_name()),
        Schema::new(
            "Limit",
            object(&shown, &limit(&json!({ "client_id": id }), "Bucket"), TERMS),
            examples::limit(),
        ),
        Schema::new(
            "NewLimit",
            with_all_of(
                object(
                    &json!([]),
                    &limit(&client, "NewBucket"),
                    &format!("{TERMS} `client_id` or `key`, not both."),
                ),
                &[&one_name, &terms],
            ),
            examples::new_limit(),
        ),
        Schema::new(
            "LimitTerms",
            with_all_of(
                object(
                    &json!([]),
                    &limit(&client, "NewBucket"),
                    &format!(
                        "{TERMS} The target names the client; a `client_id` or a `key` must name the same one."
                    ),
                ),
                &[&at_most_one_name, &terms],
            ),
            json!({ "buckets": [examples::new_bucket()], "max_in_flight": 20 }),
        ),
        Schema::part(
            "Operation",
            json!({ "oneOf": [
                { "$ref": "#/components/schemas/CreateOrPut" }, { "$ref": "#/components/schemas/Delete" },
            ] }),
        ),
        Schema::part(
            "CreateOrPut",
            with_all_of(
                object(&json!(["op"]), &limit(&create, "NewBucket"), "A limit to create or put."),
                &[&one_name, &terms],
            ),
        ),
        Schema::part(
            "Delete",
            with_all_of(object(&json!(["op"]), &delete, "A client whose limit is to go."), &[&one_name]),
        ),
        Schema::new("Plan", plan(&json!(["name", "buckets", "max_in_flight"]), "Bucket"), examples::plan()),
        Schema::new(
            "NewPlan",
            plan(&json!(["name", "buckets"]), "NewBucket"),
            json!({ "name": "pro", "buckets": [examples::new_bucket()] }),
        ),
        Schema::new(
            "PlanTerms",
            plan(&json!(["buckets"]), "NewBucket"),
            json!({ "buckets": [examples::new_bucket()] }),
        ),
    ]
}

/// What a limit is made of.
const TERMS: &str = "A plan or 1 to 4 buckets, not both; neither only with `\"mode\": \"exempt\"`.";

/// [`TERMS`], one after another.
fn some_terms() -> Value {
    let no_plan = json!({ "type": "null" });
    let no_buckets = json!({ "type": ["array", "null"], "maxItems": 0 });
    json!([
        { "required": ["plan"], "properties": { "plan": { "type": "string" }, "buckets": no_buckets } },
        { "required": ["buckets"], "properties": { "buckets": { "type": "array", "minItems": 1 }, "plan": no_plan } },
        {
            "required": ["mode"],
            "properties": { "mode": { "const": "exempt" }, "plan": no_plan, "buckets": no_buckets },
        },
    ])
}

/// An object that has these members and no others.
fn object(required: &Value, properties: &Value, description: &str) -> Value {
    let mut object = json!({
        "type": "object", "required": required, "additionalProperties": false, "properties": properties,
    });
    if !description.is_empty() {
        object["description"] = json!(description);
    }
    object
}

fn with_all_of(mut object: Value, more: &[&Value]) -> Value {
    object["allOf"] = json!(more);
    object
}

fn bucket() -> Value {
    json!({
        "name": {
            "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[ -~]+$",
            "not": { "const": "concurrency" },
            "description": "Different from those beside it; levels carry over by it.",
        },
        "amount": {
            "type": "number", "minimum": 0, "maximum": 1_000_000_000,
            "description": "Tokens that flow in every `per`.",
        },
        "per": {
            "type": "string", "pattern": patterns::per(),
            "description": "A whole number of `s`, `m`, `h` or `d`, from `1s` to `366d`; or `1mo`, 30 days.",
        },
        "capacity": {
            "type": "integer", "minimum": 0, "maximum": Limit::MAX_CAPACITY,
            "description": "Most tokens that it holds.",
        },
        "mode": {
            "enum": ["enforced", "shadow"],
            "description": "`shadow` takes tokens and counts what it would refuse, and refuses nothing.",
        },
        "reset": {
            "enum": ["utc", null],
            "description": "`utc`: filled at each full UTC hour, day or month (by `per`), and at no other time.",
        },
    })
}

fn new_bucket() -> Value {
    let mut members = bucket();
    members["amount"] = amount_schema("Tokens that flow in every `per`: ");
    members["mode"]["enum"] = json!(["enforced", "shadow", null]);
    let about = "Most tokens that it holds; `amount` when left out, which must be whole then.";
    members["capacity"]["description"] = json!(about);
    let with_capacity = json!({ "anyOf": [
        { "required": ["capacity"] },
        { "properties": { "amount": { "type": "integer" } } },
    ] });
    let with_period = json!({ "anyOf": [
        { "properties": { "reset": { "const": null } } },
        { "properties": { "per": { "enum": PERIODS } } },
    ] });
    with_all_of(object(&json!(["name", "amount", "per"]), &members, ""), &[&with_capacity, &with_period])
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

fn in_flight() -> Value {
    json!({
        "type": ["integer", "null"], "minimum": 1, "maximum": MAX_IN_FLIGHT,
        "description": "Most requests at once, in one instance.",
    })
}

/// Members of a limit beside those that it has here; `bucket` is the schema of its buckets.
fn limit(more: &Value, bucket: &str) -> Value {
    let own = json!({
        "plan": { "oneOf": [{ "$ref": "#/components/schemas/PlanName" }, { "type": "null" }] },
        "buckets": {
            "type": ["array", "null"], "maxItems": MAX_BUCKETS, "items": reference(bucket), "uniqueItems": true,
        },
        "max_in_flight": in_flight(),
        "mode": { "enum": ["exempt", null], "description": "Never refused, still counted." },
        "shared": { "type": "boolean", "description": "One bucket for all of a range; of a range alone." },
    });
    [own, more.clone()]
        .iter()
        .filter_map(Value::as_object)
        .flatten()
        .map(|(name, schema)| (name.clone(), schema.clone()))
        .collect::<Map<_, _>>()
        .into()
}

fn plan(required: &Value, bucket: &str) -> Value {
    let members = json!({
        "name": reference("PlanName"),
        "buckets": {
            "type": "array", "minItems": 1, "maxItems": MAX_BUCKETS, "items": reference(bucket), "uniqueItems": true,
        },
        "max_in_flight": in_flight(),
    });
    object(required, &members, "")
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
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
            "client_id": "10.0.0.7", "plan": null, "buckets": [bucket()], "max_in_flight": 20, "shared": false,
        })
    }

    pub fn new_limit() -> Value {
        json!({ "client_id": "10.0.0.7", "buckets": [new_bucket()], "max_in_flight": 20 })
    }

    pub fn plan() -> Value {
        json!({ "name": "pro", "buckets": [bucket()], "max_in_flight": null })
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
