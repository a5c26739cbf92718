//! The schema finds what the loader finds, by a validator that is not ours: Python's `jsonschema`. Without it this is
//! skipped aloud; `BALANCER_TEST_REQUIRE_PARSERS=1` makes that a failure. `BALANCER_TEST_PYTHON` names a Python that
//! has it.

use std::io::Write;
use std::process::{Command, Stdio};

use super::backends::backend_rows;
use super::faults::ROWS;
use super::*;

/// Words of the faults that no schema can find.
const BEYOND: [&str; 7] = [
    // Of two members of one name a reader of JSON sees one.
    "doubled key",
    // To a schema 4.0 is the whole number 4.
    "found 4.0",
    // One value against another.
    "names another backend already",
    "needs the loops",
    // A token may come from the environment.
    "lets more than loopback in without a token",
    "is every address of this machine, where the tiny_http engine",
    // What only the client of PostgreSQL knows.
    "is no PostgreSQL URL",
];

/// What the validator says of each text; `None`, said aloud, where there is none.
fn judge(texts: &[String]) -> Option<Vec<bool>> {
    const SCRIPT: &str = "import json, sys, jsonschema\n\
        schema, *texts = json.load(sys.stdin)\n\
        kind = jsonschema.validators.validator_for(schema)\n\
        kind.check_schema(schema)\n\
        for text in texts: print(kind(schema).is_valid(json.loads(text)))\n";
    let python = std::env::var("BALANCER_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import jsonschema"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        let required = std::env::var("BALANCER_TEST_REQUIRE_PARSERS").is_ok_and(|value| value == "1");
        assert!(!required, "BALANCER_TEST_REQUIRE_PARSERS=1, and {python} has no jsonschema");
        // Straight to the descriptor: libtest captures the print macros only.
        let _ = writeln!(std::io::stderr(), "Python's jsonschema is not installed: the schema was not tried");
        return None;
    }
    let mut child = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = vec![crate::config::schema()];
    input.extend(texts.iter().map(|text| text.as_str().into()));
    let input = serde_json::Value::from(input).to_string();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8_lossy(&output.stdout).lines().map(|line| line == "True").collect())
}

#[test]
fn the_schema_finds_every_fault_that_a_schema_can() {
    let of_root =
        ROWS.iter().map(|(row, fault)| (format!("{{\"backends\": [{ONE}], {row}}}"), (*fault).to_owned()));
    let of_backends = backend_rows()
        .into_iter()
        .map(|(element, fault)| (format!("{{\"backends\": [{ONE}, {element}]}}"), fault));
    let more = MORE.iter().map(|row| (format!("{{\"backends\": [{ONE}], {row}}}"), String::new()));
    let (texts, faults): (Vec<_>, Vec<_>) = of_root.chain(of_backends).chain(more).unzip();
    for text in &texts {
        assert!(load_with(text, &[]).is_err(), "{text}");
    }
    let Some(judged) = judge(&texts) else { return };
    assert_eq!(judged.len(), texts.len());
    for ((text, fault), is_valid) in texts.iter().zip(faults).zip(judged) {
        let beyond = BEYOND.iter().any(|words| fault.contains(words));
        assert_eq!(is_valid, beyond, "{text}\n{fault}");
    }
}

/// Faults that have their words elsewhere.
const MORE: &[&str] = &[
    r#""rate_limit": {"default": {"buckets": []}}"#,
    r#""rate_limit": {"default": {"max_in_flight": 5}}"#,
    r#""rate_limit": {"default": {"capacity": 1, "rate_per_sec": 1, "max_in_flight": 5}}"#,
    r#""rate_limit": {"default": {"buckets": [{"name": "a", "amount": 1, "per": "1y"}]}}"#,
    r#""rate_limit": {"default": {"buckets": [{"name": "a", "amount": 1.5, "per": "1s"}]}}"#,
    r#""rate_limit": {"default": {"buckets": [{"name": "a", "amount": 1, "per": "2s", "reset": "utc"}]}}"#,
    r#""rate_limit": {"default": {"buckets": [{"name": "concurrency", "amount": 1, "per": "1s"}]}}"#,
    r#""rate_limit": {"default": "100/s burst"}"#,
    r#""rate_limit": {"default": "100/y"}"#,
    r#""rate_limit": {"key": "cookie"}"#,
    r#""rate_limit": {"key": []}"#,
    r#""rate_limit": {"key": {"as": "tenant"}}"#,
    r#""rate_limit": {"key": ["bearer", "bearer"]}"#,
    r#""rate_limit": {"rules": [{"match": {"path": "/a"}}]}"#,
    r#""rate_limit": {"rules": [{"match": {"path": "/a"}, "limit": "1/s", "cost": 2}]}"#,
    r#""rate_limit": {"rules": [{"match": {"path": "a"}, "limit": "1/s"}]}"#,
    r#""rate_limit": {"rules": [{"match": {"path": "/a?b"}, "limit": "1/s"}]}"#,
    r#""rate_limit": {"rules": [{"match": {"path": "/a", "method": []}, "limit": "1/s"}]}"#,
    r#""rate_limit": {"cors": {}}"#,
    r#""rate_limit": {"cors": {"origins": "*", "credentials": true}}"#,
    r#""rate_limit": {"cors": {"origins": ["app.example"]}}"#,
    r#""admin": {"tokens": [{"name": "a", "role": "read"}]}"#,
    r#""admin": {"tokens": [{"name": "a", "role": "read", "token_env": "A", "token_file": "b"}]}"#,
    r#""balancing": {"hash_on": "header:"}"#,
    r#""balancing": {"sticky": {}}"#,
    r#""balancing": {"sticky": {"secret": "short"}}"#,
    r#""discovery": {"resolver": "10.0.0.2"}"#,
    r#""upstream": {"retry_on": ["200"]}"#,
    r#""upstream": {"request_timeout": "2d"}"#,
    r#""upstream": {"retry_budget": 1.5}"#,
    r#""outlier": {"ratio": 0}"#,
    r#""upstream": {"tls": {"client_key": "a.key"}}"#,
    r#""upstream": {"tls": {"server_name": "a:1"}}"#,
    r#""outlier": {"statuses": "5xx"}"#,
    r#""outlier": {"window": "99ms"}"#,
    r#""otel": {"endpoint": "http://u:p@h"}"#,
    r#""otel": {"endpoint": "h:4318"}"#,
    r#""database": {"listen_url": "sqlite:a"}"#,
    r#""cache": {"load_timeout": "11s"}"#,
    r#""routes": [{"host": "a.test"}]"#,
    r#""routes": [{"pool": "default", "respond": {}}]"#,
    r#""routes": [{"pool": "default", "host": "a.*.test"}]"#,
    r#""routes": [{"pool": "default", "host": "*"}]"#,
    r#""routes": [{"pool": "default", "host": "a.test:80"}]"#,
    r#""routes": [{"pool": "default", "path": "a"}]"#,
    r#""routes": [{"pool": "default", "add_prefix": "a"}]"#,
    r#""routes": [{"pool": "default", "limit": "1/s", "buckets": [{"name": "a", "amount": 1, "per": "1s"}]}]"#,
    r#""routes": [{"pool": "default", "set_request_headers": {"a b": "c"}}]"#,
    r#""routes": [{"pool": "default", "set_request_headers": {"a": "b\nc"}}]"#,
    r#""routes": [{"pool": "default", "set_request_headers": {"a": " b"}}]"#,
    r#""routes": [{"redirect": {}}]"#,
    r#""routes": [{"redirect": {"to": "//a"}}]"#,
    r#""routes": [{"redirect": {"to": "https://a@b"}}]"#,
    r#""routes": [{"redirect": {"to": "/a", "status": 300}}]"#,
    r#""routes": [{"respond": {"status": 600}}]"#,
    r#""routes": [{"pool": "default", "errors": {"200": "a.html"}}]"#,
];

/// Unusual values that are allowed.
#[test]
fn the_schema_takes_what_is_allowed() {
    const ROWS: &[&str] = &[
        r#""listen": "localhost:0""#,
        r#""pools": {"a": {"backends": ["srv://_http._tcp.a-b.example.", {"name": "b", "url": "SRV://_x._Y.z/"}]}}"#,
        r#""listen": ["[::]:65535", "[fe80::1%2]:080", "1.2.3.4:00080"], "admin": {"token": "sixteen-letters-x"}"#,
        r#""admin": {"allow": ["::ffff:10.0.0.0/104", "10.0.0.1", "fc00::/7", "127.0.0.1/32"], "insecure": true}"#,
        r#""admin": {"hosts": ["a", "A_b.c-d.example.", "10.0.0.1"]}"#,
        r#""admin": {"listen": "[::1]:9"}"#,
        r#""frontend": {"upgrades": []}"#,
        r#""frontend": {"upgrades": ["WebSocket"]}"#,
        r#""frontend": {"head_timeout": "1d"}"#,
        r#""frontend": {"head_timeout": "0001ms"}"#,
        r#""frontend": {"head_timeout": "23h59m59s999ms"}"#,
        r#""frontend": {"head_timeout": "86400s"}"#,
        r#""frontend": {"slow_grace": "0d"}"#,
        r#""audit": {"keep": "3650d"}"#,
        r#""balancing": {"hash_on": "header:X-User", "sticky": {"cookie": "a!b", "secret": "0123456789abcdef"}}"#,
        r#""balancing": {"sticky": null}"#,
        r#""discovery": {"resolver": "[::1]:53"}"#,
        r#""upstream": {"retry_on": ["timeout", "503", "502 - 504, 500"], "request_timeout": "1m30s", "retry_budget": 0}"#,
        r#""outlier": null"#,
        r#""outlier": {"statuses": "500-599,429", "ratio": 1}"#,
        r#""health_check": {"path": "/a?b=%20&c", "expect": "200, 204 ,301-302"}"#,
        r#""rate_limit": {"key": {"header": "X-Tenant", "as": "tenant"}}"#,
        r#""rate_limit": {"key": ["bearer", "cookie:a", {"as": "user", "cookie": "u"}, "ip"]}"#,
        r#""rate_limit": {"default": "1.5/90s burst 10"}"#,
        r#""rate_limit": {"default": "1e2/1mo"}"#,
        r#""rate_limit": {"default": " 0/s burst  5 "}"#,
        r#""rate_limit": {"default": {"capacity": 0, "rate_per_sec": 0}}"#,
        r#""rate_limit": {"default": {"capacity": 3, "rate_per_sec": 0.3}}"#,
        r#""rate_limit": {"default": {"buckets": [{"name": "a b", "amount": 0.1, "per": "090s", "capacity": 5}], "max_in_flight": 2}}"#,
        r#""rate_limit": {"default": {"buckets": [{"name": "m", "amount": 1e3, "per": "1mo", "reset": "utc", "mode": "shadow"}]}}"#,
        r#""rate_limit": {"rules": [{"match": {"path": "/", "method": ["GET", "PURGE"]}, "cost": 0}]}"#,
        r#""rate_limit": {"rules": [{"match": {"path": "/a b", "method": null}, "exempt": true, "limit": null, "buckets": []}]}"#,
        r#""rate_limit": {"rules": [{"name": "x", "match": {"path": "/"}, "buckets": [{"name": "d", "amount": 1, "per": "1d"}]}]}"#,
        r#""rate_limit": {"cors": {"origins": "*"}}"#,
        r#""rate_limit": {"cors": {"origins": ["https://app.example:8443"], "credentials": true}}"#,
        r#""otel": {"endpoint": "HTTPS://[::1]:4318/a%20b/"}"#,
        r#""database": {"url": "sqlite:///var/lib/b.db"}"#,
        r#""database": {"url": "postgres://u:p%40@a:1,b:2/d?sslmode=require", "listen_url": "postgresql://u@h/d"}"#,
        r#""log": {"access": "file:/var/log/a.log"}"#,
        r#""log": {"access": false}"#,
        r#""routes": [{"host": "*.A_b.example.", "path": "/a b", "pool": "default", "add_prefix": "/v2/", "strip_prefix": true}]"#,
        r#""routes": [{"host": "[2001:db8::1]", "pool": "default", "limit": "5/m", "buckets": [], "deny": "::1"}]"#,
        r#""routes": [{"redirect": {"to": "HTTPS://$host:8443/a?b#c", "status": 307}, "respond": null}]"#,
        r#""routes": [{"redirect": {"to": "/$$a?b=$client_ip"}, "set_response_headers": {"X": "", "y": "a\tb \u00e9", "Z": null}}]"#,
        r#""routes": [{"respond": {"status": 404, "body": "a\nb"}, "name": "x"}, {"path": "/a", "respond": {}}]"#,
        r#""$schema": "https://h/s.json""#,
    ];
    const URLS: [&str; 8] = [
        "http://a.b.c.d.e.f.example.",
        "HTTP://h:0080/",
        "http://10.0.0.1:65535",
        "http://[::ffff:1.2.3.4]",
        "http://app_1:80",
        "http://1a:1",
        "http://1.a",
        "http://xn--nxasmq6b.example",
    ];
    let of_root = ROWS.iter().map(|row| format!("{{\"backends\": [{ONE}], {row}}}"));
    let of_urls =
        URLS.iter().map(|url| format!("{{\"backends\": [{{\"name\": \"[b]:1\", \"url\": \"{url}\"}}]}}"));
    let texts: Vec<_> = of_root.chain(of_urls).collect();
    for text in &texts {
        assert_eq!(load_with(text, &[]).map(|_| ()), Ok(()), "{text}");
    }
    let Some(judged) = judge(&texts) else { return };
    for (text, is_valid) in texts.iter().zip(judged) {
        assert!(is_valid, "{text}");
    }
}
