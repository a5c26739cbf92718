//! `/metrics`: every series in Prometheus' text format 0.0.4, or in OpenMetrics 1.0 for a scraper that asks for it.

use std::fmt::Write;

use super::AdminApi;
use super::route::{ApiCall, Resource, Route, get, no_schemas, text};
use crate::error::Reject;
use crate::metrics::{BUCKETS_NS, Family, FamilyKind, HistogramSum, LabelPair, SeriesValue, Show};
use crate::proxy::exchange::Answer;
use balancer_http::fields::tokens;
use balancer_http::message::RequestHead;

/// Its path.
pub(super) const PATH: &str = "/metrics";

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Shows each series once, and waits for nothing. A function, since some of what it gathers is the engine's, which the
/// API may not use.
pub type Series = Box<dyn Fn(&mut Show<'_>) + Send + Sync>;

const EXAMPLE: &str = "# HELP balancer_store_up 1 while the database answers.\n# TYPE balancer_store_up gauge\nbalancer_store_up 1\n";
const OPEN_EXAMPLE: &str = "# HELP balancer_store_up 1 while the database answers.\n# TYPE balancer_store_up gauge\nbalancer_store_up 1\n# EOF\n";

pub(super) const RESOURCE: Resource = Resource {
    title: "Metrics",
    routes: &[Route::ours(
        PATH,
        &[get("metrics", "Every series, for Prometheus", answer).never_waits().answers(&[
            text(200, "The series.", TEXT, EXAMPLE),
            text(200, "The series.", OPEN_METRICS, OPEN_EXAMPLE),
        ])],
    )],
    schemas: no_schemas,
};

/// The page.
fn answer(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let open = wants_open_metrics(call.exchange.head);
    let body = page(&api.parts.series, open);
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

fn page(series: &dyn Fn(&mut Show<'_>), open: bool) -> String {
    // Gathered by family: the format wants the lines of a family together, and they may come in any order.
    let mut lines: [String; Family::ALL.len()] = std::array::from_fn(|_| String::new());
    series(&mut |family, labels, value| {
        sample(&mut lines[family as usize], family.about().0, labels, &value);
    });
    let mut page = String::with_capacity(lines.iter().map(|text| text.len() + 160).sum());
    for (family, lines) in Family::ALL.iter().zip(&lines) {
        let (name, kind, help) = family.about();
        let family = if open && kind == FamilyKind::Counter { name.trim_end_matches("_total") } else { name };
        let kind = match kind {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram => "histogram",
        };
        // Writing to a String cannot fail, here and below.
        let _ = write!(page, "# HELP {family} {help}\n# TYPE {family} {kind}\n{lines}");
    }
    if open {
        page.push_str("# EOF\n");
    }
    page
}

fn sample(out: &mut String, family: &str, labels: &[LabelPair<'_>], value: &SeriesValue) {
    match value {
        SeriesValue::Counter(count) => line(out, family, "", labels, None, *count),
        SeriesValue::Gauge(level) => line(out, family, "", labels, None, *level),
        // The format writes `+Inf`, where Rust writes `inf`.
        SeriesValue::Float(f64::INFINITY) => line(out, family, "", labels, None, "+Inf"),
        SeriesValue::Float(number) => line(out, family, "", labels, None, *number),
        SeriesValue::Histogram(sum) => histogram(out, family, labels, sum),
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

    fn some(show: &mut Show<'_>) {
        show(Family::Panics, &[], SeriesValue::Counter(3));
        show(Family::BackendUp, &[("backend", "a\"\\b")], SeriesValue::Gauge(1));
        show(Family::BackendLimit, &[], SeriesValue::Float(f64::INFINITY));
        show(Family::Panics, &[("x", "y")], SeriesValue::Counter(4));
        let mut sum = HistogramSum { count: 2, sum_ns: 1_500_000_000, ..HistogramSum::default() };
        sum.cumulative[14] = 1;
        show(Family::QueueWaitSeconds, &[], SeriesValue::Histogram(sum));
    }

    #[test]
    fn families_stand_together_and_labels_are_escaped() {
        let text = page(&some, false);
        assert!(text.contains("# TYPE balancer_panics_total counter\nbalancer_panics_total 3\nbalancer_panics_total{x=\"y\"} 4\n"));
        assert!(text.contains("balancer_backend_up{backend=\"a\\\"\\\\b\"} 1\n"));
        assert!(text.contains("balancer_backend_limit +Inf\n"));
        assert!(text.contains("balancer_queue_wait_seconds_bucket{le=\"0.0005\"} 0\n"));
        assert!(text.contains("balancer_queue_wait_seconds_bucket{le=\"30.0\"} 1\n"));
        assert!(text.contains(
            "balancer_queue_wait_seconds_bucket{le=\"+Inf\"} 2\nbalancer_queue_wait_seconds_sum 1.5\n"
        ));
        assert!(!text.contains("EOF"));
    }

    #[test]
    fn open_metrics_names_a_counter_without_total_and_ends() {
        let text = page(&some, true);
        assert!(text.contains("# TYPE balancer_panics counter\nbalancer_panics_total 3\n"));
        assert!(text.ends_with("# EOF\n"));
        let mut head = RequestHead::blank("127.0.0.1:1".parse().unwrap());
        assert!(!wants_open_metrics(&head));
        head.fields.push("Accept", b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3");
        assert!(wants_open_metrics(&head));
    }
}
