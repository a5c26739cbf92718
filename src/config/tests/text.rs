//! The text itself: what is JSON, with comments, and which line a value stands in.

use super::*;

#[test]
fn text_that_is_no_json_is_told_with_its_line() {
    for (text, expected) in [
        ("", "FILE:1: not JSON: the text is empty"),
        ("{\n# hello\n}", "FILE:2: not JSON: unexpected token, at column 1"),
        ("{\n\n/* hello\n}", "FILE:3: not JSON: unterminated comment block, at column 1"),
        ("// hello\n", "FILE:1: not JSON: the text is empty"),
        ("{\n,}", "FILE:2: not JSON: unexpected token in object, at column 1"),
        ("{\n\"a\": [1,, 2]}", "FILE:2: not JSON: unexpected comma, at column 9"),
        ("{\n\"a\": [,]}", "FILE:2: not JSON: unexpected comma, at column 7"),
        ("{\n\"a\": 1},", "FILE:2: not JSON: text cannot contain more than one JSON value, at column 8"),
        ("{/*\n*/\"a\": /* é */ 01}", "FILE:2: not JSON: expected comma, at column 17"),
        ("{\"a\": 1\n\"b\": 2}", "FILE:1: not JSON: expected comma, at column 8"),
        ("{\n\n'a': 1}", "FILE:3: not JSON: single-quoted strings are not allowed, at column 1"),
        ("{a: 1}", "FILE:1: not JSON: expected string for object property, at column 2"),
        ("{\"a\": 1", "FILE:1: not JSON: unterminated object, at column 1"),
        ("{\"a\": 1}\n{}", "FILE:2: not JSON: text cannot contain more than one JSON value, at column 1"),
        (
            "{\n\"a\": \"x\ty\"}",
            "FILE:2: not JSON: control character (\\u0000-\\u001F) found while parsing a string, at column 7",
        ),
        ("{\n\"a\": 01}", "FILE:2: not JSON: expected comma, at column 7"),
        ("[]", "FILE:1: must be an object; found an empty list"),
        ("\n\n\"x\"", "FILE:3: must be an object; found text"),
        (
            "{}",
            "FILE:1: backends: is missing; must be a list of 1 to 1024 backends: [\"http://127.0.0.1:9001\"] or [{\"name\": \"a\", \"url\": \"http://127.0.0.1:9001\"}]",
        ),
    ] {
        assert_eq!(load_with(text, &[]).map(|_| ()).unwrap_err(), expected, "{text:?}");
    }
    let deep = "[".repeat(100_000);
    assert!(load_with(&deep, &[]).unwrap_err().contains("not JSON"));
}

#[test]
fn a_mark_at_the_start_and_windows_line_ends_change_no_line() {
    let text = format!("\u{feff}{{\r\n\"backends\": [{ONE}],\r\n\"cahce\": {{}}\r\n}}");
    assert_eq!(load_with(&text, &[]).unwrap_err(), "FILE:3: cahce: unknown key; did you mean \"cache\"?");
}

#[test]
fn comments_and_commas_at_the_end_change_no_line_and_no_value() {
    let text = format!(
        "// what this is\r\n/* two\n   lines: {{ \"cache\": 1, // */ {{\n  \"backends\": [ {ONE}, ], // é \"x\"\n  /**/ \"listen\": \
         [\"127.0.0.1:1\", /* the second: \"127.0.0.1:2\" */],\n\n  \"$schema\": \"http://h/*x*/ // y\", //\n  \"cahce\": {{}},\n  \
         // \"audit\": {{ \"keep\": \"1d\" }}\n}}\n// the end"
    );
    assert_eq!(load_with(&text, &[]).unwrap_err(), "FILE:8: cahce: unknown key; did you mean \"cache\"?");
    let sound = text.replace("\"cahce\"", "\"cache\"");
    let config = load_with(&sound, &[]).unwrap();
    assert_eq!(config.listen, ["127.0.0.1:1".parse().unwrap()]);
    // The environment stands over such a file as over any other.
    let config = load_with(&sound, &[("BALANCER__LISTEN", "[\"127.0.0.1:3\",] // third")]).unwrap();
    assert_eq!(config.listen, ["127.0.0.1:3".parse().unwrap()]);
    for element in ["127.0.0.1:4", "\"127.0.0.1:4\""] {
        let config = load_with(&sound, &[("BALANCER__LISTEN__0", element)]).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:4".parse().unwrap()]);
    }
}
