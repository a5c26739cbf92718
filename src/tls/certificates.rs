//! Certificates with their keys, and the choice of the one that a client is shown.

use std::collections::HashMap;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureScheme};

use super::details::{self, CertificateDetails};
use super::{PairFiles, pem};

/// The permission bit that lets users read a file who are neither its owner nor in its group.
const OTHERS_READ: u32 = 0o004;

/// What is wrong with a pair of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFault {
    /// Whether it is about the file of the key, and not of the certificate.
    pub is_of_key: bool,
    /// The end of a sentence that begins with the file's name.
    pub text: String,
}

/// A certificate with its chain and the key that belongs to it.
#[derive(Clone, Debug)]
pub struct CertifiedPair {
    /// Where both were read.
    pub files: PairFiles,
    /// What the certificate says about itself.
    pub details: CertificateDetails,
    /// What handshakes use.
    pub key: Arc<CertifiedKey>,
}

impl CertifiedPair {
    /// Reads both files, and checks that the key belongs to the certificate.
    pub fn read(files: &PairFiles, provider: &CryptoProvider) -> Result<Self, PairFault> {
        let of_cert = |text: String| PairFault { is_of_key: false, text };
        let of_key = |text: String| PairFault { is_of_key: true, text };
        let chain = pem::certificates(&files.cert).map_err(of_cert)?;
        let details = details::of(&chain[0])
            .map_err(|error| of_cert(format!("holds a certificate that can't be read: {error}")))?;
        let key = pem::private_key(&files.key).map_err(of_key)?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                of_key(format!("does not fit the first certificate of {}", files.cert.display()))
            }
            Error::InvalidCertificate(error) => {
                of_cert(format!("holds a certificate that can't be used: {error}"))
            }
            other => of_key(format!("holds a key that can't be used: {other}")),
        })?;
        Ok(Self { files: files.clone(), details, key: Arc::new(key) })
    }

    /// How metrics and the log call it: the first of its names, else its file.
    pub fn name(&self) -> String {
        self.details.names.first().cloned().unwrap_or_else(|| self.files.cert.display().to_string())
    }

    /// Sentences about what is not right with a certificate that can be used all the same.
    pub fn warnings(&self, now: SystemTime) -> Vec<String> {
        let cert = self.files.cert.display();
        let mut all = Vec::new();
        if let Some(outside) = self.details.outside(now) {
            all.push(format!("the certificate of {cert} ({}) {outside}", self.name()));
        }
        if self.details.names.is_empty() {
            all.push(format!(
                "the certificate of {cert} names no host: clients that check it will refuse it"
            ));
        }
        let key = self.files.key.display();
        let mode = std::fs::metadata(&self.files.key).map_or(0, |about| about.permissions().mode());
        if mode & OTHERS_READ != 0 {
            all.push(format!(
                "{key} is a private key and everybody on this machine can read it: chmod o-r {key}"
            ));
        }
        all
    }
}

/// All certificates for clients, and the names that they are for.
pub struct Certificates {
    pairs: Vec<CertifiedPair>,
    /// The places in `pairs` of those for a name, in order.
    exact: HashMap<String, Vec<usize>>,
    /// The same for a wildcard, by the part behind `*.`.
    wildcard: HashMap<String, Vec<usize>>,
}

impl Certificates {
    /// From at least one pair. The first is the default.
    pub fn new(pairs: Vec<CertifiedPair>) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for (index, pair) in pairs.iter().enumerate() {
            for name in &pair.details.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut wildcard, rest),
                    None => (&mut exact, name.as_str()),
                };
                let indices: &mut Vec<usize> = names.entry(name.to_owned()).or_default();
                if indices.last() != Some(&index) {
                    indices.push(index);
                }
            }
        }
        Self { pairs, exact, wildcard }
    }

    /// All, in order.
    pub fn pairs(&self) -> &[CertifiedPair] {
        &self.pairs
    }

    /// The one for a client that asks for that name and can verify signatures by those schemes. Candidates are those
    /// for the name; else those for a wildcard in place of its first label. The first that the client can verify is
    /// taken, or the first if it can verify none. Without candidates it is the default.
    pub fn pick(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&CertifiedPair> {
        let can = |index: &&usize| self.pairs[**index].key.key.choose_scheme(schemes).is_some();
        let of = |indices: &[usize]| indices.iter().find(can).or(indices.first()).copied();
        let named = name.and_then(|name| {
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            let behind = || name.split_once('.').and_then(|(_, rest)| self.wildcard.get(rest));
            self.exact.get(&name).or_else(behind).and_then(|indices| of(indices))
        });
        self.pairs.get(named.unwrap_or(0))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.pick(hello.server_name(), hello.signature_schemes()).map(|pair| Arc::clone(&pair.key))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs.iter().map(CertifiedPair::name)).finish()
    }
}
