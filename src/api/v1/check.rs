//! `POST /v1/check`: what would the next request get, and why? Takes nothing, so a read token may ask.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::live::{BucketLevel, Question};
use super::schemas::examples;
use super::status::EXAMPLE_INSTANCE;
use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::faults::pointer;
use crate::api::members::{self, Members, reference, schema_of};
use crate::api::route::{ApiCall, Permission, Resource, Route, Schema, post, shows};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use balancer_http::fields::Fields;
use balancer_http::framing::is_token;
use balancer_importance::Importance;

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Questions",
    routes: &[Route::ours(
        "/v1/check",
        &[post("check", "What a request would get now, and why; takes nothing", check)
            .access(Permission::Read)
            .body("Question")
            .answers(&[shows(200, "What it would get.", "Verdict")])],
    )],
    schemas,
};

#[derive(Serialize)]
struct ShownVerdict<'a> {
    decision: &'static str,
    identity: &'a str,
    candidates: &'a [String],
    matched: Option<&'a str>,
    policy: &'static str,
    buckets: &'a [BucketLevel],
    route: Option<&'a str>,
    pool: Option<&'a str>,
    weight: u32,
    priority: &'static str,
    instance: &'a str,
}

fn check(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body()?;
    call.query(&[])?;
    let question = members::read(&body, question)?;
    let live = &api.parts.live;
    let verdict = live.check(&question);
    as_json(&ShownVerdict {
        decision: if verdict.allowed { "allowed" } else { "denied" },
        identity: &verdict.identity,
        candidates: &verdict.candidates,
        matched: verdict.matched.as_deref(),
        policy: verdict.policy,
        buckets: &verdict.buckets,
        route: verdict.route.as_deref(),
        pool: verdict.pool.as_deref(),
        weight: verdict.importance.weight,
        priority: verdict.importance.priority.name(),
        instance: &live.instance,
    })
}

fn question(members: &mut Members<'_, '_>) -> Option<Question> {
    let address = members.text_required("address", "the client's IP address", || {
        json!({
            "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }],
            "description": "The TCP peer.",
        })
    });
    let address = address.and_then(|text| {
        let address = text.parse::<IpAddr>().ok();
        if address.is_none() {
            members.fault("address", "must be an IP address without a port");
        }
        address
    });
    let port = members.whole_or_null("port", 0, u32::from(u16::MAX), "");
    let method = members
        .text_or_null("method", || json!({ "type": ["string", "null"], "pattern": TOKEN, "default": "GET" }));
    let method = method.unwrap_or_else(|| "GET".into());
    if !is_token(method.as_bytes()) {
        members.fault("method", "must be a method such as \"GET\"");
    }
    let path = members.text_or_null(
        "path",
        || json!({ "type": ["string", "null"], "pattern": "^/[!-~]*$", "default": "/" }),
    );
    let path = path.unwrap_or_else(|| "/".into());
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        members.fault("path", "must begin with / and hold visible ASCII, as in a request line");
    }
    let host = members.text_or_null(
        "host",
        || json!({ "type": ["string", "null"], "pattern": HOST, "description": "As its `Host` has it." }),
    );
    if host
        .as_deref()
        .is_some_and(|host| host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        members.fault("host", "must be a host, with or without a port, such as \"api.example.com\"");
    }
    let fields = fields(members);
    Some(Question {
        address: address?,
        port: port.and_then(|port| port.try_into().ok()),
        host,
        method,
        path,
        fields,
    })
}

/// [`is_token`], as a regular expression.
const TOKEN: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";

/// Visible characters.
const HOST: &str = "^[!-~]+$";

/// `{"name": "value"}`, or a list of values for a field that is given more than once.
fn fields(members: &mut Members<'_, '_>) -> Fields {
    let mut fields = Fields::new();
    let place = members.pointer("headers");
    let headers = members.any("headers", || {
        json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": TOKEN },
            "additionalProperties": {
                "anyOf": [reference("FieldValue"), { "type": "array", "items": reference("FieldValue") }],
            },
        })
    });
    for (name, value) in headers {
        let mut fault = |detail: &str| members.faults.at(format!("{place}{}", pointer(&name)), detail);
        if !is_token(name.as_bytes()) {
            fault("is no name of a field");
        }
        let values = list_of_texts(value);
        if values.is_none() {
            fault("must be a string or a list of strings");
        }
        for value in values.unwrap_or_default() {
            let bytes = value.trim_matches([' ', '\t']).as_bytes();
            if bytes.iter().any(|byte| *byte != b'\t' && byte.is_ascii_control()) {
                fault("must hold no control characters");
            } else {
                fields.push(&name, bytes);
            }
        }
    }
    fields
}

/// A text, or a list of texts.
fn list_of_texts(value: &RawValue) -> Option<Vec<String>> {
    if value.get().starts_with('"') {
        return serde_json::from_str(value.get()).ok().map(|text| vec![text]);
    }
    serde_json::from_str(value.get()).ok()
}

fn schemas() -> Vec<Schema> {
    let value = json!({ "type": "string", "pattern": "^[^\\u0000-\\u0008\\u000a-\\u001f\\u007f]*$" });
    let verdict = json!({
        "type": "object",
        "required": ["decision", "identity", "candidates", "matched", "policy", "buckets", "route", "pool", "weight",
                     "priority", "instance"],
        "properties": {
            "decision": { "enum": ["allowed", "denied"] },
            "identity": { "type": "string", "description": "Who it counts as." },
            "candidates": {
                "type": "array", "items": { "type": "string" },
                "description": "Every id that was looked for, most specific first; `default` last.",
            },
            "matched": {
                "type": ["string", "null"],
                "description": "The stored id that decides, or `default`; null when nothing does.",
            },
            "policy": { "enum": ["client", "range", "default", "none"], "description": "`none`: without a limit." },
            "buckets": { "type": "array", "items": { "$ref": "#/components/schemas/BucketLevel" } },
            "route": { "type": ["string", "null"], "description": "The route that it goes by; null: none takes it." },
            "pool": {
                "type": ["string", "null"],
                "description": "Where it goes; null: it is answered here, or sent elsewhere.",
            },
            "weight": {
                "type": "integer", "minimum": 1, "maximum": Importance::MAX_WEIGHT,
                "description": "Its client's parts of the places, where requests wait for one.",
            },
            "priority": {
                "enum": ["critical", "normal", "background"],
                "description": "Which of the requests that wait it goes with: its route's, else its client's.",
            },
            "instance": { "type": "string" },
        },
    });
    let asked =
        json!({ "address": "10.0.0.7", "host": "api.example.com", "method": "POST", "path": "/login" });
    let told = json!({
        "decision": "allowed", "identity": "10.0.0.7", "candidates": ["10.0.0.7", "10.0.0.0/8", "default"],
        "matched": "10.0.0.7", "policy": "client", "buckets": [examples::level()],
        "route": "api.example.com/", "pool": "api", "weight": 4, "priority": "normal",
        "instance": EXAMPLE_INSTANCE,
    });
    vec![
        Schema::new("Question", schema_of(question), asked),
        Schema::part("FieldValue", value),
        Schema::new("Verdict", verdict, told),
    ]
}
