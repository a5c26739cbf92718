use super::*;
use crate::declare::schema_of_value;

/// The route's path, its argument and its base; `-` for ours with nothing there, `` for not ours.
fn found(path: &str, surface: Surface, api_is_public: bool) -> String {
    match find(path, surface, api_is_public) {
        None => String::new(),
        Some(FoundRoute::Nothing) => "-".into(),
        Some(FoundRoute::Route(route, arguments, base)) => {
            format!("{base}|{}|{}", route.path, arguments[0].unwrap_or(""))
        }
    }
}

#[test]
fn which_paths_are_ours_on_which_listener() {
    let rows = [
        // path, public port with the API, public port beside an admin listener, admin listener
        ("/-/livez", "/-|/livez|", "/-|/livez|", "/-|/livez|"),
        ("/livez", "", "", "|/livez|"),
        ("/-/metrics", "/-|/metrics|", "", "/-|/metrics|"),
        ("/metrics", "", "", "|/metrics|"),
        ("/limits", "|/limits|", "", "|/limits|"),
        ("/limits/get", "|/limits/get|", "", "|/limits/get|"),
        ("/-/limits", "", "", "-"),
        ("/limits/", "", "", "-"),
        ("/-/v1/status", "/-|/v1/status|", "", "/-|/v1/status|"),
        ("/v1/status", "", "", "|/v1/status|"),
        ("/-/v1/nothing", "-", "", "-"),
        ("/-/v1/", "-", "", "-"),
        ("/-/v1", "-", "", "-"),
        ("/-/v1x", "", "", "-"),
        ("/-/V1/status", "", "", "-"),
        ("/-v1/status", "", "", "-"),
        ("/-", "", "", "-"),
        ("/-/-/livez", "", "", "-"),
        ("/v1", "", "", "-"),
        ("/", "", "", "|/dashboard|"),
        ("/-/", "", "", "-"),
        ("/-/dashboard", "/-|/dashboard|", "", "/-|/dashboard|"),
        ("/dashboard", "", "", "|/dashboard|"),
        ("/-/dashboard.js", "/-|/dashboard.js|", "", "/-|/dashboard.js|"),
        ("*", "", "", "-"),
    ];
    for (path, shared, apart, admin) in rows {
        assert_eq!(found(path, Surface::Public, true), shared, "{path} on the public port");
        assert_eq!(found(path, Surface::Public, false), apart, "{path} beside an admin listener");
        for api_is_public in [true, false] {
            assert_eq!(found(path, Surface::Admin, api_is_public), admin, "{path} on the admin listener");
        }
    }
}

#[test]
fn a_parameter_is_one_segment_as_it_was_sent() {
    let rows: &[(&str, &str, Option<&[&str]>)] = &[
        ("/v1/limits/{id}", "/v1/limits/a", Some(&["a"])),
        ("/v1/limits/{id}", "/v1/limits/10.0.0.0%2F8", Some(&["10.0.0.0%2F8"])),
        ("/v1/limits/{id}", "/v1/limits/..", Some(&[".."])),
        ("/v1/limits/{id}", "/v1/limits/", None),
        ("/v1/limits/{id}", "/v1/limits/a/", None),
        ("/v1/limits/{id}", "/v1/limits/a/usage", None),
        ("/v1/limits/{id}/usage", "/v1/limits/a/usage", Some(&["a"])),
        ("/v1/limits/{id}/usage", "/v1/limits//usage", None),
        ("/v1/limits/{id}/usage", "/v1/limits/a", None),
        ("/v1/limits/{id}/usage", "/v1/limits/usage", None),
        ("/v1/limit", "/v1/limit", Some(&[])),
        ("/v1/limit", "/v1/limits", None),
        ("/v1/pools/{pool}/backends/{name}", "/v1/pools/a/backends/b", Some(&["a", "b"])),
        ("/v1/pools/{pool}/backends/{name}", "/v1/pools//backends/b", None),
        ("/v1/pools/{pool}/backends/{name}", "/v1/pools/a/backends/", None),
        ("/v1/pools/{pool}/backends/{name}", "/v1/pools/a/b/backends/c", None),
    ];
    for (route, path, expected) in rows {
        let found = matches(route, path).map(|found| found.into_iter().flatten().collect::<Vec<_>>());
        assert_eq!(found.as_deref(), *expected, "{route} {path}");
    }
}

#[test]
fn the_table_says_what_it_has() {
    let mut paths = std::collections::HashSet::new();
    let mut ids = std::collections::HashSet::new();
    for route in resources().flat_map(|resource| resource.routes) {
        assert!(paths.insert(route.path), "{} stands there twice", route.path);
        assert!(route.path.matches('{').count() <= 2, "{}", route.path);
        assert_eq!(route.argument_names().count(), route.arguments.len(), "{}", route.path);
        for operation in route.operations {
            if operation.method == "GET" {
                assert_ne!(operation.access, Permission::Write, "{} changes nothing", route.path);
            }
            assert!(ids.insert(operation.id), "{} names two operations", operation.id);
            for parameter in operation.parameters {
                assert!(schema_of_value(&parameter.spec()).is_object(), "{}", parameter.spec().name);
            }
        }
    }
}
