use proptest::prelude::*;

use super::super::{IdForm, MAX_KEY_BYTES};
use super::*;

fn source(source: Source, declared_as: Option<&str>) -> KeySource {
    KeySource { source, declared_as: declared_as.map(str::to_owned) }
}

fn fields(list: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in list {
        fields.push(name, value.as_bytes());
    }
    fields
}

// printf 'k1' | sha256sum | head -c 32
const K1: &str = "sha256:6ab9f1eb8f7d3388f4f9d586f66e99fd";

#[test]
fn a_key_is_found_where_it_stands() {
    let id = ShownKey::Id(K1.to_owned());
    let header = source(Source::Header("x-api-key".into()), None);
    let cookie = source(Source::Cookie("session".into()), None);
    let bearer = source(Source::Bearer, None);
    type Row<'a> = (&'a KeySource, &'a [(&'a str, &'a str)], ShownKey);
    let rows: &[Row<'_>] = &[
        (&header, &[("X-Api-Key", "k1")], id.clone()),
        (&header, &[("X-API-KEY", " k1 ")], id.clone()),
        (&header, &[("X-Api-Key", "k1"), ("X-Api-Key", "k1")], id.clone()),
        (&header, &[("X-Api-Key", "k1"), ("X-Api-Key", "k2")], ShownKey::Several),
        (&header, &[("X-Api-Key", ""), ("X-Api-Key", "k1")], id.clone()),
        (&header, &[("X-Api-Key", "")], ShownKey::Nothing),
        (&header, &[("X-Api-Key", "a\tb")], ShownKey::Unusable),
        (&header, &[], ShownKey::Nothing),
        (&cookie, &[("Cookie", "a=1; session=k1; b=2")], id.clone()),
        (&cookie, &[("Cookie", "a=1"), ("Cookie", "session=k1")], id.clone()),
        (&cookie, &[("Cookie", "SESSION=k1")], id.clone()),
        (&cookie, &[("Cookie", "Session=k1; session=k2")], ShownKey::Several),
        (&cookie, &[("Cookie", "session=k1; session=k2")], ShownKey::Several),
        (&cookie, &[("Cookie", "session=k1"), ("Cookie", "session=k2")], ShownKey::Several),
        (&bearer, &[("Authorization", "Bearer k1")], id.clone()),
        (&bearer, &[("Authorization", "bEARER  k1")], id.clone()),
        (&bearer, &[("Authorization", "Bearer\tk1")], id.clone()),
        (&bearer, &[("Authorization", "Bearer k1 k2")], id.clone()),
        (&bearer, &[("Authorization", "Basic eA=="), ("Authorization", "Bearer k1")], id.clone()),
        (&bearer, &[("Authorization", "Basic eA==, Bearer k1")], id.clone()),
        (&bearer, &[("Authorization", "Bearer k1"), ("Authorization", "Bearer k2")], ShownKey::Several),
        (&bearer, &[("Authorization", "Bearer k1, Bearer k2")], ShownKey::Several),
        (&bearer, &[("Authorization", "Basic k1")], ShownKey::Nothing),
        (&bearer, &[("Authorization", "xBearer k1")], id.clone()),
        (&bearer, &[("Authorization", "Basic x Bearer k1")], id.clone()),
        (&bearer, &[("Authorization", "Bearer Bearer k1")], ShownKey::Several),
        (&bearer, &[("Authorization", "Bearer k1 bearer k1")], id.clone()),
        (&bearer, &[("Authorization", "BearerBearer k1")], id.clone()),
        (&bearer, &[("Authorization", "Bearerk1")], ShownKey::Nothing),
        (&bearer, &[("Authorization", "Bearer")], ShownKey::Unusable),
        (&bearer, &[("Authorization", " bearer \t")], ShownKey::Unusable),
        (&bearer, &[("Authorization", "Bearer\u{a0}")], ShownKey::Unusable),
        (&bearer, &[("Authorization", "Basic k1, Bearer ,")], ShownKey::Unusable),
        (&bearer, &[("Authorization", "Bearer"), ("Authorization", "Bearer k1")], id.clone()),
        (&bearer, &[("Authorization", "")], ShownKey::Nothing),
        (&cookie, &[("Cookie", "session=; a=b")], ShownKey::Nothing),
    ];
    for (source, list, shown) in rows {
        assert_eq!(source.shown(&fields(list), false, None), *shown, "{source} {list:?}");
    }
}

#[test]
fn a_cookie_is_one_key_however_it_is_written() {
    let id = secret_id(b"k1").unwrap();
    for line in [
        "session=k1",
        "session = k1",
        "session=\"k1\"",
        "session=\"k\\1\"",
        "session=\"\\153\\061\"; a=b",
        "session=%6b1",
        "session=\"%6B%31\" ; a",
        "a=b,session=k1",
        "a=b session=k1, c=d",
        "session=; session=k1; session=%6b%31",
        "$Version=1; session=k1; $Path=/",
        "s%65ssion=k1",
        "S%45SSION=k1",
        "session%00x=k1",
        "session%00and much more behind it=k1",
        "session=%C2%A0k1%a0",
        "other=%zz%; session=k1",
    ] {
        let cookie = source(Source::Cookie("session".into()), None);
        assert_eq!(
            cookie.shown(&fields(&[("Cookie", line)]), false, None),
            ShownKey::Id(id.clone()),
            "{line}"
        );
    }
    for name in ["my.key", "my key", "my_key", "my[key"] {
        let cookie = source(Source::Cookie("my_key".into()), None);
        let line = format!("a=b; {name}=k1");
        assert_eq!(
            cookie.shown(&fields(&[("Cookie", &line)]), false, None),
            ShownKey::Id(id.clone()),
            "{line}"
        );
    }
}

#[test]
fn a_cookie_that_backends_read_differently_is_several() {
    for line in [
        "session=k1; session=k2",
        "session=k1, session=k2",
        "session=k1 session=k2",
        "session=k1; session=\"k2\"",
        "session=k1; s%65ssion=k2",
        "session=k1; Session%00=k2",
        "session=k1%00x",
        "session=\"k1\\000\"",
        "session=\"k1",
        "session=\"k1x",
        "session=\"k1\"x",
        "session=k1\"",
        "session=\"k1\\",
        "a=\"b; session=k1\"; session=k1",
    ] {
        let cookie = source(Source::Cookie("session".into()), None);
        assert_eq!(cookie.shown(&fields(&[("Cookie", line)]), false, None), ShownKey::Several, "{line}");
    }
}

/// In UTF-8, and as the single bytes of Latin-1.
#[test]
fn a_blank_that_is_not_ascii_is_a_blank() {
    let id = ShownKey::Id(secret_id(b"k1").unwrap());
    let blanks: [&[u8]; 7] =
        [b"\xc2\xa0", b"\xc2\x85", b"\xa0", b"\x85", b"\xa0 \xc2\xa0", b"\xe3\x80\x80", b"\xef\xbb\xbf"];
    for blank in blanks {
        let rows: [(Source, &str, &[&[u8]]); 7] = [
            (Source::Header("x-key".into()), "X-Key", &[blank, b"k1", blank]),
            (Source::Cookie("s".into()), "Cookie", &[b"s=", blank, b"k1", blank, b"; a=b"]),
            (Source::Cookie("s".into()), "Cookie", &[b"a=b;", blank, b"s", blank, b"=k1"]),
            (Source::Cookie("s".into()), "Cookie", &[b"s=", blank, b"\"k1\"", blank]),
            (Source::Bearer, "Authorization", &[b"Bearer ", blank, b"k1", blank]),
            (Source::Bearer, "Authorization", &[b"Bearer", blank, b"k1", blank, b"x"]),
            (Source::Bearer, "Authorization", &[blank, b"Bearer", blank, b" k1"]),
        ];
        for (place, name, value) in rows {
            let key = source(place, None);
            let mut asked = Fields::new();
            asked.push(name, &value.concat());
            assert_eq!(key.shown(&asked, false, None), id, "{key} {value:?}");
        }
    }
    // The last byte of a letter in UTF-8 may be such a byte.
    for text in ["voil\u{e0}", "\u{145}", "\u{2005}a\u{2005}"] {
        let key = source(Source::Header("x-key".into()), None);
        let plain = text.replace('\u{2005}', "");
        assert_eq!(
            key.shown(&fields(&[("x-key", text)]), false, None),
            ShownKey::Id(secret_id(plain.as_bytes()).unwrap())
        );
    }
}

#[test]
fn a_line_of_bearers_is_read_in_one_go() {
    let bearer = source(Source::Bearer, None);
    let token = ShownKey::Id(secret_id(b"bearer").unwrap());
    for (piece, expected) in [
        ("bearer", ShownKey::Nothing),
        ("bearer ", token.clone()),
        ("bearer,", ShownKey::Unusable),
        (" ", ShownKey::Nothing),
        ("bearer\u{a0}", token),
        ("be", ShownKey::Nothing),
        ("Bearer bearer", ShownKey::Several),
    ] {
        let line = piece.repeat(1 << 17);
        // If the effort grew with the square of the length, this would not end.
        assert_eq!(bearer.shown(&fields(&[("Authorization", &line)]), false, None), expected, "{piece}");
    }
}

#[test]
fn a_line_of_cookies_is_read_in_one_go() {
    let cookie = source(Source::Cookie("session".into()), None);
    for piece in [
        "=",
        "%=",
        " =",
        "session=",
        "session =,",
        "session=; ",
        ";=\"",
        "session=%",
        "%00=",
        "\u{a0}=",
        "s=",
    ] {
        let line = piece.repeat(1 << 17);
        // If the effort grew with the square of the length, this would not end.
        let shown = cookie.shown(&fields(&[("Cookie", &line)]), false, None);
        assert!(!matches!(shown, ShownKey::Id(_)), "{piece}");
    }
}

#[test]
fn fields_that_become_a_keys_variable_are_dropped() {
    let key = |name: &str| source(Source::Header(name.into()), None);
    let keys = [key("x-customer-key"), key("api_key"), source(Source::Bearer, None)];
    let names = "X-Customer-Key X_Customer_Key x-customer_key X.Customer.Key X-Customer-Kez API_Key api-key \
                 Authorization X_Other";
    let mut asked = Fields::new();
    names.split(' ').for_each(|name| asked.push(name, b"k"));
    drop_lookalikes(&keys, &mut asked);
    let left: Vec<&str> = asked.iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["X-Customer-Key", "X-Customer-Kez", "API_Key", "Authorization", "X_Other"]);
    let both = [key("api_key"), key("api-key")];
    let mut asked = fields(&[("api_key", "a"), ("Api-Key", "b"), ("api.key", "c")]);
    drop_lookalikes(&both, &mut asked);
    assert_eq!(asked.len(), 2);
}

#[test]
fn a_key_that_is_too_long_is_none() {
    let header = source(Source::Header("x-api-key".into()), None);
    let long = "k".repeat(MAX_KEY_BYTES + 1);
    assert_eq!(header.shown(&fields(&[("x-api-key", &long)]), false, None), ShownKey::Unusable);
    assert!(matches!(header.shown(&fields(&[("x-api-key", &long[1..])]), false, None), ShownKey::Id(_)));
}

#[test]
fn a_declared_name_counts_from_trusted_peers_alone() {
    let tenant = source(Source::Header("x-tenant".into()), Some("tenant"));
    let acme = fields(&[("X-Tenant", "acme")]);
    assert_eq!(tenant.shown(&acme, true, None), ShownKey::Id("tenant=acme".into()));
    assert_eq!(tenant.shown(&acme, false, None), ShownKey::Nothing);
    assert_eq!(tenant.shown(&fields(&[("X-Tenant", "a\tb")]), true, None), ShownKey::Unusable);
    let two = fields(&[("X-Tenant", "acme"), ("X-Tenant", "other")]);
    let blurred = [(&acme, true), (&two, true), (&two, false)];
    assert_eq!(blurred.map(|(fields, trusted)| tenant.is_blurred(fields, trusted)), [false, true, false]);
    let long = "v".repeat(ClientId::MAX_BYTES - "tenant=".len() + 1);
    assert_eq!(tenant.shown(&fields(&[("X-Tenant", &long)]), true, None), ShownKey::Unusable);
    assert!(matches!(tenant.shown(&fields(&[("X-Tenant", &long[1..])]), true, None), ShownKey::Id(_)));
}

proptest! {
    /// A cookie's value quoted, escaped and encoded in any way is the same key, and never a plain other one.
    #[test]
    fn no_writing_of_a_cookie_hides_it(
        value in "[a-z0-9]{1,12}", quoted in any::<bool>(), how in any::<u64>(), blanks in "[ \t]{0,2}",
    ) {
        let letter = |(place, byte): (usize, u8)| match how >> (2 * (place % 32)) & 3 {
            0 => format!("%{byte:02x}"),
            1 if quoted => format!("\\{byte:03o}"),
            _ => char::from(byte).to_string(),
        };
        let text: String = value.bytes().enumerate().map(letter).collect();
        let text = if quoted { format!("\"{text}\"") } else { text };
        let line = format!("a=b;{blanks}session{blanks}={blanks}{text}{blanks};c=d");
        let cookie = source(Source::Cookie("session".into()), None);
        let id = secret_id(value.as_bytes()).unwrap();
        prop_assert_eq!(cookie.shown(&fields(&[("Cookie", &line)]), false, None), ShownKey::Id(id), "{}", line);
    }

    /// Whatever a field holds becomes an opaque id, never an address, a port or a range.
    #[test]
    fn no_key_can_be_read_as_an_address(value in prop_oneof![
        "[0-9.:/\\[\\]a-f]{1,40}", "\\PC{1,60}",
        Just("1.2.3.4".to_owned()), Just("[::1]:80".to_owned()), Just("10.0.0.0/8".to_owned()),
    ]) {
        for declared_as in [None, Some("t")] {
            let key = source(Source::Header("x-key".into()), declared_as);
            if let ShownKey::Id(id) = key.shown(&fields(&[("x-key", &value)]), true, None) {
                let id = ClientId::parse(&id).expect("every key's id is an id");
                prop_assert_eq!(id.form(), IdForm::Opaque);
            }
        }
    }
}

#[test]
fn a_source_is_told_as_it_is_configured_and_in_messages() {
    for (key, configured, kind) in [
        (source(Source::Header("x-key".into()), None), "header:x-key", "header x-key"),
        (source(Source::Header("x-t".into()), Some("tenant")), "header:x-t as tenant", "header x-t"),
        (source(Source::Cookie("s".into()), None), "cookie:s", "cookie s"),
        (source(Source::Bearer, None), "bearer", "bearer token"),
        (source(Source::Certificate, None), "cert", "certificate"),
        (source(Source::CertificateName, None), "cert:san", "certificate"),
    ] {
        assert_eq!((key.to_string().as_str(), &*key.kind()), (configured, kind));
    }
}

#[test]
fn a_certificate_is_a_key_by_its_digest_or_its_name() {
    let with = |san: Option<&str>| ClientCertificate { fingerprint: [0xab; 16], san: san.map(str::to_owned) };
    let id = |text: &str| ShownKey::Id(text.to_owned());
    let digest = id(&format!("cert:{}", "ab".repeat(16)));
    for (certificate, by_digest, by_name) in [
        (None, ShownKey::Nothing, ShownKey::Nothing),
        (Some(with(None)), digest.clone(), ShownKey::Unusable),
        (Some(with(Some(""))), digest.clone(), ShownKey::Unusable),
        (Some(with(Some("a.test"))), digest.clone(), id("san=a.test")),
        (Some(with(Some("spiffe://a.test/web"))), digest.clone(), id("san=spiffe://a.test/web")),
        (Some(with(Some(&"x".repeat(253)))), digest.clone(), ShownKey::Unusable),
    ] {
        // Fields about certificates are ignored: anybody may send them.
        let fields = fields(&[("X-Client-Cert", "a.test"), ("san", "a.test")]);
        let shown = |of| source(of, None).shown(&fields, true, certificate.as_ref());
        assert_eq!(shown(Source::Certificate), by_digest, "{certificate:?}");
        assert_eq!(shown(Source::CertificateName), by_name, "{certificate:?}");
        for id in [by_digest, by_name] {
            let ShownKey::Id(id) = id else { continue };
            assert_eq!(ClientId::parse(&id).unwrap().form(), IdForm::Opaque);
        }
    }
}
