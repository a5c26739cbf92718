//! The names of a request on its way: `Via`, `X-Request-Id`, `traceparent`.

use serde_json::json;

use crate::support::engine::{Case, each_engine};
use crate::support::{Backend, Balancer, Engine, Setup, request};

each_engine! {
    via_names_us_and_a_loop_is_508,
    without_via_a_loop_is_still_508,
    request_ids_and_trace_parents,
}

fn via_names_us_and_a_loop_is_508(engine: Engine) {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 inner\r\n\r\n");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let answer = request(balancer.address, "GET", "/", &[("Via", "1.0 front")], b"").expect(200);
    let via = backend.only().all("via").join(", ");
    assert!(via.starts_with("1.0 front, 1.1 balancer"), "{via}");
    // In answers a gateway may add itself or not (RFC 9110 §7.6.3).
    let back = answer.all("via").join(", ");
    assert!(back.starts_with("1.1 inner"), "{back}");

    // A request that comes back to us names us in its Via.
    let own = via.rsplit(", ").next().unwrap();
    let looped = request(balancer.address, "GET", "/", &[("Via", own)], b"");
    looped.problem(508);
    assert_eq!(backend.seen().len(), 1, "a loop went on");

    // Another instance's Via is no loop.
    let other = Setup::on(engine).backend(backend.address()).start();
    request(other.address, "GET", "/", &[("Via", own)], b"").expect(200);
}

/// nginx, for one, compresses nothing for a request with a Via.
fn without_via_a_loop_is_still_508(engine: Engine) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address());
    let quiet = setup.clone().set("upstream.via", json!(false));
    let (one, other, named) = (quiet.start(), quiet.start(), setup.start());
    let through = |balancer: &Balancer, fields: &[(String, String)]| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        request(balancer.address, "GET", "/", &fields, b"")
    };
    // What a backend that leads back to a balancer would send.
    let passed_on = || -> Vec<(String, String)> {
        let split = |line: &String| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_owned(), value.trim().to_owned())
        };
        let seen = backend.seen().pop().unwrap();
        seen.lines()
            .iter()
            .skip(1)
            .map(split)
            .filter(|(name, _)| !name.eq_ignore_ascii_case("host"))
            .collect()
    };
    through(&one, &[]).expect(200);
    assert!(backend.only().all("via").is_empty(), "{:?}", backend.only().lines());
    through(&one, &passed_on()).problem(508);

    // Through other balancers, which add their own Via and take nothing away.
    through(&one, &[]).expect(200);
    for next in [&other, &named] {
        through(next, &passed_on()).expect(200);
        through(next, &passed_on()).problem(508);
        through(&one, &passed_on()).problem(508);
    }
    // A Via that came is passed on, and nothing added to it.
    through(&one, &[("Via".to_owned(), "1.0 front".to_owned())]).expect(200);
    assert_eq!(backend.seen().pop().unwrap().all("via"), ["1.0 front"]);
}

fn request_ids_and_trace_parents(engine: Engine) {
    let backend = Backend::named("a");
    let stranger = Setup::on(engine).backend(backend.address()).start();
    let trusting = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.trusted_proxies", json!(["127.0.0.1"]))
        .start();
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let cases = [
        (&stranger, "abc-1", good, false, true),
        (&trusting, "abc-1", good, true, true),
        (&trusting, "white space", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", false, false),
        (&trusting, "", "garbage", false, false),
    ];
    for (at, id, trace, id_kept, trace_kept) in cases {
        let fields = [("X-Request-Id", id), ("traceparent", trace), ("tracestate", "a=1")];
        let answer = request(at.address, "GET", "/", &fields, b"").expect(200);
        let seen = backend.seen().pop().unwrap();
        let (sent, told) = (seen.all("x-request-id"), answer.all("x-request-id"));
        assert_eq!((sent.len(), told.len()), (1, 1), "{id:?}");
        assert_eq!(sent[0], told[0], "{id:?}");
        assert_eq!(sent[0] == id, id_kept, "{id:?} became {:?}", sent[0]);
        if !id_kept {
            let made = uuid::Uuid::parse_str(&sent[0]).expect("a UUID");
            assert_eq!(made.get_version_num(), 7, "{made}");
        }
        // None is made: ours would say "not sampled", which switches off the traces of whoever is behind us.
        let parents = seen.all("traceparent");
        assert_eq!(parents, if trace_kept { vec![trace] } else { vec![] }, "{trace:?}: {:?}", seen.lines());
        let states = seen.all("tracestate");
        assert_eq!(states, if trace_kept { vec!["a=1"] } else { vec![] }, "{trace:?}: {:?}", seen.lines());
    }
    // Without one there is none, and the log knows none.
    let logging = Setup::on(engine).backend(backend.address()).set("log.access", json!(true)).start();
    let fields = |trace| [("Traceparent", trace)];
    let cases =
        [("/none", &[][..], false), ("/garbage", &fields("garbage"), false), ("/good", &fields(good), true)];
    for (path, fields, kept) in cases {
        request(logging.address, "GET", path, fields, b"").expect(200);
        let seen = backend.seen().pop().unwrap();
        assert_eq!(seen.all("traceparent"), if kept { vec![good] } else { vec![] });
        if engine.can(Case::Spelling) {
            assert_eq!(seen.lines().contains(&format!("Traceparent: {good}")), kept, "{:?}", seen.lines());
        }
        let line = logging.proc.wait_out(&format!("\"path\":\"{path}\""));
        let id = if kept { "\"4bf92f3577b34da6a3ce929d0e0e4736\"" } else { "null" };
        assert!(line.contains(&format!("\"trace_id\":{id}")), "{line}");
    }
    // The same id stands in a problem.
    let problem =
        request(trusting.address, "GET", "/limits/get", &[("X-Request-Id", "abc-2"), ("Via", "1.1 x")], b"");
    assert_eq!(problem.problem(403)["instance"], "abc-2");
    assert_eq!(problem.field("x-request-id"), Some("abc-2"));
}
