//! `POST /v1/check`: what would the next request get, and why? Takes nothing, so a read token may ask.

use serde::Serialize;
use serde_json::json;

use super::live::{BucketLevel, POLICIES, Question};
use super::schemas::examples;
use super::status::EXAMPLE_INSTANCE;
use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::input;
use crate::api::route::{ApiCall, Permission, Resource, Route, Schema, post, reference, shows};
use crate::declare::{Form, Node, OPTIONAL, Section, Spec, Value, schema_of};
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
    call.no_query()?;
    let question = input::read(body, question)?;
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

const ADDRESS: Form = Form::new(
    "an IP address without a port",
    || json!({ "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] }),
);
const METHOD: Form = Form::new("a method such as \"GET\"", || json!({ "type": "string", "pattern": TOKEN }));
const PATH: Form = Form::new(
    "a path that begins with / and holds visible ASCII, as in a request line",
    || json!({ "type": "string", "pattern": "^/[!-~]*$" }),
);
const HOST: Form = Form::new(
    "a host, with or without a port, such as \"api.example.com\"",
    || json!({ "type": "string", "pattern": "^[!-~]+$" }),
);
const HEADERS: Form = Form::new("an object of strings or lists of strings, by the names of fields", || {
    json!({
        "type": "object",
        "propertyNames": { "pattern": TOKEN },
        "additionalProperties": {
            "anyOf": [
                reference("FieldValue"),
                { "type": "array", "items": reference("FieldValue"), "maxItems": MAX_FIELDS },
            ],
        },
    })
});

/// [`is_token`], as a regular expression.
const TOKEN: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";

/// Most fields of a question.
const MAX_FIELDS: usize = 256;

fn question(body: &mut Section<'_>) -> Option<Question> {
    let address = Spec::of("address", ADDRESS, "", "The TCP peer.");
    let method = Spec::of("method", METHOD, "\"GET\"", "").or_null();
    let path = Spec::of("path", PATH, "\"/\"", "").or_null();
    let host = Spec::of("host", HOST, OPTIONAL, "As its `Host` has it.").or_null();
    let text_if = |text: &str, is_one: bool| is_one.then(|| text.to_owned()).ok_or(None);
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let address = body.text(&address, |text| text.parse().map_err(|_| None));
    let port = body.whole_or_null("port", 0..=u64::from(u16::MAX), OPTIONAL, "");
    let method = body.text(&method, |text| text_if(text, is_token(text.as_bytes())));
    let path = body.text(&path, |text| text_if(text, text.starts_with('/') && is_plain(text)));
    let host = body.text(&host, |text| text_if(text, is_plain(text)));
    Some(Question {
        fields: fields(body),
        address: address?,
        port,
        host,
        method: method.unwrap_or_else(|| "GET".into()),
        path: path.unwrap_or_else(|| "/".into()),
    })
}

/// `{"name": "value"}`, or a list of values for a field that is given more than once.
fn fields(body: &mut Section<'_>) -> Fields {
    let mut fields = Fields::new();
    for member in body.entries(&Spec::of("headers", HEADERS, OPTIONAL, "").or_null(), MAX_FIELDS) {
        let mut fault = |text: &str| body.fault_of("headers", &member, text);
        if !is_token(member.name.as_bytes()) {
            fault("is no name of a field");
        }
        let values = list_of_texts(member.node.clone());
        if values.is_none() {
            fault(&format!("must be a string or a list of at most {MAX_FIELDS} strings"));
        }
        for value in values.unwrap_or_default() {
            let bytes = value.trim_matches([' ', '\t']).as_bytes();
            if bytes.iter().any(|byte| *byte != b'\t' && byte.is_ascii_control()) {
                fault("must hold no control characters");
            } else {
                fields.push(&member.name, bytes);
            }
        }
    }
    fields
}

/// A text, or a list of at most [`MAX_FIELDS`] texts.
fn list_of_texts(node: Node) -> Option<Vec<String>> {
    let text = |node: Node| match node.settled().value {
        Value::Text(text) => Some(text),
        _ => None,
    };
    let node = node.settled();
    match node.value {
        Value::List(elements) if elements.len() > MAX_FIELDS => None,
        Value::List(elements) => elements.into_iter().map(text).collect(),
        _ => text(node).map(|text| vec![text]),
    }
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
            "policy": {
                "enum": POLICIES,
                "description": "`rule`: only rules or routes count or exempt it; `none`: it has no limit.",
            },
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
