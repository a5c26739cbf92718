//! Certificates made for tests, and handshakes without a socket.

mod backends;
mod front;
mod pairs;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::{Alpn, FrontSettings, OldestVersion, PairFiles, certificates::CertifiedPair, roots};

/// A folder with an authority of its own, `ca.pem`, which writes its certificates there.
pub(crate) struct Papers {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Papers {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("authority {:x}", fastrand::u64(..)));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        Self { folder, authority }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn ca(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.folder().join(file), text).unwrap();
    }

    /// `NAME.pem` and `NAME.key`, for those hosts.
    pub fn pair(&self, name: &str, hosts: &[&str]) -> PairFiles {
        self.pair_with(name, hosts, KeyPair::generate().unwrap(), |_| {})
    }

    /// The same with a key of its own, and changed as wanted.
    pub fn pair_with(
        &self,
        name: &str,
        hosts: &[&str],
        key: KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> PairFiles {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
        let file = |ending: &str| self.folder().join(format!("{name}.{ending}"));
        PairFiles { cert: file("pem"), key: file("key") }
    }

    /// Settings for clients with these pairs.
    pub fn front(&self, certificates: &[PairFiles]) -> FrontSettings {
        FrontSettings {
            certificates: certificates.to_vec(),
            oldest: OldestVersion::Tls12,
            client_auth: None,
            alpn: vec![Alpn::H2, Alpn::Http11],
        }
    }

    /// A client that trusts this authority, and shows that pair.
    pub fn client(&self, own: Option<&PairFiles>) -> ClientConfig {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots::of_file(&self.ca()).unwrap());
        match own {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let key = CertifiedPair::read(files, &provider).unwrap().key;
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
            }
        }
    }
}

/// Both ends of a handshake that is over.
pub(crate) type Ends = (ClientConnection, ServerConnection);

/// A whole handshake for that name, with what follows it: tickets.
pub(crate) fn shake(
    client: &Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: &str,
) -> Result<Ends, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = ClientConnection::new(Arc::clone(client), name)?;
    shake_with(client, server)
}

/// The same with a client that is there already.
pub(crate) fn shake_with(
    mut client: ClientConnection,
    server: Arc<ServerConfig>,
) -> Result<Ends, rustls::Error> {
    let mut server = ServerConnection::new(server)?;
    let mut bytes = Vec::new();
    loop {
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut sent = std::mem::take(&mut bytes);
        let went = sent.len();
        read(&mut sent, |piece| server.read_tls(piece));
        server.process_new_packets()?;
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let came = bytes.len();
        let mut sent = std::mem::take(&mut bytes);
        read(&mut sent, |piece| client.read_tls(piece));
        client.process_new_packets()?;
        if went == 0 && came == 0 {
            assert!(!client.is_handshaking() && !server.is_handshaking());
            return Ok((client, server));
        }
    }
}

fn read(bytes: &mut Vec<u8>, mut take: impl FnMut(&mut &[u8]) -> std::io::Result<usize>) {
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        take(&mut rest).unwrap();
    }
}
