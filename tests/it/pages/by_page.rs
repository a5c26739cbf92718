//! The pages, each with what is needed to follow it.

use serde_json::{Value, json};

use super::{Reader, Tried};
use crate::support::balancer::Echo;
use crate::support::{Backend, Database, Setup, block, root};

#[test]
fn limits() {
    let backend = Backend::named("a");
    let balancer = Setup::auto().backend(backend.address()).start();
    Reader::at(&balancer).follow("limits.md", "", &["curl"]);
}

/// The half of it that is ours, with what Kong's admin API would list.
#[test]
fn from_kong() {
    let backend = Backend::named("a");
    let written = format!("{{ {} }}", block("migrate/kong.md", "rate_limit"));
    let mut config: Value = serde_json::from_str(&written).expect("JSON");
    let balancer = Setup::auto()
        .backend(backend.address())
        .set("rate_limit", config["rate_limit"].take())
        .set("admin.listen", json!("127.0.0.1:0"))
        .start();
    let plugin = |name: &str, consumer: &Value, route: &Value| {
        let config =
            json!({ "second": null, "minute": 3, "hour": 1000, "year": null, "limit_by": "consumer" });
        json!({ "name": name, "enabled": true, "consumer": consumer, "route": route, "service": null, "config": config })
    };
    let (some, none) = (json!({ "id": "6f9d6b1e-1d5c-4a0e-9a53-0d4d1c2b3a4f" }), Value::Null);
    let data = [
        plugin("rate-limiting", &some, &none),
        plugin("rate-limiting", &none, &none),
        plugin("rate-limiting", &some, &some),
        plugin("cors", &some, &none),
    ];
    let listed = json!({ "data": data, "next": null }).to_string();
    let reader = Reader::at(&balancer).file("plugins.json", &listed);
    reader.file("kong.jq", &block("migrate/kong.md", "kong.jq")).follow(
        "migrate/kong.md",
        "",
        &["curl", "jq"],
    );
}

/// What stands before that heading goes on with README's walk: `scripts` types it.
#[test]
fn guide() {
    let tried = Tried::start(|setup| setup);
    let reader = tried.reader().free("127.0.0.1:8081").free("127.0.0.1:8082");
    let config = block("guide.md", "config.json");
    reader.file("config.json", &config).follow("guide.md", "## Without a file", &["curl"]);
}

#[test]
fn configuration() {
    let page = "configuration.md";
    let reader = Reader::new().file("small.json", &block(page, "small.json"));
    reader.file("config.json", &block(page, "config.json")).follow(page, "", &["grep"]);
}

#[test]
fn api() {
    let tried = Tried::start(|setup| setup);
    tried.reader().follow("api.md", "", &["curl"]);
}

#[test]
fn overload() {
    let page = "overload.md";
    let (tried, slow) = (Tried::start(|setup| setup), Echo::start(&["--delay", "100ms"]));
    let reader = tried.reader().free("127.0.0.1:8090").free("127.0.0.1:8091");
    let reader = reader.instead("127.0.0.1:9011", &slow.address.to_string());
    let unbounded = json!({ "backends": ["http://127.0.0.1:9011"], "balancing": { "queue_size": 40 } });
    let reader = reader.file("unbounded.json", &unbounded.to_string());
    reader.file("balancer.json", &block(page, "balancer.json")).follow(page, "", &["curl", "jq", "grep"]);
}

#[test]
fn operations() {
    let tried = Tried::start(|setup| setup);
    tried.reader().follow("operations.md", "", &["curl", "jq"]);
}

#[test]
fn dashboard() {
    let tried = Tried::start(|setup| setup);
    tried.reader().follow("dashboard.md", "", &["curl"]);
}

#[test]
fn measuring() {
    let tried = Tried::start(|setup| setup);
    tried.reader().follow("measuring.md", "", &["curl", "grep"]);
}

#[test]
fn engines() {
    let tried = Tried::start(|setup| setup);
    tried.reader().free("127.0.0.1:8081").free("127.0.0.1:8082").follow("engines.md", "", &["curl"]);
}

#[test]
fn routes() {
    let page = "routes.md";
    let tried = Tried::start(|setup| setup);
    let ([a, b], c) = (&tried.backends, &Echo::start(&[]));
    let mut reader = Reader::new().free("127.0.0.1:8080");
    for (written, actual) in [("10.0.0.3", a), ("10.0.0.1:9001", b), ("10.0.0.2:9001", c), ("10.0.0.4", c)] {
        reader = reader.instead(written, &actual.address.to_string());
    }
    let config = block(page, "routes").replacen('{', "{ \"listen\": \"127.0.0.1:8080\",", 1);
    reader.file("config.json", &config).follow(page, "", &["curl", "jq"]);
}

#[test]
fn https() {
    let page = "tls.md";
    let tried = Tried::start(|setup| setup);
    let reader = tried.reader().free("127.0.0.1:8081").free("127.0.0.1:8444");
    let made = super::typed(&block(page, "certificate"), reader.folder.path());
    assert!(reader.folder.path().join("localhost.pem").is_file(), "{made:?}");
    reader.follow(page, "", &["curl", "openssl"]);
}

#[test]
fn budget() {
    let Some(database) = Database::postgres() else { return };
    let tried = Tried::start(|setup| setup);
    let config = json!({ "backends": ["http://127.0.0.1:9001"] }).to_string();
    let reader = tried.reader().free("127.0.0.1:8081").free("127.0.0.1:8082");
    let reader = reader.instead("postgres://balancer@127.0.0.1/balancer", &format!("'{}'", database.url));
    reader.file("config.json", &config).follow("budget.md", "", &["curl"]);
}

#[test]
fn in_docker() {
    let config = std::fs::read_to_string(root().join("config.json")).expect("the shipped one");
    Reader::new().file("config.json", &config).follow("recipes/docker.md", "", &["head"]);
}
