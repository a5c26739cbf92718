//! `routes`, with files that are there.

use std::net::IpAddr;
use std::path::Path;

use super::*;
use crate::config::routes::{Redirect, RouteAction, RouteConfig};
use balancer_http::routes::HostPattern;
use balancer_http::template::Template;
use balancer_importance::Priority;

/// A folder with a file of users and a page in it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let users = format!("alice:{}\n", bcrypt::hash_with_salt("wonderland", 4, [7; 16]).unwrap());
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("users", users.as_bytes());
    write("sorry.html", b"<h1>Sorry</h1>");
    write("md5", b"# old\nbob:$apr1$a$b\neve:{SHA}x\n");
    write("empty", b"");
    write("latin", b"\xff:x");
    write("large", &vec![b'x'; (1 << 20) + 1]);
    folder
}

/// The faults of routes, which begin in line 3; without the folder's name.
fn read(folder: &Path, routes: &str) -> Result<Vec<RouteConfig>, String> {
    let text = format!(
        "{{\n\"backends\": [{ONE}], \"frontend\": {{\"max_body_bytes\": 1000}}, \"routes\": [\n{routes}\n]}}"
    );
    let read = from_text(&text, folder).map(|config| config.routes.all);
    read.map_err(|faults| faults.to_string().replace(&format!("{}/", folder.display()), ""))
}

#[test]
fn every_key_of_a_route_is_read() {
    let folder = folder();
    let routes = read(
        folder.path(),
        r#"{"host": "API.example.com.", "path": "/img/", "name": "images", "pool": "default", "limit": "10/s burst 20",
            "max_in_flight": 5, "priority": "critical", "max_body_bytes": 1000, "request_timeout": "5s", "strip_prefix": true, "add_prefix": "/v2/",
            "set_request_headers": {"X-Client": "$client_ip of $host", "X-Old": null},
            "set_response_headers": {"Cache-Control": "no-store"}, "allow": ["10.0.0.0/8", "::1"], "deny": "10.0.0.1",
            "basic_auth": "users", "errors": {"401": "sorry.html", "503": "sorry.html"}},
           {"host": "*.example.com", "redirect": {"to": "https://$host"}},
           {"path": "/old", "redirect": {"to": "/new?x=1", "status": 302}},
           {"path": "/robots.txt", "respond": {"body": "none"}, "buckets": [{"name": "hits", "amount": 5, "per": "1m"}]},
           {"path": "/gone", "respond": {"status": 410}, "buckets": [{"name": "hits", "amount": 5, "per": "1m"}]}"#,
    )
    .unwrap();
    let first = &routes[0];
    assert_eq!((&*first.name, &first.host), ("images", &HostPattern::Exact("api.example.com".into())));
    assert_eq!((first.path.as_str(), &first.action), ("/img/", &RouteAction::Pool("default".into())));
    assert_eq!((first.max_in_flight, first.max_body_bytes), (Some(5), Some(1_000)));
    assert_eq!((first.request_timeout, first.strip_prefix), (Some(Duration::from_secs(5)), true));
    assert_eq!((first.priority, routes[1].priority), (Some(Priority::Critical), None));
    assert_eq!(first.add_prefix.as_deref(), Some("/v2"));
    assert_eq!((first.set_request_headers.len(), &first.set_request_headers[1].value), (2, &None));
    assert_eq!(first.set_response_headers[0].name, "Cache-Control");
    assert_eq!((first.allow.len(), first.deny.len()), (2, 1));
    assert!(first.allow[0].contains(&"10.2.3.4".parse::<IpAddr>().unwrap()));
    let (hash, is_known) = first.users.as_ref().unwrap().hash_of(b"alice");
    assert!(is_known && hash.is_of(b"wonderland"));
    let pages: Vec<_> = first.errors.iter().map(|(status, page)| (*status, &**page)).collect();
    assert_eq!(pages, [(401, &b"<h1>Sorry</h1>"[..]), (503, b"<h1>Sorry</h1>")]);
    let bucket = &first.rules[0].buckets()[0];
    assert_eq!(
        (bucket.name.as_str(), bucket.limit.capacity, &*first.rules[0].name),
        ("images", 20, "images")
    );
    let redirect = |to: &str, keeps_path, status| {
        RouteAction::Redirect(Redirect { to: Template::parse(to).unwrap(), keeps_path, status })
    };
    assert_eq!(routes[1].action, redirect("https://$host", true, 308));
    assert_eq!((&*routes[1].name, &*routes[2].name), ("*.example.com/", "/old"));
    assert_eq!(routes[2].action, redirect("/new?x=1", false, 302));
    // One bucket, since both name it.
    assert_eq!(routes[3].rules, routes[4].rules);
    assert!(std::sync::Arc::ptr_eq(&routes[3].rules[0], &routes[4].rules[0]));
    let bare = read(folder.path(), r#"{"pool": "default"}"#).unwrap().remove(0);
    assert_eq!(
        (bare.host, bare.path.as_str(), &*bare.name, bare.rules.len()),
        (HostPattern::Any, "/", "/", 0)
    );
}

/// A route in line 3 and all that is said of it.
#[rustfmt::skip]
const ROWS: &[(&str, &[&str])] = &[
    (r#"{"pool": "defualt"}"#, &[r#"pool: names no pool: there are "default"; found "defualt"; did you mean "default"?"#]),
    (r#"{"pool": 5}"#, &["pool: must be the name of a pool or null; found 5"]),
    (r#"{"host": "a.test"}"#, &[r#"pool: is missing: a route has one of pool, redirect and respond; pools are "default""#]),
    (r#"{"pool": null}"#, &["pool: is missing: a route has one of"]),
    (r#"{"pool": "default", "respond": {}}"#, &["respond: must stand alone: a route has one of pool, redirect and respond"]),
    (r#"{"redirect": {"to": "/x"}, "respond": {}}"#, &["respond: must stand alone"]),
    (r#"{"pool": "default", "priority": "low"}"#, &[r#"priority: must be one of "critical", "normal", "background" or null; found "low""#]),
    (r#"{"pool": "default", "hots": "a"}"#, &[r#"hots: unknown key; did you mean "host"?"#]),
    (r#"{"pool": "default", "host": "a.*.test"}"#, &[r#"host: may hold a * as its whole first label alone, as in "*.example.com"; found "a.*.test""#]),
    (r#"{"pool": "default", "host": "*"}"#, &["host: must be left out for a route that is for every host"]),
    (r#"{"pool": "default", "host": "a.test:80"}"#, &["host: must be a host without a port"]),
    (r#"{"pool": "default", "host": "http://a.test"}"#, &["host: must be a host name, an IPv4 address"]),
    (r#"{"pool": "default", "path": "img"}"#, &[r#"path: must be a path that begins with /, without a query, such as "/login"; found "img""#]),
    (r#"{"pool": "default", "path": "/a?b"}"#, &["path: must be a path that begins with /"]),
    (r#"{"pool": "default", "name": "concurrency"}"#, &["name: must be 1 to 64 printable ASCII characters"]),
    (r#"{"pool": "default", "strip_prefix": true}"#, &[r#"strip_prefix: has nothing to take off: the route's path is "/""#]),
    (r#"{"pool": "default", "path": "//.", "strip_prefix": true}"#, &["strip_prefix: has nothing to take off"]),
    (r#"{"pool": "default", "add_prefix": "v2"}"#, &[r#"add_prefix: must be a path below which others stand, such as "/v2" or null; found "v2""#]),
    (r#"{"pool": "default", "add_prefix": "/a/../b"}"#, &["add_prefix: must be a path below"]),
    (r#"{"pool": "default", "add_prefix": "/"}"#, &["add_prefix: must be a path below"]),
    (r#"{"pool": "default", "max_body_bytes": 1001}"#, &["max_body_bytes: must be at most frontend.max_body_bytes, which is 1000; found 1001"]),
    (r#"{"pool": "default", "request_timeout": "2d"}"#, &[r#"request_timeout: must be a duration from "1ms" to "1d""#]),
    (r#"{"pool": "default", "max_in_flight": 0}"#, &["max_in_flight: must be a whole number from 1 to 1000000 or null; found 0"]),
    (r#"{"pool": "default", "limit": "fast"}"#, &["limit: "]),
    (r#"{"pool": "default", "limit": "1/s", "buckets": [{"name": "a", "amount": 1, "per": "1s"}]}"#, &["limit: must stand alone: a route has limit or buckets"]),
    (r#"{"pool": "default", "path": "/é", "limit": "1/s"}"#, &["name: is missing: host and path are too long for the name of its limit's bucket, or not ASCII"]),
    (r#"{"pool": "default", "allow": ["10.0.0.0/33"]}"#, &["allow: must be an IP network such as \"10.0.0.0/8\" or an IP address; found \"10.0.0.0/33\""]),
    (r#"{"pool": "default", "deny": ["10.0.0.1", "all"]}"#, &["deny[1]: must be an IP network"]),
    (r#"{"pool": "default", "set_request_headers": {"Host": "x"}}"#, &["set_request_headers.Host: can't be set: Balancer writes it itself"]),
    (r#"{"pool": "default", "set_request_headers": {"x-forwarded-for": null}}"#, &["set_request_headers.x-forwarded-for: can't be set: Balancer writes it itself"]),
    (r#"{"pool": "default", "set_request_headers": {"Connection": "close"}}"#, &["set_request_headers.Connection: can't be set: it says how one connection works"]),
    (r#"{"pool": "default", "set_response_headers": {"content-length": "5"}}"#, &["set_response_headers.content-length: can't be set: it says how"]),
    (r#"{"pool": "default", "set_response_headers": {"Date": "x", "RateLimit": null}}"#, &["set_response_headers.Date: can't be set", "set_response_headers.RateLimit: can't be set"]),
    (r#"{"pool": "default", "set_response_headers": {"X A": "x"}}"#, &["set_response_headers.X A: must be the name of a field"]),
    (r#"{"pool": "default", "set_response_headers": {"X": "a\r\nSet-Cookie: b"}}"#, &["set_response_headers.X: must hold no line's end (CR, LF)"]),
    (r#"{"pool": "default", "set_response_headers": {"X": "a\u0000"}}"#, &["set_response_headers.X: must hold no line's end"]),
    (r#"{"pool": "default", "set_response_headers": {"X": " a"}}"#, &["set_response_headers.X: must not begin or end with a blank"]),
    (r#"{"pool": "default", "set_response_headers": {"X": 5}}"#, &["set_response_headers.X: must be a text or null; found 5"]),
    (r#"{"pool": "default", "set_response_headers": {"X": "a", "x": "b"}}"#, &["set_response_headers.x: doubled field"]),
    (r#"{"pool": "default", "set_response_headers": {"X": "$remote_addr"}}"#, &[r#"set_response_headers.X: has a $ that begins no variable: there are $client_ip, $request_id and $host, and $$ is a dollar; found "$remote_addr""#]),
    (r#"{"pool": "default", "set_response_headers": {"X": "$client_pi"}}"#, &["set_response_headers.X: has a $ that begins no variable"]),
    (r#"{"pool": "default", "set_request_headers": []}"#, &["set_request_headers: must be an object of at most 64 fields"]),
    (r#"{"redirect": {}}"#, &["redirect.to: is missing; must be a URL such as"]),
    (r#"{"redirect": "https://a.test"}"#, &["redirect: must be an object; found text"]),
    (r#"{"redirect": {"to": "ftp://a"}}"#, &["redirect.to: must be a URL such as"]),
    (r#"{"redirect": {"to": "//a.test"}}"#, &["redirect.to: must be a URL such as"]),
    (r#"{"redirect": {"to": "https:///x"}}"#, &["redirect.to: must be a URL such as"]),
    (r#"{"redirect": {"to": "https://u:p@a"}}"#, &["redirect.to: must be a URL such as"]),
    (r#"{"redirect": {"to": "https://a.test/\r\nX: y"}}"#, &["redirect.to: must be a URL such as"]),
    (r#"{"redirect": {"to": "https://$hots"}}"#, &["redirect.to: has a $ that begins no variable"]),
    (r#"{"redirect": {"to": "/x", "status": 300}}"#, &["redirect.status: must be 301, 302, 303, 307 or 308; found 300"]),
    (r#"{"respond": {"status": 199}}"#, &["respond.status: must be a whole number from 200 to 599; found 199"]),
    (r#"{"respond": {"status": 204, "body": "x"}}"#, &["respond.body: must be empty: an answer with status 204 has none"]),
    (r#"{"respond": {"boody": "x"}}"#, &[r#"respond.boody: unknown key; did you mean "body"?"#]),
    (r#"{"respond": {}, "strip_prefix": false, "request_timeout": "1s"}"#, &["request_timeout: is for requests that go to a pool, and this route answers them itself; take it out", "strip_prefix: is for requests"]),
    (r#"{"redirect": {"to": "/x"}, "set_request_headers": {}}"#, &["set_request_headers: is for requests that go to a pool, and this route redirects"]),
    (r#"{"pool": "default", "basic_auth": "nobody"}"#, &["basic_auth: nobody cannot be read: No such file"]),
    (r#"{"pool": "default", "basic_auth": "."}"#, &["basic_auth: . is no file"]),
    (r#"{"pool": "default", "basic_auth": "md5"}"#, &[r#"basic_auth: md5 line 2: the password of "bob" is hashed by Apache's MD5; must be hashed by bcrypt ($2y$, $2a$ or $2b$): htpasswd -B FILE bob"#, r#"basic_auth: md5 line 3: the password of "eve" is hashed by SHA-1"#]),
    (r#"{"pool": "default", "basic_auth": "empty"}"#, &["basic_auth: empty holds no user"]),
    (r#"{"pool": "default", "basic_auth": "latin"}"#, &["basic_auth: latin is not UTF-8"]),
    (r#"{"pool": "default", "basic_auth": "large"}"#, &["basic_auth: large is longer than 1048576 bytes"]),
    (r#"{"pool": "default", "errors": {"503": "none.html"}}"#, &["errors.503: none.html cannot be read: No such file"]),
    (r#"{"pool": "default", "errors": {"200": "sorry.html", "5xx": "sorry.html", "0503": "sorry.html"}}"#, &["errors.200: must be a status from 400 to 599", "errors.5xx: must be a status", "errors.0503: must be a status"]),
    (r#"{"pool": "default", "errors": {"503": 5}}"#, &["errors.503: must be a path; found 5"]),
    (r#"{"pool": "default", "errors": {"503": "large"}}"#, &["errors.503: large is longer than 262144 bytes"]),
];

#[test]
fn a_route_that_is_none_says_what_is_allowed() {
    let folder = folder();
    for (route, expected) in ROWS {
        let faults = read(folder.path(), route).map(|_| ()).unwrap_err();
        let lines: Vec<&str> = faults.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{route}\n{faults}");
        for (line, expected) in lines.iter().zip(*expected) {
            let rest =
                line.strip_prefix("config.json:3: routes[0].").unwrap_or_else(|| panic!("{route}\n{line}"));
            assert!(rest.starts_with(expected), "{line}\n{expected}");
        }
    }
}

#[test]
fn what_is_wrong_between_routes_is_told_with_both_places() {
    let folder = folder();
    let faults = read(
        folder.path(),
        r#"{"host": "a.test", "path": "/x", "pool": "default"},
           {"host": "A.TEST.", "path": "/%78", "pool": "none"},
           {"path": "/a", "pool": "default", "buckets": [{"name": "hits", "amount": 5, "per": "1m"}]},
           {"path": "/b", "pool": "default", "buckets": [{"name": "hits", "amount": 6, "per": "1m"}]}"#,
    );
    let expected = [
        r#"config.json:4: routes[1].pool: names no pool: there are "default"; found "none""#,
        "config.json:4: routes[1].path: is for the same requests as routes[0] (line 3): two routes differ in host or path",
        r#"config.json:6: routes[3].buckets[0]: "hits" has other numbers in the route "/a": a bucket that several routes name is one bucket"#,
    ];
    assert_eq!(faults.map(|_| ()).unwrap_err().lines().collect::<Vec<_>>(), expected);
    let faults = read(
        folder.path(),
        r#"{"path": "/a", "pool": "default"},
           {"path": "/b", "name": "/a", "pool": "default"}"#,
    );
    let expected = r#"config.json:4: routes[1].name: "/a" names routes[0] already; names must differ"#;
    assert_eq!(faults.map(|_| ()).unwrap_err(), expected);
}

#[test]
fn a_reload_tells_routes_that_changed_and_no_others() {
    let folder = folder();
    let given = |routes: &str| {
        let text = format!(r#"{{"backends": [{ONE}], "routes": [{routes}]}}"#);
        from_text(&text, folder.path()).unwrap().given
    };
    let one = r#"{"pool": "default", "set_request_headers": {"X": "a"}, "errors": {"503": "sorry.html"}}"#;
    let (before, same) = (given(one), given(one));
    assert!(before.differing(&same).is_empty());
    let other = given(&one.replace("\"a\"", "\"b\""));
    assert_eq!((before.differing(&other), is_live("routes[0].pool")), (vec!["routes".to_owned()], true));
}
