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
use crate::api::members::{BodyFaults, Members, list_of_texts};
use crate::api::route::{ApiCall, Permission, Resource, Route, Schema, post, shows};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use balancer_http::fields::Fields;
use balancer_http::framing::is_token;
use balancer_http::message::Reason;

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
    instance: &'a str,
}

fn check(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body()?;
    call.query(&[])?;
    let question = question(&body)?;
    let live = &api.parts.live;
    let verdict = live.check(&question);
    as_json(&ShownVerdict {
        decision: if verdict.allowed { "allowed" } else { "denied" },
        identity: &verdict.identity,
        candidates: &verdict.candidates,
        matched: verdict.matched.as_deref(),
        policy: verdict.policy,
        buckets: &verdict.buckets,
        instance: &live.instance,
    })
}

fn question(body: &[u8]) -> Result<Question, Reject> {
    let mut faults = BodyFaults::default();
    let known = ["address", "port", "method", "path", "headers"];
    let members = Members::read(body, &known, &mut faults)?;
    let address = members.text("address", &mut faults);
    if !members.has("address") {
        members.fault("address", "missing; must be the client's IP address", &mut faults);
    }
    let address = address.and_then(|text| {
        let address = text.parse::<IpAddr>().ok();
        if address.is_none() {
            members.fault("address", "must be an IP address without a port", &mut faults);
        }
        address
    });
    let port = if members.has_value("port") {
        members.whole("port", 0, u32::from(u16::MAX), &mut faults).and_then(|port| u16::try_from(port).ok())
    } else {
        None
    };
    let method = members.text_or_null("method", &mut faults).unwrap_or_else(|| "GET".into());
    if !is_token(method.as_bytes()) {
        members.fault("method", "must be a method such as \"GET\"", &mut faults);
    }
    let path = members.text_or_null("path", &mut faults).unwrap_or_else(|| "/".into());
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        members.fault("path", "must begin with / and hold visible ASCII, as in a request line", &mut faults);
    }
    let fields = fields(&members, &mut faults);
    faults.check()?;
    let address = address.ok_or_else(|| Reject::new(Reason::BadRequest, "the body is incomplete"))?;
    Ok(Question { address, port, method, path, fields })
}

/// `{"name": "value"}`, or a list of values for a field that is given more than once.
fn fields(members: &Members<'_>, faults: &mut BodyFaults) -> Fields {
    let mut fields = Fields::new();
    if !members.has_value("headers") {
        return fields;
    }
    let Some(raw) = members.raw("headers") else { return fields };
    let Some(headers) = Members::any(raw, members.pointer("headers"), faults) else { return fields };
    for (name, value) in headers.iter() {
        if !is_token(name.as_bytes()) {
            headers.fault(name, "is no name of a field", faults);
        }
        for value in values(value, &headers, name, faults) {
            let bytes = value.trim_matches([' ', '\t']).as_bytes();
            if bytes.iter().any(|byte| *byte != b'\t' && byte.is_ascii_control()) {
                headers.fault(name, "must hold no control characters", faults);
            } else {
                fields.push(name, bytes);
            }
        }
    }
    fields
}

fn values(value: &RawValue, headers: &Members<'_>, name: &str, faults: &mut BodyFaults) -> Vec<String> {
    list_of_texts(value).unwrap_or_else(|| {
        headers.fault(name, "must be a string or a list of strings", faults);
        Vec::new()
    })
}

fn schemas() -> Vec<Schema> {
    let question = json!({
        "type": "object",
        "required": ["address"],
        "additionalProperties": false,
        "properties": {
            "address": {
                "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }],
                "description": "The TCP peer.",
            },
            "port": { "type": ["integer", "null"], "minimum": 0, "maximum": 65_535 },
            "method": { "type": ["string", "null"], "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", "default": "GET" },
            "path": { "type": ["string", "null"], "pattern": "^/[!-~]*$", "default": "/" },
            "headers": {
                "type": ["object", "null"],
                "propertyNames": { "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" },
                "additionalProperties": {
                    "anyOf": [
                        { "$ref": "#/components/schemas/FieldValue" },
                        { "type": "array", "items": { "$ref": "#/components/schemas/FieldValue" } },
                    ],
                },
            },
        },
    });
    let value = json!({ "type": "string", "pattern": "^[^\\u0000-\\u0008\\u000a-\\u001f\\u007f]*$" });
    let verdict = json!({
        "type": "object",
        "required": ["decision", "identity", "candidates", "matched", "policy", "buckets", "instance"],
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
            "instance": { "type": "string" },
        },
    });
    let asked = json!({ "address": "10.0.0.7", "method": "POST", "path": "/login" });
    let told = json!({
        "decision": "allowed", "identity": "10.0.0.7", "candidates": ["10.0.0.7", "10.0.0.0/8", "default"],
        "matched": "10.0.0.7", "policy": "client", "buckets": [examples::level()], "instance": EXAMPLE_INSTANCE,
    });
    vec![
        Schema::new("Question", question, asked),
        Schema::part("FieldValue", value),
        Schema::new("Verdict", verdict, told),
    ]
}
