//! `GET /v1/status`: one look at this instance.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Value, json};

use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::route::{ApiCall, Resource, Route, Schema, get, shows};
use crate::budget::InstanceShown;
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::store::StoreState;
use crate::tls::front::CertificateShown;

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
    /// A word of [`StoreState::WORDS`].
    pub store: &'static str,
    /// Requests that were answered. Calls of the API are no requests here.
    pub requests: u64,
    /// Requests whose answers are not delivered yet.
    pub in_flight: u64,
    /// Requests that were not refused by a limit, those without a limit among them.
    pub allowed: u64,
    /// Requests that a limit refused.
    pub denied: u64,
    /// Clients that have a bucket in memory.
    pub clients: u64,
    /// `None`: there is no TLS port.
    pub tls: Option<TlsStatus>,
    /// Those that share the budget, this one first.
    pub instances: Vec<InstanceShown>,
}

/// The TLS port.
#[derive(Serialize)]
pub(in crate::api) struct TlsStatus {
    /// The default first; of several with one name the first to expire.
    certificates: Vec<CertificateStatus>,
}

/// A certificate that clients are shown.
#[derive(Serialize)]
struct CertificateStatus {
    name: String,
    names: Vec<String>,
    /// UTC.
    expires: String,
    #[serde(skip)]
    not_after: SystemTime,
}

impl TlsStatus {
    /// The name of the certificate that expires first, and when it does.
    pub(super) fn first_to_expire(&self) -> Option<(&str, SystemTime)> {
        let first = self.certificates.iter().min_by_key(|one| one.not_after)?;
        Some((&first.name, first.not_after))
    }

    /// With those certificates.
    pub(super) fn of(certificates: &[CertificateShown]) -> Self {
        let expires = |at: SystemTime| {
            let until = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            // A later time than can be written is written as the last one that can.
            let last = jiff::Timestamp::MAX.as_second();
            let until = i64::try_from(until).map_or(last, |until| until.min(last));
            jiff::Timestamp::from_second(until).unwrap_or_default().to_string()
        };
        let certificate = |one: &CertificateShown| CertificateStatus {
            name: one.name.clone(),
            names: one.names.clone(),
            expires: expires(one.not_after),
            not_after: one.not_after,
        };
        Self { certificates: certificates.iter().map(certificate).collect() }
    }
}

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "This instance",
    routes: &[Route::ours(
        "/v1/status",
        &[get("getStatus", "One look at this instance", read).never_waits().answers(&[shows(
            200,
            "What it is doing.",
            "Status",
        )])],
    )],
    schemas,
};

fn read(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    call.no_query()?;
    as_json(&api.parts.live.status())
}

fn tls_schema() -> Value {
    let certificate = json!({
        "type": "object",
        "required": ["name", "names", "expires"],
        "properties": {
            "name": { "type": "string", "description": "The first of its names, else its file." },
            "names": { "type": "array", "items": { "type": "string" } },
            "expires": { "type": "string", "format": "date-time" },
        },
    });
    json!({
        "type": ["object", "null"],
        "description": "The TLS port; null: there is none.",
        "required": ["certificates"],
        "properties": { "certificates": {
            "type": "array", "items": certificate, "description": "What clients are shown, the default first.",
        } },
    })
}

/// What the member `instances` means.
const INSTANCES: &str =
    "Instances that share each client's budget, this one first; it alone where nothing is shared.";

fn instance() -> Value {
    json!({
        "type": "object",
        "required": ["id", "address", "age", "lag", "cut_off", "hot_clients"],
        "properties": {
            "id": { "type": "string", "description": "The id that stands in its `Via`." },
            "address": { "type": "string", "description": "Where it listens." },
            "age": { "type": "number", "minimum": 0, "description": "Seconds since it was last heard here; 0 for this one." },
            "lag": { "type": ["number", "null"], "minimum": 0, "description":
                "Seconds that its messages take to all instances; null: none has come back to it yet." },
            "cut_off": { "type": "boolean", "description":
                "It hears no other instance and holds each client to a part of its limits." },
            "hot_clients": { "type": "integer", "minimum": 0, "description":
                "Clients whose spending it tells the others." },
        },
    })
}

fn schemas() -> Vec<Schema> {
    let count = json!({ "type": "integer", "minimum": 0 });
    let status = json!({
        "type": "object",
        "required": ["instance", "version", "uptime_seconds", "ready", "draining", "store", "requests", "in_flight",
                     "allowed", "denied", "clients", "tls", "instances"],
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
            "tls": tls_schema(),
            "instances": { "type": "array", "items": instance(), "description": INSTANCES },
        },
    });
    let example = json!({
        "instance": EXAMPLE_INSTANCE, "version": env!("CARGO_PKG_VERSION"), "uptime_seconds": 3600, "ready": true,
        "draining": false, "store": "up", "requests": 120_000, "in_flight": 3, "allowed": 119_000, "denied": 1_000,
        "clients": 250,
        "tls": { "certificates": [
            { "name": "example.com", "names": ["example.com", "www.example.com"], "expires": "2030-01-31T12:00:00Z" },
        ] },
        "instances": [
            { "id": EXAMPLE_INSTANCE, "address": "10.0.1.1:8080", "age": 0.0, "lag": 0.004, "cut_off": false,
              "hot_clients": 2 },
            { "id": "1c8a2f60b3d97e45", "address": "10.0.1.2:8080", "age": 0.312, "lag": 0.005, "cut_off": false,
              "hot_clients": 1 },
        ],
    });
    vec![Schema::new("Status", status, example)]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn certificates_are_shown_with_the_day_that_they_expire() {
        let shown = |until| CertificateShown {
            name: "a.test".into(),
            names: vec!["a.test".into(), "*.a.test".into()],
            not_after: UNIX_EPOCH + Duration::from_secs(until),
        };
        // The last second of the year 9999 stands in certificates that do not expire (RFC 5280 §4.1.2.5).
        let status = TlsStatus::of(&[shown(1_704_067_200), shown(253_402_300_799)]);
        let expires: Vec<&str> = status.certificates.iter().map(|one| one.expires.as_str()).collect();
        assert_eq!(expires, ["2024-01-01T00:00:00Z", "9999-12-30T22:00:00Z"]);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["certificates"][0]["names"], json!(["a.test", "*.a.test"]));
    }
}
