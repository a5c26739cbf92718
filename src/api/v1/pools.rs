//! `GET /v1/pools`: where requests go, pool by pool. Pools come from the configuration alone; their backends can be changed
//! ([`super::backends`]).

use serde::Serialize;
use serde_json::json;

use super::backends::{BackendShown, POOL};
use super::refused;
use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::route::{ApiCall, Operation, Resource, Route, Schema, get, refusal, shows};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::store::StoreError;

/// A pool of this instance.
#[derive(Serialize)]
pub(super) struct PoolShown {
    pub name: String,
    /// How a backend is picked.
    pub strategy: &'static str,
    /// Some backend of it is given requests.
    pub up: bool,
    /// Requests that wait for a backend with room.
    pub waiting: usize,
    pub backends: Vec<BackendShown>,
}

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Pools",
    routes: &[Route::ours("/v1/pools", &[LIST]), Route::ours("/v1/pools/{pool}", &[READ]).of(&[POOL])],
    schemas,
};

const LIST: Operation = get("listPools", "All pools with their backends, as this instance has them", list)
    .answers(&[shows(200, "All of them, on one page; `default` first.", "Pools")]);

const READ: Operation = get("getPool", "A pool with its backends", read)
    .answers(&[shows(200, "The pool.", "Pool"), refusal(404, "There is no such pool.")]);

#[derive(Serialize)]
struct PoolPage {
    pools: Vec<PoolShown>,
    next_cursor: Option<String>,
}

fn list(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    call.query(&[])?;
    as_json(&PoolPage { pools: api.parts.control.pools(), next_cursor: None })
}

fn read(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    call.query(&[])?;
    let name = call.pool()?;
    let pool = api.parts.control.pools().into_iter().find(|pool| pool.name == name);
    as_json(&pool.ok_or_else(|| refused(StoreError::NotFound, "pool", ""))?)
}

fn schemas() -> Vec<Schema> {
    let backends = json!({ "type": "array", "items": { "$ref": "#/components/schemas/Backend" } });
    let pool = json!({
        "type": "object",
        "required": ["name", "strategy", "up", "waiting", "backends"],
        "properties": {
            "name": { "type": "string" },
            "strategy": { "type": "string", "description": "How a backend is picked." },
            "up": { "type": "boolean", "description": "Whether some backend of it is given requests." },
            "waiting": {
                "type": "integer", "minimum": 0, "description": "Requests that wait for a backend with room.",
            },
            "backends": backends,
        },
    });
    let list = json!({
        "type": "object",
        "required": ["pools", "next_cursor"],
        "properties": {
            "pools": { "type": "array", "items": { "$ref": "#/components/schemas/Pool" } },
            "next_cursor": { "type": "null" },
        },
    });
    let example = json!({
        "name": "default", "strategy": "least_connections", "up": false, "waiting": 0,
        "backends": [super::backends::example()],
    });
    vec![
        Schema::new("Pool", pool, example.clone()),
        Schema::new("Pools", list, json!({ "pools": [example], "next_cursor": null })),
    ]
}
