//! `/metrics`: every family is there from the start, in both formats, and real events change its numbers.

use serde_json::json;

use crate::support::backend::refusing;
use crate::support::engine::each_engine;
use crate::support::{Backend, Engine, Setup, request, until};

each_engine! {
    every_family_has_a_series_from_the_start,
    real_events_move_the_series,
    metrics_stand_where_the_api_stands,
    calls_of_the_api_are_no_requests,
}

/// The families that have to be there, by name.
const FAMILIES: &[&str] = &[
    "balancer_http_requests_total",
    "balancer_http_request_duration_seconds",
    "balancer_http_requests_in_flight",
    "balancer_connections",
    "balancer_connections_rejected_total",
    "balancer_workers_busy",
    "balancer_queue_depth",
    "balancer_queue_clients",
    "balancer_queue_refused_total",
    "balancer_queue_wait_seconds",
    "balancer_panics_total",
    "balancer_backend_up",
    "balancer_backend_state",
    "balancer_backend_requests_total",
    "balancer_backend_request_duration_seconds",
    "balancer_backend_in_flight",
    "balancer_backend_retries_total",
    "balancer_backend_ejections_total",
    "balancer_health_checks_total",
    "balancer_ratelimit_requests_total",
    "balancer_ratelimit_clients",
    "balancer_ratelimit_overflow_total",
    "balancer_budget_peers",
    "balancer_budget_hot_clients",
    "balancer_budget_messages_sent_total",
    "balancer_budget_messages_received_total",
    "balancer_budget_messages_dropped_total",
    "balancer_budget_messages_other_version_total",
    "balancer_budget_lag_seconds",
    "balancer_budget_cut_off",
    "balancer_ratelimit_cache_hits_total",
    "balancer_ratelimit_cache_misses_total",
    "balancer_ratelimit_cache_evictions_total",
    "balancer_store_up",
    "balancer_store_operation_duration_seconds",
    "balancer_store_errors_total",
    "balancer_config_reloads_total",
    "balancer_build_info",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];

fn every_family_has_a_series_from_the_start(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let page = balancer.get("/-/metrics").expect(200);
    assert!(page.field("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    let text = page.text();
    for family in FAMILIES {
        assert_eq!(text.matches(&format!("# TYPE {family} ")).count(), 1, "{family} in\n{text}");
        let series = |line: &str| {
            let rest = line.strip_prefix(family).map(|rest| rest.split(['{', ' ']).next());
            rest.flatten().is_some_and(|end| ["", "_bucket", "_sum", "_count"].contains(&end))
        };
        assert!(text.lines().any(series), "{family} has no series in\n{text}");
    }
    let fields = [("Accept", "application/openmetrics-text; version=1.0.0,text/plain;q=0.5")];
    let page = request(balancer.address, "GET", "/-/metrics", &fields, b"").expect(200);
    assert!(page.field("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    assert!(page.text().ends_with("# EOF\n"), "{}", page.text());
}

/// The value of one series, which must be there.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn real_events_move_the_series(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .backend(refusing())
        .set("health_check", json!(null))
        .set("balancing.strategy", json!("round_robin"))
        .set("rate_limit.default", json!({"capacity": 4, "rate_per_sec": 0}))
        .start();
    for _ in 0..4 {
        balancer.get("/").expect(200);
    }
    balancer.get("/").expect(429);
    for (series, at_least) in [
        ("balancer_http_requests_total{method=\"GET\",code=\"200\"}", 4.0),
        ("balancer_http_requests_total{method=\"GET\",code=\"429\"}", 1.0),
        ("balancer_http_request_duration_seconds_count", 5.0),
        ("balancer_backend_retries_total{pool=\"default\",reason=\"connect\"}", 1.0),
        ("balancer_ratelimit_requests_total{policy=\"default\",decision=\"allowed\"}", 4.0),
        ("balancer_ratelimit_requests_total{policy=\"default\",decision=\"denied\"}", 1.0),
        ("balancer_ratelimit_clients", 1.0),
        ("balancer_ratelimit_cache_misses_total", 1.0),
        ("balancer_store_up", 1.0),
        ("process_open_fds", 3.0),
    ] {
        // A request is counted when its answer is delivered, a moment after the client has read it.
        until(series, || {
            let text = balancer.get("/-/metrics").expect(200).text();
            // A series that is not there yet is waited for.
            (text.contains(&format!("{series} ")) && value(&text, series) >= at_least).then_some(())
        });
    }
}

/// A tab of the dashboard and a scraper make more of them than many a service has requests. What is ours is told by the
/// path alone.
fn calls_of_the_api_are_no_requests(engine: Engine) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address()).set("log.access", json!(true));
    let balancer = setup.set("frontend.max_body_bytes", json!(1_000)).start();
    let calls = |address| {
        for path in ["/-/v1/status", "/-/dashboard", "/-/livez", "/-/metrics", "/limits", "/-/v1/plan?name=a"]
        {
            request(address, "GET", path, &[], b"");
        }
        // Refused before and after their bodies are read, and by the frontend.
        request(address, "POST", "/-/v1/status", &[], b"{}").expect(405);
        request(address, "POST", "/-/v1/limits", &[], b"{}").expect(400);
        request(address, "POST", "/-/v1/limits", &[], &[b' '; 2_000]).expect(413);
        request(address, "GET", "/-/v1/status", &[("Via", "1.1 proxy")], b"").problem(403);
    };
    calls(balancer.address);
    let page = balancer.get("/-/metrics").expect(200).text();
    assert_eq!(value(&page, "balancer_http_requests_in_flight"), 0.0, "{page}");
    let of_requests =
        |line: &&str| line.starts_with("balancer_http_requests_total{") && !line.ends_with(" 0");
    assert_eq!(page.lines().filter(of_requests).count(), 0, "{page}");
    assert_eq!(value(&page, "balancer_http_request_duration_seconds_count"), 0.0, "{page}");
    let status = balancer.get("/-/v1/status").expect(200).json();
    assert_eq!((&status["requests"], &status["in_flight"]), (&json!(0), &json!(0)));
    // A field that says it was for the API does not take it out of the count, nor does a path that only looks like ours.
    let fields = [("X-Original-URL", "/-/v1/status"), ("Referer", "/-/dashboard")];
    request(balancer.address, "GET", "/v1/status", &fields, b"").expect(200);
    until("the one request is counted", || {
        let page = balancer.get("/-/metrics").expect(200).text();
        (value(&page, "balancer_http_requests_total{method=\"GET\",code=\"200\"}") == 1.0).then_some(())
    });
    until("it has the only line in the access log", || {
        let out = balancer.proc.out();
        let lines: Vec<&str> = out.lines().filter(|line| line.starts_with('{')).collect();
        (!lines.is_empty()).then(|| assert!(lines.len() == 1 && lines[0].contains("/v1/status"), "{out}"))
    });
    drop(balancer);

    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("admin.listen", json!("127.0.0.1:0"))
        .set("frontend.max_body_bytes", json!(1_000))
        .start();
    calls(balancer.admin);
    request(balancer.admin, "GET", "/nothing/here", &[], b"").problem(404);
    let page = request(balancer.admin, "GET", "/metrics", &[], b"").expect(200).text();
    assert_eq!(page.lines().filter(of_requests).count(), 0, "{page}");
}

fn metrics_stand_where_the_api_stands(engine: Engine) {
    let backend = Backend::named("a");
    let balancer =
        Setup::on(engine).backend(backend.address()).set("admin.listen", json!("127.0.0.1:0")).start();
    balancer.get("/-/metrics").expect(200);
    assert_eq!(backend.only().request_line(), "GET /-/metrics HTTP/1.1");
    let admin = balancer.admin;
    for path in ["/metrics", "/-/metrics"] {
        assert!(request(admin, "GET", path, &[], b"").expect(200).text().contains("balancer_build_info"));
    }
    assert_eq!(request(admin, "POST", "/metrics", &[], b"").expect(405).field("allow"), Some("GET, HEAD"));
}
