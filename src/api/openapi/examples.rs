//! An example of everything that goes in or comes out, so that a tool can show a call and try it. Tests hold that nothing is
//! without one, that each fits its schema, and that the API takes those of bodies.

use serde_json::{Value, json};

use balancer_http::message::Reason;

/// A body, or a part of one, by the name of its schema.
#[expect(clippy::too_many_lines, reason = "a table: one schema after the other")]
pub(super) fn of_schema(name: &str) -> Option<Value> {
    let day = json!({
        "name": "day", "amount": 1000, "per": "1d", "capacity": 1000, "mode": "enforced", "reset": "utc",
    });
    let limit = json!({
        "client_id": "10.0.0.7", "plan": null, "buckets": [day], "max_in_flight": 20, "shared": false,
    });
    let plan = json!({ "name": "pro", "buckets": [day], "max_in_flight": null });
    let new_day = json!({ "name": "day", "amount": 1000, "per": "1d", "reset": "utc" });
    let new_limit = json!({ "client_id": "10.0.0.7", "buckets": [new_day], "max_in_flight": 20 });
    let numbers = json!({ "client_id": "10.0.0.7", "capacity": 10, "rate_per_sec": 1.5 });
    let level = json!({ "name": "day", "capacity": 1000, "level": 993 });
    let cause = "GET /: connection refused; does it run, and is backends[].url right?";
    let backend = json!({
        "name": "b", "url": "http://10.0.0.12:8080", "weight": 1, "state": "up", "max_in_flight": null, "backup": false,
        "source": "store", "up": false, "health": "down", "cause": cause, "in_flight": 0,
        "endpoints": [{ "address": "10.0.0.12:8080", "health": "down", "cause": cause, "in_flight": 0 }],
    });
    Some(match name {
        "Limit" => limit,
        "Limits" => json!({ "limits": [limit], "next_cursor": null }),
        "NewLimit" => new_limit,
        "LimitTerms" => json!({ "buckets": [new_day], "max_in_flight": 20 }),
        "NumbersOfClient" | "ShownNumbers" => numbers,
        "PageOfNumbers" => json!({ "limits": [numbers], "next_cursor": null }),
        "Plan" => plan,
        "Plans" => json!({ "plans": [plan], "next_cursor": null }),
        "NewPlan" => json!({ "name": "pro", "buckets": [new_day] }),
        "PlanTerms" => json!({ "buckets": [new_day] }),
        "Batch" => json!({ "operations": [
            { "op": "put", "client_id": "10.0.0.7", "buckets": [new_day] }, { "op": "delete", "client_id": "10.0.0.8" },
        ] }),
        "Applied" => json!({ "applied": 2 }),
        "Import" => json!({ "limits": [new_limit] }),
        "Imported" => json!({ "created": 1, "replaced": 0, "unchanged": 0 }),
        "Usage" => {
            json!({ "client_id": "10.0.0.7", "buckets": [level], "in_flight": 1, "instance": INSTANCE })
        }
        "Question" => json!({ "address": "10.0.0.7", "method": "POST", "path": "/login" }),
        "Verdict" => json!({
            "decision": "allowed", "identity": "10.0.0.7", "candidates": ["10.0.0.7", "10.0.0.0/8", "default"],
            "matched": "10.0.0.7", "policy": "client", "buckets": [level], "instance": INSTANCE,
        }),
        "Limited" => {
            let reasons = json!([{ "policy": "rule", "bucket": "minute", "rule": "login", "denied": 12 }]);
            let row = json!({ "client_id": "10.0.0.7", "denied": 12, "reasons": reasons });
            json!({ "limited": [row], "window": "5m", "instance": INSTANCE })
        }
        "Clients" => {
            let row = json!({ "client_id": "10.0.0.7", "requests": 1040, "denied": 12 });
            json!({ "clients": [row], "window": "5m", "instance": INSTANCE })
        }
        "Audit" => {
            let entry = json!({
                "seq": 41, "at": "2026-03-04T05:06:07.890Z", "actor": "ops", "action": "delete",
                "target": { "client_id": "10.0.0.7" }, "before": limit, "after": null,
            });
            json!({ "entries": [entry], "next_cursor": null })
        }
        "Backend" => backend,
        "Backends" => json!({ "backends": [backend], "next_cursor": null }),
        "NewBackend" => json!({ "name": "b", "url": "http://10.0.0.12:8080", "weight": 1 }),
        "BackendPatch" => json!({ "state": "drain" }),
        "Reloaded" => {
            json!({ "reloaded": true, "changed": ["upstream.retries"], "needs_restart": ["listen"] })
        }
        "Status" => json!({
            "instance": INSTANCE, "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": 3600, "ready": true,
            "draining": false, "store": "up", "requests": 120_000, "in_flight": 3, "allowed": 119_000, "denied": 1_000,
            "clients": 250,
        }),
        "Liveness" => json!({ "alive": true, "version": env!("CARGO_PKG_VERSION") }),
        "Readiness" => json!({
            "ready": true, "draining": false, "store": "up", "notes": [],
            "backends": [
                { "name": "a", "up": true, "state": "up", "health": "up" },
                { "name": "b", "up": false, "state": "up", "health": "down", "cause": cause },
            ],
        }),
        "OpenApi" => json!({
            "openapi": "3.1.0", "info": { "title": "Balancer", "version": env!("CARGO_PKG_VERSION") }, "paths": {},
        }),
        _ => return None,
    })
}

const INSTANCE: &str = "08f621cf6cfecde1";

/// What stands for a parameter, or in a field of an answer's head; `schema` tells those of one name apart.
pub(super) fn of_parameter(name: &str, schema: &str) -> Option<Value> {
    Some(match name {
        "client_id" | "id" => json!("10.0.0.7"),
        "name" | "plan" if schema.contains("PlanName") => json!("pro"),
        "name" => json!("b"),
        "limit" => json!(100),
        "top" => json!(50),
        // Hexadecimal; a page's own `next_cursor` is another one.
        "cursor" => json!("0123456789abcdef31302e302e302e37"),
        "prefix" => json!("10.0."),
        "verbose" => json!("1"),
        "window" => json!("5m"),
        "drain" => json!("10s"),
        "If-Match" => json!("\"3\""),
        "If-None-Match" if schema.contains("enum") => json!("*"),
        "If-None-Match" => json!("\"3\""),
        _ => return None,
    })
}

/// A text of that media type.
pub(super) fn of_text(kind: &str) -> Option<Value> {
    Some(json!(match kind.split(';').next()? {
        "text/plain" if kind.contains("version=") => SERIES.to_owned(),
        "application/openmetrics-text" => format!("{SERIES}# EOF\n"),
        "text/plain" => "ok\n".to_owned(),
        "text/html" => "<!doctype html>\n<title>Balancer</title>\n".to_owned(),
        "text/css" => "body { margin: 0 }\n".to_owned(),
        "text/javascript" => "\"use strict\";\n".to_owned(),
        "image/svg+xml" => "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n".to_owned(),
        _ => return None,
    }))
}

const SERIES: &str = "# HELP balancer_store_up 1 while the database answers.\n# TYPE balancer_store_up gauge\nbalancer_store_up 1\n";

/// What the API refuses with.
const REASONS: [Reason; 17] = [
    Reason::BadRequest,
    Reason::Unauthorized,
    Reason::Forbidden,
    Reason::NotFound,
    Reason::MethodNotAllowed,
    Reason::RequestTimeout,
    Reason::Conflict,
    Reason::PreconditionFailed,
    Reason::ContentTooLarge,
    Reason::UriTooLong,
    Reason::ExpectationFailed,
    Reason::TooManyRequests,
    Reason::HeadTooLarge,
    Reason::Internal,
    Reason::NotImplemented,
    Reason::Unavailable,
    Reason::VersionNotSupported,
];

/// The problem of a status; `about` says when that is answered.
pub(super) fn problem(status: u16, about: &str) -> Value {
    let title = REASONS.iter().map(|reason| reason.status()).find(|(code, _)| *code == status);
    let title = title.map_or("", |(_, title)| title);
    let mut problem = json!({
        "type": "about:blank", "title": title, "status": status, "detail": about,
        "instance": "01a227a0-297f-7d74-bde6-7a1389fdb5ec",
    });
    if status == 400 {
        problem["errors"] =
            json!([{ "pointer": "/buckets/0/per", "detail": "must be a span such as 1s, 1m, 1h or 1d" }]);
    }
    problem
}
