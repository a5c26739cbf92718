//! Keys of `balancing`.

use super::{IN_FLIGHT, TIMEOUT};
use crate::config::{Balancing, Secret, Sticky, forms};
use crate::declare::{Section, Shape, Spec, Value};
use balancer_pool::fair::AutoBounds;
use balancer_pool::queue::QueueOrder;
use balancer_pool::strategy::{HashOn, Strategy};

pub(super) fn balancing(mut s: Section<'_>) -> Balancing {
    let about = "How one of several is picked: least_connections: the fewest requests in flight per weight; \
                 round_robin: smooth and weighted; random_two: the less loaded of two drawn ones; peak_ewma: the quicker \
                 of two drawn ones; hash: the same one for the same key; first: the first that is not full.";
    let strategy = s.choice("strategy", &Strategy::ALL, "\"least_connections\"", about);
    let hash_on = Spec::new(
        "hash_on",
        Shape::Text("\"ip\", \"client\", \"uri\", \"header:NAME\" or \"cookie:NAME\""),
        "\"ip\"",
        "What the strategy hash takes for the key; a request without that header or cookie has its address.",
    );
    let hash_on = s.value(&hash_on, |node| match &node.value {
        Value::Text(text) => forms::hash_on(text).map(Some).ok_or(None),
        _ => Err(None),
    });
    let about = "Most requests at once on all backends together; null: no bound.";
    let max_in_flight = s.whole_or_null("max_in_flight", IN_FLIGHT, "null", about);
    let about = "Of backends with \"max_in_flight\": \"auto\": where a measured bound begins, and between what it stays.";
    let auto = auto(s.section("auto", about));
    let about = "Clients stay with the backend that a cookie names; null: they need not.";
    let sticky = s.section_if_given("sticky", about).map(sticky);
    let about = "Most requests that wait for a backend with room when all are full; 0: none does.";
    let queue_size = s.whole("queue_size", 0..=1_000_000, "1024", about);
    let about = "How long one of them waits before it is answered 503.";
    let queue_timeout = s.duration("queue_timeout", TIMEOUT, "\"5s\"", about);
    let about = "Which of them goes next: fair: one whose client has had the least of the places; fifo: the first that came. \
                 There is a line only where some max_in_flight is set, here or on a backend; on tiny_http also where the workers are the bound.";
    let queue_order = s.choice("queue_order", &QueueOrder::ALL, "\"fair\"", about);
    let about = "With fair, how long a request waits whose client has had others waiting for a second: \
                 looked at when the client sends another or is next, and its newest is never refused for it; null: queue_timeout.";
    let queue_target = s.duration_or_null("queue_target", TIMEOUT, "\"500ms\"", about);
    s.end();
    Balancing {
        strategy: strategy.unwrap_or(Strategy::LeastConnections),
        hash_on: hash_on.unwrap_or(HashOn::Ip),
        max_in_flight,
        auto,
        queue_size,
        queue_timeout,
        queue_order: queue_order.unwrap_or_default(),
        queue_target,
        sticky,
    }
}

fn auto(mut s: Section<'_>) -> AutoBounds {
    const RANGE: std::ops::RangeInclusive<u64> = 1..=1_000;
    let origin = s.origin();
    let origin = |s: &Section<'_>, key| s.origin_of(key).unwrap_or_else(|| origin.clone());
    let (start_at, min_at) = (origin(&s, "start"), origin(&s, "min"));
    let has_start = s.origin_of("start").is_some();
    let start: u32 = s.whole(
        "start",
        RANGE,
        "16",
        "Before anything was measured; else the nearest that min and max allow.",
    );
    let min: u32 = s.whole("min", RANGE, "1", "It is never lower.");
    let about = "It is never higher. What waits for its answer's head much longer than usual (long polls) comes on top, up to 4 × max in all.";
    let max: u32 = s.whole("max", RANGE, "1000", about);
    if s.is_sound() && min > max {
        s.fault(min_at, "min", format!("must be at most max, which is {max}; found {min}"));
    } else if s.is_sound() && has_start && !(min..=max).contains(&start) {
        let text = format!("must be from min to max, which are {min} and {max}; found {start}");
        s.fault(start_at, "start", text);
    }
    s.end();
    AutoBounds { start: start.min(max).max(min), min, max }
}

fn sticky(mut s: Section<'_>) -> Sticky {
    let cookie = Spec::new(
        "cookie",
        Shape::Text("1 to 128 letters, digits and other characters of a token (RFC 9110 §5.6.2)"),
        "\"balancer\"",
        "The cookie's name.",
    );
    let secret = Spec::new(
        "secret",
        Shape::Text("16 to 512 visible ASCII characters without spaces"),
        "",
        "What the cookie is signed with; the same in every instance.",
    )
    .secret();
    let sticky = Sticky {
        cookie: s.value(&cookie, |node| match &node.value {
            Value::Text(text) => forms::token_name(text).ok_or(None),
            _ => Err(None),
        }),
        secret: s
            .value(&secret, |node| match &node.value {
                Value::Text(text) => forms::token(text).map(Some).map_err(|_| None),
                _ => Err(None),
            })
            .unwrap_or_else(|| Secret::new("")),
        secure: s.bool("secure", "false", "Browsers send it over TLS alone."),
    };
    s.end();
    sticky
}
