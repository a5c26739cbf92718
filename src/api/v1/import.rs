//! `POST /v1/import`: a chunk of many limits, added or replaced together. Beside a batch it needs a few statements however
//! many limits they are, and is in force within a moment, not on the next request.

use serde::Serialize;
use serde_json::json;

use super::batch::{MAX_BATCH_BYTES, elements, failed};
use super::client_of;
use super::schemas::examples;
use super::terms::{self, LIMIT_MEMBERS};
use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::input::{BodyFaults, Members};
use crate::api::route::{ApiCall, Resource, Route, Schema, post, refusal, shows};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::store::v1::{Imported, MAX_IMPORTED};
use balancer_limiter::identity::ClientId;
use balancer_limiter::terms::ClientLimit;

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Imports",
    routes: &[Route::ours(
        "/v1/import",
        &[post(
            "importLimits",
            "Up to 10,000 limits added or replaced, all or none; in force within a moment",
            import,
        )
        .body("Import")
        .answers(&[
            shows(200, "All of them are stored.", "Imported"),
            refusal(409, "None was stored: there would be too many ranges."),
        ])],
    )],
    schemas,
};

#[derive(Serialize)]
struct ShownCounts {
    created: u64,
    replaced: u64,
    unchanged: u64,
}

fn import(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let body = call.body_up_to(MAX_BATCH_BYTES)?;
    call.query(&[])?;
    let chunk = chunk(&body)?;
    // Not held twice while the database works.
    drop(body);
    let Imported { created, replaced, unchanged } = match chunk.is_empty() {
        true => Imported::default(),
        false => {
            api.parts.limits.import(chunk, &call.caller.actor).map_err(|error| failed(error, "limits"))?
        }
    };
    as_json(&ShownCounts { created, replaced, unchanged })
}

fn chunk(body: &[u8]) -> Result<Vec<(ClientId, ClientLimit)>, Reject> {
    let mut faults = BodyFaults::default();
    let members = Members::read(body, &["limits"], &mut faults)?;
    let elements = elements(&members, "limits", MAX_IMPORTED, &mut faults);
    let known = [&["client_id", "key"][..], &LIMIT_MEMBERS].concat();
    let mut chunk = Vec::with_capacity(elements.len());
    for (index, element) in elements.into_iter().enumerate() {
        let limit = Members::below(element, format!("/limits/{index}"), &known, &mut faults);
        chunk.extend(limit.and_then(|members| limit_of(&members, &mut faults)));
    }
    faults.check()?;
    Ok(chunk)
}

/// `None`: there are faults.
fn limit_of(members: &Members<'_>, faults: &mut BodyFaults) -> Option<(ClientId, ClientLimit)> {
    let id = client_of(members, faults);
    if !members.has("client_id") && !members.has("key") {
        members.fault("client_id", "missing; must be the client's id, or give its key", faults);
    }
    let limit = terms::limit(members, id.as_ref(), faults)?;
    Some((id?, limit))
}

fn schemas() -> Vec<Schema> {
    let import = json!({
        "type": "object",
        "required": ["limits"],
        "additionalProperties": false,
        "properties": {
            "limits": {
                "type": "array", "maxItems": MAX_IMPORTED,
                "items": { "$ref": "#/components/schemas/NewLimit" },
                "description": "Of several for one client the last counts.",
            },
        },
    });
    let count = json!({ "type": "integer", "minimum": 0, "maximum": MAX_IMPORTED });
    let imported = json!({
        "type": "object",
        "required": ["created", "replaced", "unchanged"],
        "properties": { "created": count, "replaced": count, "unchanged": count },
    });
    let example = json!({ "created": 1, "replaced": 0, "unchanged": 0 });
    vec![
        Schema::new("Import", import, json!({ "limits": [examples::new_limit()] })),
        Schema::new("Imported", imported, example),
    ]
}
