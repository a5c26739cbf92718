//! What is left of a limit, and filling it up: `/v1/limits/{id}/usage` and `/reset`. Both are this instance's own.

use serde::Serialize;
use serde_json::json;

use super::limits::{CLIENT_ID, ID, client_id, wrong};
use super::live::BucketLevel;
use super::schemas::examples;
use super::status::EXAMPLE_INSTANCE;
use crate::api::AdminApi;
use crate::api::call::{as_json, no_content};
use crate::api::route::{
    self, AnswerDoc, ApiCall, Operation, Parameter, Resource, Route, Schema, bare, refusal, shows,
};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use balancer_limiter::identity::ClientId;

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Levels",
    routes: &[
        Route::ours("/v1/limits/{id}/usage", &[usage("getUsage", &[])]).of(&[ID]),
        Route::ours("/v1/limit/usage", &[usage("getUsageById", &[CLIENT_ID])]),
        Route::ours("/v1/limits/{id}/reset", &[reset("resetLimit", &[])]).of(&[ID]),
        Route::ours("/v1/limit/reset", &[reset("resetLimitById", &[CLIENT_ID])]),
    ],
    schemas,
};

const GONE: AnswerDoc = refusal(404, "The client has no limit.");

const fn usage(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[AnswerDoc] = &[shows(200, "What is left in this instance.", "Usage"), GONE];
    route::get(id, "What a client has left; takes nothing", get_usage).parameters(parameters).answers(ANSWERS)
}

const fn reset(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[AnswerDoc] = &[bare(204, "They are full."), GONE];
    route::post(id, "Fills a client's buckets in this instance", post_reset)
        .parameters(parameters)
        .answers(ANSWERS)
}

#[derive(Serialize)]
struct ShownUsage<'a> {
    client_id: &'a str,
    buckets: Vec<BucketLevel>,
    in_flight: u32,
    instance: &'a str,
}

fn get_usage(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let id = client_id(call)?;
    let row = api.parts.limits.limit(&id).map_err(wrong)?;
    let live = &api.parts.live;
    let usage = live.usage(&stored(&row.client_id, id), &row.limit);
    as_json(&ShownUsage {
        client_id: &row.client_id,
        buckets: usage.buckets,
        in_flight: usage.in_flight,
        instance: &live.instance,
    })
}

fn post_reset(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let id = client_id(call)?;
    // Written down first, so that no reset is missing in the audit.
    let row = api.parts.limits.note_reset(&id, &call.caller.actor).map_err(wrong)?;
    api.parts.live.reset(&stored(&row.client_id, id));
    Ok(no_content())
}

/// The id as it is stored. It has the same value as the one that was asked for.
fn stored(text: &str, asked: ClientId) -> ClientId {
    ClientId::parse(text).unwrap_or(asked)
}

fn schemas() -> Vec<Schema> {
    let level = json!({
        "type": "object",
        "required": ["name", "capacity", "level"],
        "properties": {
            "name": { "type": "string" },
            "capacity": { "type": "integer", "minimum": 0 },
            "level": { "type": "integer", "minimum": 0, "description": "Whole tokens." },
            "spent_elsewhere": {
                "type": "integer", "minimum": 0,
                "description": "Of a client's usage: tokens that other instances reported of the bucket since it was last idle.",
            },
        },
    });
    let usage = json!({
        "type": "object",
        "required": ["client_id", "buckets", "in_flight", "instance"],
        "properties": {
            "client_id": { "$ref": "#/components/schemas/ClientId" },
            "buckets": {
                "type": "array", "items": { "$ref": "#/components/schemas/BucketLevel" },
                "description": "Those of its plan, where it has one. A range that is not shared has a bucket for each of \
                                its addresses, and shows one that nobody used.",
            },
            "in_flight": { "type": "integer", "minimum": 0 },
            "instance": { "type": "string" },
        },
    });
    let mut level_here = examples::level();
    level_here["spent_elsewhere"] = json!(7);
    let example = json!({
        "client_id": "10.0.0.7", "buckets": [level_here], "in_flight": 1, "instance": EXAMPLE_INSTANCE,
    });
    vec![Schema::part("BucketLevel", level), Schema::new("Usage", usage, example)]
}
