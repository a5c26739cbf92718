//! The view of limits: adding, editing and searching them; the clients that they refuse, and everything about one client.

use serde_json::{Value, json};

use super::{calm, dashboard, start};
use crate::support::browser::{ENTER, here};
use crate::support::until;

/// A client's id that does something where it is taken for HTML.
const HTML: &str = "<img src=x onerror=\"document.title='owned'\">";

#[test]
fn a_limit_is_added_and_who_it_refuses_is_on_the_first_screen_with_the_reason() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    browser.sees("#limited", "Nobody is being limited. A limit that is set below");
    browser.sees("#limit-rows", "There are no limits yet. Add one above");
    browser.write("#limit-id", "127.0.0.7");
    browser.write("#limit-rate", &format!("1/h burst 2{ENTER}"));
    browser.sees("#limit-rows", "127.0.0.7");
    browser.sees("#limit-sum", "1 to 1 of 1 limit");
    for status in [200, 200, 429] {
        balancer.get_from("127.0.0.7", "/").expect(status);
    }
    browser.sees("#limited-rows", "bucket default of its own limit (1)");
    browser.sees("#line a[data-part=limited]", "1 client limited");
    browser.sees("#close-rows", "100 %");
    browser.sees("#audit-rows", "127.0.0.1 added the limit of 127.0.0.7: 1/h burst 2.");

    // One click from there to the client: what decides, what is left, what refused it.
    browser.click("#limited-rows button");
    browser.sees("#client-title", "127.0.0.7");
    for text in ["its own limit", "1/h burst 2", "0 of 2", "bucket default of its own limit (1)"] {
        browser.sees("#client-about", text);
    }
    browser.click("#client-refill");
    browser.click("#confirm-yes");
    browser.sees("#client-about", "2 of 2");
    browser.click("#client-limit");
    browser.sees("#limit-title", "Edit the limit of 127.0.0.7");
    browser.click("#limit-cancel");

    // The page refuses it, and says so below the form.
    browser.write("#limit-id", "127.0.0.7");
    browser.write("#limit-rate", &format!("ten{ENTER}"));
    browser.sees("#limit-fault", "“ten” is no rate");
    browser.click("#limits button[aria-label=\"edit 127.0.0.7\"]");
    browser.sees("#limit-title", "Edit the limit of 127.0.0.7");
    browser.clear("#limit-rate");
    browser.write("#limit-rate", &format!("1/h burst 4, day: 1000/d utc{ENTER}"));
    browser.sees("#limit-rows", "hour: 1/h burst 4, day: 1000/d utc");
    browser.sees("#audit-rows", "to hour: 1/h burst 4, day: 1000/d utc; it was 1/h burst 2.");
    balancer.get_from("127.0.0.7", "/").expect(200);

    browser.write("#if-rate", &format!("1/d burst 1{ENTER}"));
    browser.sees("#if-sum", "1 of 1 client would have been refused, at least 3 of 4 requests. Now it was 1.");

    browser.click("#limits button[aria-label=\"delete 127.0.0.7\"]");
    browser.click("#confirm-no");
    browser.click("#limits button[aria-label=\"delete 127.0.0.7\"]");
    browser.click("#confirm-yes");
    browser.sees("#limit-rows", "There are no limits yet.");
    balancer.api("GET", "/-/v1/limits/127.0.0.7", &Value::Null).problem(404);
    calm(&browser);
}

#[test]
fn a_clients_id_is_text_and_the_search_finds_any_part_of_it() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    balancer.limit(HTML, 5, 1);
    for number in 0..30 {
        balancer.limit(&format!("Tenant-{number}"), 5, 1);
    }
    for address in ["10.0.0.10", "10.0.0.2", "9.0.0.1", "10.0.0.0/8"] {
        balancer.limit(address, 5, 1);
    }
    let browser = dashboard(&balancer);
    let shown = || -> Vec<String> {
        let rows = "return [...document.querySelectorAll('#limit-rows tr')].map((row) => row.dataset.key)";
        let rows = browser.run(rows, &[]);
        rows.as_array().expect("rows").iter().map(|row| row.as_str().unwrap_or_default().to_owned()).collect()
    };
    // Addresses by their value, then names in the order of their numbers.
    browser.sees("#limit-rows", HTML);
    browser.sees("#limit-sum", "1 to 20 of 35 limits");
    assert_eq!(
        shown()[..7],
        ["9.0.0.1", "10.0.0.0/8", "10.0.0.2", "10.0.0.10", HTML, "Tenant-0", "Tenant-1"]
    );
    browser.sees("#audit-rows", "10.0.0.2");
    browser.click("#limits-next");
    browser.sees("#limit-sum", "21 to 35 of 35 limits");
    assert_eq!(shown()[14], "Tenant-29");
    browser.click("#limits-back");
    browser.sees("#limit-sum", "1 to 20 of 35 limits");
    for (part, fit) in [("<img", 1), (".0.0.1", 2), ("ant-2", 11), ("TENANT-29", 1)] {
        browser.clear("#search");
        browser.write("#search", part);
        browser.sees(
            "#limit-sum",
            &format!("1 to {fit} of {fit} limit{} that fit", if fit == 1 { "" } else { "s" }),
        );
        assert_eq!(shown().len(), fit, "{part}");
    }
    browser.clear("#search");
    browser.write("#search", "<img");
    until("the search leaves one row", || (shown() == [HTML]).then_some(()));
    browser.click("#limit-rows td.do button");
    browser.sees("#limit-title", HTML);
    browser.clear("#search");
    browser.write("#search", "nobody");
    browser.sees("#limit-rows", "No limit fits. Search for another part of an id");
    assert_eq!(browser.run("return document.images.length + document.title", &[]), json!("0Balancer"));
    calm(&browser);
}

#[test]
fn ids_are_in_the_order_of_their_values() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    let sorted = browser.run(
        "return ['b10', 'b9', '::1', '2001:db8::10', '2001:db8::9', '10.0.0.10', '10.0.0.9', '10.0.0.9:80', '10.0.0.0/8', 'a'].sort(byValue)",
        &[],
    );
    let expected = [
        "10.0.0.0/8",
        "10.0.0.9",
        "10.0.0.9:80",
        "10.0.0.10",
        "::1",
        "2001:db8::9",
        "2001:db8::10",
        "a",
        "b9",
        "b10",
    ];
    assert_eq!(sorted, json!(expected));
}

/// What another administrator changes is there without a reload, and plans are sentences in the audit.
#[test]
fn what_others_change_is_seen() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    browser.sees("#limit-rows", "There are no limits yet.");
    let plan = json!({ "name": "free", "buckets": [{ "name": "default", "amount": 10, "per": "1s", "capacity": 20 }] });
    balancer.api("POST", "/-/v1/plans", &plan).expect(201);
    balancer.api("POST", "/-/v1/limits", &json!({ "client_id": "tenant", "plan": "free" })).expect(201);
    browser.sees("#limit-rows", "free");
    browser.sees("#audit-rows", "127.0.0.1 added the limit of tenant: plan free.");
    browser.sees("#audit-rows", "127.0.0.1 added the plan free: 10/s burst 20.");
    browser.click("#plans summary");
    browser.sees("#plan-rows", "10/s burst 20");
    browser.click("#limit-rows button");
    browser.sees("#client-about", "free");
    calm(&browser);
}

/// What the form has no field for belongs to that plan alone, and what another administrator did is not undone.
#[test]
fn a_plan_is_edited_as_it_was_read_and_another_one_gets_nothing_of_it() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let bucket = |amount: u32| json!([{ "name": "default", "amount": amount, "per": "1s", "capacity": 20 }]);
    let plan = json!({ "name": "free", "buckets": bucket(10), "max_in_flight": 3 });
    balancer.api("POST", "/-/v1/plans", &plan).expect(201);
    let stored =
        |name: &str| balancer.api("GET", &format!("/-/v1/plans/{name}"), &Value::Null).expect(200).json();
    let browser = dashboard(&balancer);
    browser.click("#plans summary");
    browser.click("button[aria-label=\"edit the plan free\"]");
    browser.sees("#plan-title", "Edit the plan free");
    browser.clear("#plan-rate");
    browser.write("#plan-rate", &format!("11/s burst 20{ENTER}"));
    browser.sees("#plan-rows", "11/s burst 20, 3 at once");
    browser.sees("#plan-title", "Add a plan");

    browser.click("button[aria-label=\"edit the plan free\"]");
    browser.sees("#plan-title", "Edit the plan free");
    balancer.api("PUT", "/-/v1/plans/free", &json!({ "buckets": bucket(12) })).expect(200);
    browser.clear("#plan-rate");
    browser.write("#plan-rate", &format!("13/s burst 20{ENTER}"));
    browser.sees("#plan-fault", "it was changed meanwhile");
    assert_eq!(stored("free")["buckets"][0]["amount"], 12);

    // Its name is no field then: another plan is a new one, of which there is none yet.
    assert_eq!(browser.run("return document.querySelector('#plan-name').readOnly", &[]), true);
    browser.click("#plan-cancel");
    browser.sees("#plan-title", "Add a plan");
    for (name, said) in [("free", "already"), ("paid", "")] {
        browser.clear("#plan-name");
        browser.write("#plan-name", name);
        browser.clear("#plan-rate");
        browser.write("#plan-rate", &format!("100/s{ENTER}"));
        if said.is_empty() {
            browser.sees("#plan-rows", "paid");
        } else {
            browser.sees("#plan-fault", said);
        }
    }
    assert_eq!(
        (&stored("paid")["max_in_flight"], &stored("free")["buckets"][0]["amount"]),
        (&Value::Null, &json!(12))
    );
}

#[test]
fn an_answer_that_comes_late_is_not_shown_in_place_of_another_client() {
    if !here() {
        return;
    }
    let (_backend, balancer) = start();
    let browser = dashboard(&balancer);
    browser.run(
        "const real = fetch; window.fetch = (path, init) => (String(path).includes('10.0.0.1') \
         ? new Promise((_, fail) => { window.fail = fail; }) : real(path, init)); openClient('10.0.0.1'); openClient('10.0.0.2')",
        &[],
    );
    browser.sees("#client-about", "decided by");
    browser.run("window.fail(new Error('too late'))", &[]);
    // Whatever follows from it has followed when the next page task runs.
    let about = browser.run("return document.querySelector('#client-about').textContent", &[]);
    assert!(about.as_str().is_some_and(|text| text.contains("decided by")), "{about}");
    browser.sees("#client-title", "10.0.0.2");
    calm(&browser);
}
