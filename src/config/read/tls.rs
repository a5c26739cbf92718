//! Keys of `tls` and of `upstream.tls`. Files are read here, too, so that what is wrong with them is told beside
//! everything else, before anything listens.

use std::path::{Path, PathBuf};

use rustls::crypto::ring;

use super::{ADDRESS, MAX_LISTENERS, TIMEOUT};
use crate::config::{TlsConfig, forms};
use crate::declare::{FaultOrigin, Node, Section, Shape, Spec, Value};
use crate::tls::certificates::CertifiedPair;
use crate::tls::{
    Alpn, BackendTlsSettings, ClientAuth, FrontSettings, OldestVersion, PairFiles, roots, upstream,
};

/// Most pairs; the words of the shape say so.
const MAX_PAIRS: usize = 1_024;

const PAIRS: (&str, &str, &str) = (
    "certificates",
    "a list of 1 to 1024 pairs: [{\"cert\": \"site.pem\", \"key\": \"site.key\"}]",
    "Certificates by the names that they are for; the first is shown to clients that ask for none of them.",
);

/// `tls`; relative paths count from `base`.
pub(super) fn tls(mut s: Section<'_>, base: &Path) -> TlsConfig {
    let listen = Spec::new(
        "listen",
        Shape::List { of: ADDRESS, max: MAX_LISTENERS },
        "\"127.0.0.1:8443\"",
        "Where the TLS port listens: an address or a list of them.",
    );
    let listen_origin = s.origin_of("listen").unwrap_or_else(|| s.origin());
    let listen = s.list(&listen, true, forms::address);
    if listen.is_empty() && !s.faulty("listen") {
        s.fault(listen_origin, "listen", "needs at least one address");
    }
    let certificates = s.objects(PAIRS, 1..=MAX_PAIRS, |section| pair(section, base, ("cert", "key")));
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
        Shape::List { of: "\"h2\" or \"http/1.1\"", max: 2 },
        "[\"h2\", \"http/1.1\"]",
        "What is spoken inside of TLS, the best first.",
    );
    let origin = s.origin_of("alpn").unwrap_or_else(|| s.origin());
    let alpn = s.list(&spec, false, |text| match text {
        "h2" => Ok(Alpn::H2),
        "http/1.1" => Ok(Alpn::Http11),
        _ => Err(None),
    });
    let is_doubled = matches!(alpn.as_slice(), [one, other] if one == other);
    if (alpn.is_empty() || is_doubled) && !s.faulty("alpn") {
        s.fault(origin, "alpn", "needs at least one protocol, and none twice");
    }
    alpn
}

/// `None`: there is a fault.
fn client_auth(mut s: Section<'_>, base: &Path) -> Option<ClientAuth> {
    let about = "The certificates, in PEM form, that those of clients must lead to.";
    let (ca, origin) = file(&mut s, &Spec::new("ca", Shape::Text("a path"), "", about), base);
    let modes = [("optional", false), ("required", true)];
    let about = "Whether a client may do without one; one that leads elsewhere is refused in any case.";
    let is_required = s.choice("mode", &modes, "\"required\"", about);
    if let Some(ca) = &ca {
        check_roots(&mut s, "ca", ca, origin);
    }
    s.end();
    Some(ClientAuth { ca: ca?, is_required: is_required? })
}

/// `upstream.tls`; relative paths count from `base`.
pub(super) fn upstream(mut s: Section<'_>, base: &Path) -> BackendTlsSettings {
    let about = "The certificates, in PEM form, that those of backends must lead to; null: those that the system trusts.";
    let (ca, origin) = file(&mut s, &Spec::new("ca", Shape::Text("a path"), "null", about).or_null(), base);
    if let Some(ca) = &ca {
        check_roots(&mut s, "ca", ca, origin);
    }
    let name = Spec::new(
        "server_name",
        Shape::Text("a host name without a port"),
        "null",
        "The name that backends' certificates must be for; null: the host of each one's url.",
    )
    .or_null();
    let server_name = s.value(&name, |node| match &node.value {
        Value::Null => Ok(None),
        Value::Text(text) => {
            forms::host_name(text).filter(|name| upstream::server_name(name).is_some()).map(Some).ok_or(None)
        }
        _ => Err(None),
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
    let cert = Spec::new("client_cert", Shape::Text("a path"), "null", about).or_null();
    let key =
        Spec::new("client_key", Shape::Text("a path"), "null", "Its private key, in PEM form.").or_null();
    let (cert, cert_origin) = file(s, &cert, base);
    let (key, key_origin) = file(s, &key, base);
    match (cert, key) {
        (Some(cert), Some(key)) => {
            let files = PairFiles { cert, key };
            check_pair(s, &files, ("client_cert", "client_key"), (cert_origin, key_origin));
            Some(files)
        }
        (None, None) => None,
        (cert, _) => {
            let (name, other, origin) = match cert {
                Some(_) => ("client_key", "client_cert", cert_origin),
                None => ("client_cert", "client_key", key_origin),
            };
            if !s.faulty(name) {
                s.fault(origin, name, format!("is missing beside {other}"));
            }
            None
        }
    }
}

/// A pair of required files under those names; `None`: there is a fault.
fn pair(mut s: Section<'_>, base: &Path, names: (&'static str, &'static str)) -> Option<PairFiles> {
    let about = "The certificate, in PEM form, with those behind it that lead to a root.";
    let cert = Spec::new(names.0, Shape::Text("a path"), "", about);
    let about = "Its private key, in PEM form and without a password.";
    let key = Spec::new(names.1, Shape::Text("a path"), "", about);
    let (cert, cert_origin) = file(&mut s, &cert, base);
    let (key, key_origin) = file(&mut s, &key, base);
    let files = cert.zip(key).map(|(cert, key)| PairFiles { cert, key });
    if let Some(files) = &files {
        check_pair(&mut s, files, names, (cert_origin, key_origin));
    }
    s.end();
    files
}

/// A file that a key names, and where the key stands.
fn file(s: &mut Section<'_>, spec: &Spec, base: &Path) -> (Option<PathBuf>, FaultOrigin) {
    let origin = s.origin_of(spec.name).unwrap_or_else(|| s.origin());
    let path = s.value(spec, |node: &Node| match &node.value {
        Value::Null if spec.nullable => Ok(None),
        Value::Text(text) if !text.is_empty() && !text.contains('\0') => Ok(Some(base.join(text))),
        _ => Err(None),
    });
    (path, origin)
}

fn check_roots(s: &mut Section<'_>, name: &str, file: &Path, origin: FaultOrigin) {
    if let Err(text) = roots::of_file(file) {
        s.fault(origin, name, format!("{} {text}", file.display()));
    }
}

fn check_pair(
    s: &mut Section<'_>,
    files: &PairFiles,
    names: (&str, &str),
    origins: (FaultOrigin, FaultOrigin),
) {
    let Err(fault) = CertifiedPair::read(files, &ring::default_provider()) else { return };
    let (name, file, origin) = match fault.is_of_key {
        true => (names.1, &files.key, origins.1),
        false => (names.0, &files.cert, origins.0),
    };
    s.fault(origin, name, format!("{} {}", file.display(), fault.text));
}
