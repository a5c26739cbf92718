//! Who may call the API, and where it stands.

use serde_json::{Value, json};

use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Setup, request};

each_engine! {
    addresses_outside_allow_are_403,
    a_token_is_asked_for_after_allow,
    what_came_through_a_proxy_or_a_page_is_403_without_a_token,
    a_token_opens_what_a_proxy_closed,
    an_admin_listener_takes_the_api_away_from_the_public_port,
    refused_calls_change_nothing_and_reach_no_backend,
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
    // The health paths are for everybody.
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
    &[("Origin", "http://evil.example")],
    &[("Origin", "null")],
    &[("Origin", "http://127.0.0.1:1")],
    &[("Sec-Fetch-Site", "cross-site")],
    &[("Host", "evil.example")],
    &[("Host", "localhost.evil.example")],
];

fn what_came_through_a_proxy_or_a_page_is_403_without_a_token(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("admin.hosts", json!(["balancer.internal"]))
        .set("rate_limit.trusted_proxies", json!(["127.0.0.1"]))
        .start();
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
    for path in ["/", "/nothing", "/limits/", "/theirs"] {
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
    // The same through ourselves: Via gives it away.
    let outer = Setup::on(engine).backend(balancer.address).set("admin.listen", json!("127.0.0.1:0")).start();
    let through = request(outer.address, "POST", "/limits/create", &[], body.as_bytes());
    through.problem(403);
}
