//! `tls` and `upstream.tls` with files that are there.

use super::*;
use crate::tls::tests::Papers;
use crate::tls::{Alpn, OldestVersion};

/// The configuration that has these members, from the folder of the papers.
fn read(papers: &Papers, members: &str) -> Result<Config, String> {
    let text = format!("{{\n\"backends\": [{ONE}],\n{members}\n}}");
    from_text(&text, papers.folder()).map_err(|faults| {
        let folder = format!("{}/", papers.folder().display());
        faults.to_string().replace(&folder, "")
    })
}

#[test]
#[cfg_attr(not(all(target_os = "linux", feature = "epoll")), ignore = "TLS needs the loops")]
fn pairs_are_read_from_the_files_folder() {
    let papers = Papers::new();
    let (one, other) = (papers.pair("one", &["one.test"]), papers.pair("other", &["other.test"]));
    let config = read(
        &papers,
        r#""listen": null, "tls": {"listen": ["127.0.0.1:1", "[::1]:1"], "redirect": false, "min_version": "1.3",
            "certificates": [{"cert": "one.pem", "key": "one.key"}, {"cert": "other.pem", "key": "other.key"}],
            "client_auth": {"ca": "ca.pem", "mode": "optional"}, "handshake_timeout": "3s", "alpn": ["http/1.1"]},
            "rate_limit": {"key": ["cert", "cert:san", "ip"]},
            "upstream": {"tls": {"ca": "ca.pem", "server_name": "a.test", "client_cert": "one.pem", "client_key": "one.key"}}"#,
    )
    .unwrap();
    let tls = config.tls.unwrap();
    assert_eq!((config.listen.len(), tls.listen.len(), tls.redirect), (0, 2, false));
    assert_eq!(tls.front.certificates, [one.clone(), other]);
    assert_eq!((tls.front.oldest, tls.front.alpn), (OldestVersion::Tls13, vec![Alpn::Http11]));
    let auth = tls.front.client_auth.unwrap();
    assert_eq!((auth.ca, auth.is_required), (papers.ca(), false));
    let keys: Vec<String> = config.rate_limit.keys.iter().map(ToString::to_string).collect();
    assert_eq!(keys, ["cert", "cert:san"]);
    assert_eq!(tls.handshake_timeout, Duration::from_secs(3));
    assert_eq!(
        (config.pools[0].upstream.tls.client.clone(), config.pools[0].upstream.tls.ca.clone()),
        (Some(one), Some(papers.ca()))
    );
}

#[test]
#[cfg_attr(not(all(target_os = "linux", feature = "epoll")), ignore = "TLS needs the loops")]
fn what_is_left_out_has_its_default() {
    let papers = Papers::new();
    papers.pair("one", &["one.test"]);
    let config =
        read(&papers, r#""tls": {"certificates": [{"cert": "one.pem", "key": "one.key"}]}"#).unwrap();
    let tls = config.tls.unwrap();
    assert_eq!(tls.listen, ["127.0.0.1:8443".parse().unwrap()]);
    assert_eq!((tls.redirect, tls.handshake_timeout), (true, Duration::from_secs(10)));
    assert_eq!((tls.front.oldest, tls.front.client_auth), (OldestVersion::Tls12, None));
    assert_eq!(tls.front.alpn, [Alpn::H2, Alpn::Http11]);
    let behind = config.pools[0].upstream.tls.clone();
    assert_eq!(
        (behind.ca, behind.server_name, behind.client, behind.insecure_skip_verify),
        (None, None, None, false)
    );
}

/// Members in line 3, and how the fault begins. What is wrong is in line 2 where it is a backend's.
#[rustfmt::skip]
fn rows() -> Vec<(String, &'static str)> {
    let pair = |cert: &str, key: &str| {
        format!(r#""tls": {{"certificates": [{{"cert": "{cert}", "key": "{key}"}}]}}"#)
    };
    let with = |more: &str| {
        format!(r#""tls": {{"certificates": [{{"cert": "one.pem", "key": "one.key"}}], {more}}}"#)
    };
    vec![
        (
            pair("one.pem", "other.key"),
            "tls.certificates[0].key: other.key does not fit the first certificate of one.pem",
        ),
        (pair("none.pem", "one.key"), "tls.certificates[0].cert: none.pem cannot be read: No such file"),
        (pair("one.pem", "none.key"), "tls.certificates[0].key: none.key cannot be read: No such file"),
        (pair("one.key", "one.key"), "tls.certificates[0].cert: one.key holds no certificate in PEM form"),
        (pair("one.pem", "one.pem"), "tls.certificates[0].key: one.pem holds no private key in PEM form"),
        (
            pair("one.pem", "locked.key"),
            "tls.certificates[0].key: locked.key holds a private key with a password",
        ),
        (
            pair("odd.pem", "one.key"),
            "tls.certificates[0].cert: odd.pem holds a certificate that can't be read",
        ),
        (pair("", "one.key"), r#"tls.certificates[0].cert: must be a path; found """#),
        (r#""tls": {"certificates": []}"#.into(), "tls.certificates: must be a list of 1 to 1024 pairs"),
        (with(r#""listen": []"#), "tls.listen: needs at least one address"),
        (
            with(r#""listen": "127.0.0.1:8080""#),
            "tls.listen: holds an address twice, or one of listen or admin.listen",
        ),
        (with(r#""listen": "127.0.0.1:9001""#), "backends[0].url: is our own listener 127.0.0.1:9001"),
        (with(r#""min_version": "1.1""#), r#"tls.min_version: must be one of "1.2", "1.3"; found "1.1""#),
        (with(r#""alpn": ["h3"]"#), r#"tls.alpn[0]: must be "h2" or "http/1.1"; found "h3""#),
        (with(r#""alpn": []"#), "tls.alpn: needs at least one protocol, and none twice"),
        (with(r#""alpn": ["h2", "h2"]"#), "tls.alpn: needs at least one protocol, and none twice"),
        (with(r#""client_auth": {}"#), "tls.client_auth.ca: is missing; must be a path"),
        (
            with(r#""client_auth": {"ca": "text"}"#),
            "tls.client_auth.ca: text holds no certificate in PEM form",
        ),
        (with(r#""client_auth": {"ca": "ca.pem", "mode": "maybe"}"#), "tls.client_auth.mode: must be one of"),
        (with(r#""certs": 1"#), r#"tls.certs: unknown key"#),
        (
            with(r#""x": 1"#).replace("\"tls\"", "\"frontend\": {\"engine\": \"tiny_http\"}, \"tls\""),
            "tls: is there: TLS needs the loops",
        ),
        (r#""upstream": {"tls": {"client_key": "one.key"}}"#.into(), "upstream.tls.client_cert: is missing beside client_key"),
        (r#""upstream": {"tls": {"server_name": "a:1"}}"#.into(), r#"upstream.tls.server_name: must be a host name without a port or null; found "a:1""#),
        (r#""upstream": {"tls": {"insecure": true}}"#.into(), r#"upstream.tls.insecure: unknown key; did you mean "admin.insecure"?"#),
        (r#""upstream": {"tls": {"ca": "none.pem"}}"#.into(), "upstream.tls.ca: none.pem cannot be read"),
        (
            r#""upstream": {"tls": {"client_cert": "one.pem", "client_key": "other.key"}}"#.into(),
            "upstream.tls.client_key: other.key does not fit",
        ),
    ]
}

#[test]
fn what_is_wrong_names_file_line_and_key() {
    let papers = Papers::new();
    papers.pair("one", &["one.test"]);
    papers.pair("other", &["other.test"]);
    papers.write(
        "locked.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    papers.write("odd.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    papers.write("text", "text\n");
    for (members, expected) in rows() {
        let found = read(&papers, &members).map(|_| ()).unwrap_err();
        let is_there = found.lines().any(|line| {
            let line = line.strip_prefix("config.json:3: ").or(line.strip_prefix("config.json:2: "));
            line.is_some_and(|line| line.starts_with(expected))
        });
        assert!(is_there, "{members}\n{found}");
    }
    let https = r#""frontend": {"engine": "tiny_http"}, "balancing": {}"#;
    let text = format!(r#"{{{https}, "backends": [{{"name": "a", "url": "https://h"}}]}}"#);
    let found = from_text(&text, papers.folder()).unwrap_err().to_string();
    assert!(found.contains("backends[0].url: begins with https: TLS to backends needs the loops"), "{found}");
}

#[test]
fn a_reload_takes_certificates_and_leaves_what_is_bound() {
    for (key, live) in [
        ("tls", false),
        ("tls.listen", false),
        ("tls.handshake_timeout", false),
        ("tls.certificates[0].cert", true),
        ("tls.client_auth.mode", true),
        ("tls.redirect", true),
        ("upstream.tls.ca", true),
    ] {
        assert_eq!(is_live(key), live, "{key}");
    }
}

#[test]
#[cfg_attr(not(all(target_os = "linux", feature = "epoll")), ignore = "TLS needs the loops")]
fn the_command_line_names_one_pair() {
    let papers = Papers::new();
    let files = papers.pair("one", &["one.test"]);
    let pair = format!("{},{}", files.cert.display(), files.key.display());
    let read = |tls: &str, tls_listen: Option<&str>| {
        let options = Options {
            to: vec![":9001".into()],
            tls: Some(tls.into()),
            tls_listen: tls_listen.map(Into::into),
            ..Options::default()
        };
        load(&options, &[]).map(|loaded| loaded.config.tls.unwrap()).map_err(|faults| faults.to_string())
    };
    assert_eq!(read(&pair, None).unwrap().listen, ["127.0.0.1:8443".parse().unwrap()]);
    let tls = read(&pair, Some("[::]:443")).unwrap();
    assert_eq!((tls.listen, tls.front.certificates), (vec!["[::]:443".parse().unwrap()], vec![files]));
    let fault = read("one.pem", None).unwrap_err();
    assert!(fault.contains("--tls: tls.certificates[0].key: must be a path"), "{fault}");
}
