use super::*;

const SHIPPED: &str = include_str!("../../../config.json");

#[test]
fn the_shipped_file_says_what_the_code_does_without_it_except_for_the_default_limit() {
    let base = PathBuf::from("/srv");
    let mut shipped = from_text(SHIPPED, &base).unwrap();
    let bare = from_text(&format!(r#"{{"backends": [{ONE}]}}"#), &base).unwrap();
    let limit = shipped.rate_limit.default.take().unwrap().first().unwrap();
    assert!(shipped.changed.is_empty() && bare.changed.is_empty(), "{:?}", shipped.changed);
    assert_eq!((limit.capacity, limit.rate.micro, limit.rate.per_secs), (1000, 500_000_000, 1));
    assert_eq!(bare.rate_limit.default, None);
    assert_eq!(format!("{shipped:#?}"), format!("{bare:#?}"));
}

#[test]
fn every_default_is_what_its_own_key_accepts() {
    // A file that spells every default out reads as one that spells none.
    let loaded = load(&Options { to: vec![":9001".into()], ..Options::default() }, &[]).unwrap();
    let mut root = serde_json::json!({"backends": [{"name": "a", "url": "http://127.0.0.1:9001"}]});
    for key in &loaded.keys {
        // Keys of an object that is `null` by default are not read unless it is given.
        let is_optional = |other: &Key| {
            matches!(other.shape, Shape::Section)
                && other.default == "null"
                && key.path.starts_with(&format!("{}.", other.path))
        };
        if loaded.keys.iter().any(is_optional) {
            continue;
        }
        if matches!(key.shape, Shape::Section) || key.default.is_empty() || key.path.contains("[]") {
            continue;
        }
        let value: serde_json::Value = serde_json::from_str(key.default).unwrap();
        let mut at = &mut root;
        for part in key.path.split('.') {
            at = at.as_object_mut().unwrap().entry(part).or_insert_with(|| serde_json::json!({}));
        }
        *at = value;
    }
    let spelled = from_text(&root.to_string(), &PathBuf::from("/srv")).unwrap();
    let bare = from_text(&format!(r#"{{"backends": [{ONE}]}}"#), &PathBuf::from("/srv")).unwrap();
    assert_eq!(format!("{spelled:#?}"), format!("{bare:#?}"));
    assert_eq!(bare.pools[0].health_check.as_ref().unwrap().expect, [(200, 499)]);
    assert_eq!(bare.frontend.head_timeout, Duration::from_secs(10));
    assert_eq!(bare.admin.allow.len(), 2);
}

/// Keys that the shipped file leaves out: it shows the common ones, docs/configuration.md has all.
const LEFT_OUT: &[&str] = &[
    "admin.metrics_without_token",
    "admin.tokens",
    "discovery",
    "$schema",
    "frontend.accept_invalid",
    "frontend.h2c",
    "frontend.proxy_protocol",
    "frontend.tunnel_timeout",
    "backends[].backup",
    "backends[].slow_start",
    "backends[].max_in_flight",
    "balancing.",
    "outlier",
    "pools",
    "upstream.re",
    "upstream.max_head",
    "upstream.accept_invalid",
    "upstream.via",
    "rate_limit.default",
    "routes",
    "rate_limit.rules",
    "rate_limit.cors",
    "rate_limit.unknown_keys",
    "rate_limit.shared_budget",
    "audit",
    "database.listen_url",
    "log.format",
    "log.access_format",
    "log.query",
    "otel",
    "tls",
    "upstream.tls",
];

#[test]
fn the_shipped_file_names_every_key_but_the_rarer_ones_and_each_key_says_what_it_is_for() {
    let loaded = load(&Options { to: vec![":9001".into()], ..Options::default() }, &[]).unwrap();
    let shipped: serde_json::Value = serde_json::from_str(SHIPPED).unwrap();
    for key in &loaded.keys {
        let pointer = format!("/{}", key.path.replace("[]", "/0").replace('.', "/"));
        let there = shipped.pointer(&pointer).is_some();
        let may_lack = LEFT_OUT.iter().any(|rare| key.path.starts_with(rare));
        assert!(there || may_lack, "{}", key.path);
        assert!(key.about.ends_with('.') && key.about.len() > 4, "{}", key.path);
    }
    assert!(loaded.keys.len() >= 60, "{}", loaded.keys.len());
}

#[test]
fn what_was_given_otherwise_than_its_default_is_known() {
    let text = format!(
        r#"{{"backends": [{ONE}], "frontend": {{"head_timeout": "3s", "workers": null, "upgrades": []}},
            "listen": ["127.0.0.1:8080"]}}"#
    );
    let config =
        load_with(&text, &[("BALANCER__LOG__ACCESS", "false"), ("BALANCER__LOG__LEVEL", "info")]).unwrap();
    assert_eq!(config.changed, ["listen", "frontend.head_timeout", "frontend.upgrades", "log.access"]);
}

#[test]
fn relative_paths_count_from_the_folder_of_the_file() {
    let text = format!(r#"{{"backends": [{ONE}], "log": {{"access": "file:logs/a.log"}}}}"#);
    let config = from_text(&text, &PathBuf::from("/srv/b")).unwrap();
    assert_eq!(config.log.access, AccessLog::File("/srv/b/logs/a.log".into()));
    assert!(matches!(&config.database.url, DatabaseUrl::Sqlite(path) if path == "/srv/b/data/balancer.db"));
    let text = format!(r#"{{"backends": [{ONE}], "database": {{"url": "sqlite:/var/x.db"}}}}"#);
    let config = from_text(&text, &PathBuf::from("/srv/b")).unwrap();
    assert!(matches!(&config.database.url, DatabaseUrl::Sqlite(path) if path == "/var/x.db"));
}

#[test]
fn a_file_that_is_missing_or_unreadable_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let fault = |path: PathBuf, env: &[(OsString, OsString)]| {
        load(&Options { file: Some(path), ..Options::default() }, env).unwrap_err().to_string()
    };
    let missing = fault(folder.path().join("none.json"), &[]);
    assert!(missing.contains("none.json: there is no such file"), "{missing}");
    for way in ["--config FILE", "BALANCER_CONFIG", "\"backends\"", "balancer run --to"] {
        assert!(missing.contains(way), "{way}: {missing}");
    }
    assert!(fault(folder.path().to_owned(), &[]).contains("cannot be read"));
    let broken = folder.path().join("latin.json");
    std::fs::write(&broken, b"{\"listen\": \"\xe9\"}").unwrap();
    assert!(fault(broken, &[]).contains("is not UTF-8"));
    let variable = env(&[("BALANCER_CONFIG", "/nowhere/x.json")]);
    let text = load(&Options::default(), &variable).unwrap_err().to_string();
    assert!(text.starts_with("/nowhere/x.json: there is no such file"), "{text}");
}

#[test]
#[cfg_attr(not(all(target_os = "linux", feature = "epoll")), ignore = "TLS needs the loops")]
fn no_file_is_needed_with_backends_on_the_command_line() {
    let options = Options {
        to: [":9001", "9002", "example.net:9003", "http://[::1]:9004/", "example.net", "https://example.org"]
            .map(String::from)
            .to_vec(),
        limit: Some("10/s burst 20".into()),
        listen: Some("127.0.0.1:0".into()),
        ..Options::default()
    };
    let loaded =
        load(&options, &env(&[("BALANCER_CONFIG", "/nowhere"), ("BALANCER_LISTEN", "0.0.0.0:1")])).unwrap();
    let backends: Vec<_> = loaded
        .config
        .default_pool()
        .backends
        .iter()
        .map(|backend| (backend.name.as_str(), backend.host.as_str(), backend.port))
        .collect();
    assert_eq!(
        backends,
        [
            ("127.0.0.1:9001", "127.0.0.1", 9001),
            ("127.0.0.1:9002", "127.0.0.1", 9002),
            ("example.net:9003", "example.net", 9003),
            ("[::1]:9004", "::1", 9004),
            ("example.net", "example.net", 80),
            ("example.org", "example.org", 443),
        ]
    );
    assert_eq!(loaded.config.listen, ["127.0.0.1:0".parse().unwrap()]);
    assert_eq!(loaded.config.rate_limit.default.unwrap().first().unwrap().capacity, 20);
    assert_eq!(loaded.file, None);
}

#[test]
fn faults_of_the_command_line_name_the_option_and_never_a_password() {
    let options = Options {
        to: vec!["http://user:hunter2@h:1".into(), "https://h/x".into(), "a b".into()],
        limit: Some("ten".into()),
        listen: Some("8080".into()),
        ..Options::default()
    };
    let text = load(&options, &[]).unwrap_err().to_string();
    assert!(!text.contains("hunter2"), "{text}");
    for line in [
        "--to: backends[0].url: must not hold a user or password",
        "--to: backends[1].url: must not have a path",
        "--to: backends[2].url: must be http://HOST[:PORT], https://HOST[:PORT] or srv://_SERVICE._PROTO.DOMAIN",
        "--limit: rate_limit.default: must look like",
        "--listen: listen: must be an address",
    ] {
        assert!(text.lines().any(|one| one.starts_with(line)), "{line}\n{text}");
    }
}

#[test]
fn every_form_of_the_default_limit_is_read() {
    for (form, expected) in [
        ("null", None),
        ("\"100/s\"", Some((100, 100_000_000, 1))),
        ("\"600/m burst 50\"", Some((50, 600_000_000, 60))),
        (r#"{"capacity": 0, "rate_per_sec": 0}"#, Some((0, 0, 1))),
        (r#"{"capacity": 7, "rate_per_sec": 0.1}"#, Some((7, 100_000, 1))),
        (r#"{"capacity": 1000000000, "rate_per_sec": 1e9}"#, Some((1_000_000_000, 1_000_000_000_000_000, 1))),
    ] {
        let text = format!(r#"{{"backends": [{ONE}], "rate_limit": {{"default": {form}}}}}"#);
        let limit = from_text(&text, &PathBuf::new()).unwrap().rate_limit.default;
        assert_eq!(
            limit.and_then(|terms| terms.first()).map(|limit| (
                limit.capacity,
                limit.rate.micro,
                limit.rate.per_secs
            )),
            expected,
            "{form}"
        );
    }
}

/// `keys` must open every section that is read only when it is there, so each name in the code is looked for.
#[test]
fn the_reference_knows_every_key_that_the_code_names() {
    let keys = keys();
    let leaves: Vec<&str> = keys.iter().filter_map(|key| key.path.rsplit('.').next()).collect();
    let words = [
        "Spec::new(",
        ".whole(",
        ".whole_or_null(",
        ".whole_required(",
        ".bool(",
        ".duration(",
        ".duration_or_null(",
        ".flag(",
        ".choice(",
        ".share(",
        ".share_or_null(",
        ".section(",
        ".section_or_null(",
        ".section_if_given(",
        ".section_of(",
        ".objects((",
    ];
    let mut names = 0;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/read");
    let mut files: Vec<PathBuf> = vec![folder.into()];
    while let Some(file) = files.pop() {
        if file.is_dir() {
            files.extend(std::fs::read_dir(file).unwrap().map(|inner| inner.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(file).unwrap();
        let code: String = text.split_whitespace().collect();
        for word in words {
            for rest in code.split(word).skip(1) {
                let Some(name) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()) else {
                    continue;
                };
                assert!(leaves.contains(&name), "{name} is in no section that config::keys opens");
                names += 1;
            }
        }
    }
    assert!(names > 60, "{names}");
}
