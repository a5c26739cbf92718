//! Who may call the API, and on which listener it is.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Setup, request, until};

each_engine! {
    addresses_outside_allow_are_403,
    a_token_is_asked_for_after_allow,
    what_came_through_a_proxy_or_a_page_is_403_without_a_token,
    a_token_opens_what_a_proxy_closed,
    an_admin_listener_takes_the_api_away_from_the_public_port,
    refused_calls_change_nothing_and_reach_no_backend,
    several_tokens_have_names_and_roles,
    guessing_is_slowed_down_and_said,
}

fn addresses_outside_allow_are_403(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("admin.allow", json!(["127.0.0.1", "127.3.0.0/16"]))
        .start();
    for (source, status) in [("127.0.0.1", 200), ("127.3.9.9", 200), ("127.0.0.2", 403), ("127.4.0.1", 403)] {
        assert_eq!(balancer.get_from(source, "/limits").status, status, "{source}");
    }
    let mut conn = Conn::from("127.0.0.2".parse().unwrap(), balancer.address);
    // 403 comes before everything else that is wrong.
    conn.ask("PATCH", "/limits/create", &[], b"nonsense").problem(403);
    // Anybody may ask the health paths.
    balancer.get_from("127.0.0.2", "/-/livez").expect(200);
}

const TOKEN: &str = "correct-horse-battery-staple";

fn a_token_is_asked_for_after_allow(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("admin.allow", json!(["127.0.0.1"]))
        .set("admin.token", json!(TOKEN))
        .start();
    let right = format!("Bearer {TOKEN}");
    let with = |value: &str| request(balancer.address, "GET", "/limits", &[("Authorization", value)], b"");
    with(&right).expect(200);
    with(&format!("bearer {TOKEN}")).expect(200);
    for wrong in [
        "",
        "Bearer",
        "Bearer x",
        &format!("Basic {TOKEN}"),
        TOKEN,
        &format!("Bearer {TOKEN}x"),
        "Bearer correct-horse",
    ] {
        let answer = with(wrong);
        answer.problem(401);
        assert!(
            answer.field("www-authenticate").is_some_and(|value| value.starts_with("Bearer")),
            "{wrong:?}"
        );
    }
    let answer = request(balancer.address, "GET", "/limits", &[], b"");
    answer.problem(401);
    // Both must hold.
    let mut outside = Conn::from("127.0.0.2".parse().unwrap(), balancer.address);
    outside.ask("GET", "/limits", &[("Authorization", &right)], b"").problem(403);
    // 401 comes before 405 and 400.
    request(balancer.address, "PATCH", "/limits/create", &[], b"nonsense").problem(401);
    // The backend never sees the token's requests, and its own Authorization is forwarded.
    request(balancer.address, "GET", "/theirs", &[("Authorization", "Basic eDp5")], b"").expect(200);
    assert_eq!(backend.only().field("authorization").as_deref(), Some("Basic eDp5"));
}

const DOUBTFUL: &[&[(&str, &str)]] = &[
    &[("X-Forwarded-For", "1.2.3.4")],
    &[("Forwarded", "for=1.2.3.4")],
    &[("X-Real-IP", "1.2.3.4")],
    &[("Via", "1.1 nginx")],
    &[("X-Forwarded-Proto", "https")],
    &[("X-Original-Forwarded-For", "1.2.3.4")],
    &[("X-Envoy-External-Address", "1.2.3.4")],
    &[("CF-Ray", "1")],
    &[("True-Client-IP", "1.2.3.4")],
    &[("X-Client-IP", "1.2.3.4")],
    &[("X-Cluster-Client-IP", "1.2.3.4")],
    &[("Origin", "http://evil.example")],
    &[("Origin", "null")],
    &[("Origin", "http://127.0.0.1:1")],
    &[("Sec-Fetch-Site", "cross-site")],
    &[("Host", "evil.example")],
    &[("Host", "localhost.evil.example")],
];

fn what_came_through_a_proxy_or_a_page_is_403_without_a_token(engine: Engine) {
    let backend = Backend::named("a");
    let balancer =
        Setup::on(engine).backend(backend.address()).set("admin.hosts", json!(["balancer.internal"])).start();
    for fields in DOUBTFUL {
        request(balancer.address, "GET", "/limits", fields, b"").problem(403);
    }
    let own = balancer.address.to_string();
    let origin = format!("http://{own}");
    let fine: &[&[(&str, &str)]] = &[
        &[("Host", "localhost")],
        &[("Host", "LOCALHOST:8080")],
        &[("Host", "192.0.2.1")],
        &[("Host", "[::1]:8080")],
        &[("Host", "balancer.internal")],
        &[("Host", "Balancer.Internal:80")],
        &[("Host", &own), ("Origin", &origin)],
        &[("Sec-Fetch-Site", "same-origin")],
        &[("Sec-Fetch-Site", "none")],
    ];
    for fields in fine {
        let answer = request(balancer.address, "GET", "/limits", fields, b"");
        assert_eq!(answer.status, 200, "{fields:?}: {}", answer.text());
    }
}

fn a_token_opens_what_a_proxy_closed(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).set("admin.token", json!(TOKEN)).start();
    let bearer = format!("Bearer {TOKEN}");
    for fields in DOUBTFUL {
        request(balancer.address, "GET", "/limits", fields, b"").problem(401);
        let mut all = fields.to_vec();
        all.push(("Authorization", &bearer));
        let answer = request(balancer.address, "GET", "/limits", &all, b"");
        assert_eq!(answer.status, 200, "{fields:?}: {}", answer.text());
    }
}

fn an_admin_listener_takes_the_api_away_from_the_public_port(engine: Engine) {
    let backend = Backend::named("theirs");
    let balancer =
        Setup::on(engine).backend(backend.address()).set("admin.listen", json!("127.0.0.1:0")).start();
    assert_ne!(balancer.address, balancer.admin);
    for path in ["/limits", "/limits/get?client_id=x", "/limits/create"] {
        assert_eq!(balancer.get(path).expect(200).text(), "theirs", "{path}");
    }
    balancer.get("/-/livez").expect(200);
    balancer.get("/-/readyz").expect(200);
    let on_admin = |path: &str| request(balancer.admin, "GET", path, &[], b"");
    on_admin("/limits").expect(200);
    for path in ["/livez", "/-/livez", "/readyz", "/-/readyz"] {
        on_admin(path).expect(200);
    }
    for path in ["/nothing", "/limits/", "/theirs"] {
        on_admin(path).problem(404);
    }
    let before = backend.seen().len();
    balancer.limit("127.0.0.1", 1, 0);
    balancer.get("/").expect(200);
    balancer.get("/").problem(429);
    assert_eq!(backend.seen().len(), before + 1);
}

fn refused_calls_change_nothing_and_reach_no_backend(engine: Engine) {
    let backend = Backend::named("a");
    let balancer =
        Setup::on(engine).backend(backend.address()).set("admin.allow", json!(["127.0.0.1"])).start();
    let body = json!({ "client_id": "x", "capacity": 1, "rate_per_sec": 1 }).to_string();
    let mut outside = Conn::from("127.0.0.2".parse().unwrap(), balancer.address);
    outside.ask("POST", "/limits/create", &[], body.as_bytes()).problem(403);
    assert_eq!(balancer.api("GET", "/limits", &Value::Null).json()["limits"], json!([]));
    assert!(backend.seen().is_empty());
    // The same through another balancer: its Via shows that a proxy is between.
    let outer = Setup::on(engine).backend(balancer.address).set("admin.listen", json!("127.0.0.1:0")).start();
    let through = request(outer.address, "POST", "/limits/create", &[], body.as_bytes());
    through.problem(403);
}

fn several_tokens_have_names_and_roles(engine: Engine) {
    let backend = Backend::named("a");
    let setup = Setup::on(engine).backend(backend.address()).env("CI_TOKEN", "ci-secret-of-its-own").set(
        "admin",
        json!({
            "token": TOKEN,
            "tokens": [
                { "name": "dash", "role": "read", "token_file": "dash.token" },
                { "name": "ci", "role": "write", "token_env": "CI_TOKEN" },
            ],
        }),
    );
    std::fs::write(setup.folder().join("dash.token"), "dash-secret-of-its-own\n").expect("written");
    let balancer = setup.start();
    let call = |token: &str, method: &str, target: &str, body: &Value| {
        let bearer = format!("Bearer {token}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        request(balancer.address, method, target, &[("Authorization", &bearer)], body.as_bytes())
    };
    let numbers = json!({ "client_id": "x", "capacity": 1, "rate_per_sec": 1 });
    let id = json!({ "client_id": "x" });
    let exempt = json!({ "mode": "exempt" });
    let writes: &[(&str, &str, &Value)] = &[
        ("POST", "/limits/create", &numbers),
        ("PUT", "/limits/update", &numbers),
        ("PUT", "/-/v1/limits/x", &exempt),
        ("POST", "/-/v1/limits/x/reset", &Value::Null),
        ("DELETE", "/limits/delete", &id),
    ];
    for (method, target, body) in writes {
        call("dash-secret-of-its-own", method, target, body).problem(403);
        let status = call("ci-secret-of-its-own", method, target, body).status;
        assert!((200..300).contains(&status), "{method} {target}: {status}");
    }
    for target in ["/limits", "/-/v1/limits", "/-/v1/status", "/-/metrics", "/-/readyz?verbose"] {
        call("dash-secret-of-its-own", "GET", target, &Value::Null).expect(200);
    }
    call("dash-secret-of-its-own", "POST", "/-/v1/check", &json!({ "address": "127.0.0.1" })).expect(200);
    call("dash-secret-of-its-own", "PATCH", "/-/v1/limits", &Value::Null).problem(405);
    call(TOKEN, "POST", "/limits/create", &numbers).expect(201);
    call("other", "GET", "/limits", &Value::Null).problem(401);
    let audit = call("dash-secret-of-its-own", "GET", "/-/v1/audit", &Value::Null).expect(200);
    let actors: Vec<_> = audit.json()["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["actor"].as_str().expect("text").to_owned())
        .collect();
    assert_eq!(actors, ["admin", "ci", "ci", "ci", "ci", "ci"]);
}

fn guessing_is_slowed_down_and_said(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).set("admin.token", json!(TOKEN)).start();
    let right = format!("Bearer {TOKEN}");
    let mut guesser = Conn::from("127.0.0.2".parse().unwrap(), balancer.address);
    const WRONG: &str = "Bearer one-more-wrong-guess";
    let refused = (0..1_000).find_map(|guess| {
        let answer = guesser.ask("GET", "/limits", &[("Authorization", &format!("Bearer {guess}"))], b"");
        assert!(matches!(answer.status, 401 | 429), "{answer:?}");
        (answer.status == 429).then_some((guess, answer))
    });
    let (guesses, refused) = refused.expect("the guesser is stopped");
    assert!(guesses >= 20, "{guesses}");
    refused.problem(429);
    assert!(refused.field("retry-after").is_some());
    // No other address is stopped, and neither is a right token from that address, however many wrong ones come beside
    // it. One wrong one a second is judged.
    request(balancer.address, "GET", "/limits", &[("Authorization", &right)], b"").expect(200);
    let (began, mut judged) = (Instant::now(), 0);
    for _ in 0..10 {
        match guesser.ask("GET", "/limits", &[("Authorization", WRONG)], b"").status {
            401 => judged += 1,
            status => assert_eq!(status, 429),
        }
        guesser.ask("GET", "/limits", &[("Authorization", &right)], b"").expect(200);
    }
    assert!(judged <= began.elapsed().as_secs() + 1, "{judged} in {:?}", began.elapsed());
    for said in ["got 429: too many wrong tokens", "got 401: a wrong token"] {
        balancer.proc.wait_err(0, said, |line| line.contains(said));
    }
    // A moment later the address may try again.
    until("the address may try again", || {
        let answer = guesser.ask("GET", "/limits", &[("Authorization", WRONG)], b"");
        (answer.status == 401).then_some(())
    });
}
