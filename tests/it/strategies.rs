//! What each balancing strategy promises, as clients see it.

use std::collections::HashSet;
use std::io::Write;

use serde_json::json;

use crate::support::client::head;
use crate::support::engine::each_engine;
use crate::support::{Backend, Balancer, Conn, Engine, Setup, Then, request, until};

each_engine! {
    the_same_key_goes_to_the_same_backend,
    a_request_without_the_key_goes_by_its_address,
    a_key_moves_only_when_its_backend_is_gone,
    first_takes_the_first,
    a_backup_serves_when_nobody_else_does,
    peak_ewma_leaves_the_slow_backend_alone,
    two_choices_leave_a_hanging_backend_alone,
    one_that_hangs_costs_the_others_nothing,
    a_cookie_brings_a_client_back,
}

const ALL: [&str; 6] = ["least_connections", "round_robin", "random_two", "peak_ewma", "hash", "first"];

fn three(engine: Engine) -> (Setup, [Backend; 3]) {
    let backends = ["a", "b", "c"].map(Backend::named);
    let setup = backends.iter().fold(Setup::on(engine), |setup, backend| setup.backend(backend.address()));
    (setup, backends)
}

fn ask(balancer: &Balancer, target: &str, fields: &[(&str, &str)]) -> String {
    request(balancer.address, "GET", target, fields, b"").expect(200).text()
}

fn the_same_key_goes_to_the_same_backend(engine: Engine) {
    let (setup, _backends) = three(engine);
    let setup = setup.set("balancing.strategy", json!("hash"));
    for (on, target, field) in [
        ("uri", "/KEY?x=1", ("x", "y")),
        ("header:X-Key", "/", ("x-key", "KEY")),
        ("cookie:session", "/", ("Cookie", "a=b; session=KEY; c=d")),
    ] {
        let balancer = setup.clone().set("balancing.hash_on", json!(on)).start();
        let mut used = HashSet::new();
        for key in 0..30 {
            let key = key.to_string();
            let (target, value) = (target.replace("KEY", &key), field.1.replace("KEY", &key));
            let owners: HashSet<_> = (0..3).map(|_| ask(&balancer, &target, &[(field.0, &value)])).collect();
            assert_eq!(owners.len(), 1, "{on} {key}: {owners:?}");
            used.extend(owners);
        }
        assert_eq!(used.len(), 3, "{on}: thirty keys use everybody");
    }
}

fn a_request_without_the_key_goes_by_its_address(engine: Engine) {
    let (setup, _backends) = three(engine);
    let setup = setup.set("balancing.strategy", json!("hash"));
    let owners = |balancer: &Balancer| -> Vec<String> {
        (1..=20)
            .map(|last| {
                let source = format!("127.0.0.{last}");
                let answer = balancer.get_from(&source, "/").expect(200).text();
                assert_eq!(balancer.get_from(&source, "/other").expect(200).text(), answer);
                answer
            })
            .collect()
    };
    let by_address = owners(&setup.clone().start());
    assert!(by_address.iter().collect::<HashSet<_>>().len() > 1, "{by_address:?}");
    for on in ["header:X-Key", "cookie:session"] {
        assert_eq!(owners(&setup.clone().set("balancing.hash_on", json!(on)).start()), by_address, "{on}");
    }
    // The limiter's client is the address here, but hashed under its own name.
    owners(&setup.set("balancing.hash_on", json!("client")).start());
}

fn a_key_moves_only_when_its_backend_is_gone(engine: Engine) {
    let (setup, backends) = three(engine);
    let setup = setup.set("balancing.strategy", json!("hash")).set("balancing.hash_on", json!("uri"));
    let balancer = setup.start();
    let owners = |balancer: &Balancer| -> Vec<String> {
        (0..40).map(|key| ask(balancer, &format!("/{key}"), &[])).collect()
    };
    let before = owners(&balancer);
    let [a, b, c] = backends;
    drop(b);
    let after = owners(&balancer);
    for (was, is) in before.iter().zip(&after) {
        assert!(if was == "b" { is != "b" } else { is == was }, "{before:?}\n{after:?}");
    }
    drop((a, c));
}

fn first_takes_the_first(engine: Engine) {
    let (setup, [a, b, c]) = three(engine);
    let balancer = setup.set("balancing.strategy", json!("first")).start();
    for _ in 0..10 {
        assert_eq!(balancer.get("/").expect(200).text(), "a");
    }
    drop(a);
    for _ in 0..10 {
        assert_eq!(balancer.get("/").expect(200).text(), "b");
    }
    drop((b, c));
}

fn a_backup_serves_when_nobody_else_does(engine: Engine) {
    let [a, b] = ["a", "b"].map(Backend::named);
    let balancer = Setup::on(engine)
        .backend_with(json!({ "url": a.url(), "backup": true }))
        .backend_with(json!({ "url": b.url() }))
        .start();
    for _ in 0..20 {
        assert_eq!(balancer.get("/").expect(200).text(), "b");
    }
    drop(b);
    for _ in 0..5 {
        assert_eq!(balancer.get("/").expect(200).text(), "a");
    }
}

fn peak_ewma_leaves_the_slow_backend_alone(engine: Engine) {
    let slow = Backend::scripted(|_, stream| {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
        Then::Keep
    });
    let quick = Backend::named("quick");
    let balancer = Setup::on(engine)
        .backend(slow.address())
        .backend(quick.address())
        .set("balancing.strategy", json!("peak_ewma"))
        .start();
    let mut conn = Conn::open(balancer.address);
    for _ in 0..100 {
        conn.get("/").expect(200);
    }
    // One request finds out that it is slow; a busy machine may take so long that the measure decays (10 s) and it is
    // tried again.
    assert!(slow.seen().len() <= 5, "{} of 100 went to the slow one", slow.seen().len());
}

fn two_choices_leave_a_hanging_backend_alone(engine: Engine) {
    for strategy in ["random_two", "least_connections", "peak_ewma"] {
        let (deaf, good) = (Backend::deaf(), Backend::named("good"));
        let balancer = Setup::on(engine)
            .backend(deaf.address())
            .backend(good.address())
            .set("balancing.strategy", json!(strategy))
            .start();
        let mut hung = Vec::new();
        let mut answered = 0;
        while answered < 20 {
            let mut conn = Conn::open(balancer.address);
            conn.send(head("GET", "/", &[], None));
            let sent = answered + hung.len() + 1;
            let all = || deaf.seen().len() + good.seen().len();
            until("it is on a backend", || (all() >= sent).then_some(()));
            if deaf.seen().len() > hung.len() {
                hung.push(conn);
            } else {
                conn.read("GET").unwrap().expect(200);
                answered += 1;
                // Until then both may have one request under way.
                let under_way = "balancer_backend_in_flight{pool=\"default\",backend=\"b\"}";
                until("its lease is back", || (balancer.metric(under_way) == 0.0).then_some(()));
            }
            assert!(hung.len() <= 1, "{strategy} sent {} to the one that hangs", hung.len());
        }
    }
}

/// One of three never answers: whatever goes to the others is answered, under every strategy.
fn one_that_hangs_costs_the_others_nothing(engine: Engine) {
    for strategy in ALL {
        let (deaf, b, c) = (Backend::deaf(), Backend::named("b"), Backend::named("c"));
        let mut backends = vec![b.address(), c.address()];
        // `first` would send everything there.
        backends.insert(if strategy == "first" { 2 } else { 0 }, deaf.address());
        let mut setup = Setup::on(engine).set("balancing.strategy", json!(strategy));
        for backend in backends {
            setup = setup.backend(backend);
        }
        let balancer = setup.set("balancing.hash_on", json!("uri")).start();
        let mut waiting = Vec::new();
        let mut answered = HashSet::new();
        for index in 0..60 {
            let mut conn = Conn::open(balancer.address);
            conn.send(head("GET", &format!("/{index}"), &[], None));
            until("it is on a backend", || {
                let seen = deaf.seen().len() + b.seen().len() + c.seen().len();
                (seen > index).then_some(())
            });
            if deaf.seen().len() > waiting.len() {
                waiting.push(conn);
            } else {
                answered.insert(conn.read("GET").unwrap().expect(200).text());
            }
        }
        assert_eq!(answered.len(), if strategy == "first" { 1 } else { 2 }, "{strategy}: {answered:?}");
        assert!(waiting.len() <= 30, "{strategy}: {} went to the one that hangs", waiting.len());
    }
}

fn a_cookie_brings_a_client_back(engine: Engine) {
    let (setup, backends) = three(engine);
    let sticky = json!({ "cookie": "sid", "secret": "0123456789abcdef", "secure": true });
    let setup = setup.set("balancing.strategy", json!("round_robin")).set("balancing.sticky", sticky);
    let balancer = setup.clone().start();
    let with = |balancer: &Balancer, cookie: &str| {
        request(balancer.address, "GET", "/", &[("Cookie", cookie)], b"").expect(200)
    };
    let first = balancer.get("/").expect(200);
    let set = first.field("set-cookie").expect("a cookie").to_owned();
    let (pair, attributes) = set.split_once(';').expect("attributes");
    assert_eq!(attributes, " Path=/; HttpOnly; SameSite=Lax; Secure");
    // No address: a token of 32 digits, which may hold "127" as any others.
    let token = pair.strip_prefix("sid=").expect("its name");
    assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{pair}");
    // With it, the same backend and no new cookie; another instance with the same secret agrees.
    let other = setup.start();
    for balancer in [&balancer, &other] {
        for _ in 0..6 {
            let again = with(balancer, &format!("x=y; {pair}"));
            assert_eq!((again.text(), again.field("set-cookie")), (first.text(), None));
        }
    }
    // A forged one counts for nothing.
    let forged = format!("{}0", &pair[..pair.len() - 1]);
    let forged = if forged == pair { format!("{}1", &pair[..pair.len() - 1]) } else { forged };
    let met: HashSet<_> = (0..6)
        .map(|_| with(&balancer, &forged))
        .collect::<Vec<_>>()
        .iter()
        .map(|answer| {
            assert!(answer.field("set-cookie").is_some());
            answer.text()
        })
        .collect();
    assert_eq!(met.len(), 3, "{met:?}");
    // Beside one that a browser kept for another path it counts as well, whichever comes first.
    for cookies in [format!("{forged}; {pair}"), format!("{pair}; {forged}"), format!("sid=; sid=x; {pair}")]
    {
        for _ in 0..6 {
            let again = with(&balancer, &cookies);
            assert_eq!((again.text(), again.field("set-cookie")), (first.text(), None), "{cookies}");
        }
    }
    let two_fields = [("Cookie", forged.as_str()), ("Cookie", pair)];
    for _ in 0..6 {
        let again = request(balancer.address, "GET", "/", &two_fields, b"").expect(200);
        assert_eq!((again.text(), again.field("set-cookie")), (first.text(), None));
    }
    // When its backend is gone, the client gets another and is told so.
    let mut left = Vec::new();
    for (name, backend) in ["a", "b", "c"].iter().zip(backends) {
        if *name != first.text() {
            left.push(backend);
        }
    }
    let moved = with(&balancer, pair);
    assert_ne!(moved.text(), first.text());
    let now = moved.field("set-cookie").expect("a new cookie").split(';').next().unwrap().to_owned();
    assert_eq!(with(&balancer, &now).text(), moved.text());
    drop(left);
}
