//! Keys of `health_check`.

use super::TIMEOUT;
use crate::config::{HealthCheck, forms, words};
use crate::declare::{Section, Spec};
use balancer_http::framing::response::HeadRules;

/// `head_rules`: how an answer's head is read.
pub(super) fn health_check(mut s: Section<'_>, head_rules: HeadRules) -> HealthCheck {
    let path = Spec::of("path", words::TARGET, "\"/\"", "What is asked for, by GET.");
    let expect = Spec::of(
        "expect",
        words::HEALTHY_STATUSES,
        "\"200-499\"",
        "Answers that count as healthy. A 401 or 404 says that the server is there.",
    );
    let check = HealthCheck {
        path: s.text(&path, |text| forms::target(text).ok_or(None)).unwrap_or_default(),
        expect: s.text(&expect, |text| forms::status_ranges(text).ok_or(None)).unwrap_or_default(),
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
