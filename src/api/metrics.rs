//! `/metrics`: every series in Prometheus' text format 0.0.4, or in OpenMetrics 1.0 for whoever asks for it.

use std::fmt::Write;

use super::AdminApi;
use super::route::{self, Call, Content, Doc, Operation, Resource, Route, Stand, outcome};
use crate::error::Reject;
use crate::metrics::{BUCKETS_NS, HistogramSum, LabelPair, Value};
use crate::proxy::exchange::Answer;
use balancer_http::fields::tokens;
use balancer_http::message::RequestHead;

/// Where it stands.
pub(super) const PATH: &str = "/metrics";

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Shows every series there is, by family, labels and value.
pub type Show<'a> = dyn FnMut(&'static str, &[LabelPair<'_>], Value) + 'a;

/// Where the series come from.
pub trait Series: Send + Sync {
    /// Shows each series once. Must not wait.
    fn visit(&self, show: &mut Show<'_>);
}

/// What a family is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// Every family, in the order of the page, with what it counts.
const FAMILIES: [(&str, Kind, &str); 35] = [
    (
        "balancer_http_requests_total",
        Counter,
        "Requests by method and by the status that was sent; 499: the client left.",
    ),
    (
        "balancer_http_request_duration_seconds",
        Histogram,
        "From the complete head to the last byte of the answer.",
    ),
    ("balancer_http_requests_in_flight", Gauge, "Requests whose answers are not delivered yet."),
    ("balancer_connections", Gauge, "Client connections by what they are doing."),
    ("balancer_connections_rejected_total", Counter, "Connections that were not taken."),
    ("balancer_workers_busy", Gauge, "Workers at a request."),
    ("balancer_queue_depth", Gauge, "Requests that wait for a backend to have room."),
    ("balancer_queue_wait_seconds", Histogram, "How long requests waited for a backend to have room."),
    ("balancer_panics_total", Counter, "Panics that a worker caught."),
    ("balancer_backend_up", Gauge, "1 while a backend is given requests."),
    ("balancer_backend_state", Gauge, "1 for what a backend is: up, drain, down or ejected."),
    ("balancer_backend_requests_total", Counter, "Attempts by the status of the answer, or error."),
    ("balancer_backend_request_duration_seconds", Histogram, "An attempt, up to the head of the answer."),
    ("balancer_backend_in_flight", Gauge, "Requests in flight on a backend."),
    ("balancer_backend_retries_total", Counter, "Requests that were sent again."),
    (
        "balancer_backend_ejections_total",
        Counter,
        "How often a backend was taken out because of its answers.",
    ),
    ("balancer_health_checks_total", Counter, "Health checks by result."),
    ("balancer_ratelimit_requests_total", Counter, "Decisions by the kind of limit; none: unlimited."),
    ("balancer_ratelimit_keys_total", Counter, "Keys that requests showed, by what came of them."),
    ("balancer_ratelimit_clients", Gauge, "Buckets in memory."),
    ("balancer_ratelimit_overflow_total", Counter, "Requests that a shared overflow bucket decided."),
    ("balancer_ratelimit_cache_hits_total", Counter, "Limits found in memory."),
    ("balancer_ratelimit_cache_misses_total", Counter, "Limits that had to be loaded."),
    ("balancer_ratelimit_cache_evictions_total", Counter, "Limits thrown out of memory for want of room."),
    (
        "balancer_store_up",
        Gauge,
        "1 while the database answers and takes changes; /v1/status says what it does else.",
    ),
    ("balancer_store_operation_duration_seconds", Histogram, "Calls of the database."),
    ("balancer_store_errors_total", Counter, "Calls of the database that failed."),
    ("balancer_config_reloads_total", Counter, "Reloads by result."),
    ("balancer_build_info", Gauge, "1; the version is a label."),
    ("process_cpu_seconds_total", Counter, "CPU time of the process, user and system."),
    ("process_resident_memory_bytes", Gauge, "Memory of the process that is in RAM."),
    ("process_open_fds", Gauge, "Open file descriptors."),
    ("process_max_fds", Gauge, "How many file descriptors may be open."),
    ("process_start_time_seconds", Gauge, "When the process started, since the epoch."),
    ("process_threads", Gauge, "Threads of the process."),
];

pub(super) const RESOURCE: Resource = Resource {
    title: "Metrics",
    routes: &[Route {
        stand: Stand::Ours,
        path: PATH,
        allow: "GET, HEAD",
        argument: None,
        operations: &[Operation {
            method: "GET",
            access: route::Access::Read,
            handle: answer,
            doc: Doc {
                id: "metrics",
                summary: "Every series, for Prometheus",
                parameters: &[],
                body: None,
                answers: &[
                    outcome(200, "The series.", Content::Text(TEXT)),
                    outcome(200, "The series.", Content::Text(OPEN_METRICS)),
                ],
            },
        }],
    }],
    schemas: route::no_schemas,
};

/// The page.
fn answer(api: &AdminApi, call: &mut Call<'_, '_>) -> Result<Answer, Reject> {
    let open = wants_open_metrics(call.exchange.head);
    let body = page(&*api.parts.series, open);
    Ok(Answer::new(200, body.into_bytes()).with("Content-Type", if open { OPEN_METRICS } else { TEXT }))
}

/// Whether `Accept` names OpenMetrics; a scraper that can read both names it first.
fn wants_open_metrics(head: &RequestHead) -> bool {
    head.fields.all("Accept").flat_map(tokens).any(|range| {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let named =
            parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/openmetrics-text"));
        named && !parts.any(|part| matches!(part, b"q=0" | b"q=0.0" | b"q=0.00" | b"q=0.000"))
    })
}

fn page(series: &dyn Series, open: bool) -> String {
    // By family, whatever order they are shown in: a family must not be in two places.
    let mut lines: [String; FAMILIES.len()] = std::array::from_fn(|_| String::new());
    series.visit(&mut |family, labels, value| {
        if let Some(place) = FAMILIES.iter().position(|(name, ..)| *name == family) {
            sample(&mut lines[place], family, labels, &value);
        } else {
            debug_assert!(false, "{family} is in no list");
        }
    });
    let mut page = String::with_capacity(lines.iter().map(|text| text.len() + 160).sum());
    for ((name, kind, help), lines) in FAMILIES.iter().zip(&lines) {
        let family = if open && *kind == Counter { name.trim_end_matches("_total") } else { name };
        let kind = match kind {
            Counter => "counter",
            Gauge => "gauge",
            Histogram => "histogram",
        };
        // Writing to a String cannot fail, here and below.
        let _ = write!(page, "# HELP {family} {help}\n# TYPE {family} {kind}\n{lines}");
    }
    if open {
        page.push_str("# EOF\n");
    }
    page
}

fn sample(out: &mut String, family: &str, labels: &[LabelPair<'_>], value: &Value) {
    match value {
        Value::Counter(count) => line(out, family, "", labels, None, *count),
        Value::Gauge(level) => line(out, family, "", labels, None, *level),
        Value::Float(number) => line(out, family, "", labels, None, *number),
        Value::Histogram(sum) => histogram(out, family, labels, sum),
    }
}

fn histogram(out: &mut String, family: &str, labels: &[LabelPair<'_>], sum: &HistogramSum) {
    for (bound_ns, count) in BUCKETS_NS.iter().zip(&sum.cumulative) {
        let bound = seconds(*bound_ns);
        line(out, family, "_bucket", labels, Some(&bound), *count);
    }
    line(out, family, "_bucket", labels, Some("+Inf"), sum.count);
    line(out, family, "_sum", labels, None, seconds(sum.sum_ns));
    line(out, family, "_count", labels, None, sum.count);
}

/// Nanoseconds as seconds, exactly.
fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    let text = text.trim_end_matches('0');
    // OpenMetrics wants bounds as floats: 1.0, not 1.
    if text.ends_with('.') { format!("{text}0") } else { text.to_owned() }
}

fn line(
    out: &mut String,
    family: &str,
    suffix: &str,
    labels: &[LabelPair<'_>],
    bound: Option<&str>,
    value: impl std::fmt::Display,
) {
    out.push_str(family);
    out.push_str(suffix);
    let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
    let mut open = '{';
    for (name, value) in all {
        let _ = write!(out, "{open}{name}=\"");
        for char in value.chars() {
            match char {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
        open = ',';
    }
    if open == ',' {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Some3;

    impl Series for Some3 {
        fn visit(&self, show: &mut Show<'_>) {
            show("balancer_panics_total", &[], Value::Counter(3));
            show("balancer_backend_up", &[("backend", "a\"\\b")], Value::Gauge(1));
            show("balancer_panics_total", &[("x", "y")], Value::Counter(4));
            let mut sum = HistogramSum { count: 2, sum_ns: 1_500_000_000, ..HistogramSum::default() };
            sum.cumulative[14] = 1;
            show("balancer_queue_wait_seconds", &[], Value::Histogram(sum));
        }
    }

    #[test]
    fn families_stand_together_and_labels_are_escaped() {
        let text = page(&Some3, false);
        assert!(text.contains("# TYPE balancer_panics_total counter\nbalancer_panics_total 3\nbalancer_panics_total{x=\"y\"} 4\n"));
        assert!(text.contains("balancer_backend_up{backend=\"a\\\"\\\\b\"} 1\n"));
        assert!(text.contains("balancer_queue_wait_seconds_bucket{le=\"0.0005\"} 0\n"));
        assert!(text.contains("balancer_queue_wait_seconds_bucket{le=\"30.0\"} 1\n"));
        assert!(text.contains(
            "balancer_queue_wait_seconds_bucket{le=\"+Inf\"} 2\nbalancer_queue_wait_seconds_sum 1.5\n"
        ));
        assert!(!text.contains("EOF"));
    }

    #[test]
    fn open_metrics_names_a_counter_without_total_and_ends() {
        let text = page(&Some3, true);
        assert!(text.contains("# TYPE balancer_panics counter\nbalancer_panics_total 3\n"));
        assert!(text.ends_with("# EOF\n"));
        let mut head = RequestHead::blank("127.0.0.1:1".parse().unwrap());
        assert!(!wants_open_metrics(&head));
        head.fields.push("Accept", b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3");
        assert!(wants_open_metrics(&head));
    }
}
