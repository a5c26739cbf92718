//! What is left of a limit, and filling it up: `/v1/limits/{id}/usage` and `/reset`. Both are this instance's own.

use serde::Serialize;
use serde_json::{Value, json};

use super::limits::{CLIENT_ID, ID, client_id};
use super::live::BucketLevel;
use super::refused;
use crate::api::AdminApi;
use crate::api::route::{
    Access, Call, Content, Doc, Operation, Outcome, Parameter, Resource, Route, Stand, outcome,
};
use crate::api::seed::{as_json, no_content};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use balancer_limiter::identity::ClientId;

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Levels",
    routes: &[
        Route {
            stand: Stand::Ours,
            path: "/v1/limits/{id}/usage",
            allow: "GET, HEAD",
            argument: Some(ID),
            operations: &[usage("getUsage", &[])],
        },
        Route {
            stand: Stand::Ours,
            path: "/v1/limit/usage",
            allow: "GET, HEAD",
            argument: None,
            operations: &[usage("getUsageById", &[CLIENT_ID])],
        },
        Route {
            stand: Stand::Ours,
            path: "/v1/limits/{id}/reset",
            allow: "POST",
            argument: Some(ID),
            operations: &[reset("resetLimit", &[])],
        },
        Route {
            stand: Stand::Ours,
            path: "/v1/limit/reset",
            allow: "POST",
            argument: None,
            operations: &[reset("resetLimitById", &[CLIENT_ID])],
        },
    ],
    schemas,
};

const GONE: Outcome = outcome(404, "The client has no limit.", Content::Problem);

const fn usage(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[Outcome] =
        &[outcome(200, "What is left in this instance.", Content::Json("Usage")), GONE];
    let doc = Doc {
        id,
        summary: "What a client has left; takes nothing",
        parameters,
        body: None,
        answers: ANSWERS,
    };
    Operation { method: "GET", access: Access::Read, handle: get_usage, doc }
}

const fn reset(id: &'static str, parameters: &'static [Parameter]) -> Operation {
    const ANSWERS: &[Outcome] = &[outcome(204, "They are full.", Content::Nothing), GONE];
    let doc = Doc {
        id,
        summary: "Fills a client's buckets in this instance",
        parameters,
        body: None,
        answers: ANSWERS,
    };
    Operation { method: "POST", access: Access::Write, handle: post_reset, doc }
}

#[derive(Serialize)]
struct Shown<'a> {
    client_id: &'a str,
    buckets: Vec<BucketLevel>,
    in_flight: u32,
    instance: &'a str,
}

fn get_usage(api: &AdminApi, call: &mut Call<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let id = client_id(call)?;
    let row = api.parts.limits.limit(&id).map_err(|error| refused(error, "limit", ""))?;
    let live = &api.parts.live;
    let usage = live.usage(&stored(&row.client_id, id), &row.limit);
    as_json(&Shown {
        client_id: &row.client_id,
        buckets: usage.buckets,
        in_flight: usage.in_flight,
        instance: &live.instance,
    })
}

fn post_reset(api: &AdminApi, call: &mut Call<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let id = client_id(call)?;
    // Written down first: what is done is in the audit.
    let row =
        api.parts.limits.note_reset(&id, &call.caller.actor).map_err(|error| refused(error, "limit", ""))?;
    api.parts.live.reset(&stored(&row.client_id, id));
    Ok(no_content())
}

/// The id as it is stored, which is of equal value.
fn stored(text: &str, asked: ClientId) -> ClientId {
    ClientId::parse(text).unwrap_or(asked)
}

fn schemas() -> Vec<(&'static str, Value)> {
    let level = json!({
        "type": "object",
        "required": ["name", "capacity", "level"],
        "properties": {
            "name": { "type": "string" },
            "capacity": { "type": "integer", "minimum": 0 },
            "level": { "type": "integer", "minimum": 0, "description": "Whole tokens." },
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
    vec![("BucketLevel", level), ("Usage", usage)]
}
