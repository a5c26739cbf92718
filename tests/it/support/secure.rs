//! TLS in tests: an authority that the test makes, and a client that trusts it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use super::{Balancer, PATIENCE, Setup};

/// An authority that writes certificates into a folder, its own among them.
pub struct Papers<'a> {
    folder: &'a Path,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl<'a> Papers<'a> {
    /// Makes an authority, whose own certificate is `NAME.pem` in the folder.
    pub fn named(folder: &'a Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        let authority = authority.expect("an authority");
        std::fs::write(folder.join(format!("{name}.pem")), authority.pem()).expect("written");
        Self { folder, authority }
    }

    /// Makes `NAME.pem` and `NAME.key` for those hosts. Returns the pair as the configuration takes it.
    pub fn pair(&self, name: &str, hosts: &[&str]) -> Value {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(hosts).expect("names");
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        std::fs::write(self.folder.join(format!("{name}.pem")), certificate.pem()).expect("written");
        std::fs::write(self.folder.join(format!("{name}.key")), key.serialize_pem()).expect("written");
        json!({ "cert": format!("{name}.pem"), "key": format!("{name}.key") })
    }

    /// The certificate of a pair.
    pub fn der(&self, name: &str) -> Vec<u8> {
        chain(self.folder, name)[0].to_vec()
    }

    /// A client that trusts this authority. `own`: the pair with which it identifies itself.
    pub fn client(&self, own: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(name) => builder
                .with_client_auth_cert(chain(self.folder, name), key(self.folder, name))
                .expect("they fit"),
        })
    }
}

/// The certificates in `NAME.pem` of that folder.
pub fn chain(folder: &Path, name: &str) -> Vec<CertificateDer<'static>> {
    let file = folder.join(format!("{name}.pem"));
    CertificateDer::pem_file_iter(file).expect("a file").collect::<Result<_, _>>().expect("certificates")
}

/// The key in `NAME.key` of that folder.
pub fn key(folder: &Path, name: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).expect("a key")
}

/// The setup with a TLS port that has those certificates.
pub fn with_tls(setup: Setup, certificates: &[Value]) -> Setup {
    setup.set("tls", json!({ "listen": "127.0.0.1:0", "certificates": certificates }))
}

/// The address of the TLS port.
#[track_caller]
pub fn tls_port(balancer: &Balancer) -> SocketAddr {
    let line = balancer.proc.wait_out("listening on https://");
    line.rsplit("https://").next().unwrap_or_default().trim().parse().expect("an address")
}

/// A connection over TLS.
pub struct SecureConn(StreamOwned<ClientConnection, TcpStream>);

/// The parts of an answer at which tests look.
#[derive(Debug)]
pub struct SecureAnswer {
    pub status: u16,
    pub body: String,
}

impl SecureConn {
    /// Connects and does the handshake. A server that refuses the client's certificate says so only when the first answer
    /// is read.
    pub fn open(to: SocketAddr, client: &Arc<ClientConfig>, name: &str) -> Result<Self, std::io::Error> {
        let socket = TcpStream::connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let session = ClientConnection::new(Arc::clone(client), name).expect("a session");
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self(stream))
    }

    /// The certificate that the server showed.
    pub fn shown(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().expect("a certificate")[0].to_vec()
    }

    /// One GET of HTTP/1.1 whose answer has a Content-Length.
    pub fn get(&mut self, host: &str, target: &str) -> Result<SecureAnswer, std::io::Error> {
        write!(self.0, "GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Ok(SecureAnswer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}
