//! Which readings a path has, in their order and how often. A habit that makes no difference would cost time, and honest
//! paths their verdict, since a path with too many readings is refused.

use super::*;

#[test]
fn a_path_is_read_with_the_habits_that_make_a_difference_to_it_and_no_others() {
    let rows: &[(&str, &[&str])] = &[
        // Not in origin form.
        ("", &["/"]),
        ("*", &["*"]),
        ("a/b", &["a/b"]),
        ("../a", &["/a"]),
        (".a/b", &[".a/b"]),
        // Blanks and dots, at a segment's end and elsewhere.
        ("/.", &["/"]),
        ("/a/..", &["/"]),
        ("/..a", &["/..a"]),
        ("/a..b", &["/a..b"]),
        ("/a..", &["/a..", "/a"]),
        ("/a./b", &["/a./b", "/a/b"]),
        ("/a%20", &["/a%20", "/a"]),
        ("/a%21", &["/a!"]),
        ("/a. .", &["/a.%20.", "/a"]),
        // Blanks and dots alone: `.`, and `..` where two dots follow each other.
        ("/%20/a", &["/%20/a", "/a"]),
        ("/. .", &["/.%20.", "/"]),
        ("/...", &["/...", "/", "/", "/...", "/", "/"]),
        ("/a/..%20/b", &["/a/..%20/b", "/b", "/a/b", "/a/..%20/b", "/b", "/a/b"]),
        ("/a/.%2Fb", &["/a/.%2Fb", "/a/b"]),
        ("/a%2F.", &["/a%2F.", "/a/", "/a%2F", "/a/"]),
        // Slashes of each kind.
        ("/a%2Fb", &["/a%2Fb", "/a/b"]),
        ("/a\\b", &["/a%5Cb", "/a/b"]),
        ("/a%5Cb", &["/a%5Cb", "/a/b"]),
        ("/a %2Fb", &["/a%20%2Fb", "/a%20/b", "/a%20%2Fb", "/a/b"]),
        // Parameters of each kind. Where another slash follows them in their segment, they may be longer.
        ("/a/b;/c", &["/a/b;/c", "/a/b/c"]),
        ("/a;b/c", &["/a;b/c", "/a/c"]),
        ("/a%3Bb/c", &["/a;b/c", "/a/c"]),
        ("/a%2Fb;c", &["/a%2Fb;c", "/a/b;c", "/a%2Fb", "/a/b"]),
        ("/a;b/c%2Fd", &["/a;b/c%2Fd", "/a;b/c/d", "/a/c%2Fd", "/a/c/d"]),
        ("/a;b%2Fc", &["/a;b%2Fc", "/a;b/c", "/a", "/a/c", "/a;b%2Fc", "/a;b/c", "/a", "/a"]),
        ("/a;b\\c", &["/a;b%5Cc", "/a;b/c", "/a", "/a/c", "/a;b%5Cc", "/a;b/c", "/a", "/a"]),
        ("/;/a", &["/;/a", "/a"]),
        ("/..;/a", &["/..;/a", "/a", "/..;/a", "/a"]),
        // What ends the path, and blanks and dots in front of it.
        ("/a%00b", &["/a%00b", "/a"]),
        ("/a%3Fb", &["/a%3Fb", "/a"]),
        ("/a?b", &["/a%3Fb", "/a"]),
        ("/a%23b", &["/a%23b", "/a"]),
        ("/a.%3Fb", &["/a.%3Fb", "/a.%3Fb", "/a.", "/a"]),
        ("/a..%00b", &["/a..%00b", "/a..", "/a..%00b", "/a", "/a..%00b", "/a"]),
        ("/a/..%00b", &["/a/..%00b", "/", "/a/..%00b", "/", "/a/..%00b", "/"]),
        ("/%00", &["/%00", "/", "/", "/"]),
        // Empty segments count only where `..` may follow them.
        ("/a//b", &["/a/b"]),
        ("/a//../b", &["/b", "/a/b"]),
        ("/a/../b//c", &["/b/c", "/b/c"]),
        ("/a/ /../b", &["/a/b", "/b", "/a/b", "/b"]),
        // A host.
        ("//a/b", &["/a/b", "/b"]),
        ("/%2Fa/b", &["/%2Fa/b", "/a/b", "/%2Fa/b", "/b"]),
        // Encoded twice, or not.
        ("/%252e", &["/%252e", "/"]),
        ("/%25", &["/%25"]),
        ("/%252", &["/%252"]),
        ("/%25zz", &["/%25zz"]),
        ("/%252z", &["/%252z"]),
        ("/%25%36%43", &["/%256C"]),
    ];
    for (path, expected) in rows {
        assert_eq!(readings(path), *expected, "{path}");
    }
}

#[test]
fn readings_are_bounded_exactly() {
    // Eight habits that make a difference are 256 readings, nine are 512.
    let eight = "/a%2Fb\\c%5Cd%3Fe%23f%00g;h/i%3Bj";
    assert_eq!(readings(eight).len(), 256);
    assert!(!each_reading(&format!("{eight}."), |_| panic!("handed over")));
    // Two readings of 32 KiB each, and of one byte more.
    let fits = format!("/{}%20", "a".repeat(32 * 1024 - 4));
    assert_eq!(readings(&fits).len(), 2);
    assert!(!each_reading(&format!("/a{}", &fits[1..]), |_| panic!("handed over")));
}

#[test]
fn a_path_stays_inside_if_it_does_in_each_reading() {
    let rows = [
        ("/", true),
        ("/a", true),
        ("/a/", true),
        ("/a//b", true),
        ("/a//", true),
        ("//", false),
        ("//a", false),
        ("/./", true),
        (".//a", false),
        ("/.//a", false),
        ("/..", false),
        ("/a/..", true),
        ("/a/../", true),
        ("/a/../..", false),
        ("/a/b/../..", true),
        ("/a/b/../../..", false),
        ("/a/b/c/../../../d", true),
        ("/a/..//b", false),
        ("/a/./../..", false),
        ("/a/. ./..", true),
        // In the first reading or the last alone.
        ("/ /..", false),
        ("/a/ /../..", false),
        ("/..%2Fa", false),
        ("/a/..%2Fb", true),
        ("/a%2F..", true),
        ("/a%2Fb/../..", false),
    ];
    for (path, inside) in rows {
        assert_eq!(stays_inside(path), inside, "{path}");
    }
}
