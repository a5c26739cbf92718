//! `GET /v1/history`: a number of the last hour, step by step. See [`crate::history`].

use serde::Serialize;
use serde_json::json;

use super::live::Live;
use super::refused;
use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::route::{
    AnswerDoc, ApiCall, Operation, Parameter, Resource, Route, Schema, get, refusal, shows,
};
use crate::declare::{Form, OPTIONAL, Section, Spec, owned, whole_of};
use crate::error::Reject;
use crate::history::{BEYOND_S, HistoryColumn, HistoryScope, MAX_BACKENDS, STEP_S, STEPS};
use crate::proxy::exchange::Answer;
use crate::store::StoreError;
use balancer_http::message::Reason;
use balancer_pool::backends::DEFAULT_POOL;

pub(in crate::api) const RESOURCE: Resource =
    Resource { title: "History", routes: &[Route::ours("/v1/history", &[READ])], schemas };

const READ: Operation = get("getHistory", "A number of the last hour, step by step", read)
    .never_waits()
    .parameters(&[METRIC, FROM, POOL, BACKEND])
    .answers(&[shows(200, "A value a step, the oldest first.", "History"), GONE]);

const GONE: AnswerDoc =
    refusal(404, "There is no such pool or backend, or no history of that metric for it.");

const METRICS: &str = "one of requests, 2xx, 3xx, 4xx, 5xx, errors, p50, p95, p99, limited, 429, 503, in_flight, waiting, retries, \
                       queue_full, queue_target, queue_timeout";

const METRIC: Parameter = Parameter::query(
    || {
        Spec::of(
            "metric",
            Form::new(METRICS, || {
                json!({
                    "type": "string",
                    "enum": ["requests", "2xx", "3xx", "4xx", "5xx", "errors", "p50", "p95", "p99", "limited", "429", "503",
                             "in_flight", "waiting", "retries", "queue_full", "queue_target", "queue_timeout"],
                })
            }),
            "",
            "Rates are a second: `requests`, those answered `2xx` to `5xx`, `errors` (5xx, and attempts at a backend without an \
         answer). `p50`, `p95` and `p99` are seconds: of all requests to the end of their answers, of backends to the head. Of all \
         requests there are `limited` (refused by a limit), `429` and `503` (answered so, by whomever) and `in_flight` as \
         well; of a pool `waiting` (in its line) and `retries`; of both `queue_full`, `queue_target` and `queue_timeout`: refused \
         since every backend was full, by reason.",
        )
    },
    r#""requests""#,
);

/// 2^53 - 1: as far as every reader of JSON counts exactly.
const MAX_FROM: u64 = 9_007_199_254_740_991;

const FROM: Parameter = Parameter::query(
    || {
        let seconds = Form::new(
            "a whole number of seconds since the epoch",
            || json!({ "type": "integer", "minimum": 0, "maximum": MAX_FROM }),
        );
        let about = "Seconds since the epoch; without it, and before the oldest step, the last hour.";
        Spec::of("from", seconds, OPTIONAL, about)
    },
    "0",
);

const POOL: Parameter = Parameter::query(
    || Spec::of("pool", Form::text("a name"), OPTIONAL, "Of that pool alone."),
    r#""default""#,
);

const BACKEND: Parameter = Parameter::query(
    || {
        Spec::of(
            "backend",
            Form::text("a name"),
            OPTIONAL,
            "Of that backend of the pool alone; without a pool, of the default one.",
        )
    },
    r#""b""#,
);

#[derive(Serialize)]
struct HistoryShown<'a> {
    metric: &'a str,
    step: u64,
    from: u64,
    /// NaN is written as null.
    values: Vec<f32>,
}

fn read(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    let asked = call.query(Asked::read)?;
    if !asked.scope.metrics().any(|name| name == asked.metric) {
        let detail = format!("no {} is kept of what was named, only {}", asked.metric, allowed(&asked.scope));
        return Err(Reject::new(Reason::NotFound, detail));
    }
    let live = &api.parts.live;
    let from = asked.from.map_or(0, |from| live.moment_of(from));
    let kept = live.history.column(&asked.scope, &asked.metric, from);
    let column = kept.or_else(|| live.has(&asked.scope).then(|| live.history.nothing_yet()));
    let what = if matches!(asked.scope, HistoryScope::Backend(_)) { "backend" } else { "pool" };
    let HistoryColumn { from, values } = column.ok_or_else(|| refused(StoreError::NotFound, what, ""))?;
    as_json(&HistoryShown { metric: &asked.metric, step: STEP_S, from: live.epoch_of(from), values })
}

impl Live {
    /// Whether that pool or backend is there now.
    fn has(&self, scope: &HistoryScope) -> bool {
        let policy = self.policy.load();
        match scope {
            HistoryScope::All => true,
            HistoryScope::Pool(pool) => policy.pools.get(pool).is_some(),
            HistoryScope::Backend((pool, name)) => policy.pools.get(pool).is_some_and(|pool| {
                pool.backends.snapshot().backends().iter().any(|backend| *backend.name == **name)
            }),
        }
    }
}

struct Asked {
    metric: String,
    scope: HistoryScope,
    /// Seconds since the epoch.
    from: Option<u64>,
}

impl Asked {
    fn read(query: &mut Section<'_>) -> Self {
        let scope = match (query.text(&POOL.spec(), owned), query.text(&BACKEND.spec(), owned)) {
            (None, None) => HistoryScope::All,
            (Some(pool), None) => HistoryScope::Pool(pool),
            (pool, Some(backend)) => {
                HistoryScope::Backend((pool.unwrap_or_else(|| DEFAULT_POOL.to_owned()), backend))
            }
        };
        let metric = query.text(&METRIC.spec(), |text| {
            let fault = || Some(format!("must be one of {}", allowed(&scope)));
            HistoryScope::know(text).then(|| text.to_owned()).ok_or_else(fault)
        });
        Self {
            metric: metric.unwrap_or_default(),
            from: query.some(&FROM.spec(), |node| whole_of(node, &(0..=MAX_FROM))),
            scope,
        }
    }
}

fn allowed(scope: &HistoryScope) -> String {
    scope.metrics().collect::<Vec<_>>().join(", ")
}

fn schemas() -> Vec<Schema> {
    let history = json!({
        "type": "object",
        "required": ["metric", "step", "from", "values"],
        "properties": {
            "metric": { "type": "string" },
            "step": { "const": STEP_S, "description": "Seconds of a step." },
            "from": { "type": "integer", "minimum": 0, "description": "When the first step began, in seconds since the epoch." },
            "values": {
                "type": "array", "items": { "type": ["number", "null"] }, "maxItems": STEPS,
                "description": format!("One of each step; null: nothing is known, or there was nothing to take a percentile of. \
                    Empty: no step is over since it is there, or it is a backend beyond the first {MAX_BACKENDS}. A percentile \
                    of {BEYOND_S} is longer than that."),
            },
        },
    });
    let example = json!({ "metric": "requests", "step": STEP_S, "from": 1_767_225_600, "values": [12.5, 13.0, null, 11.9] });
    vec![Schema::new("History", history, example)]
}
