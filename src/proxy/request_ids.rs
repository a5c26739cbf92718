//! What a request is known by: its id and its trace context.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use balancer_http::fields::Fields;
use balancer_http::headers;

/// A request's id, which a trusted peer sent or we made, and the id of its trace.
#[derive(Clone, Debug)]
pub struct RequestIds {
    /// `X-Request-Id`.
    pub request_id: String,
    /// The trace id inside its `traceparent`; empty without a valid one, unless the request is recorded: only who
    /// records makes one.
    pub trace_id: String,
}

impl RequestIds {
    /// `trusted`: whether the peer's `X-Request-Id` counts. `traceparent` counts from every peer: it grants no right.
    pub fn of(fields: &Fields, trusted: bool, wall: SystemTime) -> Self {
        let given = if trusted { headers::request_id(fields) } else { None };
        let request_id = given.map_or_else(|| new_request_id(wall), str::to_owned);
        let trace_id = headers::traceparent(fields).map(headers::trace_id).unwrap_or_default().to_owned();
        Self { request_id, trace_id }
    }
}

/// A UUIDv7 (RFC 9562 §5.7). Its random bits come from the thread's own generator, without a system call: an id tells
/// requests apart, it keeps no secret.
pub fn new_request_id(wall: SystemTime) -> String {
    let millis = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let id = uuid::Builder::from_unix_timestamp_millis(u64::try_from(millis).unwrap_or(0), &random);
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    id.into_uuid().hyphenated().encode_lower(&mut text).to_owned()
}

/// The value of a `Date` field (RFC 9110 §6.6.1, IMF-fixdate). Each thread formats it once a second.
pub fn with_date<R>(wall: SystemTime, use_it: impl FnOnce(&[u8]) -> R) -> R {
    const LENGTH: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();
    thread_local!(static LAST: Cell<(u64, [u8; LENGTH])> = const { Cell::new((u64::MAX, [0; LENGTH])) });
    let seconds = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (mut at, mut text) = LAST.get();
    if at != seconds {
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        if let Ok(date) = date.as_bytes().try_into() {
            (at, text) = (seconds, date);
            LAST.set((at, text));
        }
    }
    use_it(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_in_order_of_time_and_differ() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let (one, same, later) =
            (new_request_id(at(1_000)), new_request_id(at(1_000)), new_request_id(at(2_000)));
        assert_ne!(one, same);
        assert!(one < later && same < later, "{one} {same} {later}");
        assert_eq!((one.len(), &one[14..15]), (36, "7"), "{one}");
    }

    #[test]
    fn a_trusted_id_is_kept_and_an_untrusted_one_is_not() {
        let mut fields = Fields::new();
        fields.push("X-Request-Id", b"abc-1");
        assert_eq!(RequestIds::of(&fields, true, UNIX_EPOCH).request_id, "abc-1");
        assert_ne!(RequestIds::of(&fields, false, UNIX_EPOCH).request_id, "abc-1");
    }

    #[test]
    fn dates_follow_the_clock() {
        let date = |seconds| with_date(UNIX_EPOCH + Duration::from_secs(seconds), <[u8]>::to_vec);
        assert_eq!(date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(784_111_778), b"Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
