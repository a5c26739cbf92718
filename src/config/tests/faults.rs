use super::*;

/// A file whose line 3 is the row's text, and what its one fault says.
pub(super) const ROWS: &[(&str, &str)] = &[
    // Unknown keys and words.
    (r#""lisen": "x""#, r#"lisen: unknown key; did you mean "listen"?"#),
    (r#""zzz": 1"#, "zzz: unknown key"),
    (r#""workers": 4"#, r#"workers: unknown key; did you mean "frontend.workers"?"#),
    (r#""frontend": {"worker": 4}"#, r#"frontend.worker: unknown key; did you mean "workers"?"#),
    (r#""Listen": "127.0.0.1:1""#, r#"Listen: unknown key; did you mean "listen"?"#),
    (
        r#""upstream": {"conect_timeout": "1s"}"#,
        r#"upstream.conect_timeout: unknown key; did you mean "connect_timeout"?"#,
    ),
    (
        r#""balancing": {"strategy": "least_conections"}"#,
        r#"balancing.strategy: must be one of "least_connections", "round_robin", "random_two", "peak_ewma", "hash", "first"; found "least_conections"; did you mean "least_connections"?"#,
    ),
    (
        r#""frontend": {"engine": "nginx"}"#,
        r#"frontend.engine: must be one of "auto", "epoll", "tiny_http"; found "nginx""#,
    ),
    (
        r#""log": {"level": "warning"}"#,
        r#"log.level: must be one of "off", "error", "warn", "info", "debug", "trace"; found "warning""#,
    ),
    (
        r#""rate_limit": {"default": {"capacity": 1, "rate": 1, "rate_per_sec": 1}}"#,
        "rate_limit.default.rate: unknown key",
    ),
    // Doubled ones.
    (
        r#""listen": "127.0.0.1:1", "listen": "127.0.0.1:2""#,
        "listen: doubled key: it stands in line 3 already",
    ),
    (r#""cache": {"ttl": "1s", "ttl": "1s"}"#, "cache.ttl: doubled key: it stands in line 3 already"),
    // Values of a wrong kind, or that are none of the words.
    (r#""$schema": 1"#, "$schema: must be a URL or a path or null; found 1"),
    (
        r#""rate_limit": {"headers": "all"}"#,
        r#"rate_limit.headers: must be one of "draft-11", "legacy", "both", "off"; found "all""#,
    ),
    // Types.
    (
        r#""listen": 8080"#,
        r#"listen: must be a list of at most 64, each an address with a port, such as "127.0.0.1:8080" or "[::]:8080" or null; found 8080"#,
    ),
    (
        r#""listen": ":8080""#,
        r#"listen: needs an IP address before the port: "127.0.0.1:8080" for this machine alone, "0.0.0.0:8080" for every network"#,
    ),
    (r#""listen": []"#, "listen: needs at least one address, unless tls has one"),
    (r#""listen": null"#, "listen: needs at least one address, unless tls has one"),
    (
        r#""tls": {}"#,
        "tls.certificates: is missing; must be a list of 1 to 1024 pairs: [{\"cert\": \"site.pem\", \"key\": \"site.key\"}]",
    ),
    (
        r#""frontend": {"engine": "tiny_http", "h2c": true}"#,
        r#"frontend.h2c: is true: HTTP/2 needs the loops (frontend.engine "epoll" or "auto", on Linux), which the tiny_http engine has not"#,
    ),
    (
        r#""listen": ["127.0.0.1:1", "x"]"#,
        r#"listen[1]: must be an address with a port, such as "127.0.0.1:8080" or "[::]:8080"; found "x""#,
    ),
    (
        r#""listen": ["127.0.0.1:1", "127.0.0.1:1"]"#,
        "listen: holds an address twice, or that of admin.listen",
    ),
    (r#""frontend": []"#, "frontend: must be an object; found an empty list"),
    (r#""frontend": null"#, "frontend: must be an object; found null"),
    (
        r#""frontend": {"workers": "4"}"#,
        r#"frontend.workers: must be a whole number from 1 to 4096 or null; found "4""#,
    ),
    (
        r#""frontend": {"workers": 4.0}"#,
        "frontend.workers: must be a whole number from 1 to 4096 or null; found 4.0",
    ),
    (r#""frontend": {"abort_on_close": 1}"#, "frontend.abort_on_close: must be true or false; found 1"),
    (
        r#""frontend": {"upgrades": ["h2c"]}"#,
        r#"frontend.upgrades[0]: must be "websocket", the one protocol that is relayed; found "h2c""#,
    ),
    (r#""health_check": true"#, "health_check: must be an object; found true"),
    // Bounds.
    (
        r#""frontend": {"workers": 0}"#,
        "frontend.workers: must be a whole number from 1 to 4096 or null; found 0",
    ),
    (
        r#""frontend": {"workers": -1}"#,
        "frontend.workers: must be a whole number from 1 to 4096 or null; found -1",
    ),
    (
        r#""frontend": {"active_workers": 5}"#,
        "frontend.active_workers: is gone, and nothing replaces it: it was how many workers ran at once; take it out",
    ),
    (
        r#""frontend": {"worker_wait": "1s"}"#,
        "frontend.worker_wait: is gone, and nothing replaces it: it was how long a connection waited for a free worker; take it out",
    ),
    (
        r#""frontend": {"max_body_bytes": 1099511627777}"#,
        "frontend.max_body_bytes: must be a whole number from 0 to 1099511627776; found 1099511627777",
    ),
    (
        r#""frontend": {"max_body_bytes": 99999999999999999999999}"#,
        "frontend.max_body_bytes: must be a whole number from 0 to 1099511627776; found 99999999999999999999999",
    ),
    (
        r#""frontend": {"head_timeout": "0s"}"#,
        r#"frontend.head_timeout: must be a duration from "1ms" to "1d", such as "10s", "50ms" or "1m30s"; found "0s""#,
    ),
    (
        r#""frontend": {"head_timeout": 10}"#,
        r#"frontend.head_timeout: must be a duration from "1ms" to "1d", such as "10s", "50ms" or "1m30s"; found 10"#,
    ),
    (
        r#""shutdown_delay": "2h""#,
        r#"shutdown_delay: must be a duration from "0s" to "1h", such as "10s", "50ms" or "1m30s"; found "2h""#,
    ),
    (
        r#""rate_limit": {"ipv6_prefix": 129}"#,
        "rate_limit.ipv6_prefix: must be a whole number from 1 to 128; found 129",
    ),
    (
        r#""health_check": {"expect": "200-600"}"#,
        r#"health_check.expect: must be status codes from 100 to 599, such as "200-399" or "200,204"; found "200-600""#,
    ),
    (
        r#""health_check": {"path": "healthz"}"#,
        r#"health_check.path: must be a path that begins with /, such as "/healthz"; found "healthz""#,
    ),
    // Limits.
    (
        r#""rate_limit": {"default": 5}"#,
        r#"rate_limit.default: must be a limit: "100/s", "600/m burst 50", {"capacity": 100, "rate_per_sec": 10} or {"buckets": […]} or null; found 5"#,
    ),
    (
        r#""rate_limit": {"default": "5"}"#,
        r#"rate_limit.default: must look like "100/s", "600/m burst 50", "5/h" or "10000/d", with numbers up to 1000000000"#,
    ),
    (
        r#""rate_limit": {"default": {"capacity": 1000000001, "rate_per_sec": 1}}"#,
        "rate_limit.default.capacity: must be a whole number from 0 to 1000000000; found 1000000001",
    ),
    (
        r#""rate_limit": {"default": {"capacity": 1.5, "rate_per_sec": 1}}"#,
        "rate_limit.default.capacity: must be a whole number from 0 to 1000000000; found 1.5",
    ),
    (
        r#""rate_limit": {"default": {"capacity": 1, "rate_per_sec": 0.0000001}}"#,
        "rate_limit.default.rate_per_sec: must have at most 6 decimals; found 0.0000001",
    ),
    (
        r#""rate_limit": {"default": {"capacity": 1, "rate_per_sec": 1e400}}"#,
        "rate_limit.default.rate_per_sec: must be at most 1000000000; found 1e400",
    ),
    (
        r#""rate_limit": {"default": {"capacity": 1, "rate_per_sec": -1}}"#,
        "rate_limit.default.rate_per_sec: must not be negative: 0, or 0.000001 to 1000000000; found -1",
    ),
    (
        r#""rate_limit": {"default": {"capacity": 1}}"#,
        "rate_limit.default.rate_per_sec: is missing; must be a number: 0, or 0.000001 to 1000000000 with at most 6 decimals",
    ),
    (
        r#""rate_limit": {"trusted_proxies": ["10.0.0.0/33"]}"#,
        r#"rate_limit.trusted_proxies[0]: must be an IP network such as "10.0.0.0/8" or an IP address; found "10.0.0.0/33""#,
    ),
    (
        r#""rate_limit": {"trusted_proxies": "10.0.0.0/8"}"#,
        r#"rate_limit.trusted_proxies: must be a list of at most 1024, each an IP network such as "10.0.0.0/8" or an IP address; found "10.0.0.0/8""#,
    ),
    // Who may administer.
    (
        r#""admin": {"allow": ["0.0.0.0/0"]}"#,
        "admin.allow: lets more than loopback in without a token: set admin.token (BALANCER_ADMIN_TOKEN), keep to 127.0.0.0/8 and ::1/128, or set admin.insecure to true",
    ),
    (
        r#""listen": "0.0.0.0:8080", "frontend": {"engine": "tiny_http"}"#,
        "listen: is every address of this machine, where the tiny_http engine can't tell who calls the API: set admin.token (BALANCER_ADMIN_TOKEN) or admin.listen, name an address, or take another frontend.engine",
    ),
    (
        r#""admin": {"token": ""}"#,
        "admin.token: must not be empty: that would let anybody in; take it out or give one",
    ),
    (
        r#""admin": {"token": "hunter2 with spaces"}"#,
        "admin.token: must be 16 to 512 visible ASCII characters without spaces or null; found text",
    ),
    (
        r#""admin": {"token": "fifteen-letters"}"#,
        "admin.token: must be 16 to 512 visible ASCII characters without spaces or null; found text",
    ),
    (
        r#""admin": {"token": 1234567}"#,
        "admin.token: must be 16 to 512 visible ASCII characters without spaces or null; found a number",
    ),
    (
        r#""admin": {"token": "with space", "allow": ["0.0.0.0/0"]}"#,
        "admin.token: must be 16 to 512 visible ASCII characters without spaces or null; found text",
    ),
    (
        r#""admin": {"hosts": ["a:80"]}"#,
        r#"admin.hosts[0]: must be a host name without a port; found "a:80""#,
    ),
    (
        r#""admin": {"listen": "127.0.0.1"}"#,
        r#"admin.listen: must be an address with a port, such as "127.0.0.1:8080" or "[::]:8080" or null; found "127.0.0.1""#,
    ),
    // The database.
    (
        r#""database": {"url": "mysql://u:hunter2@h/d"}"#,
        "database.url: must be sqlite:PATH or postgres://USER:PASSWORD@HOST[:PORT]/DATABASE[?sslmode=…]; found text",
    ),
    (r#""database": {"url": "sqlite:"}"#, "database.url: must be sqlite:PATH, where the path names a file"),
    (
        r#""database": {"url": "sqlite::memory:"}"#,
        "database.url: must name a file: limits are kept over a restart",
    ),
    (
        r#""database": {"url": "sqlite://data/b.db"}"#,
        "database.url: must be sqlite:PATH, without slashes before a relative path",
    ),
    (
        r#""database": {"url": "postgres://u:hunter2@h:port/d"}"#,
        "database.url: is no PostgreSQL URL: must be postgres://USER:PASSWORD@HOST[:PORT]/DATABASE[?sslmode=…]; percent-encode @ : / ? # % in user and password",
    ),
    (
        r#""database": {"url": "postgres://u:p@h/d?hunter2=1"}"#,
        "database.url: is no PostgreSQL URL: must be postgres://USER:PASSWORD@HOST[:PORT]/DATABASE[?sslmode=…]; percent-encode @ : / ? # % in user and password",
    ),
    // The log.
    (
        r#""log": {"access": "access.log"}"#,
        r#"log.access: must be true, false or "file:PATH"; found "access.log""#,
    ),
    (r#""log": {"access": "file:"}"#, r#"log.access: must be true, false or "file:PATH"; found "file:""#),
];

/// Without the loops `auto` is the portable engine, and the same holds for it.
#[cfg(not(feature = "epoll"))]
#[test]
fn the_portable_engine_needs_a_token_where_it_listens_everywhere() {
    let text = format!(r#"{{"backends": [{ONE}], "listen": "0.0.0.0:8080"}}"#);
    let found = load_with(&text, &[]).map(|_| ()).unwrap_err();
    assert!(found.contains("listen: is every address of this machine"), "{found}");
}

#[test]
fn each_fault_names_its_line_its_key_and_what_is_allowed() {
    for (row, expected) in ROWS {
        let text = format!("{{\n\"backends\": [{ONE}],\n{row}\n}}");
        let mut found = load_with(&text, &[]).map(|_| ()).unwrap_err();
        if Engine::Auto.is_portable() {
            // Said beside what is wrong in it.
            found.truncate(found.find("\nFILE:3: tls: is there: TLS needs the loops").unwrap_or(found.len()));
        }
        assert_eq!(found, format!("FILE:3: {expected}"), "{row}");
        assert!(!found.contains("hunter2"), "{row}");
    }
}

#[test]
fn a_backend_that_is_our_own_listener_is_a_fault() {
    for (listen, url, own) in [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", true),
        ("127.0.0.1:8080", "http://localhost:8080", true),
        ("127.0.0.1:8080", "http://[::ffff:127.0.0.1]:8080", true),
        ("0.0.0.0:8080", "http://127.0.0.1:8080", true),
        ("[::]:8080", "http://127.0.0.2:8080", true),
        ("[::]:8080", "http://[::1]:8080", true),
        ("0.0.0.0:80", "http://localhost", true),
        ("0.0.0.0:80", "srv://_http._tcp.localhost", false),
        ("127.0.0.1:8080", "http://127.0.0.1:8081", false),
        ("127.0.0.1:8080", "http://127.0.0.2:8080", false),
        ("0.0.0.0:8080", "http://10.0.0.1:8080", false),
        ("0.0.0.0:8080", "http://web:8080", false),
        ("127.0.0.1:0", "http://127.0.0.1:80", false),
    ] {
        // With a token, which the portable engine wants at an address that is every one.
        let text = format!(
            "{{\"listen\": \"{listen}\", \"admin\": {{\"token\": \"sixteen-letters-x\"}},\n\"backends\": [{{\"name\": \"a\", \"url\": \"{url}\"}}]}}"
        );
        let found = load_with(&text, &[]).map(|_| ()).err();
        let expected = own.then(|| {
            format!(
                "FILE:2: backends[0].url: is our own listener {listen}: requests would go round in a circle"
            )
        });
        assert_eq!(found, expected, "{listen} {url}");
    }
    let text =
        r#"{"admin": {"listen": "127.0.0.1:9"}, "backends": [{"name": "a", "url": "http://127.0.0.1:9"}]}"#;
    assert!(load_with(text, &[]).unwrap_err().contains("is our own listener 127.0.0.1:9"));
}

#[test]
fn more_loops_than_four_a_core_are_a_fault_that_says_what_changed() {
    let most = 4 * std::thread::available_parallelism().unwrap().get();
    let with = |engine: &str, workers: &str| {
        let frontend = format!(r#"{{"engine": "{engine}", "workers": {workers}}}"#);
        load_with(&format!(r#"{{"backends": [{ONE}], "frontend": {frontend}}}"#), &[])
            .map(|config| config.frontend.workers())
    };
    if cfg!(all(target_os = "linux", feature = "epoll")) {
        for engine in ["auto", "epoll"] {
            assert_eq!(with(engine, "null").unwrap(), most / 4);
            assert_eq!(with(engine, &most.to_string()).unwrap(), most);
            let fault = with(engine, &(most + 1).to_string()).unwrap_err();
            let begins =
                format!("FILE:1: frontend.workers: must be at most {most}, 4 a core: it means loops now");
            assert!(fault.starts_with(&begins), "{fault}");
        }
    }
    assert_eq!(with("tiny_http", "null").unwrap(), 64);
    assert_eq!(with("tiny_http", "4096").unwrap(), 4_096);
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let text = r#"{
  "listen": "nowhere",
  "frontend": { "workers": 0,
                "engin": "auto" },
  "backends": [
    { "name": "a", "url": "https://h/x" },
    { "name": "a", "url": "http://127.0.0.1:9001", "weight": -1 }
  ],
  "admin": { "token": "" },
  "log": { "level": "loud" }
}"#;
    let text = load_with(text, &[("BALANCER__CACHE__TTL", "soon"), ("BALANCER__NOPE", "1")]).unwrap_err();
    let places: Vec<&str> = text.lines().map(|line| line.split(": ").next().unwrap()).collect();
    let expected =
        "FILE:2 FILE:3 FILE:4 FILE:6 FILE:7 FILE:7 FILE:9 FILE:10 BALANCER__CACHE__TTL BALANCER__NOPE";
    assert_eq!(places.join(" "), expected, "{text}");
}
