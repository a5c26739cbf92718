use std::time::Duration;

use super::*;
use crate::metrics::{Attempt, Decision, Policy, QueueRefusal, Retry};

const SECOND: Nanos = 1_000_000_000;

/// Ticks once a second, from one second since the start to another.
fn tick(history: &History, from: u64, to: u64) {
    (from..=to).for_each(|second| history.tick(std::iter::empty(), second * SECOND));
}

fn values(history: &History, scope: &HistoryScope, metric: &str) -> Vec<Option<f32>> {
    let column = history.column(scope, metric, 0).expect(metric);
    column.values.into_iter().map(|value| (!value.is_nan()).then_some(value)).collect()
}

#[test]
fn a_step_has_what_happened_within_it_a_second() {
    let metrics = Metrics::new();
    let history = History::new(Arc::clone(&metrics), 0);
    let pool = metrics.pool("api");
    pool.set_backends(["a", "b"].into_iter());
    let (ms, a) = (Duration::from_millis(1), ("api".to_owned(), "a".to_owned()));
    tick(&history, 1, 4);
    assert_eq!(history.last(), None, "no step is over");
    for status in [200, 200, 301, 404, 429, 503] {
        metrics.request("GET", status, ms);
    }
    metrics.decision(Policy::Default, Decision::Denied);
    pool.attempt("a", Attempt::Status(200), ms);
    pool.attempt("a", Attempt::Error, ms);
    pool.attempt("b", Attempt::Status(500), ms);
    pool.retry(Retry::Connect);
    pool.queue_refused(QueueRefusal::Timeout);
    pool.queued();
    tick(&history, 5, 25);
    let all = HistoryScope::All;
    for (metric, first) in [
        ("requests", 0.6),
        ("2xx", 0.2),
        ("3xx", 0.1),
        ("4xx", 0.2),
        ("5xx", 0.1),
        ("errors", 0.1),
        ("limited", 0.1),
        ("429", 0.1),
        ("503", 0.1),
        ("in_flight", 0.0),
        ("queue_timeout", 0.1),
        ("queue_full", 0.0),
    ] {
        assert_eq!(values(&history, &all, metric), [Some(first), Some(0.0)], "{metric}");
    }
    assert_eq!(values(&history, &all, "p50"), [Some(0.000_75), None]);
    let pool = HistoryScope::Pool("api".into());
    assert_eq!(values(&history, &pool, "requests"), [Some(0.3), Some(0.0)]);
    assert_eq!(values(&history, &pool, "errors"), [Some(0.2), Some(0.0)]);
    assert_eq!(values(&history, &pool, "retries"), [Some(0.1), Some(0.0)]);
    assert_eq!(values(&history, &pool, "queue_timeout"), [Some(0.1), Some(0.0)]);
    assert_eq!(values(&history, &pool, "waiting"), [Some(1.0), Some(1.0)]);
    assert_eq!(values(&history, &HistoryScope::Backend(a), "errors"), [Some(0.1), Some(0.0)]);
    for (scope, metric) in [
        (HistoryScope::All, "waiting"),
        (HistoryScope::Pool("other".into()), "requests"),
        (HistoryScope::Backend(("api".into(), "c".into())), "requests"),
    ] {
        assert_eq!(history.column(&scope, metric, 0), None, "{scope:?} {metric}");
    }
    assert_eq!(history.column(&all, "requests", 14 * SECOND).unwrap().from, 10 * SECOND);
    let (at, row) = history.last().unwrap();
    assert_eq!((at, row.len()), (10 * SECOND, all.metrics().count()));
}

#[test]
fn what_is_now_is_at_least_ten_seconds_and_forgets() {
    let metrics = Metrics::new();
    let history = History::new(Arc::clone(&metrics), 0);
    metrics.pool("default").set_backends(["a"].into_iter());
    for _ in 0..20 {
        metrics.request("GET", 500, Duration::ZERO);
        metrics.pool("default").attempt("a", Attempt::Status(500), Duration::ZERO);
    }
    let key = ("default".to_owned(), "a".to_owned());
    for (second, expected) in [(2, (20, 20)), (9, (20, 20)), (15, (20, 20)), (19, (20, 20)), (21, (0, 0))] {
        tick(&history, second, second);
        let recent = history.recent(second * SECOND);
        assert_eq!((recent.counted, recent.backends[&key].counted), (expected, expected), "{second}");
        assert_eq!(recent.all.requests, expected.0 as f64 / if second > 20 { 11.0 } else { second as f64 });
        assert_eq!(recent.backends[&key].requests, 20);
    }
}

#[test]
fn a_backend_that_is_gone_leaves_nothing_and_there_are_not_too_many() {
    let metrics = Metrics::new();
    let history = History::new(Arc::clone(&metrics), 0);
    let names: Vec<String> = (0..MAX_BACKENDS + 5).map(|number| format!("b{number:04}")).collect();
    metrics.pool("default").set_backends(names.iter().map(String::as_str));
    tick(&history, 1, 11);
    assert_eq!(history.kept.lock().backends.len(), MAX_BACKENDS);
    metrics.pool("default").set_backends(names.iter().skip(10).map(String::as_str));
    tick(&history, 12, 21);
    let kept = history.kept.lock();
    assert!(!kept.backends.contains_key(&("default".into(), "b0000".into())));
    // Backends that found no room before have a history now.
    assert_eq!(kept.backends.len(), MAX_BACKENDS - 5);
    drop(kept);
    metrics.keep_pools(&[]);
    tick(&history, 22, 31);
    let kept = history.kept.lock();
    assert_eq!((kept.backends.len(), kept.pools.len()), (0, 0));
}

#[test]
fn each_pool_that_can_be_configured_has_a_history() {
    let metrics = Metrics::new();
    let history = History::new(Arc::clone(&metrics), 0);
    metrics.pool("default");
    (0..256).for_each(|number| drop(metrics.pool(&format!("p{number:03}"))));
    tick(&history, 1, 11);
    let kept = history.kept.lock();
    assert!(kept.pools.len() == 257 && kept.pools.contains_key("p255"), "{}", kept.pools.len());
}

#[test]
fn a_pool_that_is_gone_takes_no_refusals_of_another_into_its_step() {
    let metrics = Metrics::new();
    let history = History::new(Arc::clone(&metrics), 0);
    for (name, count) in [("gone", 30), ("stays", 20)] {
        (0..count).for_each(|_| metrics.pool(name).queue_refused(QueueRefusal::Full));
    }
    tick(&history, 1, 10);
    metrics.keep_pools(&["stays"]);
    metrics.pool("stays").queue_refused(QueueRefusal::Full);
    tick(&history, 11, 20);
    assert_eq!(values(&history, &HistoryScope::All, "queue_full"), [Some(5.0), Some(0.1)]);
}

#[test]
fn a_process_that_slept_has_a_hole() {
    let metrics = Metrics::new();
    let history = History::new(Arc::clone(&metrics), 0);
    tick(&history, 1, 10);
    metrics.request("GET", 200, Duration::ZERO);
    tick(&history, 40, 40);
    assert_eq!(
        values(&history, &HistoryScope::All, "requests"),
        [Some(0.0), None, None, Some(1.0_f32 / 30.0)]
    );
}
