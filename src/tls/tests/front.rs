use std::sync::Arc;
use std::time::SystemTime;

use rustls::HandshakeKind;
use rustls::version::TLS12;
use sha2::{Digest, Sha256};

use super::{Papers, shake};
use crate::tls::certificates::CertifiedPair;
use crate::tls::front::FrontTls;
use crate::tls::session::session_of;
use crate::tls::{Alpn, ClientAuth, FrontSettings, OldestVersion, PairFiles};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn front(settings: &FrontSettings) -> FrontTls {
    FrontTls::new(settings, true, NOW).unwrap()
}

/// What a client that asks for `a.test` is shown.
fn shown(papers: &Papers, front: &FrontTls) -> Vec<u8> {
    let (client, _) = shake(&Arc::new(papers.client(None)), front.config(), "a.test").unwrap();
    client.peer_certificates().unwrap()[0].to_vec()
}

fn der(files: &PairFiles) -> Vec<u8> {
    CertifiedPair::read(files, &rustls::crypto::ring::default_provider()).unwrap().key.cert[0].to_vec()
}

#[test]
fn a_session_says_what_was_settled() {
    let papers = Papers::new();
    let own = papers.pair("own", &["client.test"]);
    let mut settings = papers.front(&[papers.pair("a", &["a.test"])]);
    settings.client_auth = Some(ClientAuth { ca: papers.ca(), is_required: false });
    let front = front(&settings);
    let (_, server) = shake(&Arc::new(papers.client(None)), front.config(), "a.test").unwrap();
    let session = session_of(&server);
    assert_eq!((session.version, session.sni.as_deref()), ("TLSv1.3", Some("a.test")));
    assert!(session.cipher.starts_with("TLS_AES_") && session.certificate.is_none(), "{session:?}");
    let (_, server) = shake(&Arc::new(papers.client(Some(&own))), front.config(), "a.test").unwrap();
    let certificate = session_of(&server).certificate.unwrap();
    assert_eq!(certificate.fingerprint, Sha256::digest(der(&own))[..16]);
    assert_eq!(certificate.san.as_deref(), Some("client.test"));
}

#[test]
fn clients_show_certificates_as_they_are_asked_to() {
    let (papers, strange) = (Papers::new(), Papers::new());
    let own = papers.pair("own", &["client.test"]);
    let other = strange.pair("own", &["client.test"]);
    for (is_required, own, is_let_in) in [
        (false, None, true),
        (false, Some(&own), true),
        (false, Some(&other), false),
        (true, None, false),
        (true, Some(&own), true),
        (true, Some(&other), false),
    ] {
        let mut settings = papers.front(&[papers.pair("a", &["a.test"])]);
        settings.client_auth = Some(ClientAuth { ca: papers.ca(), is_required });
        let outcome = shake(&Arc::new(papers.client(own)), front(&settings).config(), "a.test");
        assert_eq!(outcome.is_ok(), is_let_in, "{is_required} {own:?}");
    }
}

#[test]
fn versions_and_protocols_are_those_that_are_configured() {
    let papers = Papers::new();
    let mut settings = papers.front(&[papers.pair("a", &["a.test"])]);
    let mut old =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS12])
            .unwrap()
            .with_root_certificates(crate::tls::roots::of_file(&papers.ca()).unwrap())
            .with_no_client_auth();
    old.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let old = Arc::new(old);
    let (_, server) = shake(&old, front(&settings).config(), "a.test").unwrap();
    let session = session_of(&server);
    assert_eq!(session.version, "TLSv1.2");
    assert!(session.cipher.starts_with("TLS_ECDHE_ECDSA_"), "{session:?}");
    assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
    let without = FrontTls::new(&settings, false, NOW).unwrap();
    let (_, server) = shake(&old, without.config(), "a.test").unwrap();
    assert_eq!(server.alpn_protocol(), Some(&b"http/1.1"[..]));
    settings.alpn = vec![Alpn::H2];
    assert_eq!(FrontTls::new(&settings, false, NOW).unwrap().config().alpn_protocols, [b"http/1.1"]);
    settings.oldest = OldestVersion::Tls13;
    assert!(shake(&old, front(&settings).config(), "a.test").is_err());
}

#[test]
fn files_that_changed_are_taken_when_they_are_looked_at_and_broken_ones_are_not() {
    let papers = Papers::new();
    let files = papers.pair("a", &["a.test"]);
    let front = front(&papers.front(std::slice::from_ref(&files)));
    let first = der(&files);
    assert_eq!(shown(&papers, &front), first);
    // A key of another certificate, as while a renewal writes one file after the other.
    let renewed = papers.pair("renewed", &["a.test"]);
    std::fs::copy(&renewed.key, &files.key).unwrap();
    front.look(NOW);
    assert_eq!(shown(&papers, &front), first);
    front.look(NOW);
    assert_eq!(shown(&papers, &front), first);
    std::fs::copy(&renewed.cert, &files.cert).unwrap();
    assert_eq!(shown(&papers, &front), first, "nothing was looked at");
    front.look(NOW);
    assert_eq!(shown(&papers, &front), der(&renewed));
    // Settings that can't be used change nothing, either.
    std::fs::write(&files.cert, "").unwrap();
    assert!(front.apply(&papers.front(std::slice::from_ref(&files)), NOW).unwrap_err().contains("a.pem"));
    assert_eq!(shown(&papers, &front), der(&renewed));
    front.apply(&papers.front(std::slice::from_ref(&renewed)), NOW).unwrap();
    assert_eq!(front.certificates().len(), 1);
}

#[test]
fn tickets_outlive_a_reload_unless_other_clients_are_let_in_by_it() {
    let papers = Papers::new();
    let own = papers.pair("own", &["client.test"]);
    let mut settings = papers.front(&[papers.pair("a", &["a.test"])]);
    settings.client_auth = Some(ClientAuth { ca: papers.ca(), is_required: false });
    let front = front(&settings);
    let client = Arc::new(papers.client(Some(&own)));
    let kind = || {
        let (_, server) = shake(&client, front.config(), "a.test").unwrap();
        assert!(session_of(&server).certificate.is_some());
        server.handshake_kind()
    };
    assert_eq!(kind(), Some(HandshakeKind::Full));
    assert_eq!(kind(), Some(HandshakeKind::Resumed));
    settings.certificates = vec![papers.pair("b", &["a.test"])];
    front.apply(&settings, NOW).unwrap();
    assert_eq!(kind(), Some(HandshakeKind::Resumed));
    let other = Papers::new();
    papers.write(
        "roots.pem",
        &[papers.ca(), other.ca()].map(|ca| std::fs::read_to_string(ca).unwrap()).concat(),
    );
    settings.client_auth = Some(ClientAuth { ca: papers.folder().join("roots.pem"), is_required: false });
    front.apply(&settings, NOW).unwrap();
    assert_eq!(kind(), Some(HandshakeKind::Full));
}

#[test]
fn of_certificates_with_one_name_the_first_to_expire_is_shown() {
    let papers = Papers::new();
    let key = || rcgen::KeyPair::generate().unwrap();
    let year = |year| {
        move |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(year, 1, 1)
    };
    let pairs = [
        papers.pair_with("a", &["a.test"], key(), year(2040)),
        papers.pair_with("b", &["a.test", "b.test"], key(), year(2030)),
        papers.pair_with("c", &[], key(), year(2030)),
    ];
    let shown = front(&papers.front(&pairs)).certificates();
    assert_eq!(shown.len(), 2);
    assert_eq!((shown[0].name.as_str(), &shown[0].names[..]), ("a.test", &["a.test".to_owned()][..]));
    assert_eq!(shown[0].not_after, shown[1].not_after);
    assert!(shown[1].name.ends_with("c.pem"), "{shown:?}");
}
