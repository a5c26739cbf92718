//! What the overview looks like.

use serde_json::{Value, json};

use crate::api::route::Schema;
use crate::api::route::reference;
use crate::api::v1::status::EXAMPLE_INSTANCE;
use crate::api::v1::{backends, pools};
use crate::history::{BEYOND_S, MAX_MARKS, MarkKind, STEP_S};

/// A number that only has to be one.
fn number(about: &str) -> Value {
    json!({ "type": "number", "minimum": 0, "description": about })
}

fn count(about: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": about })
}

fn seconds(about: &str) -> Value {
    json!({ "type": ["number", "null"], "minimum": 0, "description": about })
}

fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn object(properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().into_iter().flatten().map(|(name, _)| name).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

/// Another schema with more members.
fn more(than: &str, properties: Value) -> Value {
    json!({ "allOf": [reference(than), object(properties)] })
}

fn level() -> Value {
    json!({
        "enum": ["ok", "warn", "bad"],
        "description": "warn: somebody should look; bad: something does not work.",
    })
}

const REQUESTS_PER_SEC: &str =
    "Within the last 10 to 20 seconds, as all numbers a second and percentiles here.";

fn rates() -> [(&'static str, Value); 5] {
    let percentile = format!("Seconds; null: there was nothing; {BEYOND_S}: longer than that.");
    [
        ("requests_per_sec", number(REQUESTS_PER_SEC)),
        ("errors_per_sec", number("5xx; of a backend attempts without an answer, too.")),
        ("p50", seconds(&percentile)),
        ("p95", seconds(&percentile)),
        ("p99", seconds(&percentile)),
    ]
}

fn with_rates(mut properties: Value) -> Value {
    rates().into_iter().for_each(|(name, schema)| properties[name] = schema);
    properties
}

fn item() -> Value {
    object(json!({
        "name": { "type": "string", "description":
            "backends, errors, requests, limited, store and instances are always there; loops, certificate and process when they \
             are not as they should be." },
        "level": level(),
        "text": { "type": "string" },
        "value": { "type": ["number", "string", "object"], "description":
            "The same for a program; of limited at most 1000, and more are said in the text alone: 1,000+." },
    }))
}

fn backend() -> Value {
    more(
        "Backend",
        with_rates(json!({
            "level": level(),
            "title": { "type": "string", "description": "What sentences call it." },
            "is": { "enum": ["up", "drain", "down", "ejected"], "description": "The operator's word, then its health." },
            "since": number("How long it is so, in seconds."),
            "last_check": {
                "type": ["object", "null"],
                "description": "The last health check; of several addresses one whose check failed.",
                "required": ["address", "passed", "came", "took", "age"],
                "properties": {
                    "address": { "type": "string" },
                    "passed": { "type": "boolean" },
                    "came": { "type": "string", "description": "What was asked, and what came." },
                    "took": number("How long it took, in seconds."),
                    "age": number("How long ago it ended, in seconds."),
                },
            },
            "requests": count("Attempts since the start."),
            "errors": count("Those that were answered 5xx, or not at all."),
            "retries": count("Requests that were sent again after an attempt at it."),
            "response_bytes": count("Bytes of answers' bodies that clients got."),
            "checks": object(json!({ "passed": count("Since the start."), "failed": count("Since the start.") })),
        })),
    )
}

fn pool() -> Value {
    let more = json!({
        "level": level(),
        "backends_up": count("Backends that are given requests."),
        "backends_total": count("All of them."),
        "requests_per_sec": number(REQUESTS_PER_SEC),
        "errors_per_sec": number("5xx, and attempts without an answer."),
    });
    pools::with(pools::schema(), &more)
}

fn overview() -> Value {
    let kinds = MarkKind::ALL.map(MarkKind::name);
    let mark = object(json!({
        "at": count("Seconds since the epoch."),
        "kind": { "enum": kinds },
        "text": { "type": "string" },
    }));
    let mut marks = list(mark);
    marks["maxItems"] = json!(MAX_MARKS);
    marks["description"] = json!("What explains a bend in a plot, of the last hour, oldest first.");
    let close = more("BucketLevel", json!({ "client_id": { "type": "string" } }));
    let history = object(json!({
        "step": { "const": STEP_S },
        "at": { "type": ["integer", "null"], "description": "When that step began, in seconds since the epoch; null: none is over." },
        "values": { "type": "object", "additionalProperties": { "type": ["number", "null"] }, "description":
            "The newest whole step of /v1/history, by metric." },
    }));
    more(
        "Status",
        json!({
            "at": number("Seconds since the epoch."),
            "well": { "type": "boolean", "description": "Nothing of the line is bad." },
            "text": { "type": "string", "description": "The line in words, as `balancer status` prints it." },
            "line": list(item()),
            "changes": { "type": ["integer", "null"], "description":
                "The number of the newest change of limits, plans and backends that is known; null: none yet. Another one: lists are old." },
            "role": { "enum": ["read", "write"], "description": "What the caller may do." },
            "now": object(with_rates(json!({}))),
            "limited_per_sec": number("Requests that a limit refused."),
            "pools": list(pool()),
            "backends": list(reference("OverviewBackend")),
            "limited": list(reference("Refusals")),
            "close": list(close),
            "marks": marks,
            "history": history,
        }),
    )
}

pub(super) fn schemas() -> Vec<Schema> {
    vec![Schema::part("OverviewBackend", backend()), Schema::new("Overview", overview(), example())]
}

fn example() -> Value {
    let item = |name: &str, level: &str, text: &str, value: Value| json!({ "name": name, "level": level, "text": text, "value": value });
    let mut backend = backends::example();
    let rates =
        json!({ "requests_per_sec": 0.0, "errors_per_sec": 0.0, "p50": null, "p95": null, "p99": null });
    let check = json!({ "address": "10.0.0.12:8080", "passed": false, "came": "GET /: connection refused", "took": 0.0004, "age": 1.2 });
    let own = json!({
        "level": "bad", "title": "b", "is": "down", "since": 95.0, "last_check": check, "requests": 1204, "errors": 3,
        "retries": 3, "response_bytes": 90_211, "checks": { "passed": 12, "failed": 48 },
    });
    add(&mut backend, &rates);
    add(&mut backend, &own);
    let mut pool = pools::example();
    add(
        &mut pool,
        &json!({ "level": "bad", "backends_up": 0, "backends_total": 1, "requests_per_sec": 0.0, "errors_per_sec": 0.0 }),
    );
    let line = json!([
        item("backends", "bad", "0 of 1 backends up", json!({ "up": 0, "total": 1 })),
        item("errors", "ok", "0 % errors", json!(0.0)),
        item("requests", "ok", "0 req/s", json!(0.0)),
        item("limited", "warn", "1 client limited", json!(1)),
        item("store", "ok", "store up", json!("up")),
        item("instances", "ok", "1 instance", json!(1)),
    ]);
    let reasons = json!([{ "policy": "rule", "bucket": "minute", "rule": "login", "denied": 12 }]);
    json!({
        "at": 1_767_225_600.25, "well": false,
        "text": "0 of 1 backends up · 0 % errors · 0 req/s · 1 client limited · store up · 1 instance",
        "line": line, "changes": 41, "role": "write",
        "instance": EXAMPLE_INSTANCE, "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": 3600, "ready": false,
        "draining": false, "store": "up", "requests": 120_000, "in_flight": 0, "allowed": 119_000, "denied": 1_000,
        "clients": 250, "tls": null, "instances": [],
        "now": rates, "limited_per_sec": 0.2, "pools": [pool], "backends": [backend],
        "limited": [{ "client_id": "10.0.0.7", "denied": 12, "reasons": reasons }],
        "close": [{ "client_id": "10.0.0.7", "name": "minute", "capacity": 10, "level": 0 }],
        "marks": [{ "at": 1_767_225_505, "kind": "down", "text": "backend b is down: GET /: connection refused" }],
        "history": { "step": STEP_S, "at": 1_767_225_590, "values": { "requests": 0.0, "p50": null } },
    })
}

fn add(to: &mut Value, members: &Value) {
    members.as_object().into_iter().flatten().for_each(|(name, value)| to[name] = value.clone());
}
