//! Keys of `frontend`.

use super::{DELAY, NEEDS_LOOPS, TIMEOUT};
use crate::config::{Engine, Frontend, words};
use crate::declare::{Section, Shape, Spec};

#[expect(clippy::too_many_lines, reason = "a table: one key after the other, and a struct is built at once")]
pub(super) fn frontend(mut s: Section<'_>) -> Frontend {
    let engines = [("auto", Engine::Auto), ("epoll", Engine::Epoll), ("tiny_http", Engine::TinyHttp)];
    let about = "What accepts and parses; auto: epoll where it is built, else tiny_http.";
    let upgrades = Spec::new(
        "upgrades",
        Shape::List { of: words::UPGRADE, max: 1, single: false },
        "[\"websocket\"]",
        "Protocols that a connection may be upgraded to.",
    );
    let websocket = |text: &str| match text.to_ascii_lowercase() {
        name if name == "websocket" => Ok(name),
        _ => Err(None),
    };
    const BYTES_MAX: u64 = 16 << 20;
    s.gone("active_workers", "how many workers ran at once");
    s.gone("worker_wait", "how long a connection waited for a free worker");
    let frontend = Frontend {
        engine: s.choice("engine", &engines, "\"auto\"", about).unwrap_or(Engine::Auto),
        workers: s.whole_or_null(
            "workers",
            1..=4_096,
            "null",
            "Loops, each of which serves many connections at once, at most 4 a core; null: one a core. On tiny_http threads, each \
             of which serves one request; null: 64.",
        ),
        max_connections: s.whole("max_connections", 1..=1_000_000, "20000", "Most client connections."),
        max_connections_per_ip: s.whole(
            "max_connections_per_ip",
            1..=1_000_000,
            "4096",
            "Most client connections of one address.",
        ),
        max_head_bytes: s.whole(
            "max_head_bytes",
            1_024..=1 << 20,
            "16384",
            "Most bytes of a request's head.",
        ),
        max_headers: s.whole("max_headers", 1..=1_000, "100", "Most header fields of a request."),
        max_target_bytes: s.whole(
            "max_target_bytes",
            64..=1 << 20,
            "8192",
            "Most bytes of a request's target.",
        ),
        max_body_bytes: s.whole("max_body_bytes", 0..=1 << 40, "16777216", "Most bytes of a request's body."),
        head_timeout: s.duration("head_timeout", TIMEOUT, "\"10s\"", "From a head's first byte to its end."),
        body_timeout: s.duration(
            "body_timeout",
            TIMEOUT,
            "\"30s\"",
            "The longest silence inside a request's body.",
        ),
        idle_timeout: s.duration(
            "idle_timeout",
            TIMEOUT,
            "\"60s\"",
            "How long a kept connection may be idle.",
        ),
        write_timeout: s.duration(
            "write_timeout",
            TIMEOUT,
            "\"30s\"",
            "How long a client may take nothing of an answer.",
        ),
        tunnel_timeout: s.duration(
            "tunnel_timeout",
            TIMEOUT,
            "\"1h\"",
            "The longest silence in a connection that was upgraded, such as a WebSocket.",
        ),
        request_buffer_bytes: s.whole(
            "request_buffer_bytes",
            0..=BYTES_MAX,
            "65536",
            "Request bodies up to this are read whole before a backend is asked; longer ones stream.",
        ),
        response_buffer_bytes: s.whole(
            "response_buffer_bytes",
            1_024..=BYTES_MAX,
            "65536",
            "Most bytes of an answer that wait for a slow client.",
        ),
        min_bytes_per_sec: s.whole(
            "min_bytes_per_sec",
            0..=1_000_000_000,
            "240",
            "A side that is slower is ended after slow_grace; 0: none is.",
        ),
        slow_grace: s.duration(
            "slow_grace",
            DELAY,
            "\"5s\"",
            "How long a side may be slower than min_bytes_per_sec.",
        ),
        upgrades: s.list(&upgrades, websocket),
        abort_on_close: s.bool(
            "abort_on_close",
            "true",
            "End a request whose client closed its sending side and for a second was sent nothing; false: it is answered, however \
             late. A client whose connection broke ends it in both cases.",
        ),
        proxy_protocol: s.bool(
            "proxy_protocol",
            "false",
            "Expect PROXY protocol headers from rate_limit.trusted_proxies.",
        ),
        accept_invalid: s.bool(
            "accept_invalid",
            "false",
            "For old clients: take bytes above 0x7F in request targets. Text in UTF-8 goes on as it is; blanks, controls and \
             other bytes go on percent-encoded.",
        ),
        h2c: s.bool(
            "h2c",
            "false",
            "Speak HTTP/2 without TLS, too, to clients that begin with it, such as another proxy.",
        ),
    };
    if let Some(most) = frontend.most_workers()
        && frontend.workers() > most
    {
        let text = format!(
            "must be at most {most}, 4 a core: it means loops now, each of which serves many connections at once, and no longer \
             threads that serve one; null is one a core"
        );
        s.fault("workers", text);
    }
    if frontend.h2c && frontend.engine.is_portable() {
        s.fault("h2c", format!("is true: HTTP/2 {NEEDS_LOOPS}"));
    }
    s.end();
    frontend
}
