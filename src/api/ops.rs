//! `/-/livez` and `/-/readyz`: is the process alive, and should it get traffic. `?verbose` says why and obeys the
//! access rules of the API.

use serde::Serialize;
use serde_json::{Value, json};

use super::AdminApi;
use super::route::{self, Call, Content, Doc, In, Operation, Parameter, Resource, Route, Stand, outcome};
use super::v1::{backends, status};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::store::StoreState;
use balancer_http::message::Reason;
use balancer_http::message::RequestHead;
use balancer_pool::backends::Operator;

/// The probe of liveness, which needs no worker.
pub(super) const LIVEZ: &str = "/livez";

const VERBOSE: Parameter = Parameter {
    name: "verbose",
    place: In::Query,
    required: false,
    schema: r#"{"type": "string"}"#,
    about: "Says more, in JSON, to whoever may call the API.",
};

pub(super) const RESOURCE: Resource = Resource {
    title: "Probes",
    routes: &[
        Route {
            stand: Stand::Probe,
            path: LIVEZ,
            allow: "GET, HEAD",
            argument: None,
            operations: &[Operation {
                method: "GET",
                access: route::Access::Open,
                handle: livez,
                doc: Doc {
                    id: "livez",
                    summary: "Whether the process is alive",
                    parameters: &[VERBOSE],
                    body: None,
                    answers: &[
                        outcome(200, "It is.", Content::Text(PLAIN)),
                        outcome(200, "It is.", Content::Json("Liveness")),
                    ],
                },
            }],
        },
        Route {
            stand: Stand::Probe,
            path: "/readyz",
            allow: "GET, HEAD",
            argument: None,
            operations: &[Operation {
                method: "GET",
                access: route::Access::Open,
                handle: readyz,
                doc: Doc {
                    id: "readyz",
                    summary: "Whether it should get traffic",
                    parameters: &[VERBOSE],
                    body: None,
                    answers: &[
                        outcome(200, "It should.", Content::Text(PLAIN)),
                        outcome(200, "It should.", Content::Json("Readiness")),
                        outcome(503, "No backend is healthy, or it is shutting down.", Content::Problem),
                    ],
                },
            }],
        },
    ],
    schemas,
};

const PLAIN: &str = "text/plain; charset=utf-8";

fn schemas() -> Vec<(&'static str, Value)> {
    let liveness = json!({
        "type": "object",
        "required": ["alive", "version"],
        "properties": { "alive": { "const": true }, "version": { "type": "string" } },
    });
    let backend = json!({
        "type": "object",
        "required": ["name", "up", "state", "health"],
        "properties": {
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
    vec![("Liveness", liveness), ("Readiness", readiness)]
}

fn livez(_: &AdminApi, call: &mut Call<'_, '_>) -> Result<Answer, Reject> {
    Ok(if is_verbose(call.exchange.head) { verbose_livez() } else { plain_livez() })
}

fn readyz(api: &AdminApi, call: &mut Call<'_, '_>) -> Result<Answer, Reject> {
    Ok(readiness(&*api.parts.health, is_verbose(call.exchange.head), call.request_id))
}

/// What readiness is judged by. Asked on a worker: must not wait.
pub trait Health: Send + Sync {
    /// Every backend that is configured.
    fn backends(&self) -> Vec<BackendHealth>;

    /// Whether one backend at least would be given a request now.
    fn any_backend_up(&self) -> bool {
        self.backends().iter().any(|backend| backend.up)
    }

    /// Whether the process is on its way out (`shutdown_delay` has begun).
    fn draining(&self) -> bool;

    /// What the store does. Limits in the cache stay in force without it, so it is shown and decides nothing.
    fn store(&self) -> StoreState;

    /// What else the operator should know, one sentence each.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// One backend, as `?verbose` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendHealth {
    /// `backends[].name`.
    pub name: String,
    /// Whether it is given requests.
    pub up: bool,
    /// What the operator says.
    pub state: Operator,
    /// What checks and answers say: `up`, `down`, `ejected` or `unknown`.
    pub health: &'static str,
    /// Why it is not up, or not whole, as the log said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
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

/// The process takes requests and answers them: this is one.
pub(super) fn plain_livez() -> Answer {
    text("ok\n")
}

fn verbose_livez() -> Answer {
    as_json(200, format!("{{\"alive\":true,\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION")).into_bytes())
}

/// 200 when a backend is healthy and the process is not draining, else 503.
fn readiness(health: &dyn Health, verbose: bool, request_id: &str) -> Answer {
    let draining = health.draining();
    let ready = !draining && health.any_backend_up();
    if ready && !verbose {
        return text("ok\n");
    }
    if ready {
        return as_json(200, serde_json::to_vec(&look(health, ready)).unwrap_or_default());
    }
    let detail = if draining { "shutting down" } else { "no backend is healthy" };
    let problem = Reject::new(Reason::Unavailable, detail).retry_after(1).answer(request_id);
    if verbose { with_members(problem, &look(health, ready)) } else { problem }
}

fn look(health: &dyn Health, ready: bool) -> Verbose {
    Verbose {
        ready,
        draining: health.draining(),
        store: health.store().word(),
        backends: health.backends(),
        notes: health.notes(),
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

fn text(body: &str) -> Answer {
    Answer::new(200, body.into()).with("Content-Type", PLAIN)
}

fn as_json(status: u16, body: Vec<u8>) -> Answer {
    Answer::new(status, body).with("Content-Type", "application/json")
}
