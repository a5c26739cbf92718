//! The view of backends: their states, and what can be changed.

use std::io::Write;

use serde_json::{Value, json};

use super::{calm, dashboard, start};
use crate::support::backend::{OK, refusing};
use crate::support::browser::{ENTER, here};
use crate::support::{Backend, Setup, Then, until};

#[test]
fn a_backend_is_drained_and_undrained_with_a_confirmation() {
    if !here() {
        return;
    }
    let (backend, balancer) = start();
    let other = Backend::named("b");
    let new = json!({ "name": "b", "url": other.url() });
    balancer.api("POST", "/-/v1/backends", &new).expect(201);
    let browser = dashboard(&balancer);
    let state = |name: &str, word: &str| {
        browser.sees(&format!("#backend-rows tr[data-key={name}] td:nth-child(2)"), word);
        let call = format!("/-/v1/backends/{name}");
        assert_eq!(balancer.api("GET", &call, &Value::Null).json()["state"], word);
    };
    state("b", "up");
    browser.click("button[aria-label=\"drain a\"]");
    let curl =
        format!("curl -X PATCH 'http://{}/-/v1/backends/a' -d '{{\"state\":\"drain\"}}'", balancer.address);
    browser.sees("#confirm-curl", &curl);
    state("a", "up");
    // By the keyboard: from "cancel", where one stands, to the next button.
    let focused = browser.run("return document.activeElement.id", &[]);
    assert_eq!(focused, "confirm-no");
    browser.write("#confirm-yes", ENTER);
    state("a", "drain");
    browser.sees("#backend-rows", "the operator drains it");
    browser.sees("#audit-rows", "127.0.0.1 drained the backend a.");
    balancer
        .proc
        .wait_err(0, "the same on stderr", |line| line.ends_with("in drain: the operator drains it"));
    let before = backend.seen().len();
    for _ in 0..8 {
        balancer.get("/").expect(200);
    }
    assert_eq!(backend.seen().len(), before, "a drained backend is given nothing new");
    browser.click("button[aria-label=\"undrain a\"]");
    browser.click("#confirm-yes");
    state("a", "up");
    calm(&browser);
}

#[test]
fn a_backend_is_added_weighed_and_removed() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let other = Backend::named("b");
    let browser = dashboard(&balancer);
    browser.click("#backends summary");
    browser.write("#backend-name", "b");
    browser.write("#backend-url", &format!("ftp://nowhere{ENTER}"));
    browser.sees("#backend-fault", "/url: ");
    // The browser itself notes every answer of 400 and above.
    let faults = browser.faults();
    assert!(faults.len() == 1 && faults[0].contains("400"), "{faults:?}");
    browser.clear("#backend-url");
    browser.write("#backend-url", &format!("{}{ENTER}", other.url()));
    browser.sees("#backend-rows tr[data-key=b]", "up");
    browser.sees("#line a[data-part=backends]", "2 of 2 backends up");
    browser.click("button[aria-label=\"change the weight of b\"]");
    browser.clear("#confirm-number");
    browser.write("#confirm-number", "7");
    browser.sees("#confirm-curl", "-d '{\"weight\":7}'");
    browser.write("#confirm-number", ENTER);
    browser.sees("#backend-rows tr[data-key=b] td:nth-child(12)", "7");
    assert_eq!(balancer.api("GET", "/-/v1/backends/b", &Value::Null).json()["weight"], 7);
    // A backend of the file can be taken out of the file alone.
    assert_eq!(browser.run("return document.querySelectorAll('[aria-label=\"remove a\"]').length", &[]), 0);
    browser.click("button[aria-label=\"remove b\"]");
    browser.click("#confirm-yes");
    browser.sees("#line a[data-part=backends]", "1 of 1 backends up");
    balancer.api("GET", "/-/v1/backends/b", &Value::Null).problem(404);
    browser.sees("#audit-rows", "127.0.0.1 deleted the backend b");
    calm(&browser);
}

/// Nineteen backends are well, one is down, and one answers nothing but errors. These two must not stand at the end of
/// the list, where nobody sees them.
#[test]
fn what_is_bad_comes_first_and_the_first_line_leads_there() {
    if !here() {
        return;
    }
    let well: Vec<_> = (0..19).map(|_| Backend::named("well")).collect();
    let broken = Backend::scripted(|seen, stream| {
        let broken = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(if seen.request_line().contains("/health") { OK } else { broken });
        Then::Keep
    });
    let mut setup = Setup::auto()
        .set("health_check", json!({ "path": "/health", "interval": "1h", "timeout": "20s" }))
        .set("balancing.strategy", json!("round_robin"));
    for (number, backend) in well.iter().enumerate() {
        setup = setup.backend_with(json!({ "name": format!("web-{number}"), "url": backend.url() }));
    }
    let setup = setup.backend_with(json!({ "name": "down", "url": format!("http://{}", refusing()) }));
    let balancer = setup.backend_with(json!({ "name": "broken", "url": broken.url() })).start();
    let browser = dashboard(&balancer);
    for _ in 0..200 {
        balancer.get("/");
    }
    browser.sees("#line a[data-part=backends]", "20 of 21 backends up");
    let first = "return [...document.querySelectorAll('#backend-rows tr')].slice(0, 2).map((row) => `${row.dataset.key} ${row.className}`).sort()";
    until("both stand first", || {
        (browser.run(first, &[]) == json!(["broken bad", "down bad"])).then_some(())
    });
    browser.sees("#line a.bad[data-part=backends]", "20 of 21 backends up");
    browser.sees("#line a[data-part=errors]", "% errors");
    browser.sees("#backend-rows tr[data-key=down]", "check failed: GET /health: connection refused");
    browser.sees("#backend-rows tr[data-key=broken] td:nth-child(9)", "100 %");
    browser.click("#line a[data-part=backends]");
    let top = "return document.querySelector('#backends').getBoundingClientRect().top";
    until("its rows are in view", || browser.run(top, &[]).as_f64().filter(|top| (-5.0..60.0).contains(top)));
    // On a telephone, too.
    browser.devtools(
        "Emulation.setDeviceMetricsOverride",
        &json!({ "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": true }),
    );
    let card = "return document.querySelector('#backend-rows tr').innerText";
    let card = browser.run(card, &[]);
    let card = card.as_str().expect("a text");
    for label in ["state", "in flight", "requests/s", "errors/s", "attempts", "weight"] {
        let line = "return [...document.querySelector('#backend-rows tr').cells].some((cell) => getComputedStyle(cell, '::before').content.includes(arguments[0]))";
        assert_eq!(browser.run(line, &[label]), true, "{label} in {card}");
    }
    calm(&browser);
}

#[test]
fn a_lost_store_and_a_lost_backend_are_said() {
    if !here() {
        return;
    }
    let balancer = Setup::auto()
        .backend(refusing())
        .set("health_check", json!({ "interval": "1h", "timeout": "20s" }))
        .set("database.url", json!(format!("postgres://nobody@{}/none", refusing())))
        .start();
    let browser = dashboard(&balancer);
    browser.sees("#line a.bad[data-part=store]", "store down");
    browser.sees("#line a.bad[data-part=backends]", "0 of 1 backends up");
    browser.sees("#backend-rows tr td:nth-child(2)", "down");
    let (_, line) = balancer.proc.wait_err(0, "the cause", |line| line.contains("is down: GET /: "));
    let cause = line.split_once("is down: ").and_then(|(_, rest)| rest.rsplit_once(" (")).expect("a cause").0;
    browser.sees("#backend-rows", cause);
    browser.sees("#limit-rows", "The store is down");
    calm(&browser);
}

#[test]
fn a_measured_bound_is_shown_with_what_it_counts_and_what_moved_it() {
    if !here() {
        return;
    }
    let backend = Backend::named("a");
    let balancer = Setup::auto()
        .backend_with(json!({ "name": "a", "url": backend.url(), "max_in_flight": "auto" }))
        .backend_with(json!({ "name": "b", "url": backend.url(), "max_in_flight": 7 }))
        .backend_with(json!({ "name": "c", "url": backend.url() }))
        .start();
    let seen = balancer.api("GET", "/-/v1/overview", &Value::Null).expect(200).json();
    let a = seen["backends"].as_array().unwrap().iter().find(|one| one["name"] == "a").unwrap().clone();
    assert_eq!(a["measured"], json!({ "held": 0, "median_seconds": null, "moved": null }));
    let limit = a["limit"].as_u64().expect("a bound");
    let browser = dashboard(&balancer);
    let cell = |name: &str| format!("#backend-rows tr[data-key={name}] td:nth-child(4)");
    browser.sees(&cell("a"), &format!("0 of {limit} held"));
    browser.sees(&cell("a"), "measured: is where it began");
    assert_eq!((browser.text(&cell("b")), browser.text(&cell("c"))), ("0 of 7".into(), "0".into()));
    calm(&browser);
}

/// The choice follows the pools also when their number stays the same.
#[test]
fn the_pools_to_add_a_backend_to_are_those_that_there_are() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    let options = "const real = seen.pools; const select = document.querySelector('#backend-pool'); \
        const shown = [['default', 'web'], ['api', 'default'], ['default', 'api']].map((names) => { \
            seen.pools = names.map((name) => ({ ...real[0], name })); showBackends(); \
            const all = [...[...select.options].map((one) => one.value), select.value]; select.value = 'api'; return all; }); \
        seen.pools = real; showBackends(); return shown";
    // What was chosen stays chosen while it is there.
    assert_eq!(
        browser.run(options, &[]),
        json!([["default", "web", "default"], ["api", "default", "default"], ["api", "default", "api"]])
    );
    calm(&browser);
}
