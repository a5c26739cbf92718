//! The first view: what it asks for, how often, and what its plots show.

use serde_json::{Value, json};

use super::{calm, dashboard, start};
use crate::support::browser::here;
use crate::support::until;

/// The paths of what the page asked for since it was last said to forget them.
fn asked(browser: &crate::support::Browser) -> Vec<String> {
    let script = "return performance.getEntriesByType('resource').map((one) => new URL(one.name).pathname)";
    let paths = browser.run(script, &[]);
    paths.as_array().expect("paths").iter().map(|path| path.as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_refresh_is_one_call_and_a_tab_that_nobody_sees_makes_none() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    browser.sees("#audit-rows", "Nothing was changed yet.");
    browser.sees("#rate-values", "first values");
    browser.run("performance.clearResourceTimings()", &[]);
    let paths = until("it was refreshed a few times", || {
        let paths = asked(&browser);
        (paths.len() >= 3).then_some(paths)
    });
    assert!(paths.iter().all(|path| path == "/-/v1/overview"), "{paths:?}");
    // Nobody looks.
    let hide = "Object.defineProperty(document, 'hidden', { value: arguments[0] === 'hidden', configurable: true }); \
                document.dispatchEvent(new Event('visibilitychange'));";
    browser.run(hide, &["hidden"]);
    browser.sees("#link", "paused");
    browser.run("performance.clearResourceTimings(); window.since = performance.now()", &[]);
    until("two refreshes would have been made", || {
        let waited = browser.run("return performance.now() - window.since", &[]);
        waited.as_f64().filter(|ms| *ms > 5_000.0)
    });
    assert_eq!(asked(&browser), Vec::<String>::new());
    browser.run(hide, &["seen"]);
    browser.sees("#link", "live");
    assert!(!asked(&browser).is_empty());
    // None of it was counted as traffic.
    let status = balancer.api("GET", "/-/v1/status", &Value::Null).json();
    assert_eq!((&status["requests"], &status["in_flight"]), (&json!(0), &json!(0)));
    calm(&browser);
}

#[test]
fn plots_are_there_when_the_page_opens_and_their_values_can_be_read_off() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    for _ in 0..30 {
        balancer.get("/").expect(200);
    }
    let history = "/-/v1/history?metric=requests";
    until("a step is over", || {
        let found = balancer.api("GET", history, &Value::Null).json();
        (!found["values"].as_array()?.is_empty()).then_some(())
    });
    let browser = dashboard(&balancer);
    browser.sees("#rate-values", "requests ");
    let has_line = "const pen = document.querySelector('#rate-plot').getContext('2d'); \
        const { width, height } = document.querySelector('#rate-plot'); \
        return new Set(pen.getImageData(0, 0, width, height).data.filter((_, at) => at % 4 === 0)).size";
    assert!(browser.run(has_line, &[]).as_u64().is_some_and(|colors| colors > 3), "something is drawn");
    // The first step, by the keyboard: it has the requests, and the start is marked there.
    browser.run(
        "document.querySelector('#rate-plot').focus(); document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'Home' }))",
        &[],
    );
    let said = browser.text("#rate-values");
    assert!(said.contains("requests ") && !said.contains("requests 0/s"), "{said}");
    assert!(said.contains("Balancer was started"), "{said}");
    browser.run("document.activeElement.blur()", &[]);
    until("the cursor is gone", || (!browser.text("#rate-values").contains("was started")).then_some(()));
    // The next step comes with a refresh, and joins the others.
    let steps = "return plotted.values.get('requests').length";
    let before = browser.run(steps, &[]).as_u64().expect("a number");
    until("the next step is there", || browser.run(steps, &[]).as_u64().filter(|now| *now > before));
    // Of a backend alone.
    browser.run(
        "const select = document.querySelector('#scope'); select.value = [...select.options].find((one) => one.text === 'backend a').value; \
         select.dispatchEvent(new Event('change'))",
        &[],
    );
    until("the backend's plots are there", || {
        let found = browser.run("return [...plotted.values.keys()].join() + plotted.scope", &[]);
        found
            .as_str()?
            .contains("requests,errors,p50,p95,p99{\"pool\":\"default\",\"backend\":\"a\"}")
            .then_some(())
    });
    calm(&browser);
}

#[test]
fn times_and_sizes_are_written_as_people_read_them() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    browser.sees("#flight", "0");
    for (call, text) in [
        ("time(null)", "–"),
        ("time(0.00034)", "0.34 ms"),
        ("time(0.007)", "7 ms"),
        ("time(0.0166)", "17 ms"),
        ("time(0.1601)", "160 ms"),
        ("time(0.994)", "990 ms"),
        ("time(0.9999)", "1 s"),
        ("time(2.52)", "2.5 s"),
        ("time(30)", "30 s"),
        ("bytes(0)", "0 B"),
        ("bytes(999)", "999 B"),
        ("bytes(1000)", "1 kB"),
        ("bytes(90211)", "90.2 kB"),
        ("bytes(3.2e12)", "3.2 TB"),
        ("span(59.4)", "59 s"),
        ("span(90)", "1 min"),
        ("span(90000)", "1 d 1 h"),
    ] {
        assert_eq!(browser.run(&format!("return {call}"), &[]), json!(text), "{call}");
    }
    calm(&browser);
}
