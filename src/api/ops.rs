//! `/-/livez` and `/-/readyz`: is the process alive, and should it get traffic. `?verbose` says why and obeys the
//! access rules of the API.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::AdminApi;
use super::call::as_json;
use super::health::ProcessHealth;
use super::route::{ApiCall, Parameter, Permission, Resource, Route, Schema, get, refusal, shows, text};
use super::v1::{backends, status};
use crate::declare::{Form, OPTIONAL, Spec};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::proxy::lone_peer;
use crate::proxy::pools::Pool;
use crate::store::StoreState;
use balancer_http::message::Reason;
use balancer_http::message::RequestHead;
use balancer_pool::backends::{Backend, BackendReport, Operator};

/// Whether the process is alive.
pub(super) const LIVEZ: &str = "/livez";
/// Whether it should get traffic.
pub(super) const READYZ: &str = "/readyz";

const VERBOSE: Parameter = Parameter::query(
    || {
        Spec::of(
            "verbose",
            Form::text("anything"),
            OPTIONAL,
            "Says more, in JSON, to whoever may call the API.",
        )
    },
    r#""1""#,
);

pub(super) const RESOURCE: Resource = Resource {
    title: "Probes",
    routes: &[
        Route::probe(
            LIVEZ,
            &[get("livez", "Whether the process is alive", livez)
                .never_waits()
                .access(Permission::Open)
                .parameters(&[VERBOSE])
                .answers(&[text(200, "It is.", PLAIN, "ok\n"), shows(200, "It is.", "Liveness")])],
        ),
        Route::probe(
            READYZ,
            &[get("readyz", "Whether it should get traffic", readyz)
                .never_waits()
                .access(Permission::Open)
                .parameters(&[VERBOSE])
                .answers(&[
                    text(200, "It should.", PLAIN, "ok\n"),
                    shows(200, "It should.", "Readiness"),
                    refusal(503, "No backend is healthy, or it is shutting down."),
                ])],
        ),
    ],
    schemas,
};

const PLAIN: &str = "text/plain; charset=utf-8";

fn schemas() -> Vec<Schema> {
    let liveness = json!({
        "type": "object",
        "required": ["alive", "version"],
        "properties": { "alive": { "const": true }, "version": { "type": "string" } },
    });
    let backend = json!({
        "type": "object",
        "required": ["pool", "name", "up", "state", "health"],
        "properties": {
            "pool": { "type": "string" },
            "name": { "type": "string" },
            "up": { "type": "boolean", "description": "Whether it is given requests." },
            "state": backends::state_schema(),
            "health": backends::health_schema(),
            "cause": { "type": "string", "description": backends::CAUSE },
        },
    });
    let readiness = json!({
        "type": "object",
        "required": ["ready", "draining", "store", "backends", "notes"],
        "properties": {
            "ready": { "type": "boolean" },
            "draining": { "type": "boolean" },
            "store": { "enum": StoreState::WORDS, "description": status::STORE },
            "backends": { "type": "array", "items": backend },
            "notes": { "type": "array", "items": { "type": "string" } },
        },
    });
    vec![
        Schema::new("Liveness", liveness, json!({ "alive": true, "version": env!("CARGO_PKG_VERSION") })),
        Schema::new(
            "Readiness",
            readiness,
            json!({
                "ready": true, "draining": false, "store": "up", "notes": [],
                "backends": [
                    { "pool": "default", "name": "a", "up": true, "state": "up", "health": "up" },
                    {
                        "pool": "default", "name": "b", "up": false, "state": "up", "health": "down",
                        "cause": "GET /: connection refused; does it run, and is backends[].url right?",
                    },
                ],
            }),
        ),
    ]
}

fn livez(_: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    if !is_verbose(call.exchange.head) {
        return Ok(plain_ok());
    }
    as_json(&json!({ "alive": true, "version": env!("CARGO_PKG_VERSION") }))
}

fn readyz(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    readiness(&api.parts.health, is_verbose(call.exchange.head), call.request_id)
}

/// One backend, as `?verbose` shows it.
#[derive(Serialize)]
struct BackendHealth {
    pool: String,
    name: String,
    up: bool,
    state: Operator,
    health: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
}

#[derive(Serialize)]
struct Verbose {
    ready: bool,
    draining: bool,
    store: &'static str,
    backends: Vec<BackendHealth>,
    notes: Vec<String>,
}

/// Whether the query asks for more: `?verbose`, with a value or without.
pub(super) fn is_verbose(head: &RequestHead) -> bool {
    head.query().is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")))
}

/// 200 when a backend is healthy and the process is not draining, else 503.
pub(super) fn readiness(health: &ProcessHealth, verbose: bool, request_id: &str) -> Result<Answer, Reject> {
    let (draining, ready) = (health.draining(), health.ready());
    if ready {
        return if verbose { as_json(&look(health, ready)) } else { Ok(plain_ok()) };
    }
    let detail = if draining { "shutting down" } else { "no backend is healthy" };
    let problem = Reject::new(Reason::Unavailable, detail).retry_after(1).answer(request_id);
    Ok(if verbose { with_members(problem, &look(health, ready)) } else { problem })
}

fn look(health: &ProcessHealth, ready: bool) -> Verbose {
    let backends = |pool: &Arc<Pool>| -> Vec<BackendHealth> {
        let snapshot = pool.backends.snapshot();
        let backend = |backend: &Arc<Backend>| {
            let BackendReport { up, health, cause, .. } = snapshot.told(backend);
            let (pool, name) = (pool.name().to_string(), backend.name.to_string());
            BackendHealth { pool, name, up, state: backend.operator(), health, cause }
        };
        snapshot.backends().iter().map(backend).collect()
    };
    Verbose {
        ready,
        draining: health.draining(),
        store: health.limits.state().word(),
        backends: health.policy.load().pools.iter().flat_map(backends).collect(),
        notes: health.lone_peer.lone().map(lone_peer::text).into_iter().collect(),
    }
}

/// A problem with extension members (RFC 9457 §3.2).
fn with_members(mut problem: Answer, members: &Verbose) -> Answer {
    use crate::proxy::exchange::AnswerBody::Bytes;
    use serde_json::Map;
    if let (Bytes(body), Ok(Value::Object(more))) = (&mut problem.body, serde_json::to_value(members))
        && let Ok(mut all) = serde_json::from_slice::<Map<String, Value>>(body)
    {
        all.extend(more);
        *body = serde_json::to_vec(&all).unwrap_or_default();
    }
    problem
}

/// That there is an answer shows that the process takes requests and answers them.
pub(super) fn plain_ok() -> Answer {
    Answer::new(200, b"ok\n".to_vec()).with("Content-Type", PLAIN)
}
