//! Keys of `outlier`.

use super::TIMEOUT;
use crate::config::{Outlier, forms, words};
use crate::declare::{Section, Spec};

pub(super) fn outlier(mut s: Section<'_>) -> Outlier {
    let statuses = Spec::of(
        "statuses",
        words::OUTLIER_STATUSES,
        "null",
        "Answers that count as failures; null: only connections that fail or break, and time-outs.",
    )
    .or_null();
    let outlier = Outlier {
        consecutive: s.whole(
            "consecutive",
            0..=1_000,
            "5",
            "Failures in a row that take an endpoint out; 0: they don't matter.",
        ),
        ratio: s.share_or_null(
            "ratio",
            "0.5",
            "Share of failures, of at least 20 requests, that takes an endpoint out; null: it doesn't matter.",
        ),
        window: s.duration("window", ("100ms", "1h"), "\"10s\"", "How long requests are counted together."),
        base_time: s.duration(
            "base_time",
            TIMEOUT,
            "\"5s\"",
            "How long it is out the first time; twice as long with each relapse, up to five minutes.",
        ),
        max_ejected: s.share("max_ejected", "0.5", "Share of the endpoints that may be out at once."),
        statuses: s.text(&statuses, |text| forms::status_ranges(text).ok_or(None)).unwrap_or_default(),
    };
    s.end();
    outlier
}
