//! What a path becomes on its way to a backend: without the part that named the service, and below another one.

use std::borrow::Cow;

use crate::path::normal;

/// A path without the prefix that it begins with, both read in their normal form; `/` where nothing is left. What is left stands as
/// the client wrote it, if it means the same so: `/a/../img/x` without `/img` is `/x`, and `/img/a%2Db` is `/a%2Db`. `None`: it
/// does not begin with that.
pub fn without_prefix<'a>(path: &'a str, prefix: &str) -> Option<Cow<'a, str>> {
    let prefix = normal(prefix);
    let prefix = prefix.strip_suffix('/').unwrap_or(&prefix);
    let whole = normal(path);
    let left = whole.strip_prefix(prefix)?;
    let left = match left.bytes().next() {
        None => "/",
        Some(b'/') => left,
        Some(_) => return None,
    };
    // As many segments of what was written.
    let depth = prefix.bytes().filter(|byte| *byte == b'/').count();
    let written = path.match_indices('/').nth(depth).map_or("/", |(at, _)| &path[at..]);
    if normal(written) == left { Some(Cow::Borrowed(written)) } else { Some(Cow::Owned(left.to_owned())) }
}

/// A path below a prefix in its normal form.
pub fn below_prefix(path: &str, prefix: &str) -> String {
    format!("{}{path}", prefix.strip_suffix('/').unwrap_or(prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_prefix_is_taken_off_by_whole_segments() {
        let rows: &[(&str, &str, Option<&str>)] = &[
            ("/img/x", "/img", Some("/x")),
            ("/img/x", "/img/", Some("/x")),
            ("/img/", "/img/", Some("/")),
            ("/img", "/img", Some("/")),
            ("/img//x", "/img", Some("//x")),
            ("/images", "/img", None),
            ("/imgs", "/img", None),
            ("/a/b/c", "/a/b", Some("/c")),
            ("/%69mg/a%2Db%2fc", "/img", Some("/a%2Db%2fc")),
            ("//img/x", "/img", Some("/x")),
            ("/a/../img/x", "/img", Some("/x")),
            // What is left must not climb out of where it was.
            ("/img/../img/x", "/img", Some("/x")),
            ("/img/../x/../img/y", "/img", Some("/y")),
            ("/img/x", "/", Some("/img/x")),
        ];
        for (path, prefix, expected) in rows {
            assert_eq!(without_prefix(path, prefix).as_deref(), *expected, "{path} {prefix}");
        }
        assert_eq!(below_prefix("/x", "/v2"), "/v2/x");
        assert_eq!(below_prefix("/x?", "/v2/"), "/v2/x?");
    }

    proptest! {
        /// However the path is written, what is left means what is left of its meaning.
        #[test]
        fn what_is_left_means_the_rest(path in "(/|/a|/%61|/\\.\\.|/\\.|/b%2F|/%2e%2e|;){0,8}") {
            let whole = normal(&path).into_owned();
            let left = without_prefix(&path, "/a");
            let expected = whole.strip_prefix("/a").filter(|rest| rest.is_empty() || rest.starts_with('/'));
            prop_assert_eq!(
                left.as_deref().map(normal),
                expected.map(|rest| if rest.is_empty() { "/".into() } else { Cow::Borrowed(rest) })
            );
        }
    }
}
