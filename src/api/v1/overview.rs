//! `GET /v1/overview`: all that the first screen of the dashboard shows, from one look. It begins with the answer to
//! "is it well?" (`line`), which `balancer status` prints.

mod line;
mod rows;
mod schema;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::limited::Refusals;
use super::live::{Live, RankBy};
use super::status::InstanceStatus;
use crate::api::AdminApi;
use crate::api::call::as_json;
use crate::api::route::{ApiCall, Resource, Route, get, shows};
use crate::error::Reject;
use crate::history::{AnswerRates, HistoryScope, STEP_S};
use crate::proxy::exchange::Answer;
use balancer_time::{Nanos, nanos};

use line::{Facts, LineItem};
use rows::{BackendGlance, CloseRow, PoolGlance};

/// A client that was refused within this time is limited now.
const NOW: Duration = Duration::from_secs(60);

/// Most clients that are shown as limited; all are counted.
const MAX_LIMITED: usize = 50;

/// How many of the busiest clients are looked at for whether they are close to a limit.
const BUSIEST: usize = 20;

/// Most clients that are counted as limited; where there are more, that is said.
const MOST_COUNTED: usize = 1_000;

/// With fewer errors than these, no share of errors is bad.
const FEW: u64 = 5;

/// Older marks are not shown.
const HOUR: Duration = Duration::from_secs(3_600);

pub(in crate::api) const RESOURCE: Resource =
    Resource {
        title: "Overview",
        routes: &[Route::ours(
            "/v1/overview",
            &[get("getOverview", "Everything at a glance, from one look", read).never_waits().answers(&[
                shows(200, "Whether it is well, and what of it is not. What is bad comes first.", "Overview"),
            ])],
        )],
        schemas: schema::schemas,
    };

/// How well something is; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum WellBeing {
    Ok,
    /// Somebody should look.
    Warn,
    /// Something does not work.
    Bad,
}

#[derive(Serialize)]
struct Overview {
    /// Seconds since the epoch.
    at: f64,
    /// Whether no part of the line is bad.
    well: bool,
    /// The texts of all parts of the line.
    text: String,
    line: Vec<LineItem>,
    #[serde(flatten)]
    status: InstanceStatus,
    /// The number of the newest change of limits, plans and backends that is known.
    changes: Option<i64>,
    /// What the caller may do.
    role: &'static str,
    now: Rates,
    limited_per_sec: f64,
    pools: Vec<PoolGlance>,
    backends: Vec<BackendGlance>,
    limited: Vec<Refusals>,
    close: Vec<CloseRow>,
    marks: Vec<MarkShown>,
    history: LastStep,
}

/// Rates are per second, percentiles in seconds.
#[derive(Serialize)]
struct Rates {
    requests_per_sec: f64,
    errors_per_sec: f64,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
}

impl Rates {
    fn of(rates: &AnswerRates) -> Self {
        let seconds = |value: f64| (!value.is_nan()).then(|| rounded(value, 1e6));
        Self {
            requests_per_sec: rounded(rates.requests, 1e3),
            errors_per_sec: rounded(rates.errors, 1e3),
            p50: seconds(rates.p50),
            p95: seconds(rates.p95),
            p99: seconds(rates.p99),
        }
    }
}

/// Rounded to that part of one, such as 1e3 for three decimals.
fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[derive(Serialize)]
struct MarkShown {
    /// Seconds since the epoch.
    at: u64,
    kind: &'static str,
    text: String,
}

/// The newest whole step of `/v1/history`. A caller that has the steps before it needs no other call.
#[derive(Serialize)]
struct LastStep {
    step: u64,
    /// When it began, in seconds since the epoch; null: no step is over yet.
    at: Option<u64>,
    /// NaN is written as null.
    values: BTreeMap<&'static str, f32>,
}

fn read(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    call.no_body()?;
    call.no_query()?;
    let role = if call.caller.may_write().is_ok() { "write" } else { "read" };
    as_json(&overview(api, role))
}

/// Never waits for the database.
fn overview(api: &AdminApi, role: &'static str) -> Overview {
    let live = &api.parts.live;
    let now = live.clock.now();
    let policy = live.policy.load_full();
    live.watch(now);
    let recent = live.history.recent(now);
    let (pools, backends) = rows::rows(api, &policy, &recent, now);
    let refused = live.top(RankBy::Denied, NOW, MOST_COUNTED + 1);
    let status = live.status();
    let facts = Facts {
        pools: &pools,
        backends: &backends,
        need_backends: policy.routes.need_backends(),
        counted: recent.counted,
        requests_per_sec: recent.all.requests,
        limited: refused.len(),
        status: &status,
        loops_stuck: (live.loops_stuck)(),
        wall: live.clock.wall(),
    };
    let line = facts.line();
    let text = line.iter().map(|item| item.text.as_str()).collect::<Vec<_>>().join(" · ");
    let limited = refused.into_iter().take(MAX_LIMITED);
    Overview {
        at: rounded(live.epoch_seconds(), 1e3),
        well: line.iter().all(|item| item.level != WellBeing::Bad),
        text,
        line,
        changes: api.parts.limits.latest_change(),
        role,
        now: Rates::of(&recent.all),
        limited_per_sec: rounded(recent.limited, 1e3),
        pools,
        backends,
        limited: limited.map(Refusals::from).collect(),
        close: live.close(NOW, BUSIEST),
        marks: live.marks(now),
        history: live.last_step(),
        status,
    }
}

impl Live {
    fn marks(&self, now: Nanos) -> Vec<MarkShown> {
        let marks = self.history.marks(now.saturating_sub(nanos(HOUR)));
        let shown = marks.into_iter().map(|mark| MarkShown {
            at: self.epoch_of(mark.at),
            kind: mark.kind.name(),
            text: mark.text,
        });
        shown.collect()
    }

    fn last_step(&self) -> LastStep {
        let Some((at, row)) = self.history.last() else {
            return LastStep { step: STEP_S, at: None, values: BTreeMap::new() };
        };
        let values = HistoryScope::All.metrics().zip(row).collect();
        LastStep { step: STEP_S, at: Some(self.epoch_of(at)), values }
    }
}

#[cfg(test)]
mod tests;
