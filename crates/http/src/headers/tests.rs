use proptest::prelude::*;

use super::*;

mod names;

fn fields(list: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in list {
        fields.push(name, value.as_bytes());
    }
    fields
}

fn shown(fields: &Fields) -> Vec<String> {
    fields.iter().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect()
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn origin(trusted: bool) -> Origin<'static> {
    Origin {
        peer: "10.0.0.9:4711".parse().unwrap(),
        trusted,
        host: "shop.example",
        is_secure: false,
        request_id: "r-1",
        instance: "abc",
        via: true,
        max_forwards: None,
    }
}

fn sent(given: &Fields, trusted: bool) -> Fields {
    let mut out = Fields::new();
    to_backend(given, &origin(trusted), &mut out);
    out
}

#[test]
fn hop_by_hop_fields_and_what_connection_names_stay_behind() {
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
    let table: &[Row<'_>] = &[
        (
            "the standard ones",
            &[("Connection", "close"), ("Keep-Alive", "x"), ("TE", "trailers"), ("A", "1")],
            &["A: 1"],
        ),
        (
            "named, in any case, in several lines",
            &[
                ("connection", "x-one"),
                ("Connection", "X-Two, ,"),
                ("X-One", "1"),
                ("x-two", "2"),
                ("X-Three", "3"),
            ],
            &["X-Three: 3"],
        ),
        (
            "options that name no field, and one that does",
            &[("Connection", "keep-alive"), ("Close", "1"), ("A", "1"), ("Keep-Alive", "timeout=5")],
            &["Close: 1", "A: 1"],
        ),
        ("a field may be called so", &[("Close", "1"), ("Connection", "Close"), ("A", "1")], &["A: 1"]),
        ("Host can't be named away", &[("Connection", "host"), ("Host", "h")], &["Host: h"]),
        ("upgrades and h2c", &[("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk"), ("B", "2")], &["B: 2"]),
        (
            "proxy credentials",
            &[("Proxy-Authorization", "x"), ("Proxy-Connection", "x"), ("Authorization", "y")],
            &["Authorization: y"],
        ),
        (
            "repeated fields stay apart",
            &[("Set-Cookie", "a"), ("Set-Cookie", "b")],
            &["Set-Cookie: a", "Set-Cookie: b"],
        ),
    ];
    for (case, given, expected) in table {
        let mut out = Fields::new();
        end_to_end(&fields(given), &mut out, |_| false);
        assert_eq!(shown(&out), *expected, "{case}");
        assert_eq!(shown(&to_client(200, fields(given))), *expected, "in place: {case}");
    }
}

#[test]
fn forwarding_fields_of_an_untrusted_peer_are_replaced() {
    let given = fields(&[
        ("Host", "shop.example"),
        ("X-Forwarded-For", "1.1.1.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil"),
        ("Forwarded", "for=1.1.1.1"),
        ("X-Real-IP", "1.1.1.1"),
        ("X-Request-Id", "theirs"),
        ("Connection", "X-Forwarded-For, Via, X-Request-Id"),
    ]);
    assert_eq!(
        shown(&sent(&given, false)),
        [
            "Host: shop.example",
            "X-Forwarded-For: 10.0.0.9",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: shop.example",
            "Via: 1.1 balancer (abc)",
            "X-Request-Id: r-1",
        ]
    );
}

#[test]
fn what_came_by_tls_is_said_to_have_done_so() {
    for (trusted, claim, expected) in [
        (false, None, "https"),
        (false, Some("http"), "https"),
        (true, None, "https"),
        (true, Some("http"), "http"),
    ] {
        let given = claim.map_or_else(Fields::new, |claim| fields(&[("X-Forwarded-Proto", claim)]));
        let mut out = Fields::new();
        to_backend(&given, &Origin { is_secure: true, ..origin(trusted) }, &mut out);
        assert_eq!(
            out.all("X-Forwarded-Proto").collect::<Vec<_>>(),
            [expected.as_bytes()],
            "{trusted} {claim:?}"
        );
    }
}

#[test]
fn forwarding_fields_of_a_trusted_peer_are_kept_and_continued() {
    let given = fields(&[
        ("Host", "shop.example"),
        ("X-Forwarded-For", "1.1.1.1"),
        ("X-Forwarded-For", "2.2.2.2"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "public.example"),
        ("Forwarded", "for=1.1.1.1"),
        ("Via", "1.1 other"),
        ("traceparent", TRACE),
        ("tracestate", "a=1"),
    ]);
    assert_eq!(
        shown(&sent(&given, true)),
        [
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: public.example",
            "Forwarded: for=1.1.1.1",
            &format!("traceparent: {TRACE}"),
            "tracestate: a=1",
            "Host: shop.example",
            "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.9",
            "Via: 1.1 other, 1.1 balancer (abc)",
            "X-Request-Id: r-1",
        ]
    );
}

/// Names of fields that say what a proxy in front knows, and similar names that do not.
#[test]
fn what_only_a_proxy_can_know_is_dropped_from_strangers_and_kept_from_trusted_peers() {
    let claims = [
        "Forwarded",
        "X-Forwarded",
        "X-Forwarded-",
        "X-Forwarded-Port",
        "x-forwarded-prefix",
        "X-Forwarded-Ssl",
        "X-Forwarded-Server",
        "X-FORWARDED-Client-Cert",
        "X-Real-IP",
        "x-real-ip",
        "X-Client-IP",
        "Client-Ip",
        "True-Client-IP",
        "CF-Connecting-IP",
        "CF-Connecting-IPv6",
        "Fastly-Client-IP",
        "X-Cluster-Client-IP",
        "X-Original-Forwarded-For",
    ];
    let others = ["X-Forwardedly", "X-Real-IPs", "X-Client-I", "True-Client", "X-Forward-For", "CF-Ray"];
    for (name, is_one) in claims.map(|name| (name, true)).into_iter().chain(others.map(|name| (name, false)))
    {
        assert_eq!(is_claim(name.as_bytes()), is_one, "{name}");
        let given = fields(&[(name, "6.6.6.6")]);
        assert_eq!(sent(&given, false).all(name).any(|value| value == b"6.6.6.6"), !is_one, "{name}");
        assert!(sent(&given, true).all(name).any(|value| value == b"6.6.6.6"), "{name} from a trusted peer");
    }
}

#[test]
fn max_forwards_is_written_anew_where_it_counts() {
    let given = fields(&[("Max-Forwards", "7")]);
    let with = |max_forwards| {
        let mut out = Fields::new();
        to_backend(&given, &Origin { max_forwards, ..origin(false) }, &mut out);
        out.all("Max-Forwards").map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    assert_eq!(with(Some(6)), [b"6"]);
    assert_eq!(with(None), [b"7"]);
}

#[test]
fn a_request_that_came_back_is_known_by_the_instance_id() {
    for (via, looped) in [
        ("1.1 balancer (abc)", true),
        ("1.0 fred, 1.1 balancer (abc), 1.1 cdn", true),
        ("1.1 balancer (abd)", false),
        ("1.1 balancer", false),
        ("1.1 xbalancer (abc)", false),
    ] {
        assert_eq!(is_loop(&fields(&[("Via", via)]), "abc"), looped, "{via}");
    }
}

#[test]
fn without_via_a_field_of_ours_tells_a_loop() {
    let quiet = Origin { via: false, ..origin(false) };
    let pass = |given: &Fields, origin: &Origin<'_>| {
        let mut out = Fields::new();
        to_backend(given, origin, &mut out);
        out
    };
    let given =
        fields(&[("Via", "1.0 fred"), ("X-Balancer-Instance", "abd"), ("x-balancer-instance", "abe")]);
    assert!(!is_loop(&given, "abc"));
    let out = pass(&given, &quiet);
    assert_eq!(out.all("Via").collect::<Vec<_>>(), [b"1.0 fred"]);
    assert_eq!(out.all("X-Balancer-Instance").collect::<Vec<_>>(), [b"abd, abe, abc"]);
    assert!(["abc", "abd", "abe"].iter().all(|id| is_loop(&out, id)) && !is_loop(&out, "ab"));
    // An instance that adds `Via` leaves this field as it is.
    let next = pass(&out, &Origin { instance: "abf", ..origin(false) });
    assert_eq!(next.all("X-Balancer-Instance").collect::<Vec<_>>(), [b"abd, abe, abc"]);
    assert!(is_loop(&next, "abc") && is_loop(&next, "abf"));
}

#[test]
fn a_426_keeps_what_to_upgrade_to() {
    let given = [
        ("Connection", "Upgrade, X-Hop"),
        ("Upgrade", "websocket"),
        ("X-Hop", "1"),
        ("upgrade", "h2c"),
        ("A", "1"),
    ];
    assert_eq!(
        shown(&to_client(426, fields(&given))),
        ["A: 1", "Upgrade: websocket", "Upgrade: h2c", "Connection: upgrade"]
    );
    assert_eq!(shown(&to_client(426, fields(&given[2..3]))), ["X-Hop: 1"]);
    assert_eq!(shown(&to_client(200, fields(&given))), ["A: 1"]);
}

#[test]
fn trace_contexts_are_kept_only_when_valid() {
    let zeros = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
    for (value, valid) in [
        (TRACE, true),
        ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", true),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", false),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false),
        (&zeros, false),
        ("00-0af7-b7ad6b7169203331-01", false),
        ("", false),
    ] {
        let given = fields(&[("traceParent", value), ("tracestate", "a=1")]);
        assert_eq!(traceparent(&given).is_some(), valid, "{value}");
        let out = sent(&given, false);
        assert_eq!(out.has("tracestate"), valid, "{value}");
        assert_eq!(out.iter().any(|field| field == ("traceParent", value.as_bytes())), valid, "{value}");
    }
    let two = fields(&[("traceparent", TRACE), ("traceparent", TRACE)]);
    assert!(traceparent(&two).is_none() && !sent(&two, false).has("traceparent"));
    assert!(!sent(&Fields::new(), true).has("traceparent"), "none is made");
    assert_eq!(trace_id(TRACE), "0af7651916cd43dd8448eb211c80319c");
}

#[test]
fn request_ids_are_kept_only_when_harmless() {
    for (value, kept) in [("abc-1._Z", true), ("", false), ("a b", false), ("a\"b", false), ("ü", false)] {
        assert_eq!(request_id(&fields(&[("X-Request-Id", value)])).is_some(), kept, "{value}");
    }
    assert!(request_id(&fields(&[("X-Request-Id", &"x".repeat(129))])).is_none());
}

proptest! {
    /// Whatever a client names in `Connection`, the backend gets each of our fields exactly once.
    #[test]
    fn no_client_can_remove_or_double_a_field_of_ours(
        named in proptest::collection::vec(
            "(?i)(x-forwarded-for|via|host|x-request-id|x-balancer-instance|x-forwarded-proto)", 0..6,
        ),
        trusted: bool,
        via: bool,
    ) {
        let mut given = Fields::new();
        for name in &named {
            given.push("Connection", name.as_bytes());
            given.push(name, b"1.2.3.4");
        }
        let mut out = Fields::new();
        to_backend(&given, &Origin { via, ..origin(trusted) }, &mut out);
        let last = if via { "Via" } else { "X-Balancer-Instance" };
        for ours in ["Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id", last] {
            prop_assert_eq!(out.all(ours).count(), 1, "{}", ours);
        }
        prop_assert!(!out.has("Connection"));
    }
}

#[test]
fn an_upgrade_is_to_what_is_allowed_and_only_when_connection_names_it() {
    type Row = (&'static [(&'static str, &'static str)], Option<&'static str>);
    let allowed = ["websocket".to_owned()];
    let rows: &[Row] = &[
        (&[("Connection", "Upgrade"), ("Upgrade", "websocket")], Some("websocket")),
        (&[("Connection", "keep-alive, upgrade"), ("Upgrade", "WebSocket")], Some("websocket")),
        (&[("Connection", "upgrade"), ("Upgrade", "h2c, websocket")], Some("websocket")),
        (&[("Connection", "upgrade"), ("Upgrade", "h2c"), ("Upgrade", "websocket")], Some("websocket")),
        (&[("Connection", "upgrade"), ("Upgrade", "websocket/13")], None),
        (&[("Connection", "upgrade"), ("Upgrade", "h2c")], None),
        (&[("Connection", "upgrade")], None),
        (&[("Upgrade", "websocket")], None),
        (&[("Connection", "close"), ("Upgrade", "websocket")], None),
    ];
    for (lines, protocol) in rows {
        let fields = fields(lines);
        assert_eq!(upgrade(&fields, &allowed), *protocol, "{lines:?}");
        assert_eq!(upgrade(&fields, &[]), None, "{lines:?}");
    }
}
