//! `GET /v1/pools`: where requests go, pool by pool. Pools come from the configuration alone; their backends can be
//! changed ([`super::backends`]).

use serde::Serialize;
use serde_json::{Value, json};

use super::backends::{BackendShown, POOL};
use super::refused;
use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::route::{ApiCall, Operation, Resource, Route, Schema, get, refusal, shows};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use crate::proxy::pools::Pool;
use crate::store::StoreError;
use balancer_importance::Priority;
use balancer_pool::backends::Snapshot;
use balancer_pool::queue::QueueOrder;
use balancer_time::Nanos;

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
    pub line: LineShown,
}

/// The line of a pool.
#[derive(Serialize)]
pub(super) struct LineShown {
    /// Who goes next: `balancing.queue_order`.
    pub order: &'static str,
    /// How many clients wait.
    pub clients: usize,
    /// How long the first request in line has waited, in seconds; `None`: none waits.
    pub oldest: Option<f64>,
    /// The clients with the most places in line.
    pub busiest: Vec<BusyClientShown>,
}

/// A client that waits.
#[derive(Serialize)]
pub(super) struct BusyClientShown {
    pub client_id: String,
    pub priority: Priority,
    /// Its requests in flight in this pool; `None`: they are not counted.
    pub in_flight: Option<u32>,
    pub waiting: usize,
}

/// Most clients of a line that are shown.
const MAX_BUSIEST: usize = 8;

impl LineShown {
    fn of(pool: &Pool, snapshot: &Snapshot, now: Nanos) -> Self {
        let view = pool.backends.queue().view(MAX_BUSIEST, now);
        let order = snapshot.policy().queue.order;
        let words = QueueOrder::ALL.iter().find(|(_, one)| *one == order);
        let busiest = view.busiest.into_iter().map(|one| BusyClientShown {
            client_id: one.name.to_string(),
            priority: one.priority,
            in_flight: one.in_flight,
            waiting: one.waiting,
        });
        Self {
            order: words.map_or("", |(word, _)| word),
            clients: view.clients,
            oldest: view.oldest.map(|waited| (waited / 1_000_000) as f64 / 1e3),
            busiest: busiest.collect(),
        }
    }
}

impl PoolShown {
    /// With that snapshot.
    pub(super) fn of(pool: &Pool, snapshot: &Snapshot, now: Nanos) -> Self {
        Self {
            name: pool.name().to_string(),
            strategy: snapshot.strategy().name(),
            up: pool.backends.any_up(),
            waiting: pool.backends.queue().len(),
            line: LineShown::of(pool, snapshot, now),
        }
    }
}

/// The same with its backends.
#[derive(Serialize)]
pub(super) struct WholePool {
    #[serde(flatten)]
    pub pool: PoolShown,
    pub backends: Vec<BackendShown>,
}

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Pools",
    routes: &[Route::ours("/v1/pools", &[LIST]), Route::ours("/v1/pools/{pool}", &[READ]).of(&[POOL])],
    schemas,
};

const LIST: Operation = get("listPools", "All pools with their backends, as this instance has them", list)
    .never_waits()
    .answers(&[shows(200, "All of them, on one page; `default` first.", "Pools")]);

const READ: Operation = get("getPool", "A pool with its backends", read)
    .never_waits()
    .answers(&[shows(200, "The pool.", "Pool"), refusal(404, "There is no such pool.")]);

#[derive(Serialize)]
struct PoolPage {
    pools: Vec<WholePool>,
    next_cursor: Option<String>,
}

fn list(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    call.no_query()?;
    as_json(&PoolPage { pools: api.parts.control.pools(api.parts.live.clock.now()), next_cursor: None })
}

fn read(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    call.no_query()?;
    let pool = api.parts.control.whole_pool(&call.pool()?, api.parts.live.clock.now());
    as_json(&pool.map_err(|_| refused(StoreError::NotFound, "pool", ""))?)
}

/// A pool without its backends.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["name", "strategy", "up", "waiting", "line"],
        "properties": {
            "name": { "type": "string" },
            "strategy": { "type": "string", "description": "How a backend is picked." },
            "up": { "type": "boolean", "description": "Whether some backend of it is given requests." },
            "waiting": {
                "type": "integer", "minimum": 0, "description": "Requests that wait for a backend with room.",
            },
            "line": line_schema(),
        },
    })
}

fn line_schema() -> Value {
    let busy = json!({
        "type": "object",
        "required": ["client_id", "priority", "in_flight", "waiting"],
        "properties": {
            "client_id": { "type": "string" },
            "priority": { "enum": Priority::ALL.map(Priority::name) },
            "in_flight": { "type": ["integer", "null"], "minimum": 0, "description":
                "Its requests that backends have; null: nobody counts them, as with the order fifo." },
            "waiting": { "type": "integer", "minimum": 1 },
        },
    });
    json!({
        "type": "object",
        "description": "Who waits for a backend with room.",
        "required": ["order", "clients", "oldest", "busiest"],
        "properties": {
            "order": { "enum": QueueOrder::ALL.map(|(word, _)| word), "description": "Who goes next." },
            "clients": { "type": "integer", "minimum": 0 },
            "oldest": { "type": ["number", "null"], "minimum": 0, "description":
                "Seconds that the one has waited that has waited longest; null: nobody waits." },
            "busiest": { "type": "array", "maxItems": MAX_BUSIEST, "items": busy, "description":
                "Those of them that have the most places." },
        },
    })
}

/// The same, as examples show it.
pub(super) fn example() -> Value {
    let busiest = json!([{ "client_id": "192.0.2.7", "priority": "normal", "in_flight": 12, "waiting": 36 }]);
    json!({
        "name": "default", "strategy": "least_connections", "up": false, "waiting": 37,
        "line": { "order": "fair", "clients": 2, "oldest": 0.412, "busiest": busiest },
    })
}

fn schemas() -> Vec<Schema> {
    let backends = json!({ "type": "array", "items": { "$ref": "#/components/schemas/Backend" } });
    let pool = with(schema(), &json!({ "backends": backends }));
    let list = json!({
        "type": "object",
        "required": ["pools", "next_cursor"],
        "properties": {
            "pools": { "type": "array", "items": { "$ref": "#/components/schemas/Pool" } },
            "next_cursor": { "type": "null" },
        },
    });
    let mut example = example();
    example["backends"] = json!([super::backends::example()]);
    vec![
        Schema::new("Pool", pool, example.clone()),
        Schema::new("Pools", list, json!({ "pools": [example], "next_cursor": null })),
    ]
}

/// A schema of an object with more members, all of which are required.
pub(super) fn with(mut schema: Value, more: &Value) -> Value {
    for (name, member) in more.as_object().into_iter().flatten() {
        schema["properties"][name] = member.clone();
        if let Some(required) = schema["required"].as_array_mut() {
            required.push(json!(name));
        }
    }
    schema
}
