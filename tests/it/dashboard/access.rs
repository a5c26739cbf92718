//! The dashboard can be used by everybody: checked by axe-core where it is there, and by checks that are written here.
//!
//! `BALANCER_TEST_AXE` names `axe.min.js`. Without it that test is skipped, and says so; `BALANCER_TEST_REQUIRE_AXE=1`
//! makes that a failure. `.ci/run` fetches it.

use serde_json::{Value, json};

use super::{calm, dashboard, start};
use crate::support::backend::refusing;
use crate::support::browser::here;
use crate::support::{Backend, Balancer, Browser, Setup, skip, until};

/// A page with something in every table, and every part that can be opened open.
fn full() -> (Backend, Balancer, Browser) {
    let backend = Backend::named("a");
    let balancer = Setup::auto()
        .backend(backend.address())
        .backend(refusing())
        .set("health_check", json!({ "interval": "1h", "timeout": "20s" }))
        .start();
    balancer.limit("127.0.0.7", 1, 0);
    balancer.get_from("127.0.0.7", "/").expect(200);
    balancer.get_from("127.0.0.7", "/").expect(429);
    let plan = json!({ "name": "free", "buckets": [{ "name": "default", "amount": 10, "per": "1s" }] });
    balancer.api("POST", "/-/v1/plans", &plan).expect(201);
    let browser = dashboard(&balancer);
    browser.sees("#limited-rows", "bucket default");
    browser.sees("#audit-rows", "plan free");
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true", &[]);
    (backend, balancer, browser)
}

fn resize(browser: &Browser, width: u64, scheme: &str) {
    let screen = json!({ "width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500 });
    browser.devtools("Emulation.setDeviceMetricsOverride", &screen);
    let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
    browser.devtools("Emulation.setEmulatedMedia", &media);
    until("it is as wide", || (browser.run("return innerWidth", &[]) == width).then_some(()));
}

#[test]
fn axe_finds_nothing() {
    if !here() {
        return;
    }
    let Some(axe) =
        std::env::var("BALANCER_TEST_AXE").ok().and_then(|path| std::fs::read_to_string(path).ok())
    else {
        skip(
            "BALANCER_TEST_REQUIRE_AXE",
            "BALANCER_TEST_AXE names no file",
            "axe-core is not there: skipped",
        );
        return;
    };
    let (_backend, _balancer, browser) = full();
    // Loaded for each place, since the page may be a new one.
    let judge = |place: &str| {
        browser.run(&axe, &[]);
        browser.run(
            "window.judged = null; axe.run(document, { resultTypes: ['violations'] }).then((found) => { window.judged = found.violations.map( \
             (one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => node.target.join(' ') + ' ' + node.failureSummary).join(' | ')}`); })",
            &[],
        );
        let found = until("axe is through", || {
            Some(browser.run("return window.judged", &[])).filter(|found| !found.is_null())
        });
        assert_eq!(found, json!([]), "{place}");
    };
    for width in [1440, 390] {
        for scheme in ["light", "dark"] {
            resize(&browser, width, scheme);
            judge(&format!("{width} {scheme}"));
            browser.click("#limited-rows button");
            browser.sees("#client-about", "its own limit");
            judge(&format!("{width} {scheme}, a client"));
            browser.click("#client-close");
            browser.click("button[aria-label=\"change the weight of a\"]");
            judge(&format!("{width} {scheme}, a question"));
            browser.click("#confirm-no");
        }
    }
    calm(&browser);
}

#[test]
fn every_field_has_a_label_and_every_button_a_name() {
    if !here() {
        return;
    }
    let (_backend, _balancer, browser) = full();
    let without = "return [...document.querySelectorAll('input, select, textarea')].filter((one) => !(one.labels && one.labels.length) \
        && !one.getAttribute('aria-label')).map((one) => one.id || one.outerHTML).concat( \
        [...document.querySelectorAll('button, a')].filter((one) => !(one.getAttribute('aria-label') || one.textContent.trim())).map( \
        (one) => one.outerHTML))";
    assert_eq!(
        browser.run(without, &[]),
        json!(["<button id=\"confirm-yes\" value=\"yes\" class=\"strong\"></button>"])
    );
    // When the operator is asked, there is one.
    browser.click("button[aria-label=\"drain a\"]");
    assert_eq!(browser.run(without, &[]), json!([]));
}

#[test]
fn a_finger_finds_every_button_and_nothing_is_cut_at_390_px() {
    if !here() {
        return;
    }
    let (_backend, _balancer, browser) = full();
    resize(&browser, 390, "light");
    let small = "return [...document.querySelectorAll('button, input, select, summary, nav a, #line a')].filter((one) => one.checkVisibility()).map( \
        (one) => [one.id || one.textContent.trim(), one.type === 'checkbox' ? one.closest('label').getBoundingClientRect() : one.getBoundingClientRect()]).filter( \
        ([, box]) => box.width && (box.height < 39.5 || box.width < 39.5)).map(([name, box]) => `${name} ${box.width}x${box.height}`)";
    assert_eq!(browser.run(small, &[]), json!([]));
    let wide = "return [document.documentElement.scrollWidth, ...[...document.querySelectorAll('section *')].filter((one) => one.checkVisibility() \
        && !one.closest('.sr, thead') && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 120))]";
    assert_eq!(browser.run(wide, &[]), json!([390]));
}

/// From the top: to the content, the first line, the sections, and so on down the page; a question keeps the focus inside.
#[test]
fn the_keyboard_goes_through_the_page_in_the_order_in_which_it_is_read() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    let order = "return [...document.querySelectorAll('a[href], button, input, select, summary, canvas, [tabindex=\"0\"]')].filter( \
        (one) => one.checkVisibility() && !one.closest('dialog')).map((one) => [one.tabIndex, one.getBoundingClientRect().top + scrollY])";
    let places = browser.run(order, &[]);
    let places: Vec<(i64, f64)> = serde_json::from_value::<Vec<(i64, f64)>>(places).expect("pairs");
    assert!(places.len() > 30, "{places:?}");
    assert!(places.iter().all(|(index, _)| *index == 0), "no order of its own: {places:?}");
    let press = |key: &str, code: u64| {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            browser.devtools("Input.dispatchKeyEvent", &event);
        }
    };
    let focused = || {
        browser.run(
            "const one = document.activeElement; return one.id || one.dataset.part || one.textContent.trim()",
            &[],
        )
    };
    browser.run("document.body.focus()", &[]);
    let mut way = Vec::new();
    for _ in 0..9 {
        press("Tab", 9);
        way.push(focused());
    }
    let expected = [
        "to the content",
        "backends",
        "errors",
        "requests",
        "limited",
        "store",
        "instances",
        "traffic",
        "limited now",
    ];
    assert_eq!(way, expected.map(Value::from));
    browser.click("button[aria-label=\"drain a\"]");
    for _ in 0..6 {
        press("Tab", 9);
        let inside = browser.run("return Boolean(document.activeElement.closest('dialog')) || document.activeElement === document.body", &[]);
        assert_eq!(inside, true, "{}", focused());
    }
    press("Escape", 27);
    until("the question is gone", || {
        (browser.run("return document.querySelector('#confirm').open", &[]) == false).then_some(())
    });
    assert_eq!(browser.run("return document.activeElement.getAttribute('aria-label')", &[]), "drain a");
    calm(&browser);
}
