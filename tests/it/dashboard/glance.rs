//! The first view: what it asks for, how often, and what its plots show.

use serde_json::{Value, json};

use super::{calm, dashboard, start};
use crate::support::browser::here;
use crate::support::until;

/// The paths that the page has asked for since the list was last emptied.
fn asked(browser: &crate::support::Browser) -> Vec<String> {
    let script = "return performance.getEntriesByType('resource').map((one) => new URL(one.name).pathname)";
    let paths = browser.run(script, &[]);
    paths.as_array().expect("paths").iter().map(|path| path.as_str().unwrap_or_default().to_owned()).collect()
}

/// Until the history is there, with steps or without.
fn plotted(browser: &crate::support::Browser) {
    until("the history is there", || {
        browser.run("return plotted.values.size", &[]).as_u64().filter(|metrics| *metrics > 0)
    });
}

#[test]
fn a_refresh_is_one_call_and_a_tab_that_nobody_sees_makes_none() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    browser.sees("#audit-rows", "Nothing was changed yet.");
    plotted(&browser);
    browser.run("performance.clearResourceTimings()", &[]);
    let paths = until("it was refreshed a few times", || {
        let paths = asked(&browser);
        (paths.len() >= 3).then_some(paths)
    });
    assert!(paths.iter().all(|path| path == "/-/v1/overview"), "{paths:?}");
    // The page is hidden.
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
    until("it asks again", || (!asked(&browser).is_empty()).then_some(()));
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
    // Who does not see it is told of it.
    assert_eq!(browser.text("#read-out"), said);
    browser.run("document.activeElement.blur()", &[]);
    until("the cursor is gone", || (!browser.text("#rate-values").contains("was started")).then_some(()));
    // The next step comes with a refresh, and joins the others. Nobody who listens is told that it is there.
    browser.run(
        "window.told = []; for (const one of document.querySelectorAll('[aria-live], [role=status], [role=alert]')) \
         new MutationObserver(() => window.told.push(`${one.id}: ${one.textContent}`)).observe(one, \
         { childList: true, characterData: true, subtree: true })",
        &[],
    );
    let steps = "return plotted.values.get('requests').length";
    let before = browser.run(steps, &[]).as_u64().expect("a number");
    until("the next step is there", || browser.run(steps, &[]).as_u64().filter(|now| *now > before));
    assert_eq!(browser.run("return window.told", &[]), json!([]));
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

/// Around the end of a step some metrics have one more at their end, and in a full hour one less at their beginning.
#[test]
fn steps_of_one_moment_stand_at_one_place() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    let taken = "take([...arguments].map((one) => JSON.parse(one))); \
        return [plotted.from, plotted.at, Object.fromEntries(plotted.values)]";
    for (requests, errors, expected) in [
        (
            json!({ "metric": "requests", "from": 1_000, "values": [1, 2, 3] }),
            json!({ "metric": "errors", "from": 1_010, "values": [20, 30, 40] }),
            json!([1_010, 1_020, { "requests": [2, 3], "errors": [20, 30] }]),
        ),
        (
            // The clock's seconds are rounded.
            json!({ "metric": "requests", "from": 1_001, "values": [1, 2, 3] }),
            json!({ "metric": "errors", "from": 1_000, "values": [10, 20] }),
            json!([1_001, 1_011, { "requests": [1, 2], "errors": [10, 20] }]),
        ),
        (
            json!({ "metric": "requests", "from": 1_000, "values": [1] }),
            json!({ "metric": "errors", "from": 1_010, "values": [2] }),
            json!([1_010, null, { "requests": [], "errors": [] }]),
        ),
    ] {
        let (requests, errors) = (requests.to_string(), errors.to_string());
        assert_eq!(browser.run(taken, &[&requests, &errors]), expected);
    }
    calm(&browser);
}

#[test]
fn a_scope_without_a_history_shows_nothing_of_another_one() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    plotted(&browser);
    let numbers = "return [...plotted.values.values()].flat().filter((value) => value !== null)";
    browser.run("for (const list of plotted.values.values()) list.push(7)", &[]);
    assert!(browser.run(numbers, &[]).as_array().is_some_and(|all| !all.is_empty()));
    // What was plotted is gone at once, not when an answer comes.
    browser.run("choosePlots(JSON.stringify({ pool: 'default', backend: 'gone' }))", &[]);
    assert_eq!(browser.run(numbers, &[]), json!([]));
    until("its answers are there", || (browser.run("return plotted.values.size", &[]) == 5).then_some(()));
    assert_eq!(browser.run(numbers, &[]), json!([]));
    assert_eq!(browser.text("#notice"), "");
    browser.sees("#link", "live");
}

/// The same mark twice within a second, for example.
#[test]
fn rows_that_are_equal_do_not_pile_up() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    let filled = "const rows = [['x', '1'], ['y', '2'], ['x', '1']].map(([key, text]) => ({ key, cells: [text, text] })); \
        const body = document.querySelector('#mark-rows'); for (let turn = 0; turn < 3; turn += 1) fill(body, rows, ''); \
        return [...body.rows].map((row) => row.dataset.key)";
    assert_eq!(browser.run(filled, &[]), json!(["x", "y", "x"]));
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
        ("quantile(null)", "–"),
        ("quantile(0.007)", "7 ms"),
        ("quantile(29.999)", "30 s"),
        ("quantile(30)", "> 30 s"),
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
