//! `POST /v1/import`: a chunk of many limits, added or replaced together. Unlike a batch it needs only a few
//! statements, however many limits there are, and is in force within a moment instead of on the next request.

use serde::Serialize;
use serde_json::json;

use super::batch::{MAX_BATCH_BYTES, failed};
use super::schemas::examples;
use super::terms;
use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::input;
use crate::api::route::{ApiCall, Resource, Route, Schema, post, reference, refusal, shows};
use crate::declare::{Section, Shape, Spec, schema_of};
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
    call.no_query()?;
    let chunk = input::read(body, limits)?;
    let Imported { created, replaced, unchanged } = match chunk.is_empty() {
        true => Imported::default(),
        false => {
            api.parts.limits.import(chunk, &call.caller.actor).map_err(|error| failed(error, "limits"))?
        }
    };
    as_json(&ShownCounts { created, replaced, unchanged })
}

const LIMITS: Spec = Spec::new(
    "limits",
    Shape::Objects {
        words: "a list of at most 10000 limits",
        min: 0,
        max: MAX_IMPORTED,
        schema: Some(|| json!({ "type": "array", "maxItems": MAX_IMPORTED, "items": reference("NewLimit") })),
    },
    "",
    "Of several for one client the last counts.",
);

const _: () = assert!(MAX_IMPORTED == 10_000, "messages say so");

fn limits(body: &mut Section<'_>) -> Option<Vec<(ClientId, ClientLimit)>> {
    Some(body.each(&LIMITS, |one| terms::client_and_limit(one, None)).into_iter().flatten().collect())
}

fn schemas() -> Vec<Schema> {
    let count = json!({ "type": "integer", "minimum": 0, "maximum": MAX_IMPORTED });
    let imported = json!({
        "type": "object",
        "required": ["created", "replaced", "unchanged"],
        "properties": { "created": count, "replaced": count, "unchanged": count },
    });
    let example = json!({ "created": 1, "replaced": 0, "unchanged": 0 });
    vec![
        Schema::new("Import", schema_of(limits), json!({ "limits": [examples::new_limit()] })),
        Schema::new("Imported", imported, example),
    ]
}
