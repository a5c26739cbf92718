//! Who may see the dashboard, and which parts of it.

use serde_json::json;

use super::calm;
use crate::support::browser::{ENTER, here};
use crate::support::{Backend, Browser, Setup, until};

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
    assert!(
        faults.len() == 1 && faults[0].contains("v1/overview") && faults[0].contains("401"),
        "{faults:?}"
    );
    // One that could not even be sent.
    browser.clear("input[type=password]");
    browser.write("input[type=password]", &format!("a→token-of-ours{ENTER}"));
    browser.sees("#login", "No token has “→” in it");
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
    let seen = browser.text("body");
    assert!(!seen.contains("Traffic") && !seen.contains("backends up"), "nothing is shown without a token");
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
fn a_token_that_may_only_read_sees_no_button_that_it_may_not_use() {
    if !here() {
        return;
    }
    let backend = Backend::named("a");
    let balancer = Setup::auto()
        .backend(backend.address())
        .set("admin.tokens", json!([{ "name": "viewer", "role": "read", "token_env": "VIEWER" }]))
        .set("admin.token", json!("the-token-that-writes"))
        .env("VIEWER", "the-token-that-reads")
        .start();
    let writer = [("Authorization", "Bearer the-token-that-writes")];
    let limit = json!({ "client_id": "127.0.0.7", "capacity": 1, "rate_per_sec": 0 }).to_string();
    crate::support::request(balancer.address, "POST", "/limits/create", &writer, limit.as_bytes())
        .expect(201);
    balancer.get_from("127.0.0.7", "/").expect(200);
    balancer.get_from("127.0.0.7", "/").expect(429);
    let browser = Browser::start();
    let open = |token: &str| {
        browser.open(&format!("http://{}/-/dashboard", balancer.address));
        browser.write("input[type=password]", &format!("{token}{ENTER}"));
        browser.sees("#link", "live");
        browser.sees("#limit-rows", "127.0.0.7");
        browser.sees("#limited-rows", "bucket default");
    };
    // What can be seen and pressed, by its text.
    let buttons = || {
        let script = "for (const one of document.querySelectorAll('details')) one.open = true; \
            return [...document.querySelectorAll('button, summary')].filter((one) => one.checkVisibility()).map((one) => one.textContent)";
        let found = browser.run(script, &[]);
        let mut found: Vec<_> = found
            .as_array()
            .expect("texts")
            .iter()
            .map(|text| text.as_str().unwrap_or_default().to_owned())
            .collect();
        found.sort();
        found.dedup();
        found
    };
    open("the-token-that-writes");
    let all = buttons();
    for text in ["drain", "weight", "add backend", "add limit", "edit", "delete", "save plan"] {
        assert!(all.iter().any(|one| one == text), "{text} in {all:?}");
    }
    open("the-token-that-reads");
    assert_eq!(buttons(), ["127.0.0.7", "Plans", "What happened (1)", "forget token", "search", "show"]);
    browser.click("#limited-rows button");
    browser.sees("#client-about", "bucket default of its own limit");
    assert!(!buttons().iter().any(|text| text.contains("limit") || text == "refill"), "{:?}", buttons());
    calm(&browser);
}

#[test]
fn after_a_token_is_forgotten_nothing_is_asked_for_and_nothing_is_shown() {
    if !here() {
        return;
    }
    let backend = Backend::named("a");
    let balancer =
        Setup::auto().backend(backend.address()).env("BALANCER_ADMIN_TOKEN", "the-only-right-token").start();
    let browser = Browser::start();
    browser.open(&format!("http://{}/-/dashboard", balancer.address));
    browser.write("input[type=password]", &format!("the-only-right-token{ENTER}"));
    browser.sees("#link", "live");
    // The answer to the next refresh is held back, and the lists would be read after it.
    let hold = "const real = fetch; window.asked = []; known = undefined; window.fetch = (path, init) => { asked.push(String(path)); \
        return new Promise((go) => { window.release = async () => { const answer = await real(path, init); const same = answer.clone(); \
        go(answer); await same.text(); setTimeout(() => { window.released = true; }); }; }); }";
    browser.run(hold, &[]);
    until("it is refreshed", || (browser.run("return asked.length", &[]) == 1).then_some(()));
    browser.click("#forget");
    browser.sees("#login-fault", "The token is forgotten.");
    browser.run("window.release()", &[]);
    until("its answer is there", || {
        (browser.run("return Boolean(window.released)", &[]) == true).then_some(())
    });
    assert_eq!(browser.run("return [seen, ...asked]", &[]), json!([null, "v1/overview"]));
    calm(&browser);
}
