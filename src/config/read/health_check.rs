//! Keys of `health_check`.

use super::TIMEOUT;
use crate::config::{HealthCheck, forms};
use crate::declare::{Section, Shape, Spec, Value};
use balancer_http::framing::response::HeadRules;

/// `head_rules`: how an answer's head is read.
pub(super) fn health_check(mut s: Section<'_>, head_rules: HeadRules) -> HealthCheck {
    let path = Spec::new(
        "path",
        Shape::Text("a path that begins with /, such as \"/healthz\""),
        "\"/\"",
        "What is asked for, by GET.",
    );
    let expect = Spec::new(
        "expect",
        Shape::Text("status codes from 100 to 599, such as \"200-399\" or \"200,204\""),
        "\"200-499\"",
        "Answers that count as healthy. A 401 or 404 says that the server is there.",
    );
    let check = HealthCheck {
        path: s.value(&path, |node| match &node.value {
            Value::Text(text) => forms::target(text).ok_or(None),
            _ => Err(None),
        }),
        expect: s.value(&expect, |node| match &node.value {
            Value::Text(text) => forms::status_ranges(text).ok_or(None),
            _ => Err(None),
        }),
        interval: s.duration(
            "interval",
            ("10ms", "1d"),
            "\"2s\"",
            "From one check of a backend to its next.",
        ),
        timeout: s.duration("timeout", TIMEOUT, "\"1s\"", "How long a check may take."),
        rise: s.whole("rise", 1..=100, "2", "Successes in a row that bring a backend back."),
        fall: s.whole("fall", 1..=100, "3", "Failures in a row that take it out."),
        head_rules,
    };
    s.end();
    check
}
