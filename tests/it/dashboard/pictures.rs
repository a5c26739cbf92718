//! Screenshots of the dashboard for the documentation and for looking at, in every width and colour scheme.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{dashboard, start};
use crate::support::backend::{OK, refusing};
use crate::support::browser::here;
use crate::support::{Backend, Browser, Conn, Load, Setup, Then, root, until};

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

/// Ends the clients, however the pictures end.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The pictures that the documentation shows.
const SHOWN: [&str; 2] = ["busy-1440-light.png", "busy-390-dark.png"];

/// How large each of them may be.
const MAX_BYTES: usize = 200_000;

/// One picture for each width and colour scheme, into `target/screenshots`, and those of the documentation beside it.
fn pictures(browser: &Browser, name: &str) {
    let folder = root().join("target/screenshots");
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
            let file = format!("{name}-{width}-{scheme}.png");
            let is_shown = SHOWN.contains(&file.as_str());
            // Small ones are enough for a page that is read.
            let scale = if is_shown && width > 500 { 0.7 } else { 1.0 };
            let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": scale });
            let taken = browser.devtools("Page.captureScreenshot", &json!({ "format": "png", "clip": clip }));
            let bytes = base64(taken["data"].as_str().expect("a picture"));
            if is_shown {
                assert!(bytes.len() <= MAX_BYTES, "{file} has {} bytes", bytes.len());
                fs::write(root().join("docs/screenshots").join(&file), &bytes).expect("written");
            }
            fs::write(folder.join(file), bytes).expect("written");
        }
    }
}

#[test]
#[ignore = "writes target/screenshots and docs/screenshots: cargo test --test it -- --ignored screenshots"]
fn screenshots() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    pictures(&dashboard(&balancer), "empty");
    drop(balancer);

    let backends: Vec<_> = (0..19).map(|number| Backend::named(&format!("web-{number}"))).collect();
    let mut setup = Setup::auto()
        // Ten thousand limits at once take a busy machine a while.
        .set("database.timeout", json!("1m"))
        .set("rate_limit.default", json!({ "capacity": 200, "rate_per_sec": 20 }))
        .set("balancing.strategy", json!("round_robin"))
        .set("health_check", json!({ "path": "/health", "interval": "1s" }));
    for (number, backend) in backends.iter().enumerate() {
        setup = setup.backend_with(json!({ "name": format!("web-{number}"), "url": backend.url() }));
    }
    let setup = setup.backend_with(json!({ "name": "web-19", "url": format!("http://{}", refusing()) }));
    let broken = Backend::scripted(|seen, stream| {
        let broken = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(if seen.request_line().contains("/health") { OK } else { broken });
        Then::Keep
    });
    let balancer = setup.backend_with(json!({ "name": "web-20", "url": broken.url() })).start();
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
        let _stop = Stop(&stop);
        let browser = dashboard(&balancer);
        let _load = Load::start(balancer.address, 1, true);
        // A few steps of the history.
        for _ in 0..3 {
            let looked = Instant::now();
            until("the plots have something to show", || {
                (looked.elapsed() > Duration::from_secs(25)).then_some(())
            });
        }
        pictures(&browser, "busy");
    });
    drop(balancer);

    let balancer = Setup::auto()
        .backend(backends[0].address())
        .set("database.url", json!(format!("postgres://nobody@{}/none", refusing())))
        .start();
    pictures(&dashboard(&balancer), "store-down");
}
