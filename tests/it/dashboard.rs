//! The dashboard in a real browser: what it shows, what can be done with it, and that nothing of it is run that should not be.
//!
//! Without Chromium this is skipped aloud; `BALANCER_TEST_REQUIRE_BROWSER=1` makes that a failure.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::backend::refusing;
use crate::support::browser::{ENTER, here};
use crate::support::{Backend, Balancer, Browser, Conn, Load, Setup, root, until};

/// A client's id that does something where it is taken for HTML.
const HTML: &str = "<img src=x onerror=\"document.title='owned'\">";

fn start() -> (Backend, Balancer) {
    let backend = Backend::named("a");
    let balancer = Setup::auto().backend(backend.address()).start();
    (backend, balancer)
}

fn dashboard(balancer: &Balancer) -> Browser {
    let browser = Browser::start();
    browser.open(&format!("http://{}/-/dashboard", balancer.address));
    browser.sees("#link", "live");
    browser
}

fn calm(browser: &Browser) {
    assert_eq!(browser.faults(), Vec::<String>::new());
}

#[test]
fn a_limit_is_added_and_who_it_refuses_is_on_the_first_screen_with_the_reason() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    browser.sees("#limited", "Nobody is being limited.");
    browser.sees("#store", "store up");
    browser.write("#limit-id", "127.0.0.7");
    browser.write("#limit-rate", &format!("1/h burst 2{ENTER}"));
    browser.sees("#limit-rows", "127.0.0.7");
    for status in [200, 200, 429] {
        balancer.get_from("127.0.0.7", "/").expect(status);
    }
    browser.sees("#limited-rows", "bucket default of its own limit (");
    browser.sees("#close-rows", "100 %");
    browser.sees("#limit-rows", "0 of 2");
    browser.sees("#audit-rows", "1/h burst 2");

    // Refused by the API, and said where it was written.
    browser.write("#limit-id", "127.0.0.7");
    browser.write("#limit-rate", &format!("ten{ENTER}"));
    browser.sees("#limit-fault", "“ten” is no rate");
    browser.click("#limits button[aria-label=\"edit 127.0.0.7\"]");
    browser.sees("#limit-title", "Edit the limit of 127.0.0.7");
    browser.clear("#limit-rate");
    browser.write("#limit-rate", &format!("1/h burst 4, day: 1000/d utc{ENTER}"));
    browser.sees("#limit-rows", "hour: 1/h burst 4, day: 1000/d utc");
    balancer.get_from("127.0.0.7", "/").expect(200);

    browser.write("#if-rate", &format!("1/d burst 1{ENTER}"));
    browser
        .sees("#if-sum", "1 of 1 clients would have been refused, at least 3 of 4 requests. Now it was 1.");

    browser.click("#limits button[aria-label=\"delete 127.0.0.7\"]");
    browser.click("#confirm-no");
    browser.click("#limits button[aria-label=\"delete 127.0.0.7\"]");
    browser.click("#confirm-yes");
    browser.sees("#limit-rows", "There are no limits yet.");
    balancer.api("GET", "/-/v1/limits/127.0.0.7", &Value::Null).problem(404);
    calm(&browser);
}

#[test]
fn a_clients_id_is_text_and_the_search_finds_it() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    balancer.limit(HTML, 5, 1);
    for number in 0..30 {
        balancer.limit(&format!("tenant-{number:02}"), 5, 1);
    }
    let browser = dashboard(&balancer);
    browser.sees("#limit-rows", HTML);
    browser.sees("#audit-rows", "tenant-29");
    browser.click("#limits-next");
    browser.sees("#limit-rows", "tenant-29");
    browser.write("#search", "<img");
    let rows = "return document.querySelectorAll('#limit-rows tr').length";
    until("the search leaves one row", || (browser.run(rows, &[]) == 1).then_some(()));
    browser.sees("#limit-rows", HTML);
    browser.click("#limit-rows button");
    browser.sees("#limit-title", HTML);
    browser.clear("#search");
    browser.write("#search", "nobody");
    browser.sees("#limit-rows", "No limit fits.");
    assert_eq!(browser.run("return document.images.length + document.title", &[]), "0Balancer");
    calm(&browser);
}

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
fn a_token_is_asked_for_and_a_wrong_one_is_refused() {
    if !here() {
        return;
    }
    let backend = Backend::named("a");
    let balancer = Setup::auto()
        .backend(backend.address())
        .set("admin.listen", json!("127.0.0.1:0"))
        .env("BALANCER_ADMIN_TOKEN", "the-only-right-token")
        .start();
    let browser = Browser::start();
    browser.open(&format!("http://{}/", balancer.admin));
    browser.sees("#login", "token");
    calm(&browser);
    assert!(!browser.text("body").contains("Traffic"), "nothing is shown without a token");
    browser.write("input[type=password]", &format!("a-wrong-token{ENTER}"));
    browser.sees("#login", "That token is wrong.");
    assert!(!browser.text("body").contains("Traffic"), "nothing is shown without a token");
    // The browser itself notes every answer of 400 and above.
    let faults = browser.faults();
    assert!(faults.len() == 1 && faults[0].contains("v1/status") && faults[0].contains("401"), "{faults:?}");
    browser.clear("input[type=password]");
    browser.write("input[type=password]", &format!("the-only-right-token{ENTER}"));
    browser.sees("#link", "live");
    browser.click("button[aria-label=\"drain a\"]");
    browser.sees("#confirm-curl", "-H \"Authorization: Bearer $TOKEN\"");
    browser.click("#confirm-no");
    let text = browser.run("return document.documentElement.outerHTML", &[]).to_string();
    assert!(!text.contains("the-only-right-token"), "the token stands in the page");
    browser.click("#forget");
    browser.sees("#login", "token");
    assert!(!browser.text("body").contains("Traffic"), "nothing is shown without a token");
    // It is kept in memory alone: no other page of this origin finds it, and the next load asks anew.
    browser.write("input[type=password]", &format!("the-only-right-token{ENTER}"));
    browser.sees("#link", "live");
    let kept = browser.run("return JSON.stringify([sessionStorage, localStorage, document.cookie])", &[]);
    assert!(!kept.to_string().contains("right-token"), "{kept}");
    browser.open(&format!("http://{}/", balancer.admin));
    browser.sees("#login", "token");
    calm(&browser);
}

#[test]
fn a_lost_store_and_a_lost_backend_are_said() {
    if !here() {
        return;
    }
    let balancer = Setup::auto()
        .backend(refusing())
        .set("health_check", json!({ "interval": "1h" }))
        .set("database.url", json!(format!("postgres://nobody@{}/none", refusing())))
        .start();
    let browser = dashboard(&balancer);
    browser.sees("#store", "store down");
    browser.sees("#ready", "not ready");
    browser.sees("#backend-rows tr td:nth-child(2)", "down");
    let (_, line) = balancer.proc.wait_err(0, "the cause", |line| line.contains("is down: GET /: "));
    let cause = line.split_once("is down: ").and_then(|(_, rest)| rest.rsplit_once(" (")).expect("a cause").0;
    browser.sees("#backend-rows", cause);
    browser.sees("#limit-rows", "The store is down");
    calm(&browser);
}

#[test]
fn times_are_written_as_people_read_them() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    browser.sees("#flight", "0");
    for (seconds, text) in [
        ("null", "–"),
        ("0.00034", "0.34 ms"),
        ("0.007", "7 ms"),
        ("0.0166", "17 ms"),
        ("0.1601", "160 ms"),
        ("0.994", "990 ms"),
        ("0.9999", "1 s"),
        ("2.52", "2.5 s"),
        ("30", "30 s"),
    ] {
        let shown = browser.run(&format!("return time({seconds})"), &[]);
        assert_eq!(shown, json!(text), "{seconds}");
    }
    calm(&browser);
}

/// The bytes of a text of RFC 4648 §4.
fn base64(text: &str) -> Vec<u8> {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|c| alphabet.find(c))
        .map(|digit| u32::try_from(digit).expect("6 bits"))
        .collect();
    let mut bytes = Vec::new();
    for four in digits.chunks(4) {
        let bits = four.iter().fold(0, |bits, digit| bits << 6 | digit) << (6 * (4 - four.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
}

/// One picture for each width and colour scheme, into `docs/screenshots`.
fn pictures(browser: &Browser, name: &str) {
    let folder = root().join("docs/screenshots");
    fs::create_dir_all(&folder).expect("a folder");
    for (width, height) in [(1440, 1000), (390, 844)] {
        let screen =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        browser.devtools("Emulation.setDeviceMetricsOverride", &screen);
        for scheme in ["light", "dark"] {
            let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            browser.devtools("Emulation.setEmulatedMedia", &media);
            let looked = Instant::now();
            until("it is drawn anew", || (looked.elapsed() > Duration::from_secs(3)).then_some(()));
            let wide = browser.run("return document.documentElement.scrollWidth", &[]);
            assert!(wide.as_u64().is_some_and(|wide| wide <= width), "{name} is {wide} wide at {width}");
            let taken = browser.devtools("Page.captureScreenshot", &json!({ "format": "png" }));
            let path = folder.join(format!("{name}-{width}-{scheme}.png"));
            fs::write(path, base64(taken["data"].as_str().expect("a picture"))).expect("written");
        }
    }
}

#[test]
#[ignore = "writes docs/screenshots: cargo test --test it -- --ignored screenshots"]
fn screenshots() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    pictures(&dashboard(&balancer), "empty");
    drop(balancer);

    let backends: Vec<_> = (0..19).map(|number| Backend::named(&format!("web-{number}"))).collect();
    let mut setup = Setup::auto()
        .set("rate_limit.default", json!({ "capacity": 200, "rate_per_sec": 20 }))
        .set("balancing.strategy", json!("round_robin"))
        .set("health_check", json!({ "interval": "1s" }));
    for (number, backend) in backends.iter().enumerate() {
        setup = setup.backend_with(json!({ "name": format!("web-{number}"), "url": backend.url() }));
    }
    let setup = setup.backend_with(json!({ "name": "web-19", "url": format!("http://{}", refusing()) }));
    let balancer = setup.start();
    let operations: Vec<_> = (0..10_000)
        .map(|n| {
            let bucket = json!({ "name": "default", "amount": 10 + n % 90, "per": "1s", "capacity": 100 });
            json!({ "op": "put", "client_id": format!("10.7.{}.{}", n / 250, n % 250), "buckets": [bucket] })
        })
        .collect();
    balancer.api("POST", "/-/v1/batch", &json!({ "operations": operations })).expect(200);
    balancer.limit("127.0.0.6", 20, 2);
    balancer.api("PATCH", "/-/v1/backends/web-3", &json!({ "state": "drain" })).expect(200);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (last, pause_ms) in [(2, 100), (3, 40), (4, 30), (5, 20), (6, 200), (7, 20)] {
            let (balancer, stop) = (&balancer, &stop);
            scope.spawn(move || {
                let mut conn = Conn::from(std::net::IpAddr::from([127, 0, 0, last]), balancer.address);
                while !stop.load(Ordering::SeqCst) {
                    conn.get("/");
                    std::thread::sleep(Duration::from_millis(pause_ms));
                }
            });
        }
        let browser = dashboard(&balancer);
        let _load = Load::start(balancer.address, 1, true);
        let looked = Instant::now();
        until("the plots have something to show", || {
            (looked.elapsed() > Duration::from_secs(25)).then_some(())
        });
        pictures(&browser, "busy");
        stop.store(true, Ordering::SeqCst);
    });
    drop(balancer);

    let balancer = Setup::auto()
        .backend(backends[0].address())
        .set("database.url", json!(format!("postgres://nobody@{}/none", refusing())))
        .start();
    pictures(&dashboard(&balancer), "store-down");
}
