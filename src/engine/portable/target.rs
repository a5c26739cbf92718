//! Which request targets this engine takes.

use http::uri::PathAndQuery;

use crate::error::Reject;
use balancer_http::message::Reason;

/// The longest target that an [`http::Uri`] holds.
const MAX_BYTES: usize = 65_534;

/// Refuses a target that ureq can't send byte for byte, though our parser takes it: an [`http::Uri`] holds no `<` and `>`,
/// no backtick before the `?`, no quote behind it, and no more than 65,534 bytes. Said to the client here; on its way to a
/// backend it would count as a failure of that.
pub fn refusal(target: &str) -> Option<Reject> {
    if target.len() > MAX_BYTES {
        return Some(Reject::new(Reason::UriTooLong, "the request target is too long for this engine"));
    }
    let is_carried = PathAndQuery::try_from(target).is_ok_and(|carried| carried.as_str() == target);
    let detail = "the request target holds a character that this engine can't send on: write it encoded";
    (!is_carried).then(|| Reject::new(Reason::BadRequest, detail))
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
}
