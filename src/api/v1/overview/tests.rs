use crate::api::tests::bench::Bench;
use crate::config;
use crate::metrics::Attempt;
use serde_json::{Value, json};
use std::time::Duration;

fn overview(bench: &Bench) -> Value {
    let reply = bench.json("GET", "/-/v1/overview", "");
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body
}

/// Name, level and text of each part.
fn line(overview: &Value) -> Vec<(&str, &str, &str)> {
    let text = |value: &'_ Value| -> &'static str { value.as_str().unwrap().to_owned().leak() };
    let part = |item: &Value| (text(&item["name"]), text(&item["level"]), text(&item["text"]));
    overview["line"].as_array().unwrap().iter().map(part).collect()
}

#[test]
fn a_new_instance_is_well_and_each_part_says_what_is_not() {
    let bench = Bench::new();
    let well = overview(&bench);
    assert_eq!(
        line(&well),
        [
            ("backends", "ok", "1 of 1 backends up"),
            ("errors", "ok", "0 % errors"),
            ("requests", "ok", "0 req/s"),
            ("limited", "ok", "0 clients limited"),
            ("store", "ok", "store up"),
            ("instances", "ok", "1 instance"),
        ]
    );
    assert_eq!((&well["well"], &well["role"]), (&json!(true), &json!("write")));
    assert_eq!(
        well["text"],
        "1 of 1 backends up · 0 % errors · 0 req/s · 0 clients limited · store up · 1 instance"
    );
    assert_eq!(well["marks"][0]["kind"], "start");
    bench.take_down();
    let ill = overview(&bench);
    assert_eq!(line(&ill)[0], ("backends", "bad", "0 of 1 backends up"));
    let row = &ill["backends"][0];
    assert_eq!(
        (&row["is"], &row["level"], &row["cause"]),
        (&json!("down"), &json!("bad"), &json!("refused"))
    );
    assert_eq!((&ill["well"], &ill["pools"][0]["level"]), (&json!(false), &json!("bad")));
    assert_eq!(ill["marks"][1]["text"], "backend secret-name is down: refused");
    assert_eq!(line(&overview(&Bench::without_store()))[4], ("store", "bad", "store down"));
}

#[test]
fn errors_have_two_levels_and_a_few_say_nothing() {
    for (good, bad, level, text, row) in [
        (0, 0, "ok", "0 % errors", "ok"),
        (1_000, 1, "ok", "0.1 % errors", "warn"),
        (1_000, 32, "warn", "3.1 % errors", "warn"),
        (1, 4, "warn", "80 % errors", "warn"),
        (90, 10, "bad", "10 % errors", "warn"),
        (10, 10, "bad", "50 % errors", "bad"),
    ] {
        let bench = Bench::new();
        let pool = bench.metrics.pool("default");
        pool.set_backends(["secret-name"].into_iter());
        for status in std::iter::repeat_n(200, good).chain(std::iter::repeat_n(502, bad)) {
            bench.metrics.request("GET", status, Duration::ZERO);
            pool.attempt("secret-name", Attempt::Status(status), Duration::ZERO);
        }
        let seen = overview(&bench);
        assert_eq!(line(&seen)[1], ("errors", level, text), "{good} {bad}");
        assert_eq!(seen["backends"][0]["level"], row, "{good} {bad}");
        assert_eq!(seen["backends"][0]["errors"], bad, "{seen}");
        // One that answers nothing well is no better than one that is down.
        let backends = if row == "bad" { "bad" } else { "ok" };
        assert_eq!(line(&seen)[0].1, backends, "{good} {bad}");
    }
}

/// A colour alone says it to nobody who cannot see it.
#[test]
fn what_is_wrong_with_backends_that_are_up_is_said() {
    let bench = Bench::new();
    let pool = bench.metrics.pool("default");
    pool.set_backends(["secret-name"].into_iter());
    for _ in 0..10 {
        pool.attempt("secret-name", Attempt::Error, Duration::ZERO);
    }
    assert_eq!(line(&overview(&bench))[0], ("backends", "bad", "1 of 1 backends up, 1 failing"));
}

#[test]
fn who_may_read_may_read_it() {
    let read = config::ApiToken {
        name: "viewer".into(),
        role: config::Role::Read,
        hash: config::SecretHash::of(b"a-token-that-reads"),
    };
    let admin = config::Admin { tokens: vec![read], ..crate::api::tests::bench::admin() };
    let bench = Bench::with(&admin);
    let fields = [("Authorization", "Bearer a-token-that-reads")];
    for target in ["/-/v1/overview", "/-/v1/history?metric=requests"] {
        let call =
            crate::api::tests::bench::Call { method: "GET", target, fields: &fields, ..Default::default() };
        let reply = bench.call(&call);
        assert_eq!(reply.status, 200, "{reply:?}");
        if target == "/-/v1/overview" {
            assert_eq!(reply.body["role"], "read");
        }
        assert_eq!(bench.json("GET", target, "").status, 401);
        assert_eq!(bench.json("POST", target, "").status, 401);
    }
}

#[test]
fn a_history_says_which_metrics_there_are() {
    let bench = Bench::new();
    let found = bench.json("GET", "/-/v1/history?metric=requests", "");
    assert_eq!((&found.body["metric"], &found.body["step"]), (&json!("requests"), &json!(10)));
    assert!(found.body["from"].is_u64() && found.body["values"].as_array().is_some(), "{found:?}");
    for (query, status, pointer, detail) in [
        (
            "",
            400,
            "/metric",
            "must be one of requests, 2xx, 3xx, 4xx, 5xx, errors, p50, p95, p99, limited, 429, 503, in_flight",
        ),
        ("?metric=nonsense", 400, "/metric", "in_flight"),
        ("?metric=nonsense&pool=default", 400, "/metric", "p99, waiting, retries"),
        ("?metric=requests&from=yesterday", 400, "/from", "seconds since the epoch"),
        ("?metric=requests&since=1", 400, "/since", "unknown query parameter"),
        ("?metric=requests&pool=nowhere", 404, "", ""),
        // It is there, and no step is over.
        ("?metric=requests&backend=secret-name", 200, "", ""),
        ("?metric=waiting&pool=default", 200, "", ""),
        // The names are right ones: it is kept of others alone.
        ("?metric=limited&pool=default", 404, "", ""),
        ("?metric=waiting&backend=secret-name", 404, "", ""),
        ("?metric=requests&backend=nobody", 404, "", ""),
    ] {
        let reply = bench.json("GET", &format!("/-/v1/history{query}"), "");
        assert_eq!(reply.status, status, "{query}: {reply:?}");
        if !pointer.is_empty() {
            let error = &reply.body["errors"][0];
            assert_eq!(error["pointer"], pointer, "{query}");
            assert!(error["detail"].as_str().unwrap().contains(detail), "{query}: {error}");
        }
    }
}
