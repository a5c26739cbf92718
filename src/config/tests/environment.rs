use super::*;

fn bare() -> String {
    format!(r#"{{"backends": [{ONE}], "health_check": null, "admin": {{"token": "from-file-from-file"}}}}"#)
}

#[test]
fn the_environment_goes_over_the_file() {
    type Check = fn(&Config) -> bool;
    let rows: &[(&str, &str, Check)] = &[
        ("BALANCER_LISTEN", "0.0.0.0:80", |c| c.listen == ["0.0.0.0:80".parse().unwrap()]),
        ("BALANCER_LISTEN", r#"["0.0.0.0:80", "[::]:80"]"#, |c| c.listen.len() == 2),
        ("BALANCER_LOG_LEVEL", "debug", |c| c.log.level == log::LevelFilter::Debug),
        (
            "BALANCER_DATABASE_URL",
            "sqlite:/x.db",
            |c| matches!(&c.database.url, DatabaseUrl::Sqlite(path) if path == "/x.db"),
        ),
        ("BALANCER_ADMIN_TOKEN", "1234567890123456", |c| {
            c.admin.token == Some(Secret::new("1234567890123456"))
        }),
        ("BALANCER_ADMIN_TOKEN", "\"a-quoted-token-q\"", |c| {
            c.admin.token == Some(Secret::new("\"a-quoted-token-q\""))
        }),
        ("BALANCER__ADMIN__TOKEN", "1234567890123456", |c| {
            c.admin.token == Some(Secret::new("1234567890123456"))
        }),
        ("BALANCER__ADMIN__TOKEN", "\"a-quoted-token-q\"", |c| {
            c.admin.token == Some(Secret::new("a-quoted-token-q"))
        }),
        ("BALANCER__ADMIN__TOKEN", "null", |c| c.admin.token.is_none()),
        ("BALANCER__FRONTEND__WORKERS", "2", |c| c.frontend.workers == Some(2)),
        ("BALANCER__FRONTEND__WORKERS", "null", |c| c.frontend.workers.is_none()),
        ("BALANCER__FRONTEND__HEAD_TIMEOUT", "1m30s", |c| c.frontend.head_timeout == Duration::from_secs(90)),
        ("BALANCER__FRONTEND__HEAD_TIMEOUT", "\"3s\"", |c| c.frontend.head_timeout == Duration::from_secs(3)),
        ("BALANCER__FRONTEND__UPGRADES", "[]", |c| c.frontend.upgrades.is_empty()),
        ("BALANCER__LOG__ACCESS", "false", |c| c.log.access == AccessLog::Off),
        ("BALANCER__LOG__ACCESS", "file:/a.log", |c| c.log.access == AccessLog::File("/a.log".into())),
        ("BALANCER__HEALTH_CHECK__PATH", "/up", |c| c.pools[0].health_check.as_ref().unwrap().path == "/up"),
        ("BALANCER__HEALTH_CHECK", r#"{"rise": 9}"#, |c| c.pools[0].health_check.as_ref().unwrap().rise == 9),
        ("BALANCER__HEALTH_CHECK", "null", |c| c.pools[0].health_check.is_none()),
        ("BALANCER__RATE_LIMIT__DEFAULT", "5/s", |c| {
            c.rate_limit.default.as_ref().unwrap().first().unwrap().capacity == 5
        }),
        ("BALANCER__RATE_LIMIT__DEFAULT", r#"{"capacity": 3, "rate_per_sec": 0.1}"#, |c| {
            c.rate_limit.default.as_ref().unwrap().first().unwrap().rate.micro == 100_000
        }),
        ("BALANCER__BACKENDS", r#"[{"name": "z", "url": "http://z"}]"#, |c| {
            c.pools[0].backends[0].name == "z"
        }),
        ("BALANCER__BACKENDS__0__WEIGHT", "9", |c| c.pools[0].backends[0].weight == 9),
        ("BALANCER_PORT_80_TCP_ADDR", "10.0.0.1", |c| c.listen == ["127.0.0.1:8080".parse().unwrap()]),
        ("BALANCER_SERVICE_HOST", "10.0.0.1", |c| c.pools[0].backends.len() == 1),
        ("OTHER", "x", |c| c.pools[0].backends.len() == 1),
    ];
    for (name, value, check) in rows {
        let config = load_with(&bare(), &[(name, value)]).unwrap();
        assert!(check(&config), "{name}={value}: {config:#?}");
    }
}

#[test]
fn a_parent_and_its_child_add_up() {
    let config = load_with(
        &bare(),
        &[("BALANCER__HEALTH_CHECK__RISE", "4"), ("BALANCER__HEALTH_CHECK", r#"{"path": "/x", "rise": 9}"#)],
    );
    let check = config.unwrap().pools.remove(0).health_check.unwrap();
    assert_eq!((check.path.as_str(), check.rise), ("/x", 4));
}

const VARIABLE_FAULTS: &[(&str, &str, &str)] = &[
    (
        "BALANCER_LISTEN",
        "",
        r#"listen: must be an address with a port, such as "127.0.0.1:8080" or "[::]:8080"; found """#,
    ),
    (
        "BALANCER_LOG_LEVEL",
        "inf",
        r#"log.level: must be one of "off", "error", "warn", "info", "debug", "trace"; found "inf"; did you mean "info"?"#,
    ),
    (
        "BALANCER_ADMIN_TOKEN",
        "",
        "admin.token: must not be empty: that would let anybody in; take it out or give one",
    ),
    (
        "BALANCER_ADMIN_TOKEN",
        "hunter2\n",
        "admin.token: must be 16 to 512 visible ASCII characters without spaces or null; found text",
    ),
    (
        "BALANCER__ADMIN__TOKEN",
        "\"\"",
        "admin.token: must not be empty: that would let anybody in; take it out or give one",
    ),
    (
        "BALANCER_DATABASE_URL",
        "mysql://u:hunter2@h",
        "database.url: must be sqlite:PATH or postgres://USER:PASSWORD@HOST[:PORT]/DATABASE[?sslmode=…]; found text",
    ),
    (
        "BALANCER__DATABASE__URL",
        "postgres://u:hunter2@h:x/d",
        "database.url: is no PostgreSQL URL: must be postgres://USER:PASSWORD@HOST[:PORT]/DATABASE[?sslmode=…]; percent-encode @ : / ? # % in user and password",
    ),
    (
        "BALANCER__FRONTEND__WORKERS",
        "0",
        "frontend.workers: must be a whole number from 1 to 4096 or null; found 0",
    ),
    (
        "BALANCER__FRONTEND__ACTIVE_WORKERS",
        "null",
        "frontend.active_workers: is gone, and nothing replaces it: it was how many workers ran at once; take it out",
    ),
    (
        "BALANCER__FRONTEND__WORKERS",
        "many",
        r#"frontend.workers: must be a whole number from 1 to 4096 or null; found "many""#,
    ),
    ("BALANCER__FRONTEND__WORKER", "1", r#"frontend.worker: unknown key; did you mean "workers"?"#),
    ("BALANCER__NOPE__DEEP", "1", "nope: unknown key"),
    ("BALANCER__", "1", "unknown key"),
    (
        "BALANCER__FRONTEND__WORKERS__X",
        "1",
        "frontend.workers: must be a whole number from 1 to 4096 or null; found an object",
    ),
    (
        "BALANCER__BACKENDS__1__WEIGHT",
        "1",
        "backends[1].weight: names no element of a list of 1; elements count from 0",
    ),
    (
        "BALANCER__BACKENDS",
        "x",
        "backends: must be a list of 1 to 1024 backends: [\"http://127.0.0.1:9001\"] or [{\"name\": \"a\", \"url\": \"http://127.0.0.1:9001\"}]; found \"x\"",
    ),
    (
        "BALANCER__RATE_LIMIT__DEFAULT__CAPACITY",
        "5",
        "rate_limit.default.rate_per_sec: is missing; must be a number: 0, or 0.000001 to 1000000000 with at most 6 decimals",
    ),
    (
        "BALANCER__OUTLIER__RATIO",
        "2",
        "outlier.ratio: must be a number above 0 and at most 1, such as 0.5 or null; found 2",
    ),
    (
        "BALANCER_ADMIN_TOKEN_FILE",
        "/nowhere/token",
        "admin.token: cannot read /nowhere/token: No such file or directory (os error 2)",
    ),
];

#[test]
fn a_fault_names_the_variable() {
    for (name, value, expected) in VARIABLE_FAULTS {
        let found = load_with(&bare(), &[(name, value)]).map(|_| ()).unwrap_err();
        assert_eq!(found, format!("{name}: {expected}"), "{name}={value}");
    }
}

#[test]
fn each_unknown_variable_is_named_and_no_value_is_given_twice() {
    let text = load_with(&bare(), &[("BALANCER__NOPE__A", "1"), ("BALANCER__NOPE__B", "1")]).unwrap_err();
    assert_eq!(text, "BALANCER__NOPE__A: nope: unknown key\nBALANCER__NOPE__B: nope: unknown key");
    for pair in [
        ["BALANCER_LISTEN", "BALANCER__LISTEN"],
        ["BALANCER_ADMIN_TOKEN", "BALANCER__ADMIN__TOKEN"],
        ["BALANCER_ADMIN_TOKEN", "BALANCER_ADMIN_TOKEN_FILE"],
    ] {
        let text = load_with(&bare(), &[(pair[0], "127.10.10.1:12345"), (pair[1], "127.10.10.1:12345")])
            .unwrap_err();
        let mut sorted = pair;
        sorted.sort();
        let key = if pair[0] == "BALANCER_LISTEN" { "listen" } else { "admin.token" };
        assert_eq!(text, format!("{}: {key}: is set by {} too; keep one of them", sorted[1], sorted[0]));
    }
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    for (content, expected) in [
        ("s3cret-s3cret-s3cret\n", "s3cret-s3cret-s3cret"),
        ("s3cret-s3cret-s3cret\r\n", "s3cret-s3cret-s3cret"),
        ("\"x-x-x-x-x-x-x-x\"", "\"x-x-x-x-x-x-x-x\""),
    ] {
        std::fs::write(&path, content).unwrap();
        for name in ["BALANCER_ADMIN_TOKEN_FILE", "BALANCER__ADMIN__TOKEN_FILE"] {
            let config = load_with(&bare(), &[(name, path.to_str().unwrap())]).unwrap();
            assert_eq!(config.admin.token, Some(Secret::new(expected)), "{name}");
        }
    }
    std::fs::write(&path, "postgres://u:p@h/d?sslmode=verify-full\n").unwrap();
    let config = load_with(&bare(), &[("BALANCER_DATABASE_URL_FILE", path.to_str().unwrap())]).unwrap();
    assert!(
        matches!(&config.database.url, DatabaseUrl::Postgres(url) if url.reveal().ends_with("verify-full"))
    );
    std::fs::write(&path, "\n").unwrap();
    let empty = load_with(&bare(), &[("BALANCER_ADMIN_TOKEN_FILE", path.to_str().unwrap())]).unwrap_err();
    assert!(empty.starts_with("BALANCER_ADMIN_TOKEN_FILE: admin.token: must not be empty"), "{empty}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_a_fault_and_not_echoed() {
    use std::os::unix::ffi::OsStringExt;
    let file = file(&bare());
    let env = [(OsString::from("BALANCER_ADMIN_TOKEN"), OsString::from_vec(b"hunter2\xff".to_vec()))];
    let faults = load(&Options { file: Some(file.path.clone()), ..Options::default() }, &env).unwrap_err();
    assert_eq!(faults.to_string(), "BALANCER_ADMIN_TOKEN: admin.token: is not UTF-8");
}

#[test]
fn secrets_never_show_in_debug() {
    let secret = "hunter2-hunter2-hunter2";
    let text = format!(
        r#"{{"backends": [{ONE}], "admin": {{"token": "{secret}"}},
            "database": {{"url": "postgres://u:{secret}@h/d"}}}}"#
    );
    let file = file(&text);
    let loaded = load(&Options { file: Some(file.path.clone()), ..Options::default() }, &[]).unwrap();
    for shown in [format!("{loaded:?}"), format!("{loaded:#?}")] {
        assert!(!shown.contains(secret), "{shown}");
        assert_eq!(shown.matches("[secret]").count(), 2, "{shown}");
    }
    assert_eq!(loaded.config.admin.token.unwrap().reveal(), secret);
}
