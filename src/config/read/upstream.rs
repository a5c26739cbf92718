//! Keys of `upstream`.

use std::path::Path;

use super::{DELAY, TIMEOUT, tls};
use crate::config::{RetryOn, UpstreamConfig, forms, words};
use crate::declare::{Section, Shape, Spec, duration_of};

#[expect(clippy::too_many_lines, reason = "a table: one key after the other, and a struct is built at once")]
pub(super) fn upstream(mut s: Section<'_>, base: &Path) -> UpstreamConfig {
    let request_timeout = Spec::of(
        "request_timeout",
        words::REQUEST_TIMEOUT,
        "null",
        "How long a request may take in all, with retries and its answer's body; null: no bound of its own.",
    )
    .or_null();
    let retry_on = Spec::new(
        "retry_on",
        Shape::List { of: words::RETRY_ON, max: 32, single: false },
        "[\"connect\", \"reset\"]",
        "After what a request is sent again; anything but a failed connection only when its method is idempotent.",
    );
    let retry_on = s.list(&retry_on, |text| forms::retry_on(text).ok_or(None));
    let upstream = UpstreamConfig {
        request_timeout: s.text(&request_timeout, |text| duration_of(text, TIMEOUT)),
        retry_on: retry_on.into_iter().fold(RetryOn::default(), |mut all, one| {
            all.connect |= one.connect;
            all.reset |= one.reset;
            all.timeout |= one.timeout;
            all.statuses.extend(one.statuses);
            all
        }),
        retry_budget: s.share(
            "retry_budget",
            "0.2",
            "Share of the last ten seconds' requests that may be sent again, beside ten a second.",
        ),
        connect_timeout: s.duration("connect_timeout", TIMEOUT, "\"1s\"", "How long connecting may take."),
        response_timeout: s.duration(
            "response_timeout",
            TIMEOUT,
            "\"30s\"",
            "To the head of the answer.",
        ),
        read_timeout: s.duration(
            "read_timeout",
            TIMEOUT,
            "\"60s\"",
            "The longest silence inside an answer's body.",
        ),
        idle_timeout: s.duration(
            "idle_timeout",
            DELAY,
            "\"4s\"",
            "How long a kept backend connection may be idle; stay below the backend's own time.",
        ),
        retries: s.whole(
            "retries",
            0..=10,
            "1",
            "How often a request may be sent again, where that is safe.",
        ),
        resolve_interval: s.duration(
            "resolve_interval",
            ("100ms", "1d"),
            "\"10s\"",
            "How often backend names are resolved.",
        ),
        max_head_bytes: s.whole("max_head_bytes", 1_024..=1 << 20, "32768", "Most bytes of an answer's head."),
        max_headers: s.whole("max_headers", 1..=1_000, "256", "Most header fields of an answer."),
        accept_invalid: s.bool(
            "accept_invalid",
            "false",
            "For old applications: take answers with bare line feeds, folded fields, a status from 600 to 999, an empty \
             transfer coding, a transfer coding in HTTP/1.0 or blanks before a colon, and write them anew.",
        ),
        via: s.bool(
            "via",
            "true",
            "Add Via to requests; nginx compresses nothing for a request with one. Loops are found without it, too.",
        ),
        tls: s
            .section_of("tls", "How backends with https:// are known; null: as browsers know servers.", |section| {
                tls::upstream(section, base)
            })
            .unwrap_or_default(),
    };
    s.end();
    upstream
}
