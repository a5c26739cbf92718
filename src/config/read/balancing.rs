//! Keys of `balancing`.

use super::{IN_FLIGHT, TIMEOUT};
use crate::config::{Balancing, Secret, Sticky, forms, words};
use crate::declare::{Section, Spec};
use balancer_pool::fair::AutoBounds;
use balancer_pool::queue::QueueOrder;
use balancer_pool::strategy::{HashOn, Strategy};

pub(super) fn balancing(mut s: Section<'_>) -> Balancing {
    let about = "How one of several is picked: least_connections: the fewest requests in flight per weight; \
                 round_robin: smooth and weighted; random_two: the less loaded of two drawn ones; peak_ewma: the quicker \
                 of two drawn ones; hash: the same one for the same key; first: the first that is not full.";
    let strategy = s.choice("strategy", &Strategy::ALL, "\"least_connections\"", about);
    let hash_on = Spec::of(
        "hash_on",
        words::HASH_ON,
        "\"ip\"",
        "What the strategy hash takes for the key; a request without that header or cookie has its address.",
    );
    let hash_on = s.text(&hash_on, |text| forms::hash_on(text).ok_or(None));
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
    let has_start = s.get("start").is_some();
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
        s.fault("min", format!("must be at most max, which is {max}; found {min}"));
    } else if s.is_sound() && has_start && !(min..=max).contains(&start) {
        let text = format!("must be from min to max, which are {min} and {max}; found {start}");
        s.fault("start", text);
    }
    s.end();
    AutoBounds { start: start.min(max).max(min), min, max }
}

fn sticky(mut s: Section<'_>) -> Sticky {
    let cookie = Spec::of("cookie", words::TOKEN, "\"balancer\"", "The cookie's name.");
    let secret =
        Spec::of("secret", words::SECRET, "", "What the cookie is signed with; the same in every instance.")
            .secret();
    let sticky = Sticky {
        cookie: s.text(&cookie, |text| forms::token_name(text).ok_or(None)).unwrap_or_default(),
        secret: s
            .text(&secret, |text| forms::token(text).map_err(|_| None))
            .unwrap_or_else(|| Secret::new("")),
        secure: s.bool("secure", "false", "Browsers send it over TLS alone."),
    };
    s.end();
    sticky
}
