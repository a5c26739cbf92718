//! Keys of `balancing`.

use super::IN_FLIGHT;
use crate::config::json::Value;
use crate::config::keys::{Shape, Spec};
use crate::config::section::Section;
use crate::config::{Balancing, HashOn, Strategy, forms};

pub(super) fn balancing(mut s: Section<'_>) -> Balancing {
    let about = "How one of several is picked: least_connections: the fewest requests in flight per weight; \
                 round_robin: smooth and weighted; random_two: the less loaded of two drawn ones; peak_ewma: the quicker \
                 of two drawn ones; hash: the same one for the same key; first: the first that is not full.";
    let strategy = s.choice("strategy", &Strategy::ALL, &[], "\"least_connections\"", about);
    let hash_on = Spec::new(
        "hash_on",
        Shape::Other("\"ip\", \"client\", \"uri\", \"header:NAME\" or \"cookie:NAME\""),
        "\"ip\"",
        "What the strategy hash takes for the key; a request without that header or cookie has its address.",
    );
    let hash_on = s.value(&hash_on, |node| match &node.value {
        Value::Text(text) => forms::hash_on(text).map(Some).ok_or(None),
        _ => Err(None),
    });
    let about = "Most requests at once on all backends together; null: no bound.";
    let max_in_flight = s.whole_or_null("max_in_flight", IN_FLIGHT, "null", about);
    s.later(&["queue_size", "queue_timeout", "sticky"]);
    s.end();
    Balancing {
        strategy: strategy.unwrap_or(Strategy::LeastConnections),
        hash_on: hash_on.unwrap_or(HashOn::Ip),
        max_in_flight,
    }
}
