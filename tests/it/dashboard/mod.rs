//! The dashboard in a real browser: what it shows, what can be done with it, and that it runs no code from elsewhere.
//!
//! Without Chromium these tests are skipped, and say so; `BALANCER_TEST_REQUIRE_BROWSER=1` makes that a failure.

mod access;
mod backends;
mod glance;
mod limits;
mod pictures;
mod tokens;

use crate::support::{Backend, Balancer, Browser, Setup};

/// A balancer with one backend, `a`.
fn start() -> (Backend, Balancer) {
    let backend = Backend::named("a");
    let balancer = Setup::auto().backend(backend.address()).start();
    (backend, balancer)
}

/// A browser that shows the dashboard with its first data.
fn dashboard(balancer: &Balancer) -> Browser {
    let browser = Browser::start();
    browser.open(&format!("http://{}/-/dashboard", balancer.address));
    browser.sees("#link", "live");
    browser
}

/// Checks that the browser's console has shown no error.
#[track_caller]
fn calm(browser: &Browser) {
    assert_eq!(browser.faults(), Vec::<String>::new());
}
