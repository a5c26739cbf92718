use rustls::{CertificateError, Error};

use super::{Papers, shake_with};
use crate::tls::front::FrontTls;
use crate::tls::upstream::{BackendTls, server_name};
use crate::tls::{BackendTlsSettings, ClientAuth};
use std::time::SystemTime;

fn of(settings: &BackendTlsSettings) -> BackendTls {
    let behind = BackendTls::default();
    behind.apply("default", settings, true);
    behind
}

#[test]
fn backends_are_known_by_roots_and_names() {
    let (papers, strange) = (Papers::new(), Papers::new());
    let mut settings = papers.front(&[papers.pair("a", &["a.test", "127.0.0.1"])]);
    let own = papers.pair("own", &["balancer.test"]);
    settings.client_auth = Some(ClientAuth { ca: papers.ca(), is_required: false });
    let server = FrontTls::new(&settings, true, SystemTime::UNIX_EPOCH).unwrap();
    let known = BackendTlsSettings { ca: Some(papers.ca()), ..BackendTlsSettings::default() };
    let unknown = BackendTlsSettings { ca: Some(strange.ca()), ..known.clone() };
    let named = BackendTlsSettings { server_name: Some("a.test".into()), ..known.clone() };
    let any = BackendTlsSettings { insecure_skip_verify: true, ..unknown.clone() };
    let showing = BackendTlsSettings { client: Some(own), ..known.clone() };
    for (settings, host, is_taken) in [
        (&known, "a.test", true),
        (&known, "a.test.", true),
        (&known, "127.0.0.1", true),
        (&known, "b.test", false),
        (&known, "127.0.0.2", false),
        (&unknown, "a.test", false),
        (&named, "b.test", true),
        (&any, "b.test", true),
        (&showing, "a.test", true),
    ] {
        let client = of(settings).session("default", host).unwrap();
        let outcome = shake_with(client, server.config());
        match outcome {
            Ok((client, server)) => {
                assert!(is_taken, "{settings:?} {host}");
                assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
                assert_eq!(server.peer_certificates().is_some(), settings.client.is_some());
            }
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForNameContext { .. } | CertificateError::UnknownIssuer,
            )) => assert!(!is_taken, "{settings:?} {host}"),
            Err(error) => panic!("{settings:?} {host}: {error}"),
        }
    }
}

#[test]
fn nothing_is_read_before_a_backend_needs_it() {
    let papers = Papers::new();
    let settings =
        BackendTlsSettings { ca: Some(papers.folder().join("none.pem")), ..BackendTlsSettings::default() };
    let behind = BackendTls::default();
    behind.apply("default", &settings, false);
    assert!(behind.session("default", "a.test").unwrap_err().contains("not set up"));
    behind.apply("default", &settings, true);
    let error = behind.session("default", "a.test").unwrap_err();
    assert!(error.contains("none.pem cannot be read"), "{error}");
    std::fs::copy(papers.ca(), papers.folder().join("none.pem")).unwrap();
    assert!(behind.session("default", "a.test").is_err(), "nothing was looked at");
    behind.look();
    assert!(behind.session("default", "a.test").is_ok());
    // Other settings that can't be used are not replaced by those before: they may have checked less.
    let broken = BackendTlsSettings { ca: Some(papers.folder().join("gone.pem")), ..settings.clone() };
    behind.apply("default", &broken, true);
    assert!(behind.session("default", "a.test").unwrap_err().contains("gone.pem"));
    // The files of settings in force are: a renewal may be half done.
    behind.apply("default", &settings, true);
    papers.write("none.pem", "");
    behind.look();
    assert!(behind.session("default", "a.test").is_ok());
}

#[test]
fn hosts_are_names_or_addresses() {
    for (host, is_one) in
        [("a.test", true), ("a_b.test", true), ("::1", true), ("10.0.0.1", true), ("a b", false), ("", false)]
    {
        assert_eq!(server_name(host).is_some(), is_one, "{host:?}");
    }
}

#[test]
fn a_pool_is_known_for_as_long_as_somebody_holds_it() {
    let behind = BackendTls::default();
    let held = behind.of("s");
    behind.apply(
        "s",
        &BackendTlsSettings { insecure_skip_verify: true, ..BackendTlsSettings::default() },
        true,
    );
    behind.of("t");
    behind.forget_unheld();
    assert!(behind.session("s", "a.test").is_ok());
    assert!(behind.session("t", "a.test").unwrap_err().contains("no more"));
    drop(held);
    behind.forget_unheld();
    assert!(behind.session("s", "a.test").unwrap_err().contains("no more"));
}

#[test]
fn a_new_pool_makes_no_connection_of_another_one_stale() {
    let any = BackendTlsSettings { insecure_skip_verify: true, ..BackendTlsSettings::default() };
    let behind = BackendTls::default();
    behind.apply("s", &any, true);
    let before = behind.generation();
    behind.apply("t", &any, true);
    assert_eq!(behind.generation(), before);
    behind.apply("s", &BackendTlsSettings { server_name: Some("b.test".into()), ..any }, true);
    assert_ne!(behind.generation(), before);
}
