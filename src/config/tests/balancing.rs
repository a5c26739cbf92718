//! Keys about who gets a request.

use super::*;
use crate::config::HashOn;

const FAULTS: &[(&str, &str)] = &[
    (
        r#""balancing": {"hash_on": "header:"}"#,
        r#"balancing.hash_on: must be "ip", "client", "uri", "header:NAME" or "cookie:NAME"; found "header:""#,
    ),
    (
        r#""balancing": {"hash_on": "cookie:a b"}"#,
        r#"balancing.hash_on: must be "ip", "client", "uri", "header:NAME" or "cookie:NAME"; found "cookie:a b""#,
    ),
    (
        r#""outlier": {"max_ejected": 1.5}"#,
        "outlier.max_ejected: must be a number from 0 to 1, such as 0.5; found 1.5",
    ),
    (
        r#""outlier": {"ratio": 0}"#,
        "outlier.ratio: must be a number above 0 and at most 1, such as 0.5 or null; found 0",
    ),
];

#[test]
fn faults_say_what_is_allowed() {
    for (keys, expected) in FAULTS {
        let text = format!("{{\n\"backends\": [{ONE}],\n{keys}\n}}");
        let found = load_with(&text, &[]).map(|_| ()).unwrap_err();
        assert_eq!(found, format!("FILE:3: {expected}"), "{keys}");
    }
}

#[test]
fn what_is_hashed_is_read() {
    for (text, expected) in [
        ("ip", HashOn::Ip),
        ("client", HashOn::Client),
        ("uri", HashOn::Uri),
        ("header:X-Key", HashOn::Header("X-Key".into())),
        ("cookie:a.b", HashOn::Cookie("a.b".into())),
    ] {
        let text = format!(r#"{{"backends": [{ONE}], "balancing": {{"hash_on": "{text}"}}}}"#);
        assert_eq!(load_with(&text, &[]).unwrap().balancing.hash_on, expected);
    }
}

#[test]
fn ejections_can_be_switched_off_altogether_or_in_part() {
    let outlier = |text: &str| {
        let text = format!(r#"{{"backends": [{ONE}], "outlier": {text}}}"#);
        load_with(&text, &[]).unwrap().outlier
    };
    assert_eq!(outlier("null"), None);
    let shipped = outlier("{}").unwrap();
    assert_eq!((shipped.consecutive, shipped.ratio, shipped.max_ejected), (5, Some(0.5), 0.5));
    assert!(shipped.statuses.is_empty());
    let other = outlier(r#"{"consecutive": 0, "ratio": null, "statuses": "502-504"}"#).unwrap();
    assert_eq!((other.consecutive, other.ratio, other.statuses), (0, None, vec![(502, 504)]));
}
