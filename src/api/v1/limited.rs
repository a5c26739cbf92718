//! `GET /v1/limited` and `GET /v1/clients`: who was refused most, and who asks most, within the last minutes. Both are
//! read from bounded sketches (`limiter::heavy_hitters`) and are this instance's own.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::live::{ClientCount, DeniedFor, POLICIES, RankBy};
use super::status::EXAMPLE_INSTANCE;
use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::route::{ApiCall, Parameter, Resource, Route, Schema, get, reference, shows};
use crate::declare::{Form, Section, Spec, whole};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use balancer_limiter::limit::parse_per;

/// The longest window.
const MAX_WINDOW: Duration = Duration::from_secs(3_600);

pub(in crate::api) const RESOURCE: Resource = Resource {
    title: "Busiest clients",
    routes: &[
        Route::ours(
            "/v1/limited",
            &[get("listLimited", "Who was refused most", limited)
                .never_waits()
                .parameters(&[WINDOW, TOP])
                .answers(&[shows(200, "Most refusals first.", "Limited")])],
        ),
        Route::ours(
            "/v1/clients",
            &[get("listClients", "Who asks most", clients)
                .never_waits()
                .parameters(&[WINDOW, TOP])
                .answers(&[shows(200, "Most requests first.", "Clients")])],
        ),
    ],
    schemas,
};

const WINDOW: Parameter = Parameter::query(
    || {
        Spec::of(
            "window",
            Form::new(
                "a span from \"1s\" to \"1h\", such as \"5m\"",
                || json!({ "type": "string", "pattern": "^([1-9][0-9]{0,2}s|([1-9]|[1-5][0-9])m|1h)$" }),
            ),
            "\"5m\"",
            "How far back, `1s` to `1h`. The oldest step of 15 seconds (beyond `5m`: 5 minutes) counts by the part of it \
         that lies within.",
        )
    },
    r#""5m""#,
);

const TOP: Parameter =
    Parameter::query(|| whole("top", &(1..=1_000), "50", "How many clients at most."), "50");

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
    let asked = call.query(Asked::read)?;
    let live = &api.parts.live;
    let found = live.top(RankBy::Denied, asked.window, asked.top);
    let limited = found.into_iter().map(Refusals::from);
    as_json(&Limited { limited: limited.collect(), window: &asked.text, instance: &live.instance })
}

fn clients(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let asked = call.query(Asked::read)?;
    let live = &api.parts.live;
    let found = live.top(RankBy::Requests, asked.window, asked.top);
    as_json(&Clients { clients: &found, window: &asked.text, instance: &live.instance })
}

struct Asked {
    window: Duration,
    /// As it was asked for.
    text: String,
    top: usize,
}

impl Asked {
    fn read(query: &mut Section<'_>) -> Self {
        let window = query.text(&WINDOW.spec(), |text| {
            let window = parse_per(text).map(|secs| Duration::from_secs(secs.into()));
            window.filter(|window| *window <= MAX_WINDOW).map(|window| (window, text.to_owned())).ok_or(None)
        });
        let (window, text) = window.unwrap_or_default();
        Self { window, text, top: query.number(&TOP.spec()).unwrap_or_default() }
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
                "enum": POLICIES,
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
