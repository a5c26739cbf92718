//! `GET /v1/limited` and `GET /v1/clients`: who was refused most, and who asks most, within the last minutes. Both are read
//! from bounded sketches (`limiter::heavy_hitters`) and are this instance's own.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::live::{ClientCount, DeniedFor, RankBy};
use super::status::EXAMPLE_INSTANCE;
use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::input::{BodyFaults, Query};
use crate::api::members::reference;
use crate::api::page::page_size;
use crate::api::route::{ApiCall, In, Parameter, Resource, Route, Schema, get, shows};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use balancer_limiter::limit::parse_per;

/// The longest window.
pub const MAX_WINDOW: Duration = Duration::from_secs(3_600);

const DEFAULT_WINDOW: &str = "5m";

const DEFAULT_TOP: usize = 50;

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Busiest clients",
    routes: &[
        Route::ours(
            "/v1/limited",
            &[get("listLimited", "Who was refused most", limited)
                .parameters(&[WINDOW, TOP])
                .answers(&[shows(200, "Most refusals first.", "Limited")])],
        ),
        Route::ours(
            "/v1/clients",
            &[get("listClients", "Who asks most", clients).parameters(&[WINDOW, TOP]).answers(&[shows(
                200,
                "Most requests first.",
                "Clients",
            )])],
        ),
    ],
    schemas,
};

const WINDOW: Parameter = Parameter {
    name: "window",
    place: In::Query,
    required: false,
    schema: r#"{"type": "string", "pattern": "^([1-9][0-9]{0,2}s|([1-9]|[1-5][0-9])m|1h)$", "default": "5m"}"#,
    about: "How far back, `1s` to `1h`. The oldest step of 15 seconds (beyond `5m`: 5 minutes) counts by the part of it \
            that lies within.",
    example: r#""5m""#,
};

const TOP: Parameter = Parameter {
    name: "top",
    place: In::Query,
    required: false,
    schema: r#"{"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}"#,
    about: "How many clients at most.",
    example: "50",
};

/// A client that was refused.
#[derive(Serialize)]
pub(super) struct Refusals {
    client_id: String,
    denied: u64,
    reasons: Vec<DeniedFor>,
}

impl From<ClientCount> for Refusals {
    fn from(one: ClientCount) -> Self {
        Self { client_id: one.client_id, denied: one.denied, reasons: one.reasons }
    }
}

#[derive(Serialize)]
struct Limited<'a> {
    limited: Vec<Refusals>,
    window: &'a str,
    instance: &'a str,
}

#[derive(Serialize)]
struct Clients<'a> {
    clients: &'a [ClientCount],
    window: &'a str,
    instance: &'a str,
}

fn limited(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let query = call.query(&["window", "top"])?;
    let asked = Asked::read(&query)?;
    let live = &api.parts.live;
    let found = live.top(RankBy::Denied, asked.window, asked.top);
    let limited = found.into_iter().map(Refusals::from);
    as_json(&Limited { limited: limited.collect(), window: asked.text, instance: &live.instance })
}

fn clients(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let query = call.query(&["window", "top"])?;
    let asked = Asked::read(&query)?;
    let live = &api.parts.live;
    let found = live.top(RankBy::Requests, asked.window, asked.top);
    as_json(&Clients { clients: &found, window: asked.text, instance: &live.instance })
}

struct Asked<'a> {
    window: Duration,
    /// As it was asked for.
    text: &'a str,
    top: usize,
}

impl<'a> Asked<'a> {
    fn read(query: &'a Query) -> Result<Self, Reject> {
        let mut faults = BodyFaults::default();
        let text = query.get("window").unwrap_or(DEFAULT_WINDOW);
        let secs = parse_per(text).map(u64::from).filter(|secs| *secs <= MAX_WINDOW.as_secs());
        if secs.is_none() {
            faults.add("window", "must be a span from \"1s\" to \"1h\", such as \"5m\"");
        }
        let top = query.get("top").map_or(Some(DEFAULT_TOP), page_size);
        if top.is_none() {
            faults.add("top", "must be a whole number from 1 to 1000");
        }
        faults.check()?;
        let window = Duration::from_secs(secs.unwrap_or_default());
        Ok(Self { window, text, top: top.unwrap_or(DEFAULT_TOP) })
    }
}

fn schemas() -> Vec<Schema> {
    let count = json!({ "type": "integer", "minimum": 0 });
    let page = |name: &str, row: Value| {
        json!({
            "type": "object",
            "required": [name, "window", "instance"],
            "properties": {
                name: { "type": "array", "items": row },
                "window": { "type": "string" },
                "instance": { "type": "string" },
            },
        })
    };
    let id = json!({ "type": "string", "description": "The stored id that names the client, else its address or prefix." });
    let reason = json!({
        "type": "object", "required": ["policy", "bucket", "rule", "denied"],
        "properties": {
            "policy": {
                "enum": ["client", "range", "default", "rule", "none"],
                "description": "The kind of entry whose bucket refused, as in `balancer_ratelimit_requests_total`.",
            },
            "bucket": { "type": "string", "description": "Its name; `concurrency` for `max_in_flight`." },
            "rule": { "type": ["string", "null"], "description": "The rule that has the bucket." },
            "denied": count,
        },
    });
    let reasons = json!({
        "type": "array", "items": reason, "maxItems": 8,
        "description": "Why, as it was decided then; most frequent first.",
    });
    let of_client = json!({
        "type": "object", "required": ["client_id", "denied", "reasons"],
        "properties": { "client_id": id, "denied": count, "reasons": reasons },
    });
    let refusals = reference("Refusals");
    let counts = json!({
        "type": "object", "required": ["client_id", "requests", "denied"],
        "properties": { "client_id": id, "requests": count, "denied": count },
    });
    let reasons = json!([{ "policy": "rule", "bucket": "minute", "rule": "login", "denied": 12 }]);
    let refused = json!([{ "client_id": "10.0.0.7", "denied": 12, "reasons": reasons }]);
    let counted = json!([{ "client_id": "10.0.0.7", "requests": 1040, "denied": 12 }]);
    let example = |name: &str, rows| json!({ name: rows, "window": "5m", "instance": EXAMPLE_INSTANCE });
    vec![
        Schema::part("Refusals", of_client),
        Schema::new("Limited", page("limited", refusals), example("limited", refused)),
        Schema::new("Clients", page("clients", counts), example("clients", counted)),
    ]
}
