//! The pages, each with what it needs to be followed.

use serde_json::{Value, json};

use super::{Reader, Tried};
use crate::support::{Backend, Setup, block};

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
