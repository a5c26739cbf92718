use super::*;
use proptest::prelude::*;

const TRUSTED: &str = "10.0.0.0/8, 2001:db8:1::/48";

fn trusted() -> Vec<IpNet> {
    TRUSTED.split(", ").map(|net| net.parse().unwrap()).collect()
}

fn fields(list: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in list {
        fields.push(name, value.as_bytes());
    }
    fields
}

fn walk(peer: &str, list: &[(&str, &str)]) -> ClientAddress {
    client_address(peer.parse().unwrap(), &trusted(), &fields(list))
}

#[test]
fn x_forwarded_for_is_walked_from_the_right_over_trusted_proxies() {
    // value, client (empty: the peer 10.0.0.1)
    let rows = [
        ("1.2.3.4", "1.2.3.4"),
        ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("6.6.6.6,1.2.3.4,10.9.9.9", "1.2.3.4"),
        ("6.6.6.6 ,\t1.2.3.4 , 10.9.9.9,,", "1.2.3.4"),
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("1.2.3.4:567", "1.2.3.4"),
        ("[2001:db8::5]:80", "2001:db8::5"),
        ("[2001:db8::5]", "2001:db8::5"),
        ("2001:db8::5", "2001:db8::5"),
        ("2001:db8::5, 2001:db8:1::7", "2001:db8::5"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("1.2.3.4, ::ffff:10.1.1.1", "1.2.3.4"),
        // Garbage ends the walk at the hop before it.
        ("1.2.3.4, unknown, 10.2.2.2", "10.2.2.2"),
        ("1.2.3.4, unknown", ""),
        ("1.2.3.4, _hidden", ""),
        ("1.2.3.4, 10.2.2.2 10.3.3.3", ""),
        ("1.2.3.4, 10.2.2.2:", ""),
        ("1.2.3.4, 10.2.2.2:123456", ""),
        ("1.2.3.4, 10.2.2.2:8o", ""),
        ("1.2.3.4, 10.2.2.2:_", ""),
        ("1.2.3.4, 10.2.2.2:_a!", ""),
        ("1.2.3.4, 10.2.2.2:_a.b", "1.2.3.4"),
        ("1.2.3.4, 10.2.2.02", ""),
        ("1.2.3.4, \"10.2.2.2\"", ""),
        ("1.2.3.4, fe80::1%eth0", ""),
        ("1.2.3.4, [10.2.2.2]", ""),
        ("1.2.3.4, [2001:db8:1::7]x", ""),
        ("1.2.3.4, \u{fffd}", ""),
        ("", ""),
        (",,", ""),
    ];
    for (value, client) in rows {
        let found = walk("10.0.0.1:9", &[("X-Forwarded-For", value)]);
        let peer = client.is_empty();
        let address = if peer { "10.0.0.1" } else { client }.parse().unwrap();
        let expected = ClientAddress { address, port: peer.then_some(9), peer_trusted: true };
        assert_eq!(found, expected, "{value}");
    }
}

#[test]
fn forwarded_is_walked_by_its_for_parameters() {
    let rows = [
        ("for=1.2.3.4", "1.2.3.4"),
        ("For=1.2.3.4;proto=http;by=203.0.113.43", "1.2.3.4"),
        ("proto=http ; FOR=1.2.3.4;", "1.2.3.4"),
        ("for=\"1.2.3.4:80\"", "1.2.3.4"),
        ("for=1.2.3.4:80", "1.2.3.4"),
        ("for=\"[2001:db8::5]:4711\"", "2001:db8::5"),
        ("for=\"[2001:db8::5]:_port\"", "2001:db8::5"),
        ("for=\"[2001:db8::\\5]\"", "2001:db8::5"),
        ("for=6.6.6.6, for=1.2.3.4;host=\"a,b;c\\\"\", for=10.1.1.1", "1.2.3.4"),
        ("for=6.6.6.6, for=1.2.3.4, ,", "1.2.3.4"),
        ("for=1.2.3.4, for=unknown, for=10.2.2.2", "10.2.2.2"),
        ("for=1.2.3.4, for=_hidden", ""),
        ("for=1.2.3.4, proto=http", ""),
        ("for=1.2.3.4, for=10.1.1.1;for=10.2.2.2", ""),
        ("for=1.2.3.4, for =10.2.2.2", ""),
        ("for=1.2.3.4, for= 10.2.2.2", ""),
        ("for=1.2.3.4, for=\"10.2.2.2", ""),
        ("for=1.2.3.4, for=\"10.2.2.2\"x", ""),
        ("for=1.2.3.4, for=\"10.2.2.2\\", ""),
        ("for=1.2.3.4, 10.2.2.2", ""),
        ("for=1.2.3.4, for=", ""),
        // Another parameter that is malformed spoils the element, too.
        ("for=1.2.3.4, for=10.1.1.1;=x", ""),
        ("for=1.2.3.4, for=10.1.1.1;b y=x", ""),
        ("for=1.2.3.4, for=10.1.1.1;by=", ""),
        // Outside of quotes a backslash escapes nothing.
        ("for=1.2.3.4;by=\\, for=10.2.2.2", "10.2.2.2"),
        // The client left a string open in front of what the proxy appended.
        ("for=6.6.6.6;x=\", for=1.2.3.4", ""),
        ("for=6.6.6.6;x=\", for=\"[2001:db8::5]\"", ""),
    ];
    for (value, client) in rows {
        let found = walk("10.0.0.1:9", &[("Forwarded", value)]);
        let peer = client.is_empty();
        let address = if peer { "10.0.0.1" } else { client }.parse().unwrap();
        let expected = ClientAddress { address, port: peer.then_some(9), peer_trusted: true };
        assert_eq!(found, expected, "{value}");
    }
}

#[test]
fn the_last_field_is_the_nearest_and_x_forwarded_for_wins() {
    let found =
        walk("10.0.0.1:9", &[("X-Forwarded-For", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4, 10.2.2.2")]);
    assert_eq!(found.address.to_string(), "1.2.3.4");
    let found = walk("10.0.0.1:9", &[("Forwarded", "for=\"6.6.6.6"), ("Forwarded", "for=1.2.3.4")]);
    assert_eq!(found.address.to_string(), "1.2.3.4");
    let found = walk("10.0.0.1:9", &[("Forwarded", "for=6.6.6.6"), ("X-Forwarded-For", "1.2.3.4")]);
    assert_eq!(found.address.to_string(), "1.2.3.4");
    let found = walk("10.0.0.1:9", &[("Forwarded", "for=6.6.6.6"), ("X-Forwarded-For", "garbage")]);
    assert_eq!(found.address.to_string(), "10.0.0.1");
}

#[test]
fn a_v4_mapped_peer_is_its_ipv4_address() {
    let found = walk("[::ffff:10.0.0.1]:9", &[("X-Forwarded-For", "1.2.3.4")]);
    assert_eq!(found.address.to_string(), "1.2.3.4");
    let found = walk("[::ffff:1.1.1.1]:9", &[]);
    assert_eq!(
        found,
        ClientAddress { address: "1.1.1.1".parse().unwrap(), port: Some(9), peer_trusted: false }
    );
}

/// Any bytes that a client can put in a field: no CR, LF or NUL. Pieces of real grammar come often.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "for=", "10.0.0.1", "6.6.6.6", ",", ";", "\"", "\\", "[", "]", ":", " ", "::1"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(prop_oneof![Just(9u8), 32u8..=255], 0..4),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().trim_ascii().to_vec())
}

fn any_lines() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
    prop::collection::vec((any::<bool>(), any_value()), 0..4)
}

/// An address outside the list.
fn outsider() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from(bits)).to_canonical()),
    ]
    .prop_filter("not in the list", |address| !is_in(&trusted(), *address))
}

fn as_fields(lines: &[(bool, Vec<u8>)]) -> Fields {
    let mut fields = Fields::new();
    for (forwarded, value) in lines {
        fields.push(if *forwarded { "Forwarded" } else { "X-Forwarded-For" }, value);
    }
    fields
}

/// Appends one element as a proxy does, to the last line of that name or as a line of its own.
fn append(fields: &Fields, name: &str, element: &str, own_line: bool) -> Fields {
    let lines: Vec<Vec<u8>> = fields.all(name).map(<[u8]>::to_vec).collect();
    let mut out = Fields::new();
    for (i, line) in lines.iter().enumerate() {
        if own_line || i + 1 < lines.len() {
            out.push(name, line);
        } else {
            out.push(name, &[line, &b", "[..], element.as_bytes()].concat());
        }
    }
    if own_line || lines.is_empty() {
        out.push(name, element.as_bytes());
    }
    out
}

proptest! {
    #[test]
    fn an_untrusted_peer_is_its_own_address_whatever_it_sends(
        peer in outsider(), port in any::<u16>(), lines in any_lines()
    ) {
        let found = client_address(SocketAddr::new(peer, port), &trusted(), &as_fields(&lines));
        prop_assert_eq!(found, ClientAddress { address: peer, port: Some(port), peer_trusted: false });
    }

    #[test]
    fn behind_proxies_that_append_a_client_is_its_own_address_whatever_it_sends(
        client in outsider(), lines in any_lines(), own_line in any::<bool>(), hops in 1u8..4
    ) {
        let mut sent = append(&as_fields(&lines), "X-Forwarded-For", &client.to_string(), own_line);
        for hop in 1..hops {
            sent = append(&sent, "X-Forwarded-For", &format!("10.0.0.{hop}:80"), own_line);
        }
        let found = client_address("10.0.0.99:1".parse().unwrap(), &trusted(), &sent);
        prop_assert_eq!(found, ClientAddress { address: client, port: None, peer_trusted: true });
    }

    #[test]
    fn with_forwarded_a_client_is_its_own_address_or_at_worst_its_proxy(
        client in outsider(), lines in any_lines(), own_line in any::<bool>()
    ) {
        let element = match client {
            IpAddr::V4(v4) => format!("proto=http;for={v4}"),
            IpAddr::V6(v6) => format!("for=\"[{v6}]:80\";by=_proxy"),
        };
        let sent = append(&as_fields(&lines), "Forwarded", &element, own_line);
        let found = client_address("10.0.0.99:1".parse().unwrap(), &trusted(), &sent);
        let proxy: IpAddr = "10.0.0.99".parse().unwrap();
        prop_assert!(found.address == client || (found.address == proxy && !own_line), "{:?}", found);
    }
}
