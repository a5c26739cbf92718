//! A summary of a configuration, in a few lines for people.

use std::fmt::Write;

use crate::config::routes::{RouteAction, RouteConfig};
use crate::config::{AccessLog, Config, DatabaseUrl, PoolConfig};
use balancer_http::routes::HostPattern;
use balancer_pool::backends::DEFAULT_POOL;

/// Most backends and routes that are named one by one.
const NAMED: usize = 8;

/// What a configuration means: one indented line for each subject, each with its line end. It contains no secret.
pub fn summary(config: &Config) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<9} {value}");
    };
    if !config.listen.is_empty() {
        line("listen", list(config.listen.iter().map(ToString::to_string)));
    }
    if let Some(tls) = &config.tls {
        let listen = list(tls.listen.iter().map(ToString::to_string));
        let pairs = list(tls.front.certificates.iter().map(|pair| pair.cert.display().to_string()));
        let redirects = tls.redirect && !config.listen.is_empty();
        let more = if redirects { "; the plain port leads there" } else { "" };
        line("TLS", format!("{listen}, with {pairs}{more}"));
    }
    for pool in &config.pools {
        if pool.name != DEFAULT_POOL {
            line("pool", format!("{}: {}; {}", pool.name, backends(pool), health(pool)));
        } else if !pool.backends.is_empty() {
            line("backends", backends(pool));
            line("health", health(pool));
        }
    }
    if !config.routes.all.is_empty() {
        line("routes", routes(&config.routes.all));
    }
    line(
        "limit",
        match &config.rate_limit.default {
            Some(terms) => format!("{terms} for each client without a limit of its own"),
            None => "none for clients without one of their own".into(),
        },
    );
    line(
        "database",
        match &config.database.url {
            DatabaseUrl::Sqlite(path) => format!("SQLite, {}", path.display()),
            DatabaseUrl::Memory => {
                "in memory: limits are gone with the process; --data DIR keeps them".into()
            }
            DatabaseUrl::Postgres(_) => "PostgreSQL".into(),
        },
    );
    line("API", api(config));
    line(
        "log",
        match &config.log.access {
            AccessLog::Off => "no line a request".into(),
            AccessLog::Stdout => "a line a request to stdout".into(),
            AccessLog::File(path) => format!("a line a request to {}", path.display()),
        },
    );
    text
}

fn health(pool: &PoolConfig) -> String {
    match &pool.health_check {
        Some(check) => format!("GET {} every {:?}", check.path, check.interval),
        None => "not checked".into(),
    }
}

fn routes(routes: &[RouteConfig]) -> String {
    let named = routes.iter().take(NAMED).map(|route| {
        let to = match &route.action {
            RouteAction::Pool(pool) => pool.clone(),
            RouteAction::Redirect(to) => format!("{} to {}", to.status, to.to),
            RouteAction::Respond(answer) => answer.status.to_string(),
        };
        let (host, path) = (&route.host, &route.path);
        format!("{}{path} → {to}", if *host == HostPattern::Any { String::new() } else { host.to_string() })
    });
    format!("{}{}", list(named), more(routes.len()))
}

/// Says how many are not named.
fn more(all: usize) -> String {
    match all.saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}

fn backends(pool: &PoolConfig) -> String {
    let strategy = pool.balancing.strategy.name();
    let named = pool.backends.iter().take(NAMED).map(|backend| {
        let url = backend.url();
        let is_named_so = [&url, url.trim_end_matches(&format!(":{}", backend.port))]
            .iter()
            .any(|url| url.split_once("://").is_some_and(|(_, at)| at == backend.name));
        if is_named_so { url } else { format!("{} {url}", backend.name) }
    });
    format!("{}{}; {strategy}", list(named), more(pool.backends.len()))
}

fn api(config: &Config) -> String {
    let admin = &config.admin;
    let place = match admin.listen {
        Some(address) => format!("http://{address}"),
        None => "on the public port".into(),
    };
    let who = if admin.allow.is_empty() {
        "nobody".into()
    } else if admin.listen.is_none() && admin.token.is_none() && admin.tokens.is_empty() {
        "processes of its own user on this machine".into()
    } else {
        list(admin.allow.iter().map(ToString::to_string))
    };
    let token = if admin.token.is_some() { "with the token" } else { "without a token" };
    format!("{place}, for {who}, {token}")
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::from_text;

    #[test]
    fn a_summary_says_what_matters_and_no_secret() {
        let text = r#"{
            "listen": ["127.0.0.1:80", "[::1]:80"],
            "backends": [ { "name": "a", "url": "http://127.0.0.1:9001" }, { "name": "[::1]:9", "url": "http://[::1]:9" } ],
            "rate_limit": { "default": "600/m burst 50" },
            "database": { "url": "postgres://u:hunter2@h/d" },
            "admin": { "token": "hunter2-hunter2-hunter2", "listen": "127.0.0.1:81" },
            "log": { "access": "file:a.log" }
        }"#;
        let config = from_text(text, Path::new("/srv")).unwrap();
        assert_eq!(
            summary(&config),
            "  listen    127.0.0.1:80, [::1]:80\n  \
               backends  a http://127.0.0.1:9001, http://[::1]:9; least_connections\n  \
               health    GET / every 2s\n  \
               limit     50 tokens, refilled at 600/m for each client without a limit of its own\n  \
               database  PostgreSQL\n  \
               API       http://127.0.0.1:81, for 127.0.0.0/8, ::1/128, with the token\n  \
               log       a line a request to /srv/a.log\n"
        );
    }

    #[test]
    #[cfg_attr(not(all(target_os = "linux", feature = "epoll")), ignore = "TLS needs the loops")]
    fn what_is_spoken_by_tls_is_told() {
        let papers = crate::tls::tests::Papers::new();
        papers.pair("site", &["a.test"]);
        let read = |listen: &str| {
            let text = format!(
                r#"{{{listen}"backends": [{{"name": "a", "url": "https://h"}}],
                    "tls": {{"listen": "[::]:443", "certificates": [{{"cert": "site.pem", "key": "site.key"}}]}}}}"#
            );
            summary(&from_text(&text, papers.folder()).unwrap())
        };
        let pair = papers.folder().join("site.pem");
        let text = read("");
        assert!(text.contains(&format!(
            "  TLS       [::]:443, with {}; the plain port leads there\n",
            pair.display()
        )));
        assert!(text.contains("a https://h:443;"), "{text}");
        let text = read(r#""listen": null, "#);
        assert!(!text.contains("listen") && !text.contains("leads there"), "{text}");
    }

    #[test]
    fn pools_and_routes_have_their_lines() {
        let text = r#"{"pools": {"api": {"backends": ["http://10.0.0.1"], "health_check": null}},
            "routes": [{"host": "api.example.com", "pool": "api"},
                       {"path": "/old/", "redirect": {"to": "https://new.example", "status": 301}},
                       {"host": "*.example.com", "path": "/up", "respond": {"status": 204}}]}"#;
        let summary = summary(&from_text(text, Path::new("/srv")).unwrap());
        let lines: Vec<&str> = summary.lines().collect();
        assert_eq!(
            lines[1..3],
            [
                "  pool      api: http://10.0.0.1:80; least_connections; not checked",
                "  routes    api.example.com/ → api, /old/ → 301 to https://new.example, *.example.com/up → 204",
            ]
        );
    }

    #[test]
    fn many_backends_are_counted() {
        let backends: Vec<_> = (0..20)
            .map(|n| format!(r#"{{"name": "b{n}", "url": "http://127.0.0.1:{}"}}"#, 9000 + n))
            .collect();
        let config =
            from_text(&format!(r#"{{"backends": [{}]}}"#, backends.join(",")), Path::new(".")).unwrap();
        let text = summary(&config);
        assert!(text.contains("b7 http://127.0.0.1:9007 and 12 more; least_connections"), "{text}");
        assert!(text.contains("SQLite, ./data/balancer.db"), "{text}");
    }
}
