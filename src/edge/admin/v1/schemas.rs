//! JSON Schemas of limits and plans, as they are read and shown.

use serde_json::{Map, Value, json};

use crate::rules::identity::MAX_KEY_BYTES;
use crate::rules::limit::Limit;
use crate::rules::terms::{MAX_BUCKETS, MAX_IN_FLIGHT};

/// All of them.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let id = json!({ "$ref": "#/components/schemas/ClientId" });
    let key = json!({
        "type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES, "writeOnly": true,
        "pattern": "^[^\\u0000-\\u001f\\u007f]+$",
        "description": "The client's secret, instead of its id: `sha256:` and the first 32 hex digits of its SHA-256 are \
                        the id. It is never stored or shown.",
    });
    let about = "A plan or 1 to 4 buckets, not both; neither only with `\"mode\": \"exempt\"`.";
    let shown = json!(["client_id", "plan", "buckets", "max_in_flight", "shared"]);
    let op = json!({ "enum": ["create", "put", "delete"] });
    vec![
        ("Bucket", bucket()),
        ("PlanName", plan_name()),
        ("Limit", limit(&json!({ "client_id": id }), &shown, about)),
        (
            "NewLimit",
            limit(
                &json!({ "client_id": id, "key": key }),
                &json!([]),
                &format!(
                    "{about} `client_id` or `key`, not both; beside an id in the target, neither is needed."
                ),
            ),
        ),
        (
            "Operation",
            limit(
                &json!({ "op": op, "client_id": id, "key": key }),
                &json!(["op"]),
                "A limit to create or put, or a client whose limit is to go.",
            ),
        ),
        ("Plan", plan(&json!(["name", "buckets", "max_in_flight"]))),
        ("NewPlan", plan(&json!(["name", "buckets"]))),
        ("PlanTerms", plan(&json!(["buckets"]))),
    ]
}

fn bucket() -> Value {
    json!({
        "type": "object",
        "required": ["name", "amount", "per"],
        "additionalProperties": false,
        "properties": {
            "name": {
                "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[ -~]+$",
                "not": { "const": "concurrency" },
                "description": "Different from those beside it; levels carry over by it.",
            },
            "amount": {
                "type": "number", "minimum": 0, "maximum": 1_000_000_000,
                "description": "Tokens that flow in every `per`: 0, or 0.000001 to 1000000000 with at most 6 decimals.",
            },
            "per": {
                "type": "string", "pattern": "^([1-9][0-9]{0,6}s|[1-9][0-9]{0,4}m|[1-9][0-9]{0,2}h|([1-9]|[1-9][0-9]|[12][0-9]{2}|3[0-5][0-9]|36[0-6])d|1mo)$",
                "description": "A whole number of `s`, `m`, `h` or `d`, from `1s` to `366d`; or `1mo`, 30 days.",
            },
            "capacity": {
                "type": "integer", "minimum": 0, "maximum": Limit::MAX_CAPACITY,
                "description": "Most tokens that it holds; `amount` when left out, which must be whole then.",
            },
            "mode": {
                "enum": ["enforced", "shadow", null],
                "description": "`shadow` takes tokens and counts what it would refuse, and refuses nothing.",
            },
            "reset": {
                "enum": ["utc", null],
                "description": "`utc`: filled at each full UTC hour, day or month (by `per`), and at no other time.",
            },
        },
    })
}

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

/// A limit with these members beside its own.
fn limit(more: &Value, required: &Value, description: &str) -> Value {
    let own = json!({
        "plan": { "oneOf": [{ "$ref": "#/components/schemas/PlanName" }, { "type": "null" }] },
        "buckets": {
            "type": ["array", "null"], "maxItems": MAX_BUCKETS, "items": { "$ref": "#/components/schemas/Bucket" },
        },
        "max_in_flight": in_flight(),
        "mode": { "enum": ["exempt", null], "description": "Never refused, still counted." },
        "shared": { "type": "boolean", "description": "One bucket for all of a range." },
    });
    let properties: Map<String, Value> = [own, more.clone()]
        .iter()
        .filter_map(Value::as_object)
        .flatten()
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    json!({
        "type": "object", "required": required, "additionalProperties": false, "properties": properties,
        "not": { "required": ["client_id", "key"] },
        "description": description,
    })
}

fn plan(required: &Value) -> Value {
    json!({
        "type": "object", "required": required, "additionalProperties": false,
        "properties": {
            "name": { "$ref": "#/components/schemas/PlanName" },
            "buckets": {
                "type": "array", "minItems": 1, "maxItems": MAX_BUCKETS,
                "items": { "$ref": "#/components/schemas/Bucket" },
            },
            "max_in_flight": in_flight(),
        },
    })
}
