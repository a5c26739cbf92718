//! Keys of `tls` and of `upstream.tls`. Files are read here, too, so that their faults are reported with all others,
//! before anything listens.

use std::path::{Path, PathBuf};

use rustls::crypto::ring;

use super::{MAX_LISTENERS, TIMEOUT};
use crate::config::{TlsConfig, forms, words};
use crate::declare::{Section, Shape, Spec};
use crate::tls::certificates::CertifiedPair;
use crate::tls::{
    Alpn, BackendTlsSettings, ClientAuth, FrontSettings, OldestVersion, PairFiles, roots, upstream,
};

/// Most pairs; the words of the shape say so.
const MAX_PAIRS: usize = 1_024;

const PAIRS: Spec = Spec::new(
    "certificates",
    Shape::objects(
        "a list of 1 to 1024 pairs: [{\"cert\": \"site.pem\", \"key\": \"site.key\"}]",
        1,
        MAX_PAIRS,
    ),
    "",
    "Certificates by the names that they are for; the first is shown to clients that ask for none of them.",
);

/// `tls`; relative paths count from `base`.
pub(super) fn tls(mut s: Section<'_>, base: &Path) -> TlsConfig {
    let listen = Spec::new(
        "listen",
        Shape::List { of: words::ADDRESS, max: MAX_LISTENERS, single: true },
        "\"127.0.0.1:8443\"",
        "Where the TLS port listens: an address or a list of them.",
    );
    let listen = s.list(&listen, forms::address);
    if listen.is_empty() && !s.faulty("listen") {
        s.fault("listen", "needs at least one address");
    }
    let certificates = s.objects(&PAIRS, |section| pair(section, base, ("cert", "key")));
    let versions = [("1.2", OldestVersion::Tls12), ("1.3", OldestVersion::Tls13)];
    let about = "The oldest version of TLS that clients may speak.";
    let oldest = s.choice("min_version", &versions, "\"1.2\"", about).unwrap_or_default();
    let about =
        "Ask clients for certificates, by which limits can tell them apart (rate_limit.key); null: no.";
    let client_auth = s.section_of("client_auth", about, |section| client_auth(section, base)).flatten();
    let tls = TlsConfig {
        listen,
        front: FrontSettings {
            certificates: certificates.into_iter().flatten().collect(),
            oldest,
            client_auth,
            alpn: alpn(&mut s),
        },
        redirect: s.bool(
            "redirect",
            "true",
            "Send clients of the plain port here, with 308; the API and paths below /-/ are answered there.",
        ),
        handshake_timeout: s.duration(
            "handshake_timeout",
            TIMEOUT,
            "\"10s\"",
            "How long a handshake may take in all.",
        ),
    };
    s.end();
    tls
}

fn alpn(s: &mut Section<'_>) -> Vec<Alpn> {
    let spec = Spec::new(
        "alpn",
        Shape::List { of: words::PROTOCOL, max: 2, single: false },
        "[\"h2\", \"http/1.1\"]",
        "What is spoken inside of TLS, the best first.",
    );
    let alpn = s.list(&spec, |text| match text {
        "h2" => Ok(Alpn::H2),
        "http/1.1" => Ok(Alpn::Http11),
        _ => Err(None),
    });
    let is_doubled = matches!(alpn.as_slice(), [one, other] if one == other);
    if (alpn.is_empty() || is_doubled) && !s.faulty("alpn") {
        s.fault("alpn", "needs at least one protocol, and none twice");
    }
    alpn
}

/// `None`: there is a fault.
fn client_auth(mut s: Section<'_>, base: &Path) -> Option<ClientAuth> {
    let about = "The certificates, in PEM form, that those of clients must lead to.";
    let ca = file(&mut s, &Spec::of("ca", words::PATH, "", about), base);
    let modes = [("optional", false), ("required", true)];
    let about = "Whether a client may do without one; one that leads elsewhere is refused in any case.";
    let is_required = s.choice("mode", &modes, "\"required\"", about);
    if let Some(ca) = &ca {
        check_roots(&mut s, "ca", ca);
    }
    s.end();
    Some(ClientAuth { ca: ca?, is_required: is_required? })
}

/// `upstream.tls`; relative paths count from `base`.
pub(super) fn upstream(mut s: Section<'_>, base: &Path) -> BackendTlsSettings {
    let about = "The certificates, in PEM form, that those of backends must lead to; null: those that the system trusts.";
    let ca = file(&mut s, &Spec::of("ca", words::PATH, "null", about).or_null(), base);
    if let Some(ca) = &ca {
        check_roots(&mut s, "ca", ca);
    }
    let name = Spec::of(
        "server_name",
        words::HOST_NAME,
        "null",
        "The name that backends' certificates must be for; null: the host of each one's url.",
    )
    .or_null();
    let server_name = s.text(&name, |text| {
        forms::host_name(text).filter(|name| upstream::server_name(name).is_some()).ok_or(None)
    });
    let settings = BackendTlsSettings {
        ca,
        server_name,
        client: own_pair(&mut s, base),
        insecure_skip_verify: s.bool(
            "insecure_skip_verify",
            "false",
            "Take any certificate of a backend: whoever is on the way can then read and change what is sent.",
        ),
    };
    s.end();
    settings
}

/// What we show to backends: both files or neither.
fn own_pair(s: &mut Section<'_>, base: &Path) -> Option<PairFiles> {
    let about = "What we show to backends that ask for a certificate, in PEM form; null: nothing.";
    let cert = Spec::of("client_cert", words::PATH, "null", about).or_null();
    let key = Spec::of("client_key", words::PATH, "null", "Its private key, in PEM form.").or_null();
    let (cert, key) = (file(s, &cert, base), file(s, &key, base));
    match (cert, key) {
        (Some(cert), Some(key)) => {
            let files = PairFiles { cert, key };
            check_pair(s, &files, ("client_cert", "client_key"));
            Some(files)
        }
        (None, None) => None,
        (cert, _) => {
            let (name, other) = match cert {
                Some(_) => ("client_key", "client_cert"),
                None => ("client_cert", "client_key"),
            };
            if !s.faulty(name) {
                s.fault(name, format!("is missing beside {other}"));
            }
            None
        }
    }
}

/// A pair of required files under those names; `None`: there is a fault.
fn pair(mut s: Section<'_>, base: &Path, names: (&'static str, &'static str)) -> Option<PairFiles> {
    let about = "The certificate, in PEM form, with those behind it that lead to a root.";
    let cert = Spec::of(names.0, words::PATH, "", about);
    let about = "Its private key, in PEM form and without a password.";
    let key = Spec::of(names.1, words::PATH, "", about);
    let files =
        file(&mut s, &cert, base).zip(file(&mut s, &key, base)).map(|(cert, key)| PairFiles { cert, key });
    if let Some(files) = &files {
        check_pair(&mut s, files, names);
    }
    s.end();
    files
}

/// A file that a key names.
fn file(s: &mut Section<'_>, spec: &Spec, base: &Path) -> Option<PathBuf> {
    s.text(spec, |text| forms::file(text, base))
}

fn check_roots(s: &mut Section<'_>, name: &str, file: &Path) {
    if let Err(text) = roots::of_file(file) {
        s.fault(name, format!("{} {text}", file.display()));
    }
}

fn check_pair(s: &mut Section<'_>, files: &PairFiles, names: (&str, &str)) {
    let Err(fault) = CertifiedPair::read(files, &ring::default_provider()) else { return };
    let (name, file) = match fault.is_of_key {
        true => (names.1, &files.key),
        false => (names.0, &files.cert),
    };
    s.fault(name, format!("{} {}", file.display(), fault.text));
}
