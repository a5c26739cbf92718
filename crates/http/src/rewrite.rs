//! How a route rewrites a path for a backend: one prefix is removed, another one is put in its place.

use crate::path::{normal, stays_inside, without_dots};

/// Moves a path from below `from` to below `to`. Path and prefix may be spelled in any way. The part behind the prefix
/// begins with one slash, has no dot segments, and is otherwise as the client wrote it: `/a/../img//x%2Dy` from `/img`
/// to `/v2` is `/v2/x%2Dy`.
///
/// `None`: the path does not lie below `from`; or some backend would read what is left as a path outside of `to` (see
/// [`stays_inside`]), for which the rules of this route were not made.
pub fn moved(path: &str, from: &str, to: &str) -> Option<String> {
    let path = without_dots(path);
    let left = left(&path, from).filter(|left| stays_inside(left))?;
    Some([to.strip_suffix('/').unwrap_or(to), left].concat())
}

/// The part of a path behind the prefix `from`; `None` if it does not lie there. The path has no dot segments.
fn left<'a>(path: &'a str, from: &str) -> Option<&'a str> {
    let from = normal(from);
    let from = from.strip_suffix('/').unwrap_or(&from);
    if normal(path).strip_prefix(from)?.bytes().next().is_some_and(|byte| byte != b'/') {
        return None;
    }
    let mut rest = path;
    // Cuts as many segments off the written path as the prefix has.
    for _ in from.matches('/') {
        rest = rest.trim_start_matches('/');
        rest = &rest[rest.find('/').unwrap_or(rest.len())..];
    }
    let slashes = rest.len() - rest.trim_start_matches('/').len();
    Some(if slashes == 0 { "/" } else { &rest[slashes - 1..] })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::path::{each_reading, is_below};

    #[test]
    fn a_path_is_moved_by_whole_segments() {
        let rows: &[(&str, &str, Option<&str>)] = &[
            ("/img/x", "/img", Some("/v2/x")),
            ("/img/x", "/img/", Some("/v2/x")),
            ("/img/", "/img/", Some("/v2/")),
            ("/img", "/img", Some("/v2/")),
            ("/images", "/img", None),
            ("/imgs", "/img", None),
            ("/a/b/c", "/a/b", Some("/v2/c")),
            ("/%69mg/a%2Db%2fc", "/img", Some("/v2/a%2Db%2fc")),
            ("/img/x", "/", Some("/v2/img/x")),
            // Two slashes in front, behind which a host would be read, become one.
            ("/img//x//y", "/img", Some("/v2/x//y")),
            ("//img/x", "/img", Some("/v2/x")),
            ("//x//y", "/", Some("/v2/x//y")),
            // Dot segments are resolved first.
            ("/a/../img/x%2Dy", "/img", Some("/v2/x%2Dy")),
            ("/img/../img/x", "/img", Some("/v2/x")),
            ("/img/%2e%2E/x", "/img", None),
            ("/../../x", "/", Some("/v2/x")),
        ];
        for (path, from, expected) in rows {
            assert_eq!(moved(path, from, "/v2/").as_deref(), *expected, "{path} {from}");
        }
        assert_eq!(moved("/img/x", "/img", "").as_deref(), Some("/x"));
        assert_eq!(moved("/img", "/img", "").as_deref(), Some("/"));
    }

    #[test]
    fn what_some_backend_reads_as_a_path_outside_is_none() {
        let outside = [
            "..%2fadmin",
            "..;/admin",
            "..;x=y/admin",
            "..\\admin",
            "..%5cadmin",
            "a/..%2f..%2fadmin",
            "%252e%252e%252fadmin",
            "..%20/admin",
            ".../admin",
            "..%3b/admin",
            "%2fhost/x",
            "\\host/x",
            "%5chost",
            ";/host",
            ".%2f/host",
            "a/..%2f/host",
            "%252fhost",
            "..%00",
            "..%3fx",
            // More readings than are looked at.
            "a;%3B%2f%5c./%00%2500/..;x",
        ];
        for rest in outside {
            assert_eq!(moved(&format!("/img/{rest}"), "/img", ""), None, "{rest}");
        }
        let inside = [
            "a/..%2fb",
            ";v=1",
            "a;v=1/b",
            "%2e%2e.x",
            "..a",
            "a%2F%2Fb",
            "https%3A%2F%2Fhost/",
            "a%2Fb/.../c",
        ];
        for rest in inside {
            assert_eq!(moved(&format!("/img/{rest}"), "/img", ""), Some(format!("/{rest}")), "{rest}");
        }
    }

    const PIECES: &str =
        "(/|/a|/b|/%61|/\\.\\.|/\\.|\\.|b%2F|/%2e%2e|;|%3b|\\\\|%5C|%20|%00|%252e|%252f){0,8}";

    proptest! {
        /// However the path is written, the normal form of what is left is the rest of the path's normal form.
        #[test]
        fn what_is_left_means_the_rest(path in PIECES) {
            let path = format!("/{path}");
            let whole = normal(&path).into_owned();
            let rest = whole.strip_prefix("/a").filter(|rest| rest.is_empty() || rest.starts_with('/'));
            if let Some(moved) = moved(&path, "/a", "") {
                let rest = rest.map(|rest| if rest.is_empty() { "/" } else { rest });
                prop_assert_eq!(Some(&*normal(&moved)), rest);
            }
        }

        /// In no reading does a moved path leave `to`, and each of its readings was a reading of the path that was
        /// asked for. So rules that judged the readings of that path have judged those of the moved one.
        #[test]
        fn every_reading_of_it_was_a_reading_of_the_whole(rest in PIECES) {
            let asked = without_dots(&format!("/a{rest}")).into_owned();
            if let (Some(stripped), Some(below)) = (moved(&asked, "/a", ""), moved(&asked, "/a", "/v2")) {
                let mut met = Vec::new();
                prop_assume!(each_reading(&asked, |reading| met.push(reading.to_owned())));
                each_reading(&stripped, |reading| {
                    let whole = format!("/a{reading}");
                    let bare = whole.strip_suffix('/').unwrap_or(&whole);
                    let same = |met: &String| met.strip_suffix('/').unwrap_or(met) == bare;
                    assert!(met.iter().any(same), "{asked} {whole} {met:?}");
                });
                each_reading(&below, |reading| assert!(is_below(reading, "/v2"), "{below} {reading}"));
            }
        }

        #[test]
        fn without_dots_a_path_means_the_same(path in PIECES) {
            let path = format!("/{path}");
            let given = without_dots(&path);
            prop_assert_eq!(normal(&given), normal(&path));
            prop_assert_eq!(without_dots(&given), given.as_ref());
        }
    }
}
