//! Which fields of a request reach a backend, and which fields of its answer reach the client.

use std::net::IpAddr;

use serde_json::json;

use crate::support::engine::{Case, each_engine};
use crate::support::{Backend, Conn, Engine, Framing, Setup, Then, request};

each_engine! {
    the_request_arrives_as_it_was_sent,
    hop_by_hop_fields_stay_here,
    fields_that_connection_names_cannot_take_ours_away,
    forwarding_fields_of_strangers_are_replaced,
    forwarding_fields_of_trusted_proxies_are_continued,
    every_method_is_forwarded,
    answers_keep_their_fields_in_order,
    an_answer_without_a_date_gets_one,
    reason_phrases_are_kept,
    head_204_and_304_have_no_body,
    paths_of_ours_are_exact_and_few,
    options_asterisk_is_answered_or_forwarded,
    a_field_value_of_bytes_is_kept,
    http_1_0_is_answered_and_closed_or_kept,
    a_426_says_what_to_upgrade_to,
}

fn the_request_arrives_as_it_was_sent(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    let target = "/a%2Fb/../c;p=1?q=%20x&y[]=1&&z=a+b";
    conn.send(format!(
        "POST {target} HTTP/1.1\r\nHost: shop.example:8443\r\nContent-Length: 5\r\nX-One: 1\r\nx-one: 2\r\n\
         Cookie: a=b; c=d\r\nAccept-Encoding: br\r\nUser-Agent: me\r\n\r\nhello"
    ));
    conn.read("POST").unwrap().expect(200);
    let seen = backend.only();
    assert_eq!(seen.request_line(), format!("POST {target} HTTP/1.1"));
    assert_eq!(seen.all("host"), ["shop.example:8443"]);
    assert_eq!(seen.all("x-one"), ["1", "2"]);
    assert_eq!(seen.all("cookie"), ["a=b; c=d"]);
    assert_eq!(seen.all("accept-encoding"), ["br"]);
    assert_eq!(seen.all("user-agent"), ["me"]);
    assert_eq!(seen.all("content-length"), ["5"]);
    assert!(seen.all("transfer-encoding").is_empty());
    assert_eq!(seen.body, b"hello");

    // What the client did not send is not made up.
    let plain = Backend::named("a");
    let balancer = Setup::on(engine).backend(plain.address()).start();
    balancer.get("/").expect(200);
    let seen = plain.only();
    for name in
        ["user-agent", "accept", "accept-encoding", "content-length", "transfer-encoding", "content-type"]
    {
        assert!(seen.all(name).is_empty(), "{name} was made up: {:?}", seen.lines());
    }
}

fn hop_by_hop_fields_stay_here(engine: Engine) {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, X-Inner\r\nX-Inner: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-Outer: 2\r\n\r\n",
    );
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let fields = [
        ("Connection", "keep-alive, x-secret"),
        ("Connection", "X-Other"),
        ("X-Secret", "1"),
        ("x-other", "2"),
        ("Keep-Alive", "timeout=9"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("TE", "trailers, gzip"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
        ("X-Kept", "3"),
    ];
    let answer = request(balancer.address, "GET", "/", &fields, b"").expect(200);
    let seen = backend.only();
    for gone in [
        "x-secret",
        "x-other",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "upgrade",
        "http2-settings",
    ] {
        assert!(seen.all(gone).is_empty(), "{gone} went on: {:?}", seen.lines());
    }
    let named = |values: String| values.to_ascii_lowercase().contains("x-");
    assert!(!named(seen.all("connection").join(", ")), "{:?}", seen.lines());
    assert!(seen.field("te").is_none_or(|te| te == "trailers"), "{:?}", seen.lines());
    assert_eq!(seen.field("x-kept").as_deref(), Some("3"));
    for gone in ["x-inner", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert!(answer.all(gone).is_empty(), "{gone} came back: {answer:?}");
    }
    assert!(!named(answer.all("connection").join(", ")), "{answer:?}");
    assert_eq!(answer.field("x-outer"), Some("2"));
}

fn fields_that_connection_names_cannot_take_ours_away(engine: Engine) {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Request-Id, Date, Content-Length\r\n\r\nok",
    );
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let fields = [("Connection", "X-Forwarded-For, Via, X-Request-Id, Host, X-Forwarded-Proto")];
    let answer = request(balancer.address, "GET", "/", &fields, b"").expect(200);
    let seen = backend.only();
    assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(seen.all("host").len(), 1, "{:?}", seen.lines());
    assert!(seen.field("via").is_some() && seen.field("x-request-id").is_some(), "{:?}", seen.lines());
    assert!(answer.field("x-request-id").is_some() && answer.field("date").is_some(), "{answer:?}");
}

const FORWARDED: [(&str, &str); 5] = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "shop.example"),
    ("Forwarded", "for=6.6.6.6;proto=https"),
    ("Host", "inner.example"),
];

fn forwarding_fields_of_strangers_are_replaced(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let mut conn = Conn::from(IpAddr::from([127, 0, 0, 9]), balancer.address);
    conn.ask("GET", "/", &FORWARDED, b"").expect(200);
    let seen = backend.only();
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.9"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-host"), ["inner.example"]);
    assert!(seen.all("forwarded").is_empty(), "{:?}", seen.lines());
}

fn forwarding_fields_of_trusted_proxies_are_continued(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine)
        .backend(backend.address())
        .set("rate_limit.trusted_proxies", json!(["127.0.0.9"]))
        .start();
    let mut conn = Conn::from(IpAddr::from([127, 0, 0, 9]), balancer.address);
    conn.ask("GET", "/", &FORWARDED, b"").expect(200);
    let seen = backend.only();
    assert_eq!(seen.all("x-forwarded-for").join(", "), "6.6.6.6, 127.0.0.9");
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-forwarded-host"), ["shop.example"]);
    assert_eq!(seen.all("forwarded").len(), 1, "{:?}", seen.lines());
}

fn every_method_is_forwarded(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "PURGE"];
    for method in methods {
        let answer = request(balancer.address, method, "/m", &[], b"").expect(200);
        assert_eq!(answer.text(), "a", "{method}");
    }
    let lines: Vec<String> = backend.seen().iter().map(|seen| seen.request_line()).collect();
    let expected: Vec<String> = methods.iter().map(|method| format!("{method} /m HTTP/1.1")).collect();
    assert_eq!(lines, expected);
    let refused = Conn::open(balancer.address).ask("CONNECT", "shop.example:443", &[], b"");
    assert!([400, 405, 501].contains(&refused.status), "{refused:?}");
}

fn answers_keep_their_fields_in_order(engine: Engine) {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nX-A: 1\r\nSet-Cookie: b=2, c\r\nServer: inner/1\r\n\
         Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nETag: \"x\"\r\nX-A: 2\r\nContent-Length: 0\r\n\r\n",
    );
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let answer = balancer.get("/").expect(200);
    assert_eq!(answer.all("set-cookie"), ["a=1; Path=/", "b=2, c"]);
    assert_eq!(answer.all("x-a"), ["1", "2"]);
    assert_eq!(answer.all("server"), ["inner/1"]);
    assert_eq!(answer.all("etag"), ["\"x\""]);
    assert_eq!(answer.all("date"), ["Sun, 06 Nov 1994 08:49:37 GMT"]);
    assert_eq!(answer.all("content-length"), ["0"]);
}

fn an_answer_without_a_date_gets_one(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let answer = balancer.get("/").expect(200);
    assert_eq!(answer.all("date").len(), 1, "{answer:?}");
    httpdate::parse_http_date(answer.field("date").unwrap()).expect("an HTTP date");
    assert!(balancer.api("GET", "/limits", &json!(null)).expect(200).field("date").is_some());
}

fn reason_phrases_are_kept(engine: Engine) {
    if !engine.can(Case::Reasons) {
        return;
    }
    for reason in ["All Is Well", "Fine: really, \"fine\"", ""] {
        let backend = Backend::answering(format!("HTTP/1.1 207 {reason}\r\nContent-Length: 0\r\n\r\n"));
        let balancer = Setup::on(engine).backend(backend.address()).start();
        let answer = balancer.get("/").expect(207);
        assert_eq!(answer.reason, reason);
    }
}

fn head_204_and_304_have_no_body(engine: Engine) {
    let backend = Backend::scripted(|seen, stream| {
        let text = match seen.request_line().as_str() {
            "HEAD /known HTTP/1.1" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            "HEAD /chunked HTTP/1.1" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /204 HTTP/1.1" => "HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
            "GET /304 HTTP/1.1" => "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 99\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast",
        };
        let _ = std::io::Write::write_all(stream, text.as_bytes());
        Then::Keep
    });
    let balancer = Setup::on(engine).backend(backend.address()).start();
    // All on one connection: a body where none belongs would be taken for the next answer.
    let mut conn = Conn::open(balancer.address);
    assert_eq!(conn.ask("HEAD", "/known", &[], b"").expect(200).field("content-length"), Some("1234"));
    conn.ask("HEAD", "/chunked", &[], b"").expect(200);
    let empty = conn.get("/204").expect(204);
    assert!(
        empty.field("content-length").is_none() && empty.field("transfer-encoding").is_none(),
        "{empty:?}"
    );
    let unchanged = conn.get("/304").expect(304);
    assert_eq!(unchanged.field("etag"), Some("\"1\""));
    assert!(unchanged.field("transfer-encoding").is_none(), "{unchanged:?}");
    assert_eq!(conn.get("/last").expect(200).text(), "last");
    assert_eq!(backend.connections(), 1, "each answer left its backend connection usable");
    // HEAD of our own paths, too.
    let own = conn.ask("HEAD", "/-/livez", &[], b"").expect(200);
    assert_eq!(own.framing, Framing::None);
    assert_eq!(conn.get("/last").expect(200).text(), "last");
}

fn paths_of_ours_are_exact_and_few(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let theirs = [
        "/livez",
        "/metrics",
        "/v1/limits",
        "/limits/",
        "/limits/create/",
        "/limits/other",
        "/Limits",
        "/limitsx",
        "/limits%2Fget",
        "//limits/get",
        "/readyz",
        "/dashboard",
    ];
    for path in theirs {
        assert_eq!(balancer.get(path).expect(200).text(), "a", "{path} belongs to the backend");
    }
    assert_eq!(backend.seen().len(), theirs.len());
    balancer.get("/-/livez").expect(200);
    balancer.get("/-/livez?x=1").expect(200);
    balancer.get("/-/readyz").expect(200);
    balancer.get("/limits?limit=1").expect(200);
    assert_eq!(backend.seen().len(), theirs.len(), "a path of ours went to a backend");
}

fn options_asterisk_is_answered_or_forwarded(engine: Engine) {
    let backend = Backend::named("a");
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let answer = request(balancer.address, "OPTIONS", "*", &[], b"");
    match answer.status {
        204 => assert!(answer.field("allow").is_some() && backend.seen().is_empty(), "{answer:?}"),
        200 => assert_eq!(backend.only().request_line(), "OPTIONS * HTTP/1.1"),
        _ => panic!("{answer:?}"),
    }
}

fn a_field_value_of_bytes_is_kept(engine: Engine) {
    let backend =
        Backend::answering(&b"HTTP/1.1 200 OK\r\nX-Name: caf\xc3\xa9\r\nContent-Length: 0\r\n\r\n"[..]);
    let balancer = Setup::on(engine).backend(backend.address()).start();
    assert_eq!(balancer.get("/").expect(200).field("x-name"), Some("café"));
}

fn http_1_0_is_answered_and_closed_or_kept(engine: Engine) {
    let backend = Backend::scripted(|seen, stream| {
        let text: &[u8] = if seen.request_line().contains("/chunked") {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\nay!\r\n0\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nokay!"
        };
        let _ = std::io::Write::write_all(stream, text);
        Then::Keep
    });
    let balancer = Setup::on(engine).backend(backend.address()).start();
    for target in ["/known", "/chunked"] {
        let mut conn = Conn::open(balancer.address);
        conn.send(format!("GET {target} HTTP/1.0\r\n\r\n"));
        let answer = conn.read("GET").unwrap().expect(200);
        // HTTP/1.0 must never see that coding.
        assert_ne!(answer.framing, Framing::Chunked, "{target}");
        assert_eq!(answer.text(), "okay!", "{target}");
        assert_eq!(conn.wait_closed().0, b"", "{target}");
    }
    let mut conn = Conn::open(balancer.address);
    let kept = |answer: &crate::support::Response| {
        answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive"))
    };
    for _ in 0..2 {
        conn.send("GET /known HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n");
        let answer = conn.read("GET").unwrap().expect(200);
        assert_eq!((answer.text().as_str(), answer.framing), ("okay!", Framing::Length(5)), "{answer:?}");
        assert!(kept(&answer), "{answer:?}");
    }
    // A length that the backend does not tell: kept with a length, or told by the close.
    conn.send("GET /chunked HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n");
    let answer = conn.read("GET").unwrap().expect(200);
    assert_eq!(answer.text(), "okay!");
    let framing = if kept(&answer) { Framing::Length(5) } else { Framing::UntilClose };
    assert_eq!(answer.framing, framing, "{answer:?}");
}

fn a_426_says_what_to_upgrade_to(engine: Engine) {
    let backend = crate::answers::numbered(crate::answers::texts(&[
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2, websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno",
        // Elsewhere it is an offer to the next hop, which is us.
        "HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno",
    ]));
    let balancer = Setup::on(engine).backend(backend.address()).start();
    let mut conn = Conn::open(balancer.address);
    let rows: [(u16, &[&str]); 4] =
        [(426, &["TLS/1.2, websocket"]), (426, &["websocket", "h2c"]), (426, &[]), (200, &[])];
    for (number, (status, offered)) in rows.into_iter().enumerate() {
        let answer = conn.get(&format!("/{number}")).expect(status);
        assert_eq!((answer.all("upgrade"), answer.text().as_str()), (offered.to_vec(), "no"), "{number}");
        // RFC 9110 §7.8: who sends the one sends the other.
        let named = answer
            .all("connection")
            .iter()
            .flat_map(|value| value.split(','))
            .any(|one| one.trim().eq_ignore_ascii_case("upgrade"));
        assert_eq!(named, !offered.is_empty(), "{number}: {answer:?}");
        assert!(answer.field("x-hop").is_none(), "{answer:?}");
    }
    // Also where an upgrade was asked for and refused, on a connection that ends.
    let fields = [("Connection", "close, Upgrade"), ("Upgrade", "websocket")];
    let refused = request(balancer.address, "GET", "/0", &fields, b"").expect(426);
    assert_eq!(refused.all("upgrade"), ["TLS/1.2, websocket"]);
    assert_eq!(refused.all("connection").join(", ").to_ascii_lowercase(), "upgrade, close");
}
