//! What a client sent, as a span may have it.

/// Longest value that a client has chosen, in bytes.
pub const MAX_VALUE: usize = 1_024;

/// A target's path, without its query.
pub fn path_of(target: &str) -> String {
    bounded(target.split('?').next().unwrap_or_default().as_bytes())
}

/// What a client sent as text of at most [`MAX_VALUE`] bytes; what is no UTF-8 becomes U+FFFD.
pub fn bounded(value: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&value[..value.len().min(MAX_VALUE)]).into_owned();
    while text.len() > MAX_VALUE {
        text.pop();
    }
    text.shrink_to_fit();
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_query_is_no_part_of_a_path() {
        for (target, path) in
            [("/a?token=secret", "/a"), ("/", "/"), ("*", "*"), ("?x", ""), ("", ""), ("/a?b?c", "/a")]
        {
            assert_eq!(path_of(target), path);
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_text_within_the_bound(value in proptest::collection::vec(any::<u8>(), 0..3_000)) {
            let text = bounded(&value);
            prop_assert!(text.len() <= MAX_VALUE);
            if let Ok(whole) = std::str::from_utf8(&value) && whole.len() <= MAX_VALUE {
                prop_assert_eq!(text, whole);
            }
        }
    }
}
