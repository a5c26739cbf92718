//! `/v1/overview` and `/v1/history`, from which the first view of the dashboard is made.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::backend::{OK, refusing};
use crate::support::client::head;
use crate::support::engine::each_engine;
use crate::support::{Backend, Balancer, Conn, Engine, Gate, Setup, Then, until};

each_engine! {
    backends_say_how_they_are_since_when_and_what_their_checks_found,
    what_refused_a_client_is_there_and_who_is_close_to_it,
    what_waits_is_said_beside_backends_that_are_up,
    routes_that_answer_by_themselves_need_no_backends,
    counts_are_of_what_was_proxied,
}

fn overview(balancer: &Balancer) -> Value {
    balancer.api("GET", "/-/v1/overview", &Value::Null).expect(200).json()
}

/// The row of a backend.
fn row(overview: &Value, title: &str) -> Value {
    let rows = overview["backends"].as_array().expect("rows");
    rows.iter().find(|row| row["title"] == title).unwrap_or_else(|| panic!("{title} in {overview}")).clone()
}

fn backends_say_how_they_are_since_when_and_what_their_checks_found(engine: Engine) {
    let well = Backend::named("hello");
    let balancer = Setup::on(engine)
        .backend(well.address())
        .backend(refusing())
        .set("health_check", json!({ "interval": "100ms" }))
        .start();
    let seen = overview(&balancer);
    // What is bad comes first.
    let titles: Vec<_> = seen["backends"].as_array().unwrap().iter().map(|row| &row["title"]).collect();
    assert_eq!(titles, ["b", "a"]);
    let (a, b) = (row(&seen, "a"), row(&seen, "b"));
    assert_eq!(
        (&a["is"], &a["level"], &a["last_check"]["came"]),
        (&json!("up"), &json!("ok"), &json!("GET /: status 200"))
    );
    assert_eq!(
        (&b["is"], &b["level"], &b["last_check"]["passed"]),
        (&json!("down"), &json!("bad"), &json!(false))
    );
    assert_eq!(b["last_check"]["came"], "GET /: connection refused");
    assert!(b["cause"].as_str().unwrap().starts_with("GET /: connection refused; "), "{b}");
    for one in [&a, &b] {
        let check = &one["last_check"];
        let within =
            |value: &Value, most: f64| value.as_f64().is_some_and(|value| (0.0..most).contains(&value));
        assert!(
            within(&check["took"], 5.0) && within(&check["age"], 5.0) && within(&one["since"], 60.0),
            "{one}"
        );
    }
    balancer.api("PATCH", "/-/v1/backends/a", &json!({ "state": "drain" })).expect(200);
    let seen = overview(&balancer);
    let a = row(&seen, "a");
    assert_eq!((&a["is"], &a["level"], &a["state"]), (&json!("drain"), &json!("warn"), &json!("drain")));
    assert!(a["since"].as_f64().unwrap() < row(&seen, "b")["since"].as_f64().unwrap(), "{seen}");
    let marks = seen["marks"].as_array().unwrap();
    let last = marks.last().unwrap();
    assert_eq!(
        (&last["kind"], &last["text"]),
        (&json!("drain"), &json!("backend a is in drain: the operator drains it"))
    );
    balancer.api("POST", "/-/v1/reload", &Value::Null).expect(200);
    let kinds = |seen: &Value| -> Vec<Value> {
        seen["marks"].as_array().unwrap().iter().map(|mark| mark["kind"].clone()).collect()
    };
    assert_eq!(kinds(&overview(&balancer)), ["start", "drain", "reload"]);
}

fn what_refused_a_client_is_there_and_who_is_close_to_it(engine: Engine) {
    let backend = Backend::named("hello");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    balancer.limit("127.0.0.7", 2, 0);
    for status in [200, 200, 429, 429] {
        balancer.get_from("127.0.0.7", "/").expect(status);
    }
    let seen = until("the refusals are counted", || {
        let seen = overview(&balancer);
        (seen["limited"][0]["denied"] == 2).then_some(seen)
    });
    let reasons = json!([{ "policy": "client", "bucket": "default", "rule": null, "denied": 2 }]);
    assert_eq!(seen["limited"][0], json!({ "client_id": "127.0.0.7", "denied": 2, "reasons": reasons }));
    assert_eq!(
        seen["close"],
        json!([{ "client_id": "127.0.0.7", "name": "default", "capacity": 2, "level": 0 }])
    );
    assert_eq!(seen["line"][3]["text"], "1 client limited");
    // Nobody's request looked for a limit since.
    let hits = || {
        let page = balancer.get("/-/metrics").expect(200).text();
        page.lines()
            .find(|line| line.starts_with("balancer_ratelimit_cache_hits_total"))
            .expect("counted")
            .to_owned()
    };
    let before = hits();
    overview(&balancer);
    assert_eq!(hits(), before);
    assert_eq!((&seen["line"][3]["level"], &seen["well"]), (&json!("warn"), &json!(true)));
}

fn what_waits_is_said_beside_backends_that_are_up(engine: Engine) {
    let gate = Gate::default();
    let opened = gate.clone();
    let backend = Backend::scripted(move |_, stream| {
        opened.wait();
        let _ = stream.write_all(OK);
        Then::Keep
    });
    let balancer = Setup::on(engine)
        .backend_with(json!({ "url": backend.url(), "max_in_flight": 1 }))
        .set("health_check", json!(null))
        .set("balancing.queue_target", json!(null))
        .start();
    let mut asked: Vec<Conn> = (0..2)
        .map(|_| {
            let mut conn = Conn::open(balancer.address);
            conn.send(head("GET", "/", &[], None));
            conn
        })
        .collect();
    let line = until("one waits", || {
        let seen = overview(&balancer);
        (seen["pools"][0]["waiting"] == 1).then(|| seen["line"][0].clone())
    });
    assert_eq!(
        (&line["level"], &line["text"]),
        (&json!("warn"), &json!("1 of 1 backends up, 1 request waiting"))
    );
    gate.open();
    asked.iter_mut().for_each(|conn| drop(conn.read("GET").unwrap()));
    until("nobody waits", || (overview(&balancer)["line"][0]["text"] == "1 of 1 backends up").then_some(()));
}

/// No backend is configured.
fn routes_that_answer_by_themselves_need_no_backends(engine: Engine) {
    let routes = json!([{ "path": "/old", "redirect": { "to": "https://new.test" } }, { "path": "/", "respond": { "status": 204 } }]);
    let balancer = Setup::on(engine).set("routes", routes).start();
    let line = overview(&balancer)["line"][0].clone();
    assert_eq!((&line["level"], &line["text"]), (&json!("ok"), &json!("0 of 0 backends up")));
}

fn counts_are_of_what_was_proxied(engine: Engine) {
    let backend = Backend::scripted(|seen, stream| {
        let broken = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 6\r\n\r\nbroken";
        let _ = stream.write_all(if seen.request_line().contains("/broken") { broken } else { OK });
        Then::Keep
    });
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .backend(refusing())
        .set("health_check", json!(null))
        .set("balancing.strategy", json!("round_robin"))
        .start();
    for _ in 0..6 {
        balancer.get("/broken").expect(500);
    }
    until("all of it is counted", || {
        let seen = overview(&balancer);
        let (a, b) = (row(&seen, "a"), row(&seen, "b"));
        let counts =
            |row: &Value| ["requests", "errors", "retries", "response_bytes"].map(|name| row[name].clone());
        let [requests, errors, retries, bytes] = counts(&b);
        let tried = requests.as_u64()?;
        assert_eq!((&requests, &requests, &bytes), (&errors, &retries, &json!(0)), "{b}");
        (counts(&a) == [6, 6, 0, 36].map(|count| json!(count)) && tried > 0 && seen["requests"] == 6)
            .then_some(())?;
        assert_eq!((&a["level"], &seen["line"][0]["level"]), (&json!("bad"), &json!("bad")));
        assert_eq!(seen["line"][1]["text"], "100 % errors");
        assert!(a["requests_per_sec"].as_f64()? > 0.0 && a["p99"].as_f64()? > 0.0, "{a}");
        Some(())
    });
}

#[test]
fn an_hour_is_kept_in_steps_that_the_overview_goes_on_with() {
    let backend = Backend::named("hello");
    let balancer = Setup::auto().backend(backend.address()).start();
    let history =
        |query: &str| balancer.api("GET", &format!("/-/v1/history?{query}"), &Value::Null).expect(200).json();
    for query in ["metric=requests", "metric=requests&backend=a", "metric=waiting&pool=default"] {
        let empty = history(query);
        assert_eq!((&empty["step"], &empty["values"]), (&json!(10), &json!([])), "{query}");
    }
    for _ in 0..20 {
        balancer.get("/").expect(200);
    }
    let sum =
        |found: &Value| found["values"].as_array().unwrap().iter().filter_map(Value::as_f64).sum::<f64>();
    // 20 requests in a step of 10 s, which is recorded up to a second late; in two steps if one ended between them.
    let all = until("the requests are in steps that are over", || {
        let found = history("metric=requests");
        (1.7..2.1).contains(&sum(&found)).then_some(found)
    });
    for query in [
        "metric=2xx",
        "metric=requests&pool=default",
        "metric=2xx&backend=a",
        "metric=2xx&backend=a&pool=default",
    ] {
        let found = history(query);
        assert!((1.7..2.1).contains(&sum(&found)), "{query}: {found}");
    }
    let from = all["from"].as_u64().unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((now - 60..=now).contains(&from), "{from} {now}");
    let latest = history(&format!("metric=requests&from={}", now + 100));
    assert_eq!(latest["values"], json!([]));
    let (seen, steps) = until("no step ends meanwhile", || {
        let steps = history("metric=requests");
        let seen = overview(&balancer);
        (history("metric=requests") == steps).then_some((seen, steps))
    });
    let last = steps["from"].as_u64().unwrap() + 10 * (steps["values"].as_array().unwrap().len() as u64 - 1);
    assert!(seen["history"]["at"].as_u64().unwrap().abs_diff(last) <= 1, "{seen}\n{steps}");
    assert_eq!(
        seen["history"]["values"]["requests"],
        steps["values"].as_array().unwrap().last().unwrap().clone()
    );
    for (query, status, said) in [
        ("metric=requets", 400, "must be one of requests, 2xx"),
        ("metric=queue_timeout&backend=a", 404, "only requests, 2xx"),
        ("metric=limited&pool=default", 404, "no limited is kept"),
        ("metric=waiting&pool=default", 200, ""),
    ] {
        let answer = balancer.api("GET", &format!("/-/v1/history?{query}"), &json!(null)).expect(status);
        assert!(answer.text().contains(said), "{query}: {}", answer.text());
    }
}
