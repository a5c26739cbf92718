//! `config.json` and the environment: what is refused, and with which message.

use rustix::process::Signal;
use serde_json::json;
use tempfile::tempdir;

use crate::support::balancer::PROGRAM;
use crate::support::{Backend, Balancer, Proc, Setup};

/// `balancer check` on that text with those variables: exit code and stderr.
fn check(text: &str, env: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), text).unwrap();
    let env: Vec<(String, String)> = env.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    let mut proc = Proc::start(PROGRAM, &["check"], folder.path(), &env);
    let status = proc.wait();
    (status.code(), proc.err())
}

/// Ends a balancer, so that all of its lines are written.
fn end(balancer: &mut Balancer) {
    balancer.proc.signal(Signal::TERM);
    assert_eq!(balancer.proc.wait().code(), Some(0), "{}", balancer.proc.story());
}

const GOOD: &str = r#"{ "backends": [ { "name": "a", "url": "http://127.0.0.1:9001" } ] }"#;

#[test]
fn the_shipped_file_is_right() {
    let folder = tempdir().unwrap();
    let shipped = crate::support::root().join("config.json");
    let args = ["check", "--config", shipped.to_str().unwrap()];
    let mut proc = Proc::start(PROGRAM, &args, folder.path(), &[]);
    assert_eq!(proc.wait().code(), Some(0), "{}", proc.story());
}

#[test]
fn every_fault_stands_with_file_line_and_key() {
    let text = r#"{
  "listen": "nowhere",
  "backends": [
    { "name": "a", "url": "http://127.0.0.1:9001", "wieght": 2 },
    { "name": "a", "url": "ftp://127.0.0.1" }
  ],
  "upstream": { "retries": -1, "retries": 2 },
  "health_check": { "expect": "900" },
  "rate_limit": { "default": { "capacity": 1.5, "rate_per_sec": 0.0000001 } }
}"#;
    let (code, err) = check(text, &[]);
    assert_eq!(code, Some(2), "{err}");
    let faults = [
        (2, "listen", ""),
        (4, "backends[0].wieght", "did you mean"),
        (5, "backends[1].name", ""),
        (5, "backends[1].url", ""),
        (7, "upstream.retries", ""),
        (8, "health_check.expect", ""),
        (9, "rate_limit.default.capacity", ""),
        (9, "rate_limit.default.rate_per_sec", ""),
    ];
    for (line, key, words) in faults {
        let start = format!("config.json:{line}: {key}: ");
        let found = err.lines().any(|said| said.contains(&start) && said.contains(words));
        assert!(found, "no line with {start:?} and {words:?} in\n{err}");
    }
}

#[test]
fn single_faults_are_refused() {
    let with = |member: &str| GOOD.replacen('{', &format!("{{ {member},"), 1);
    let cases: &[(&str, String)] = &[
        ("backends", "{}".into()),
        ("backends", r#"{ "backends": [] }"#.into()),
        ("lisen", with(r#""lisen": "127.0.0.1:1""#)),
        ("balancing.strategy", with(r#""balancing": { "strategy": "roundrobin" }"#)),
        ("frontend.engine", with(r#""frontend": { "engine": "nginx" }"#)),
        ("frontend.workers", with(r#""frontend": { "workers": 0 }"#)),
        ("frontend.max_body_bytes", with(r#""frontend": { "max_body_bytes": 1099511627777 }"#)),
        (
            "rate_limit.default.capacity",
            with(r#""rate_limit": { "default": { "capacity": 1000000001, "rate_per_sec": 1 } }"#),
        ),
        (
            "rate_limit.default.capacity",
            with(r#""rate_limit": { "default": { "capacity": -1, "rate_per_sec": 1 } }"#),
        ),
        ("rate_limit.ipv6_prefix", with(r#""rate_limit": { "ipv6_prefix": 129 }"#)),
        ("rate_limit.trusted_proxies[0]", with(r#""rate_limit": { "trusted_proxies": ["10.0.0.0/33"] }"#)),
        ("database.url", with(r#""database": { "url": "mysql://x" }"#)),
        ("admin.allow", with(r#""admin": { "allow": ["0.0.0.0/0"] }"#)),
        ("shutdown_timeout", with(r#""shutdown_timeout": "soon""#)),
        ("log.level", with(r#""log": { "level": "loud" }"#)),
        ("balancing.queue_size", with(r#""balancing": { "queue_size": -1 }"#)),
        ("listen", with(r#""listen": "127.0.0.1:9001""#)),
    ];
    for (key, text) in cases {
        let (code, err) = check(text, &[]);
        assert_eq!(code, Some(2), "{text}\n{err}");
        assert!(err.contains(key), "{key} is not named for {text}\n{err}");
    }
    let (code, err) = check("{ \"backends\": [ }", &[]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("config.json:1"), "{err}");
}

#[test]
fn allowing_more_than_loopback_needs_a_token_or_a_word() {
    let text = GOOD.replacen('{', r#"{ "admin": { "allow": ["0.0.0.0/0"] },"#, 1);
    assert_eq!(check(&text, &[]).0, Some(2));
    assert_eq!(check(&text, &[("BALANCER_ADMIN_TOKEN", "a-token-of-some-length")]).0, Some(0));
    assert_eq!(check(&text, &[("BALANCER__ADMIN__INSECURE", "true")]).0, Some(0));
}

#[test]
fn the_environment_wins_and_its_faults_name_the_variable() {
    assert_eq!(check(GOOD, &[("BALANCER_LISTEN", "127.0.0.1:0")]).0, Some(0));
    // Kubernetes sets such variables for a service called balancer.
    let service = [("BALANCER_SERVICE_HOST", "10.0.0.1"), ("BALANCER_PORT_8080_TCP", "tcp://10.0.0.1:8080")];
    assert_eq!(check(GOOD, &service), (Some(0), String::new()), "ignored");

    let bad = [
        ("BALANCER_LISTEN", "nowhere"),
        ("BALANCER_DATABASE_URL", "mysql://x"),
        ("BALANCER_LOG_LEVEL", "loud"),
        ("BALANCER__FRONTEND__WORKERS", "many"),
        ("BALANCER__FRONTEND__WROKERS", "4"),
        ("BALANCER__NO_SUCH__KEY", "1"),
    ];
    for (name, value) in bad {
        let (code, err) = check(GOOD, &[(name, value)]);
        assert_eq!(code, Some(2), "{name}={value}\n{err}");
        assert!(err.contains(name), "{name}={value}\n{err}");
    }
}

#[test]
fn a_value_from_the_environment_is_in_force() {
    let backend = Backend::named("a");
    let setup = Setup::auto()
        .backend(backend.address())
        .set("listen", json!("127.0.0.1:1"))
        .env("BALANCER_LISTEN", "127.0.0.1:0")
        .env("BALANCER__RATE_LIMIT__DEFAULT", r#"{"capacity": 1, "rate_per_sec": 0}"#);
    let balancer = setup.start();
    balancer.get("/").expect(200);
    balancer.get("/").problem(429);
}

#[test]
fn secrets_come_from_files_and_show_nowhere() {
    let backend = Backend::named("a");
    let folder = tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "sesame-sesame-sesame\n").unwrap();
    let setup = Setup::auto()
        .backend(backend.address())
        .set("log.level", json!("trace"))
        .env("BALANCER_ADMIN_TOKEN_FILE", file.to_str().unwrap());
    let mut balancer = setup.start();
    balancer.api("GET", "/limits", &json!(null)).problem(401);
    let bearer = [("Authorization", "Bearer sesame-sesame-sesame")];
    crate::support::request(balancer.admin, "GET", "/limits", &bearer, b"").expect(200);
    end(&mut balancer);
    let story = balancer.proc.story();
    assert!(!story.contains("sesame-sesame"), "{story}");
}

#[test]
fn a_database_password_shows_nowhere() {
    let backend = Backend::named("a");
    let url = "postgres://balancer:hunter2hunter2@127.0.0.1:1/balancer";
    let setup = Setup::auto()
        .backend(backend.address())
        .set("log.level", json!("trace"))
        .env("BALANCER_DATABASE_URL", url);
    let mut balancer = setup.start();
    balancer.get("/").expect(200);
    balancer.api("GET", "/limits", &json!(null)).problem(503);
    end(&mut balancer);
    // The command in the story holds the variable itself.
    let said = format!("{}\n{}", balancer.proc.out(), balancer.proc.err());
    assert!(!said.contains("hunter2"), "{said}");
    let text = GOOD.replacen('{', r#"{ "database": { "url": "postgres://u:hunter2hunter2@h:port/x" },"#, 1);
    let (code, err) = check(&text, &[]);
    assert_eq!(code, Some(2), "{err}");
    assert!(!err.contains("hunter2"), "{err}");
}

#[test]
fn keys_that_an_engine_cannot_honour_are_one_warning() {
    let backend = Backend::named("a");
    let setup = Setup::on(crate::support::Engine::TinyHttp)
        .backend(backend.address())
        .set("frontend.head_timeout", json!("3s"))
        .set("frontend.idle_timeout", json!("50s"));
    let mut balancer = setup.start();
    balancer.get("/").expect(200);
    end(&mut balancer);
    let err = balancer.proc.err();
    let warnings: Vec<&str> = err.lines().filter(|line| line.contains("tiny_http")).collect();
    let [warning] = warnings[..] else { panic!("{err}") };
    assert!(warning.contains("head_timeout") && warning.contains("idle_timeout"), "{warning}");
}
