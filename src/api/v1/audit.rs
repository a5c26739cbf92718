//! `GET /v1/audit`: who changed what, newest first.

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::refused;
use super::schemas::examples;
use crate::api::AdminApi;
use crate::api::page::{CURSOR, LIMIT, Page, Rows, listing, page_schema};
use crate::api::route::{ApiCall, Resource, Route, Schema, get, shows};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::store::v1::AuditRow;
use balancer_http::message::Reason;

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Audit",
    routes: &[Route::ours(
        "/v1/audit",
        &[get("listAudit", "Who changed what, newest first", list)
            .parameters(&[LIMIT, CURSOR])
            .answers(&[shows(200, "A page.", "Audit").with(&["Link"])])],
    )],
    schemas,
};

#[derive(Serialize)]
struct AuditEntry<'a> {
    seq: i64,
    /// UTC, RFC 3339.
    at: String,
    actor: &'a str,
    action: &'a str,
    target: Box<RawValue>,
    before: Box<RawValue>,
    after: Box<RawValue>,
}

fn list(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let page = call.query(|query| Page::read("/v1/audit", query, &[]))?;
    // A cursor of this listing holds the `seq` of the last row before it.
    let before = page.after.as_deref().and_then(|place| place.parse().ok());
    let mut rows =
        api.parts.limits.audit(before, page.count + 1).map_err(|error| refused(error, "entry", ""))?;
    let next_cursor = page.cut(&mut rows, |row| row.seq.to_string());
    let entries = rows.iter().map(AuditEntry::new).collect::<Result<_, _>>()?;
    listing(call.exchange.head, &Rows::new("entries", entries, next_cursor.as_deref()))
}

impl<'a> AuditEntry<'a> {
    fn new(row: &'a AuditRow) -> Result<Self, Reject> {
        let fault = |error: &dyn std::fmt::Display| {
            Reject::new(Reason::Internal, "an entry of the audit cannot be shown")
                .because(format!("audit {}: {error}", row.seq))
        };
        let raw = |text: &str| RawValue::from_string(text.to_owned()).map_err(|error| fault(&error));
        let at = jiff::Timestamp::from_microsecond(row.at_us).map_err(|error| fault(&error))?;
        Ok(Self {
            seq: row.seq,
            at: at.to_string(),
            actor: &row.actor,
            action: &row.action,
            target: raw(&row.target)?,
            before: raw(&row.before)?,
            after: raw(&row.after)?,
        })
    }
}

fn schemas() -> Vec<Schema> {
    let entry = json!({
        "type": "object",
        "required": ["seq", "at", "actor", "action", "target", "before", "after"],
        "properties": {
            "seq": { "type": "integer" },
            "at": { "type": "string", "format": "date-time", "description": "UTC, on the database's clock." },
            "actor": { "type": "string", "description": "The token's name, or the address without one." },
            "action": {
                "enum": ["create", "put", "delete", "batch", "reset", "drain", "undrain", "down", "up"],
                "description": "The last four: a backend's state was changed, with what else was said of it.",
            },
            "target": {
                "description": "`{\"client_id\": …}`, `{\"plan\": …}`, `{\"backend\": …}`, with `pool` unless that is `default`, or `{\"operations\": N}`.",
            },
            "before": { "description": "What stood there; null for nothing." },
            "after": { "description": "What stands there since; null for nothing." },
        },
    });
    let page = page_schema("entries", &entry);
    let example = json!({
        "seq": 41, "at": "2026-03-04T05:06:07.890Z", "actor": "ops", "action": "delete",
        "target": { "client_id": "10.0.0.7" }, "before": examples::limit(), "after": null,
    });
    vec![Schema::new("Audit", page, json!({ "entries": [example], "next_cursor": null }))]
}
