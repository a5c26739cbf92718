use proptest::prelude::*;

use super::*;
use crate::path::{is_below, is_below_in_any_case};

fn table(routes: &[(&str, &str)]) -> RouteTable {
    RouteTable::new(patterns(routes).iter().map(|(host, path)| (host, path.as_str()))).unwrap()
}

fn patterns(routes: &[(&str, &str)]) -> Vec<(HostPattern, String)> {
    let pattern = |host: &str| match host {
        "" => HostPattern::Any,
        host => HostPattern::parse(host).unwrap(),
    };
    routes.iter().map(|(host, path)| (pattern(host), (*path).to_owned())).collect()
}

#[test]
fn the_more_specific_host_wins_then_the_longer_path() {
    let routes = [
        ("", "/"),
        ("", "/.well-known/"),
        ("*.example.com", "/"),
        ("*.b.example.com", "/x"),
        ("a.example.com", "/"),
        ("a.example.com", "/img/"),
        ("a.example.com", "/img/big"),
        ("bare.test", "/only"),
        ("[::1]", "/"),
        ("192.0.2.1", "/"),
        ("*.test", "/only/deep"),
    ];
    let table = table(&routes);
    let rows: &[(Option<&str>, &str, usize)] = &[
        (None, "/", 0),
        (Some(""), "/x", 0),
        (Some("example.com"), "/", 0),
        (Some("x.example.com"), "/", 2),
        (Some("x.y.example.com"), "/y/z", 2),
        (Some("x.b.example.com"), "/x", 3),
        (Some("x.b.example.com"), "/y", 2),
        (Some("b.example.com"), "/x", 2),
        (Some("a.example.com"), "/", 4),
        (Some("A.EXAMPLE.com"), "/img", 4),
        (Some("a.example.com."), "/img/", 5),
        (Some("a.example.com:8080"), "/img/x", 5),
        (Some("a.example.com.:80"), "/img/bigger", 5),
        (Some("a.example.com"), "/img/big/x", 6),
        (Some("a.example.com"), "//x/../%69mg/./big", 6),
        // Its host has a route for `/`, which comes before the longer path for any host.
        (Some("a.example.com"), "/.well-known/acme", 4),
        (Some("bare.test"), "/", 0),
        (Some("bare.test"), "/only/x", 7),
        (Some("bare.test"), "/only/deep", 7),
        (Some("other.test"), "/only/deep", 10),
        (Some("[::1]:443"), "/", 8),
        (Some("[0:0::1]"), "/", 8),
        (Some("[::2]"), "/", 0),
        (Some("192.0.2.1:80"), "/", 9),
        (Some("xexample.com"), "/", 0),
    ];
    for (host, path, expected) in rows {
        let met = table.met(*host, path).unwrap();
        assert_eq!((met.by, met.all.first()), (Some(*expected), Some(expected)), "{host:?} {path}");
    }
}

#[test]
fn without_a_route_that_fits_there_is_none() {
    let some = table(&[("a.test", "/a"), ("*.test", "/b/")]);
    for (host, path) in
        [("a.test", "/"), ("a.test", "/ab"), ("b.test", "/b"), ("c.tests", "/a"), ("a.test", "a")]
    {
        assert_eq!(some.met(Some(host), path), Ok(MetRoutes::default()), "{host} {path}");
    }
    assert_eq!(some.met(None, "/a"), Ok(MetRoutes::default()));
    for (host, path) in [(Some("a.test"), "/"), (None, "/;/..%2f")] {
        assert_eq!(table(&[]).met(host, path), Ok(MetRoutes::default()), "{host:?} {path}");
    }
}

/// A request goes by the normal form of its path, and meets the routes of the other readings too.
#[test]
fn every_reading_meets_its_route() {
    let table = table(&[
        ("", "/"),
        ("", "/admin"),
        ("", "/admin/users"),
        ("a.test", "/public"),
        ("a.test", "/Admin"),
        ("a.test", "/ADMIN"),
        ("b.test", "/deep/er"),
    ]);
    let rows: &[(&str, &str, &[usize])] = &[
        ("b.test", "/admin", &[1]),
        ("b.test", "/ADMIN", &[0, 1]),
        ("b.test", "/admin/Users/x", &[1, 2]),
        ("b.test", "/x/..%2fadmin", &[0, 1]),
        ("b.test", "/x/..%5cAdmin", &[0, 1]),
        ("b.test", "/admin%2fusers", &[0, 2]),
        ("b.test", "/admin;v=1", &[0, 1]),
        ("b.test", "/DEEP/er", &[0, 6]),
        // With the case of letters ignored, `/Admin` and `/ADMIN` fit both, and their host is more specific.
        ("a.test", "/admin", &[1, 4, 5]),
        ("a.test", "/Admin", &[4]),
        // The same, and what any host has does not count beside them.
        ("a.test", "/ADMin", &[0, 4, 5]),
        ("a.test", "/public/..;/admin", &[3, 4, 5, 1]),
    ];
    for (host, path, expected) in rows {
        let met = table.met(Some(host), path).unwrap();
        let (mut all, mut wanted) = (met.all.to_vec(), expected.to_vec());
        assert_eq!((met.by.as_ref(), all.first()), (expected.first(), expected.first()), "{host} {path}");
        all.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(all, wanted, "{host} {path}");
    }
}

/// Otherwise one short path could cost thousands of look-ups.
#[test]
fn a_path_with_more_readings_than_are_looked_at_meets_nothing() {
    let many = "/public/a;%3B%2f%5c\\. /%00%2500/..";
    let some = table(&[("", "/"), ("a.test", "/public")]);
    assert_eq!(some.met(Some("a.test"), many), Err(TooManyReadings));
    // Without routes nothing is looked at.
    assert_eq!(table(&[]).met(Some("a.test"), many), Ok(MetRoutes::default()));
}

#[test]
fn routes_for_the_same_requests_are_told() {
    let routes = [
        ("a.test", "/x"),
        ("b.test", "/x"),
        ("", "/"),
        ("*.a.test", "/x"),
        ("[::1]", "/x"),
        // These three differ.
        ("", "/x"),
        ("", "/x/"),
        ("", "/X"),
        // Each of these equals one above.
        ("A.TEST.", "/%78"),
        ("", "//"),
        ("*.A.test.", "/./x"),
        ("[0:0::1]", "/x"),
        ("a.test", "/y/../x"),
    ];
    let patterns = patterns(&routes);
    let same = RouteTable::new(patterns.iter().map(|(host, path)| (host, path.as_str()))).unwrap_err();
    let pairs: Vec<(usize, usize)> = same.iter().map(|same| (same.first, same.second)).collect();
    assert_eq!(pairs, [(0, 8), (2, 9), (3, 10), (4, 11), (0, 12)]);
}

#[test]
fn hosts_are_read_in_one_form() {
    let exact = |name: &str| Ok(HostPattern::Exact(name.into()));
    let below = |name: &str| Ok(HostPattern::Below(name.into()));
    let rows = [
        ("a.test", exact("a.test")),
        ("A.Test.", exact("a.test")),
        ("localhost", exact("localhost")),
        ("a_b.test", exact("a_b.test")),
        ("192.0.2.1", exact("192.0.2.1")),
        ("[2001:DB8:0::1]", exact("[2001:db8::1]")),
        ("*.Example.com", below("example.com")),
        ("*.com.", below("com")),
        ("*", Err(HostFault::Everything)),
        ("*.", Err(HostFault::NoHost)),
        ("*a.test", Err(HostFault::Wildcard)),
        ("a.*.test", Err(HostFault::Wildcard)),
        ("*.*.test", Err(HostFault::Wildcard)),
        ("a.*", Err(HostFault::Wildcard)),
        ("*.192.0.2.1", Err(HostFault::NoHost)),
        ("*.[::1]", Err(HostFault::NoHost)),
        ("a.test:80", Err(HostFault::Port)),
        ("[::1]:80", Err(HostFault::Port)),
        ("a..test", Err(HostFault::NoHost)),
        (".test", Err(HostFault::NoHost)),
        ("", Err(HostFault::NoHost)),
        ("::1", Err(HostFault::NoHost)),
        ("http://a.test", Err(HostFault::NoHost)),
        ("a.test/x", Err(HostFault::NoHost)),
        ("a b", Err(HostFault::NoHost)),
        ("ex\u{e4}mple.test", Err(HostFault::NoHost)),
    ];
    for (text, expected) in rows {
        assert_eq!(HostPattern::parse(text), expected, "{text:?}");
    }
}

/// The routes that fit best, found by looking at every route.
fn naive(
    routes: &[(HostPattern, String)],
    host: &str,
    path: &str,
    below: fn(&str, &str) -> bool,
) -> Vec<usize> {
    let rank = |pattern: &HostPattern| match pattern {
        HostPattern::Any => Some(0),
        HostPattern::Exact(name) => (**name == *host).then_some(usize::MAX),
        HostPattern::Below(name) => host.ends_with(&format!(".{name}")).then_some(name.len()),
    };
    let fits = |(number, (pattern, above)): (usize, &(HostPattern, String))| {
        let rank = rank(pattern).filter(|_| below(path, above))?;
        Some(((rank, above.len()), number))
    };
    let all: Vec<_> = routes.iter().enumerate().filter_map(fits).collect();
    let best = all.iter().map(|(key, _)| *key).max();
    all.iter().filter(|(key, _)| Some(*key) == best).map(|(_, number)| *number).collect()
}

fn hosts() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "c"], 1..4).prop_map(|labels| labels.join("."))
}

fn paths() -> impl Strategy<Value = String> {
    let segments = proptest::collection::vec(prop_oneof!["a", "A", "b", "aa"], 0..4);
    (segments, any::<bool>()).prop_map(|(segments, open)| {
        let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        if path.is_empty() || open { path + "/" } else { path }
    })
}

proptest! {
    #[test]
    fn it_finds_what_looking_at_every_route_finds(
        routes in proptest::collection::vec((hosts(), 0..3u8, paths()), 0..24),
        host in hosts(),
        path in paths(),
    ) {
        let pattern = |(host, kind, path): &(String, u8, String)| match kind {
            0 => (HostPattern::Any, path.clone()),
            1 => (HostPattern::Exact(host.as_str().into()), path.clone()),
            _ => (HostPattern::Below(host.as_str().into()), path.clone()),
        };
        let mut routes: Vec<_> = routes.iter().map(pattern).collect();
        routes.sort_by_key(|(host, path)| (host.to_string(), path.clone()));
        routes.dedup();
        let table = RouteTable::new(routes.iter().map(|(host, path)| (host, path.as_str()))).unwrap();
        let exact = naive(&routes, &host, &path, is_below);
        let met = table.met(Some(&host), &path).unwrap();
        prop_assert_eq!(met.by, exact.first().copied());
        let mut wanted = exact;
        let loose = naive(&routes, &host, &path, is_below_in_any_case);
        let length = |number: &usize| routes[*number].1.len();
        let is_more = |loose: &[usize], exact: &[usize]| {
            loose.first().map(|one| (routes[*one].0.to_string(), length(one)))
                != exact.first().map(|one| (routes[*one].0.to_string(), length(one)))
        };
        if is_more(&loose, &wanted) {
            wanted.extend(loose.into_iter().filter(|number| !wanted.contains(number)).collect::<Vec<_>>());
        }
        let mut all = met.all.to_vec();
        all.sort_unstable();
        wanted.sort_unstable();
        prop_assert_eq!(all, wanted);
    }
}
