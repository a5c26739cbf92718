//! `GET /v1/status`: one look at this instance.

use serde::Serialize;
use serde_json::json;

use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::route::{ApiCall, Resource, Route, Schema, get, shows};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::store::StoreState;

/// What the member `store` means.
pub(in crate::api) const STORE: &str =
    "`read-only` and `full` answer and take no changes; without any of them limits in memory stay in force.";

/// An instance, as examples name it.
pub(super) const EXAMPLE_INSTANCE: &str = "08f621cf6cfecde1";

/// What an instance says of itself. Counts are since its start.
#[derive(Serialize)]
pub(in crate::api) struct InstanceStatus {
    /// As in `Via`.
    pub instance: String,
    /// The program's.
    pub version: &'static str,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Some backend is up and it is not shutting down.
    pub ready: bool,
    /// It is shutting down.
    pub draining: bool,
    /// `up` or `down`.
    pub store: &'static str,
    /// Requests that were answered, ours among them.
    pub requests: u64,
    /// Requests whose answers are not delivered yet.
    pub in_flight: u64,
    /// Requests that a limit allowed, without a limit among them.
    pub allowed: u64,
    /// Requests that a limit refused.
    pub denied: u64,
    /// Clients that have a bucket in memory.
    pub clients: u64,
}

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "This instance",
    routes: &[Route::ours(
        "/v1/status",
        &[get("getStatus", "One look at this instance", read).answers(&[shows(
            200,
            "What it is doing.",
            "Status",
        )])],
    )],
    schemas,
};

fn read(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    call.query(&[])?;
    as_json(&api.parts.live.status())
}

fn schemas() -> Vec<Schema> {
    let count = json!({ "type": "integer", "minimum": 0 });
    let status = json!({
        "type": "object",
        "required": ["instance", "version", "uptime_seconds", "ready", "draining", "store", "requests", "in_flight",
                     "allowed", "denied", "clients"],
        "properties": {
            "instance": { "type": "string", "description": "The id that stands in `Via`." },
            "version": { "type": "string" },
            "uptime_seconds": count,
            "ready": { "type": "boolean" },
            "draining": { "type": "boolean" },
            "store": { "enum": StoreState::WORDS, "description": STORE },
            "requests": count,
            "in_flight": count,
            "allowed": count,
            "denied": count,
            "clients": { "type": "integer", "minimum": 0, "description": "Clients that have a bucket in memory." },
        },
    });
    let example = json!({
        "instance": EXAMPLE_INSTANCE, "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": 3600, "ready": true,
        "draining": false, "store": "up", "requests": 120_000, "in_flight": 3, "allowed": 119_000, "denied": 1_000,
        "clients": 250,
    });
    vec![Schema::new("Status", status, example)]
}
