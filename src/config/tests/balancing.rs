//! Keys about who gets a request.

use super::*;
use crate::config::RetryOn;
use balancer_pool::backend::InFlightBound;
use balancer_pool::queue::QueueOrder;
use balancer_pool::strategy::HashOn;

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
    (
        r#""upstream": {"retry_on": ["connect", "200"]}"#,
        r#"upstream.retry_on[1]: must be "connect", "reset", "timeout" or a status such as "503" or "502-504"; found "200""#,
    ),
    (
        r#""upstream": {"request_timeout": "0s"}"#,
        r#"upstream.request_timeout: must be a duration from "1ms" to "1d", such as "1m" or null; found "0s""#,
    ),
    (
        r#""balancing": {"queue_size": 1000001}"#,
        "balancing.queue_size: must be a whole number from 0 to 1000000; found 1000001",
    ),
    (
        r#""balancing": {"queue_timeout": "0s"}"#,
        r#"balancing.queue_timeout: must be a duration from "1ms" to "1d", such as "10s", "50ms" or "1m30s"; found "0s""#,
    ),
    (
        r#""balancing": {"auto": {"max": 1001}}"#,
        "balancing.auto.max: must be a whole number from 1 to 1000; found 1001",
    ),
    (
        r#""balancing": {"auto": {"min": 20, "max": 10}}"#,
        "balancing.auto.min: must be at most max, which is 10; found 20",
    ),
    (
        r#""balancing": {"auto": {"start": 16, "max": 8}}"#,
        "balancing.auto.start: must be from min to max, which are 1 and 8; found 16",
    ),
    (r#""balancing": {"auto": null}"#, "balancing.auto: must be an object; found null"),
    (
        r#""balancing": {"sticky": {}}"#,
        "balancing.sticky.secret: is missing; must be 16 to 512 visible ASCII characters without spaces",
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
        assert_eq!(load_with(&text, &[]).unwrap().pools.remove(0).balancing.hash_on, expected);
    }
}

#[test]
fn what_is_sent_again_is_read() {
    let upstream = |text: &str| {
        let text = format!(r#"{{"backends": [{ONE}], "upstream": {text}}}"#);
        load_with(&text, &[]).unwrap().pools.remove(0).upstream
    };
    let shipped = upstream("{}");
    assert_eq!(shipped.retry_on, RetryOn { connect: true, reset: true, ..RetryOn::default() });
    assert_eq!((shipped.retry_budget, shipped.request_timeout), (0.2, None));
    let other = upstream(
        r#"{"retry_on": ["timeout", "503", "502,504-599"], "retry_budget": 0, "request_timeout": "1m30s"}"#,
    );
    let statuses = vec![(503, 503), (502, 502), (504, 599)];
    assert_eq!(other.retry_on, RetryOn { timeout: true, statuses, ..RetryOn::default() });
    assert_eq!((other.retry_budget, other.request_timeout), (0.0, Some(Duration::from_secs(90))));
    assert_eq!(upstream(r#"{"retry_on": []}"#).retry_on, RetryOn::default());
}

#[test]
fn a_sticky_sessions_secret_is_one() {
    let load = |text: &str| {
        let text = format!("{{\n\"backends\": [{ONE}],\n\"balancing\": {{\"sticky\": {text}}}\n}}");
        load_with(&text, &[])
    };
    assert!(load("null").unwrap().pools.remove(0).balancing.sticky.is_none());
    let sticky = load(r#"{"secret": "0123456789abcdef"}"#).unwrap().pools.remove(0).balancing.sticky.unwrap();
    assert_eq!((sticky.cookie.as_str(), sticky.secure), ("balancer", false));
    assert_eq!(sticky.secret.reveal(), "0123456789abcdef");
    assert!(!format!("{sticky:?}").contains("0123"));
    let secret = file("fedcba9876543210\n");
    let variable = ("BALANCER__BALANCING__STICKY__SECRET_FILE", secret.path.to_str().unwrap());
    for text in [r#"{"secret": "0123456789abcdef"}"#, "null"] {
        let text = format!(r#"{{"backends": [{ONE}], "balancing": {{"sticky": {text}}}}}"#);
        let sticky = load_with(&text, &[variable]).unwrap().pools.remove(0).balancing.sticky.unwrap();
        assert_eq!(sticky.secret.reveal(), "fedcba9876543210");
    }
    let fault = load(r#"{"secret": "hunter2"}"#).map(|_| ()).unwrap_err();
    assert!(fault.contains("16 to 512") && !fault.contains("hunter2"), "{fault}");
}

#[test]
fn ejections_can_be_switched_off_altogether_or_in_part() {
    let outlier = |text: &str| {
        let text = format!(r#"{{"backends": [{ONE}], "outlier": {text}}}"#);
        load_with(&text, &[]).unwrap().pools.remove(0).outlier
    };
    assert_eq!(outlier("null"), None);
    let shipped = outlier("{}").unwrap();
    assert_eq!((shipped.consecutive, shipped.ratio, shipped.max_ejected), (5, Some(0.5), 0.5));
    assert!(shipped.statuses.is_empty());
    let other = outlier(r#"{"consecutive": 0, "ratio": null, "statuses": "502-504"}"#).unwrap();
    assert_eq!((other.consecutive, other.ratio, other.statuses), (0, None, vec![(502, 504)]));
}

#[test]
fn how_a_line_is_kept_is_read_and_what_does_nothing_is_said() {
    let ms = Duration::from_millis;
    // `balancing`, and what comes of it.
    for (text, order, target) in [
        ("{}", QueueOrder::Fair, Some(ms(500))),
        (r#"{"queue_order": "fifo", "queue_target": "2s"}"#, QueueOrder::Fifo, Some(ms(2_000))),
        (r#"{"queue_order": "fair", "queue_target": null}"#, QueueOrder::Fair, None),
    ] {
        let text = format!(r#"{{"backends": [{ONE}], "balancing": {text}}}"#);
        let balancing = load_with(&text, &[]).unwrap().pools.remove(0).balancing;
        assert_eq!((balancing.queue_order, balancing.queue_target), (order, target), "{text}");
    }
    // Keys at the top and of the pool `b`, and which of them do nothing.
    type Row = (&'static str, &'static str, &'static [&'static str]);
    let table: [Row; 8] = [
        ("", "", &[]),
        (r#""queue_order": "fifo""#, "", &["balancing.queue_order"]),
        (r#""queue_size": 7, "max_in_flight": 4"#, "", &[]),
        // The pool `b`, which takes it over, has a line.
        (r#""queue_target": null"#, r#""max_in_flight": 4"#, &[]),
        (
            r#""max_in_flight": 4"#,
            r#""max_in_flight": null, "queue_timeout": "1s""#,
            &["pools.b.balancing.queue_timeout"],
        ),
        ("", r#""max_in_flight": 4, "queue_target": "1s""#, &[]),
        (
            r#""auto": {"start": 4}"#,
            r#""auto": {"max": 9}"#,
            &["balancing.auto.start", "pools.b.balancing.auto.max"],
        ),
        // A number is not measured.
        ("", r#""max_in_flight": 4, "auto": {"min": 2}"#, &["pools.b.balancing.auto.min"]),
    ];
    for (top, own, expected) in table {
        let text = format!(
            r#"{{"backends": [{ONE}], "balancing": {{{top}}}, "pools": {{"b": {{"backends": [{ONE}], "balancing": {{{own}}}}}}}}}"#
        );
        let said: Vec<_> = load_with(&text, &[]).unwrap().idle_keys().collect();
        assert_eq!(said.len(), expected.len(), "{text}: {said:?}");
        assert!(
            said.iter().zip(expected).all(|(said, key)| said.starts_with(&format!("{key} "))),
            "{said:?}"
        );
    }
}

#[test]
fn measured_bounds_begin_within_what_is_allowed() {
    let auto = |keys: &str| {
        let text = format!(
            r#"{{"backends": [{{"name": "a", "url": "http://h:1", "max_in_flight": "auto"}}], "balancing": {{{keys}}},
                "pools": {{"p": {{"backends": ["http://h:2"], "balancing": {{"auto": {{"min": 2}}}}}}}}}}"#
        );
        let config = load_with(&text, &[]).unwrap();
        assert_eq!(config.pools[0].backends[0].max_in_flight, Some(InFlightBound::Auto));
        let own = ["pools.p.balancing.auto.min does nothing: no backend has \"max_in_flight\": \"auto\""];
        assert_eq!(config.idle_keys().collect::<Vec<_>>(), own, "{text}");
        let of = |pool: usize| config.pools[pool].balancing.auto;
        [of(0), of(1)].map(|auto| (auto.start, auto.min, auto.max))
    };
    assert_eq!(auto(""), [(16, 1, 1_000), (16, 2, 1_000)]);
    assert_eq!(auto(r#""auto": {"start": 20, "max": 40}"#), [(20, 1, 40), (20, 2, 40)]);
    // A start that is not given is the nearest that `min` and `max` allow.
    assert_eq!(auto(r#""auto": {"max": 8}"#), [(8, 1, 8), (8, 2, 8)]);
    assert_eq!(auto(r#""auto": {"min": 32}"#)[0], (32, 32, 1_000));
}
