use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PKCS_ED25519, SanType, date_time_ymd};
use rustls::SignatureScheme::{self, ECDSA_NISTP256_SHA256, ED25519};
use rustls::crypto::ring;

use super::Papers;
use crate::tls::PairFiles;
use crate::tls::certificates::{Certificates, CertifiedPair};

fn read(files: &PairFiles) -> CertifiedPair {
    CertifiedPair::read(files, &ring::default_provider()).unwrap()
}

#[test]
fn a_certificate_says_for_whom_it_is_and_how_long() {
    let papers = Papers::new();
    let files = papers.pair_with("a", &[], KeyPair::generate().unwrap(), |params| {
        params.subject_alt_names = vec![
            SanType::Rfc822Name("who@a.test".try_into().unwrap()),
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::URI("spiffe://a.test/web".try_into().unwrap()),
            SanType::DnsName("A.Test".try_into().unwrap()),
            SanType::DnsName("*.b.test".try_into().unwrap()),
        ];
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2024, 1, 31);
    });
    let details = read(&files).details;
    assert_eq!(details.names, ["a.test", "*.b.test"]);
    assert_eq!(details.san.as_deref(), Some("spiffe://a.test/web"));
    // 2024-01-01.
    let first = SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_067_200);
    let day = |day: u64| first + Duration::from_secs(day * 86_400);
    assert_eq!((details.not_before, details.not_after), (first, day(30)));
    for (now, expected) in [
        (day(0), None),
        (day(30), None),
        (day(33), Some("expired 3 days ago")),
        (first - Duration::from_secs(2 * 86_400), Some("is valid in 2 days only")),
    ] {
        assert_eq!(details.outside(now).as_deref(), expected);
    }
}

#[test]
fn a_client_gets_the_certificate_for_the_name_that_it_asks_for() {
    let papers = Papers::new();
    let both = [ECDSA_NISTP256_SHA256, ED25519];
    let pairs = [
        papers.pair("default", &["default.test"]),
        papers.pair("wild", &["*.a.test", "a.test"]),
        papers.pair("exact", &["www.a.test"]),
        papers.pair_with("edwards", &["two.test"], KeyPair::generate_for(&PKCS_ED25519).unwrap(), |_| {}),
        papers.pair("nist", &["two.test"]),
        papers.pair("nameless", &[]),
    ];
    let certificates = Certificates::new(pairs.iter().map(read).collect());
    let rows: &[(Option<&str>, &[SignatureScheme], &str)] = &[
        (None, &both, "default"),
        (Some("default.test"), &both, "default"),
        (Some("elsewhere.test"), &both, "default"),
        (Some("a.test"), &both, "wild"),
        (Some("x.a.test"), &both, "wild"),
        (Some("x.y.a.test"), &both, "default"),
        (Some("www.a.test"), &both, "exact"),
        (Some("WWW.A.test."), &both, "exact"),
        (Some("*.a.test"), &both, "wild"),
        (Some(""), &both, "default"),
        // Of two for one name the first that the client can verify.
        (Some("two.test"), &both, "edwards"),
        (Some("two.test"), &[ECDSA_NISTP256_SHA256], "nist"),
        (Some("two.test"), &[], "edwards"),
    ];
    for (name, schemes, expected) in rows {
        let found = certificates.pick(*name, schemes).unwrap().files.cert.file_stem().unwrap().to_owned();
        assert_eq!(found, *expected, "{name:?}");
    }
}

#[test]
fn what_is_usable_and_not_right_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let papers = Papers::new();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mode = |files: &PairFiles, mode| {
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let good = papers.pair("good", &["a.test"]);
    mode(&good, 0o640);
    assert_eq!(read(&good).warnings(now), [""; 0]);
    let old = papers.pair_with("old", &[], KeyPair::generate().unwrap(), |params| {
        params.not_after = date_time_ymd(2024, 1, 1);
    });
    mode(&old, 0o644);
    let warnings = read(&old).warnings(now);
    let [expired, nameless, open] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(expired.contains("old.pem") && expired.contains("expired"), "{expired}");
    assert!(nameless.contains("names no host"), "{nameless}");
    assert!(open.contains("old.key") && open.contains("chmod o-r"), "{open}");
}
