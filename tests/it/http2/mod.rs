//! HTTP/2 with clients (RFC 9113): what requests become, how floods and faults end, and what all streams of a connection
//! share. These tests use prior knowledge; `tls_front` and `https` use ALPN.

mod cases;
mod floods;
mod heads;
mod order;
mod streams;

use serde_json::json;

use crate::support::{Balancer, Engine, Setup, until};

/// No backend is too slow within a test: what a test waits for does not come by the backend's time-out.
fn setup() -> Setup {
    Setup::on(Engine::Epoll).set("frontend.h2c", json!(true)).set("upstream.response_timeout", json!("5m"))
}

/// Waits until no connection and no stream is left.
fn until_empty(balancer: &Balancer) {
    until("no HTTP/2 connection is left", || {
        let text = balancer.get("/-/metrics").text();
        let is_none = |name: &str| text.lines().any(|line| line == format!("{name} 0"));
        (is_none("balancer_http2_connections") && is_none("balancer_http2_streams")).then_some(())
    });
}
