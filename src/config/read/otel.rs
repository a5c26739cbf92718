//! Keys of `otel`.

use crate::config::{OtelConfig, forms, words};
use crate::declare::{Section, Spec};

pub(super) const ABOUT: &str = "Spans of proxied requests for OpenTelemetry; null: none are made.";

pub(super) fn otel(mut s: Section<'_>) -> OtelConfig {
    let endpoint = Spec::of(
        "endpoint",
        words::COLLECTOR_URL,
        "",
        "A collector that takes OTLP over HTTP, such as \"http://127.0.0.1:4318\"; spans are posted to /v1/traces there.",
    );
    let endpoint = s.text(&endpoint, forms::collector_url).unwrap_or_default();
    s.end();
    OtelConfig { endpoint }
}
