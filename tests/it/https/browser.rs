//! A real browser over HTTP/2: the dashboard, with its calls.
//!
//! Without Chromium this is skipped, and says so; `BALANCER_TEST_REQUIRE_BROWSER=1` makes that a failure.

use crate::support::browser::{ENTER, here};
use crate::support::secure::tls_port;
use crate::support::tls_ends::setup;
use crate::support::{Backend, Browser};

#[test]
fn the_dashboard_is_there_over_http2() {
    if !here() {
        return;
    }
    let backend = Backend::named("a");
    let balancer = setup().backend(backend.address()).start();
    let browser = Browser::start();
    browser.open(&format!("https://localhost:{}/-/dashboard", tls_port(&balancer).port()));
    browser.sees("#link", "live");
    browser.sees("#line a[data-part=store]", "store up");
    let protocols = "return [...performance.getEntriesByType('navigation'), \
        ...performance.getEntriesByType('resource')].map(entry => entry.nextHopProtocol).filter(name => name);";
    let spoken = browser.run(protocols, &[]);
    let spoken = spoken.as_array().expect("a list");
    assert!(!spoken.is_empty() && spoken.iter().all(|name| name == "h2"), "{spoken:?}");
    browser.write("#limit-id", "127.0.0.7");
    browser.write("#limit-rate", &format!("1/h burst 2{ENTER}"));
    crate::support::until("the limit is kept", || {
        let kept = balancer.get("/limits/get?client_id=127.0.0.7");
        (kept.status == 200).then_some(())
    });
    assert_eq!(browser.faults(), Vec::<String>::new());
}
