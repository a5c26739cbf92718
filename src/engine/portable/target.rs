//! Which requests this engine takes: those that ureq can send on.

use http::uri::PathAndQuery;

use crate::error::Reject;
use balancer_http::message::{BodyLength, Reason, RequestHead};

/// The longest target that an [`http::Uri`] holds, in bytes.
const MAX_BYTES: usize = 65_534;

/// Refuses a target that our parser takes and ureq can't send byte for byte: an [`http::Uri`] holds no `<` and `>`, no
/// backtick before the `?`, no quote behind it, and no more than 65,534 bytes. Refused here, since a failure while it
/// is sent would not be the client's.
pub fn refusal(target: &str) -> Option<Reject> {
    if target.len() > MAX_BYTES {
        return Some(Reject::new(Reason::UriTooLong, "the request target is too long for this engine"));
    }
    let is_carried = PathAndQuery::try_from(target).is_ok_and(|carried| carried.as_str() == target);
    let detail = "the request target holds a character that this engine can't send on: write it encoded";
    (!is_carried).then(|| Reject::new(Reason::BadRequest, detail))
}

/// Refuses what our parser takes and ureq can't send on: a HEAD with a body, and names of fields that are too long for
/// an [`http::HeaderName`]. ureq can't send credentials beyond ASCII either, but `tiny_http` takes no such field.
pub fn unsendable(head: &RequestHead) -> Option<Reject> {
    const MAX_NAME_BYTES: usize = 65_535;
    if head.method == "HEAD" && !matches!(head.length, BodyLength::Empty | BodyLength::Known(0)) {
        return Some(Reject::new(Reason::BadRequest, "this engine can't send a HEAD with a body on"));
    }
    let is_long = |(name, _): (&[u8], &[u8])| name.len() > MAX_NAME_BYTES;
    let detail = "the name of a header field is too long for this engine";
    head.fields.lines().any(is_long).then(|| Reject::new(Reason::HeadTooLarge, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_the_parser_takes_it_refuses_little() {
        let refused = |before: &str| -> String {
            let holds =
                |char: &char| refusal(&format!("{before}{char}b")).is_some_and(|one| one.status() == 400);
            ('!'..='~').filter(|char| *char != '#').filter(holds).collect()
        };
        assert_eq!(refused("/a"), "<>`");
        assert_eq!(refused("/?a"), "\"<>");
        for target in ["/", "*", "//h:80", "/\u{e4}?\u{20ac}", "/%zz?%"] {
            assert!(refusal(target).is_none(), "{target}");
        }
        let long = |bytes: usize| refusal(&format!("/{}", "a".repeat(bytes - 1))).map(|one| one.status());
        assert_eq!((long(MAX_BYTES), long(MAX_BYTES + 1)), (None, Some(414)));
    }

    #[test]
    fn it_refuses_long_names_and_a_head_with_a_body() {
        let head = || RequestHead::blank(([127, 0, 0, 1], 1).into());
        for (bytes, status) in [(65_535, None), (65_536, Some(431))] {
            let mut head = head();
            head.fields.push(&"x".repeat(bytes), b"");
            assert_eq!(unsendable(&head).map(|one| one.status()), status, "{bytes}");
            assert_eq!(http::HeaderName::try_from("x".repeat(bytes)).is_err(), status.is_some());
        }
        for (method, length, status) in [
            ("HEAD", BodyLength::Known(1), Some(400)),
            ("HEAD", BodyLength::Chunked, Some(400)),
            ("HEAD", BodyLength::Empty, None),
            ("GET", BodyLength::Known(1), None),
        ] {
            let head = RequestHead { method: method.into(), length, ..head() };
            assert_eq!(unsendable(&head).map(|one| one.status()), status, "{method} {length:?}");
        }
    }
}
