//! The PROXY protocol's header: one verdict however it is cut, and never more used than is there.

use balancer_http::framing::proxy::{ProxyVerdict, parse};

use super::cuts;

/// Longest header that either version may have by our bounds.
const MOST: usize = 16 + 2048;

/// See the module.
pub fn check(data: &[u8]) {
    let whole = parse(data);
    for ends in cuts::ways(data) {
        let mut decided = ProxyVerdict::Incomplete;
        for end in ends {
            let now = parse(&data[..end]);
            assert!(decided == ProxyVerdict::Incomplete || now == decided, "{decided:?}, then {now:?}");
            decided = now;
        }
        assert_eq!(decided, whole);
    }
    match whole {
        ProxyVerdict::Complete { consumed, .. } => {
            assert!(consumed <= data.len().min(MOST));
            assert_eq!(parse(&data[..consumed]), whole);
            assert_eq!(parse(&data[..consumed - 1]), ProxyVerdict::Incomplete, "taken before its end");
        }
        ProxyVerdict::Incomplete => assert!(data.len() < MOST, "waits for ever"),
        ProxyVerdict::Refused(_) => {}
    }
}
