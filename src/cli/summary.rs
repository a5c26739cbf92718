//! A configuration in a few lines that people read.

use std::fmt::Write;

use crate::config::{AccessLog, Config, DatabaseUrl};

/// Backends that are named one by one.
const NAMED: usize = 8;

/// What a configuration means, a line a matter, each ended and indented. Holds no secret.
pub fn summary(config: &Config) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string has nothing to fail on.
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
    line("backends", backends(config));
    line(
        "health",
        match &config.default_pool().health_check {
            Some(check) => format!("GET {} every {:?}", check.path, check.interval),
            None => "not checked".into(),
        },
    );
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

fn backends(config: &Config) -> String {
    let pool = config.default_pool();
    let strategy = pool.balancing.strategy.name();
    let named = pool.backends.iter().take(NAMED).map(|backend| {
        let host =
            if backend.host.contains(':') { format!("[{}]", backend.host) } else { backend.host.clone() };
        let scheme = if backend.is_tls { "https" } else { "http" };
        let url = format!("{scheme}://{host}:{}", backend.port);
        if url.ends_with(&format!("//{}", backend.name)) { url } else { format!("{} {url}", backend.name) }
    });
    let more = match pool.backends.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}; {strategy}", list(named))
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
