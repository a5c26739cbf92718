//! Backends: how they are written, and what is wrong with them.

use super::*;

const URL: &str = "must be http://HOST[:PORT], https://HOST[:PORT] or srv://_SERVICE._PROTO.DOMAIN";

/// URLs of backends, and what is wrong with each.
fn url_rows() -> Vec<(&'static str, String)> {
    const PLAIN: &str = "must be http://HOST[:PORT]";
    const SECURE: &str = "must be https://HOST[:PORT]";
    const SRV: &str = "must be srv://_SERVICE._PROTO.DOMAIN";
    const PATH: &str = "must not have a path: requests keep their own";
    const USER: &str = "must not hold a user or password";
    let unlike =
        ["h:1", "http://h:0", "http://h:65536", "http://h:+1", "http://1.2.3", "http://[::1", "http://"]
            .into_iter()
            .chain(["srv+https://_http._tcp.h"])
            .map(|url| (url, format!("{URL}; found {url:?}")));
    let parts = [
        ("http://h:1/api", format!("{PATH}; {PLAIN}")),
        ("http://h:1?x", format!("must not have a query: requests keep their own; {PLAIN}")),
        ("http://u:hunter2@h:1", format!("{USER}; {PLAIN}")),
        ("https://h/x", format!("{PATH}; {SECURE}")),
        ("srv://_http._tcp.h:80", format!("must not have a port: SRV records say it; {SRV}")),
        ("srv://_http._tcp.h/x", format!("{PATH}; {SRV}")),
        ("srv://u:hunter2@_http._tcp.h", format!("{USER}; {SRV}")),
        ("srv://api.example.com", format!("is no name of SRV records (RFC 2782); {SRV}")),
    ];
    unlike.chain(parts).collect()
}

/// The second of two backends, and what its one fault says.
pub(super) fn backend_rows() -> Vec<(String, String)> {
    let rows = [
        (r#"{"url": "http://h:1"}"#, "name: is missing; must be 1 to 128 letters, digits and . _ - : [ ]"),
        (
            r#"{"name": "a", "url": "http://h:1"}"#,
            r#"name: "a" names another backend already; names must differ"#,
        ),
        (
            r#"{"name": "b c", "url": "http://h:1"}"#,
            r#"name: must be 1 to 128 letters, digits and . _ - : [ ]; found "b c""#,
        ),
        (
            r#"{"name": "b", "url": "http://h:1", "weight": 1001}"#,
            "weight: must be a whole number from 0 to 1000; found 1001",
        ),
        (
            r#"{"name": "b", "url": "http://h:1", "max_in_flight": 0}"#,
            r#"max_in_flight: must be a whole number from 1 to 1000000, "auto" or null; found 0"#,
        ),
        (
            r#"{"name": "b", "url": "http://h:1", "max_in_flight": "Auto"}"#,
            r#"max_in_flight: must be a whole number from 1 to 1000000, "auto" or null; found "Auto""#,
        ),
        (
            r#"{"name": "b", "url": "http://h:1", "wieght": 1}"#,
            r#"wieght: unknown key; did you mean "weight"?"#,
        ),
    ];
    let rows = rows.map(|(element, fault)| (element.to_owned(), format!("backends[1].{fault}")));
    let more = [
        ("7", "backends[1]: must be an object; found a number".to_owned()),
        (r#"{"name": "b"}"#, format!("backends[1].url: is missing; {URL}")),
        (r#""h:1""#, format!("backends[1].url: {URL}; found \"h:1\"")),
    ];
    let more = more.map(|(element, fault)| (element.to_owned(), fault));
    let of_url = |(url, fault): (&str, String)| {
        (format!(r#"{{"name": "b", "url": "{url}"}}"#), format!("backends[1].url: {fault}"))
    };
    rows.into_iter().chain(more).chain(url_rows().into_iter().map(of_url)).collect()
}

#[test]
fn each_fault_of_a_backend_names_its_line_its_key_and_what_is_allowed() {
    for (element, expected) in backend_rows() {
        let text = format!("{{\n\"backends\": [{ONE},\n{element}]\n}}");
        let found = load_with(&text, &[]).map(|_| ()).unwrap_err();
        assert_eq!(found, format!("FILE:3: {expected}"), "{element}");
    }
}

#[test]
fn a_name_of_srv_records_has_no_port_and_a_backend_may_be_called_by_it() {
    let text =
        r#"{"backends": ["srv://_http._tcp.Api.example.com", {"name": "web", "url": "srv://_web._tcp.h/"}]}"#;
    let config = load_with(text, &[]).unwrap();
    let found: Vec<_> = config.pools[0]
        .backends
        .iter()
        .map(|one| (one.name.as_str(), one.host.as_str(), one.is_srv(), one.url()))
        .collect();
    let url = |host: &str| format!("srv://{host}");
    assert_eq!(
        found,
        [
            (
                "_http._tcp.Api.example.com",
                "_http._tcp.api.example.com",
                true,
                url("_http._tcp.api.example.com")
            ),
            ("web", "_web._tcp.h", true, url("_web._tcp.h")),
        ]
    );
}
