use super::*;
use balancer_importance::Priority;
use std::collections::BTreeMap;
use std::sync::Barrier;

type Series = BTreeMap<String, SeriesValue>;

fn series(metrics: &Metrics) -> Series {
    let mut all = Series::new();
    metrics.visit(&mut |family, labels, value| {
        let name = family.about().0;
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let key = format!("{name}{{{}}}", labels.join(","));
        assert!(all.insert(key.clone(), value).is_none(), "{key} is shown once");
    });
    all
}

fn counter(all: &Series, key: &str) -> u64 {
    match all.get(key) {
        Some(SeriesValue::Counter(count)) => *count,
        other => panic!("{key}: {other:?}"),
    }
}

fn gauge(all: &Series, key: &str) -> i64 {
    match all.get(key) {
        Some(SeriesValue::Gauge(level)) => *level,
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn every_bounded_series_is_there_from_the_start_at_0() {
    let metrics = Metrics::new();
    metrics.pool("default").set_backends(["b", "a"].into_iter());
    let all = series(&metrics);
    for key in [
        "balancer_http_requests_total{method=GET,code=200}",
        "balancer_panics_total{}",
        "balancer_connections_rejected_total{reason=max_connections_per_ip}",
        "balancer_backend_requests_total{pool=default,backend=a,code=200}",
        "balancer_backend_requests_total{pool=default,backend=b,code=error}",
        "balancer_backend_ejections_total{pool=default,backend=b}",
        "balancer_backend_retries_total{pool=default,reason=status}",
        "balancer_queue_refused_total{pool=default,reason=target}",
        "balancer_ratelimit_requests_total{policy=none,decision=shadow_denied}",
        "balancer_store_errors_total{op=create}",
        "balancer_config_reloads_total{result=failure}",
    ] {
        assert_eq!(counter(&all, key), 0, "{key}");
    }
    for key in ["balancer_http_requests_in_flight{}", "balancer_queue_depth{pool=default}"] {
        assert_eq!(gauge(&all, key), 0, "{key}");
    }
    for key in [
        "balancer_http_request_duration_seconds{}",
        "balancer_queue_wait_seconds{pool=default,priority=normal}",
        "balancer_queue_wait_seconds{pool=default,priority=background}",
        "balancer_backend_request_duration_seconds{pool=default,backend=a}",
        "balancer_store_operation_duration_seconds{op=load}",
    ] {
        assert_eq!(all.get(key), Some(&SeriesValue::Histogram(HistogramSum::default())), "{key}");
    }
    let moved = |value: &SeriesValue| {
        !matches!(value, SeriesValue::Counter(0) | SeriesValue::Gauge(0) | SeriesValue::Histogram(_))
    };
    assert_eq!(all.values().filter(|value| moved(value)).count(), 0);
}

#[test]
fn each_event_moves_its_series_and_no_other() {
    let ms = Duration::from_millis(1);
    type Event = (&'static str, fn(&Arc<Metrics>));
    let events: [Event; 14] = [
        ("balancer_http_requests_total{method=PATCH,code=499}", |m| m.request("PATCH", 499, Duration::ZERO)),
        ("balancer_http_requests_total{method=other,code=200}", |m| m.request("get", 200, Duration::ZERO)),
        ("balancer_http_requests_total{method=other,code=999}", |m| m.request("", 65_535, Duration::ZERO)),
        ("balancer_http_requests_in_flight{}", |m| std::mem::forget(m.begin())),
        ("balancer_tls_handshakes_total{result=plain}", |m| m.handshake(Handshake::Plain, Duration::ZERO)),
        ("balancer_http2_abuse_total{kind=ping}", |m| m.http2_flood(Http2Flood::Ping)),
        ("balancer_connections_rejected_total{reason=descriptors}", |m| m.rejected(Rejection::Descriptors)),
        ("balancer_queue_depth{pool=default}", |m| m.pool("default").queued()),
        ("balancer_queue_refused_total{pool=default,reason=full}", |m| {
            m.pool("default").queue_refused(QueueRefusal::Full);
        }),
        ("balancer_panics_total{}", |m| m.panicked()),
        ("balancer_backend_retries_total{pool=default,reason=reset}", |m| {
            m.pool("default").retry(Retry::Reset)
        }),
        ("balancer_ratelimit_requests_total{policy=range,decision=denied}", |m| {
            m.decision(Policy::Range, Decision::Denied);
        }),
        ("balancer_backend_ejections_total{pool=default,backend=a}", |m| m.pool("default").ejected("a")),
        ("balancer_config_reloads_total{result=success}", |m| m.reload(Reload::Success)),
    ];
    for (key, event) in events {
        let metrics = Metrics::new();
        metrics.pool("default").set_backends(std::iter::once("a"));
        let before = series(&metrics);
        event(&metrics);
        let after = series(&metrics);
        let same = |key: &String, value: &SeriesValue| before.get(key) == Some(value);
        let histogram = |value: &SeriesValue| matches!(value, SeriesValue::Histogram(_));
        let moved: Vec<_> =
            after.iter().filter(|(key, value)| !same(key, value) && !histogram(value)).collect();
        assert_eq!(moved.len(), 1, "{key}: {moved:?}");
        assert_eq!(moved[0].0, key);
        assert!(matches!(moved[0].1, SeriesValue::Counter(1) | SeriesValue::Gauge(1)), "{moved:?}");
    }
    let metrics = Metrics::new();
    metrics.pool("default").set_backends(std::iter::once("a"));
    metrics.store(StoreOp::Create, ms, false);
    metrics.store(StoreOp::Create, ms, true);
    metrics.pool("default").attempt("a", Attempt::Status(502), ms);
    metrics.pool("default").attempt("a", Attempt::Error, ms);
    let all = series(&metrics);
    assert_eq!(counter(&all, "balancer_store_errors_total{op=create}"), 1);
    assert_eq!(counter(&all, "balancer_backend_requests_total{pool=default,backend=a,code=502}"), 1);
    assert_eq!(counter(&all, "balancer_backend_requests_total{pool=default,backend=a,code=error}"), 1);
    let count = |key: &str| match &all[key] {
        SeriesValue::Histogram(sum) => (sum.count, sum.sum_ns),
        other => panic!("{other:?}"),
    };
    assert_eq!(count("balancer_store_operation_duration_seconds{op=create}"), (2, 2_000_000));
    assert_eq!(count("balancer_backend_request_duration_seconds{pool=default,backend=a}"), (2, 2_000_000));
}

#[test]
fn a_duration_falls_into_the_buckets_whose_bound_it_does_not_pass() {
    for (ns, first) in [
        (0, Some(0)),
        (500_000, Some(0)),
        (500_001, Some(1)),
        (30_000_000_000, Some(14)),
        (30_000_000_001, None),
        (u64::MAX, None),
    ] {
        let metrics = Metrics::new();
        metrics.request("GET", 200, Duration::from_nanos(ns));
        let all = series(&metrics);
        let SeriesValue::Histogram(sum) = &all["balancer_http_request_duration_seconds{}"] else { panic!() };
        assert_eq!(sum.cumulative.iter().position(|count| *count == 1), first, "{ns}");
        assert!(sum.cumulative.is_sorted(), "{ns}");
        assert_eq!((sum.count, sum.sum_ns), (1, ns));
    }
}

#[test]
fn no_count_is_lost_between_threads_and_every_gauge_comes_back_to_0() {
    const THREADS: usize = 24;
    const ROUNDS: u64 = 2_000;
    let metrics = Metrics::new();
    metrics.pool("default").set_backends(std::iter::once("a"));
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                for round in 0..ROUNDS {
                    let in_flight = metrics.begin();
                    metrics.request("GET", 200, Duration::from_nanos(round));
                    metrics.decision(Policy::Default, Decision::Allowed);
                    metrics.pool("default").attempt("a", Attempt::Status(200), Duration::ZERO);
                    drop(in_flight);
                }
            });
        }
    });
    let all = series(&metrics);
    let expected = THREADS as u64 * ROUNDS;
    for key in [
        "balancer_http_requests_total{method=GET,code=200}",
        "balancer_backend_requests_total{pool=default,backend=a,code=200}",
        "balancer_ratelimit_requests_total{policy=default,decision=allowed}",
    ] {
        assert_eq!(counter(&all, key), expected, "{key}");
    }
    assert_eq!(gauge(&all, "balancer_http_requests_in_flight{}"), 0);
    let SeriesValue::Histogram(sum) = &all["balancer_http_request_duration_seconds{}"] else { panic!() };
    assert_eq!((sum.count, sum.sum_ns), (expected, THREADS as u64 * (ROUNDS - 1) * ROUNDS / 2));
}

#[test]
fn a_reload_keeps_the_counts_of_backends_that_stay_and_ends_the_others() {
    let metrics = Metrics::new();
    metrics.pool("default").set_backends(["a", "b"].into_iter());
    metrics.pool("default").attempt("a", Attempt::Status(200), Duration::ZERO);
    metrics.pool("default").attempt("b", Attempt::Status(200), Duration::ZERO);
    metrics.pool("default").set_backends(["a", "c"].into_iter());
    // A request that was under way to the backend that is gone.
    metrics.pool("default").attempt("b", Attempt::Status(200), Duration::ZERO);
    let all = series(&metrics);
    assert_eq!(counter(&all, "balancer_backend_requests_total{pool=default,backend=a,code=200}"), 1);
    assert_eq!(counter(&all, "balancer_backend_requests_total{pool=default,backend=c,code=200}"), 0);
    assert!(!all.contains_key("balancer_backend_requests_total{pool=default,backend=b,code=200}"));
}

#[test]
fn a_pool_has_series_of_its_own_until_it_is_gone() {
    let metrics = Metrics::new();
    for pool in ["default", "api"] {
        metrics.pool(pool).set_backends(std::iter::once("a"));
        metrics.pool(pool).queued();
    }
    let gone = metrics.pool("api");
    gone.attempt("a", Attempt::Status(200), Duration::ZERO);
    let all = series(&metrics);
    assert_eq!(counter(&all, "balancer_backend_requests_total{pool=default,backend=a,code=200}"), 0);
    assert_eq!(counter(&all, "balancer_backend_requests_total{pool=api,backend=a,code=200}"), 1);
    metrics.keep_pools(&["default"]);
    // A request that was under way in it.
    gone.unqueued(Priority::Normal, Duration::ZERO);
    let all = series(&metrics);
    assert!(all.keys().all(|key| !key.contains("pool=api")), "{all:?}");
    assert_eq!(gauge(&all, "balancer_queue_depth{pool=default}"), 1);
}

/// What is shipped for Grafana and Prometheus names no series that there is not, and the dashboard has a panel for each
/// family.
#[test]
fn the_shipped_dashboard_shows_every_family_and_asks_for_no_other() {
    let deployed = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
        std::fs::read_to_string(path).unwrap()
    };
    let families = |text: &str| -> std::collections::BTreeSet<&'static str> {
        let words = text.split(|c: char| c != '_' && !c.is_ascii_alphanumeric());
        let series = words.filter(|word| word.starts_with("balancer_") || word.starts_with("process_"));
        let family = |series: &str| {
            let found = Family::ALL.into_iter().map(Family::about).find(|(name, kind, _)| {
                let part = series.strip_prefix(name);
                let parts: &[&str] =
                    if *kind == FamilyKind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
                part.is_some_and(|part| parts.contains(&part))
            });
            found.unwrap_or_else(|| panic!("{series} is declared nowhere")).0
        };
        series.map(family).collect()
    };
    let shown = families(&deployed("grafana/balancer.json"));
    families(&deployed("prometheus/alerts.yml"));
    for (name, ..) in Family::ALL.into_iter().map(Family::about) {
        assert!(shown.contains(name), "no panel shows {name}");
    }
}
