//! Weight and priority of limits, plans and routes, for requests that wait for a place.

use super::fair::{ask_from, queue_from};
use super::*;

each_engine! { whoever_is_more_important_gets_more_of_the_places }

const ONE: &str = "127.0.0.2";
const OTHER: &str = "127.0.0.3";

/// Another client holds the only place while ten requests of each kind come in line, those below `/low` first. Returns
/// how many of the first ten that are served then are below `/high`.
fn high_among_the_first(balancer: &Balancer, backend: &Backend, gate: &Gate, high: &str) -> usize {
    let before = backend.seen().len();
    let mut conns = vec![ask_from(balancer, "127.0.0.9", "/held")];
    until("it is at the backend", || (backend.seen().len() == before + 1).then_some(()));
    for (source, below) in [(ONE, "/low"), (high, "/high")] {
        for _ in 0..10 {
            let count = conns.len();
            conns.push(queue_from(balancer, source, &format!("{below}/{count}"), count));
        }
    }
    gate.open();
    for conn in &mut conns {
        conn.read("GET").expect("an answer").expect(200);
    }
    let served = backend.seen().into_iter().skip(before + 1).take(10);
    served.filter(|seen| seen.request_line().starts_with("GET /high/")).count()
}

fn whoever_is_more_important_gets_more_of_the_places(engine: Engine) {
    let plan = json!({ "buckets": [{ "name": "second", "amount": 1000, "per": "1s" }], "weight": 9 });
    let route = |priority: Value| json!([{ "path": "/high", "pool": "default", "priority": priority }]);
    let exempt =
        |client: &str, priority: &str| json!({ "client_id": client, "mode": "exempt", "priority": priority });
    // Limits, routes, whose requests are below `/high`, and between what their number is among the first ten.
    let rows = [
        (json!([]), route(Value::Null), OTHER, 3..=7),
        (json!([{ "client_id": OTHER, "plan": "pro" }]), route(Value::Null), OTHER, 7..=10),
        (json!([exempt(ONE, "background"), exempt(OTHER, "critical")]), route(Value::Null), OTHER, 8..=10),
        // One client, and a route that says more than its limit.
        (json!([exempt(ONE, "background")]), route(json!("critical")), ONE, 8..=10),
    ];
    for (limits, routes, high, expected) in rows {
        let gate = Gate::default();
        let backend = {
            let gate = gate.clone();
            Backend::scripted(move |_, stream| {
                gate.wait();
                // Every request takes the same time.
                thread::sleep(Duration::from_millis(20));
                let _ = stream.write_all(crate::support::backend::OK);
                Then::Keep
            })
        };
        let setup = narrow(engine, &backend, 1).set("routes", routes.clone()).workers(64);
        let balancer = setup.start();
        balancer.api("PUT", "/v1/plans/pro", &plan).expect(201);
        for limit in limits.as_array().expect("a list") {
            balancer.api("POST", "/v1/limits", limit).expect(201);
        }
        let found = high_among_the_first(&balancer, &backend, &gate, high);
        assert!(expected.contains(&found), "{found} of the first ten: {limits} {routes}");
    }
}
