//! Keys about who a client is.

use super::*;
use balancer_limiter::identity::{Source, UnknownKeys};

const FORMS: &str = "\"ip\", \"header:NAME\", \"cookie:NAME\", \"bearer\", \"cert\", \"cert:san\", {\"header\": \"NAME\", \"as\": \"KIND\"}, or a list of at \
                     most 8 of these";

#[test]
fn faults_say_what_a_key_may_be() {
    let wrong = |value: &str, shown: &str| {
        (
            format!(r#""rate_limit": {{"key": {value}}}"#),
            format!("rate_limit.key: must be {FORMS}; found {shown}"),
        )
    };
    let rows = [
        wrong(r#""header:""#, r#""header:""#),
        wrong(r#""jwt""#, r#""jwt""#),
        wrong("5", "5"),
        wrong("[]", "an empty list"),
        (
            r#""rate_limit": {"key": ["ip", "bearer"]}"#.into(),
            "rate_limit.key: holds \"ip\" before its end: every request has an address, so nothing behind it counts"
                .into(),
        ),
        (
            r#""rate_limit": {"key": ["header:a", "header:A"]}"#.into(),
            "rate_limit.key: holds header:a twice".into(),
        ),
        (
            r#""rate_limit": {"key": {"header": "X-Tenant", "as": "1.2"}}"#.into(),
            "rate_limit.key: \"as\" must be 1 to 64 letters, digits, \"-\", \"_\" or \".\", the first a letter, such as \
             \"tenant\", and not \"san\""
                .into(),
        ),
        (
            r#""rate_limit": {"key": {"header": "X-Name", "as": "san"}}"#.into(),
            "rate_limit.key: \"as\" must be 1 to 64 letters, digits, \"-\", \"_\" or \".\", the first a letter, such as \
             \"tenant\", and not \"san\""
                .into(),
        ),
        (
            r#""rate_limit": {"key": ["bearer", "cert:san"]}"#.into(),
            "rate_limit.key: names cert:san, and no client is asked for a certificate: set tls.client_auth".into(),
        ),
        (
            r#""rate_limit": {"unknown_keys": "drop"}"#.into(),
            r#"rate_limit.unknown_keys: must be one of "next", "own_bucket", "401"; found "drop""#.into(),
        ),
    ];
    for (text, fault) in &rows {
        let Err(faults) = load_with(&format!("{{\n\"backends\": [{ONE}],\n{text}\n}}"), &[]) else {
            panic!("{text} is no fault");
        };
        assert_eq!(faults, format!("FILE:3: {fault}"));
    }
}

#[test]
fn a_key_is_one_source_or_a_list_that_the_address_ends() {
    let read = |key: &str| {
        let limits = format!(r#"{{"key": {key}, "unknown_keys": "401"}}"#);
        load_with(&format!(r#"{{"backends": [{ONE}], "rate_limit": {limits}}}"#), &[]).unwrap().rate_limit
    };
    assert_eq!(read(r#""ip""#).keys, []);
    assert_eq!(read(r#"["ip"]"#).keys, []);
    let several =
        read(r#"[{"header": "X-Tenant", "as": "tenant"}, "header:X-Api-Key", "cookie:Sid", "bearer", "ip"]"#);
    assert_eq!(several.unknown_keys, UnknownKeys::Refused);
    let sources: Vec<_> = several.keys.iter().map(|key| (&key.source, key.declared_as.as_deref())).collect();
    assert_eq!(
        sources,
        [
            (&Source::Header("x-tenant".into()), Some("tenant")),
            (&Source::Header("x-api-key".into()), None),
            (&Source::Cookie("Sid".into()), None),
            (&Source::Bearer, None),
        ]
    );
}
