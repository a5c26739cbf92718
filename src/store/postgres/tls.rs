//! How a connection to PostgreSQL is secured, by libpq's `sslmode`. The `postgres` crate is told to leave the
//! negotiation to its connector ("direct"), so that every stream, plain ones too, passes through here and is put under
//! a deadline ([`super::timed`]).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use postgres::Socket;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::timed::{Deadline, Timed};
use super::url::{SslMode, SslRoot};

/// Asks a server whether it speaks TLS: length 8, code 80877103 (PostgreSQL protocol, `SSLRequest`).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

type Raw = Timed<Socket>;
type Secure = <MakeRustlsConnect as MakeTlsConnect<Raw>>::Stream;

/// What each connection is made with.
#[derive(Clone)]
pub struct Security {
    mode: SslMode,
    tls: Option<MakeRustlsConnect>,
}

impl Security {
    /// Reads the roots that the mode needs; the text of an error is for the operator.
    pub fn new(mode: SslMode, root: &SslRoot) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        // libpq checks the chain under `require` too, once it is told of a root.
        let check = match (mode, root) {
            (SslMode::Disable, _) => return Ok(Self { mode, tls: None }),
            (SslMode::Prefer, _) | (SslMode::Require, SslRoot::System) => Check::Nothing,
            (SslMode::Require, SslRoot::File(_)) | (SslMode::VerifyCa, _) => {
                Check::Chain(chain(root, &provider)?)
            }
            (SslMode::VerifyFull, _) => Check::ChainAndName(chain(root, &provider)?),
        };
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { check, provider }))
            .with_no_client_auth();
        Ok(Self { mode, tls: Some(MakeRustlsConnect::new(config)) })
    }

    /// The connector for one connection, which must be ready `within` that time after the socket is there.
    pub fn connector(&self, deadline: Arc<Deadline>, within: Duration) -> TlsConnector {
        TlsConnector { security: self.clone(), deadline, within }
    }
}

fn chain(root: &SslRoot, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut roots = RootCertStore::empty();
    match root {
        SslRoot::System => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err("this system has no root certificates; name a file with sslrootcert=PATH".into());
            }
        }
        SslRoot::File(path) => {
            let wrong = |error: String| format!("sslrootcert {}: {error}", path.display());
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("holds no certificate in PEM form".into()));
            }
        }
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| error.to_string())
}

/// How much of a server's certificate is checked. The handshake's own signature always is.
#[derive(Debug)]
enum Check {
    /// `prefer` and `require` encrypt against listeners, not against impostors: libpq's meaning.
    Nothing,
    /// `verify-ca`.
    Chain(Arc<WebPkiServerVerifier>),
    /// `verify-full`.
    ChainAndName(Arc<WebPkiServerVerifier>),
}

#[derive(Debug)]
struct Verifier {
    check: Check,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (verifier, name_matters) = match &self.check {
            Check::Nothing => return Ok(ServerCertVerified::assertion()),
            Check::Chain(verifier) => (verifier, false),
            Check::ChainAndName(verifier) => (verifier, true),
        };
        let result = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match result {
            // The name is looked at last: whoever fails on it has passed everything else.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !name_matters => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Makes one connection's stream.
#[derive(Clone)]
pub struct TlsConnector {
    security: Security,
    deadline: Arc<Deadline>,
    within: Duration,
}

/// A [`TlsConnector`] that knows the host's name.
pub struct Dial {
    connector: TlsConnector,
    host: String,
}

impl MakeTlsConnect<Socket> for TlsConnector {
    type Stream = Link;
    type TlsConnect = Dial;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Dial> {
        Ok(Dial { connector: self.clone(), host: host.to_owned() })
    }
}

impl TlsConnect<Socket> for Dial {
    type Stream = Link;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Link>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let Self { connector: TlsConnector { security, deadline, within }, host } = self;
        Box::pin(async move {
            deadline.begin(within);
            let mut stream = Timed::new(socket, deadline);
            let Some(mut tls) = security.tls else { return Ok(Link::Plain(stream)) };
            stream.write_all(&SSL_REQUEST).await?;
            // One byte and no more: what an attacker sent behind it must not count as sent under TLS.
            let mut answer = [0];
            stream.read_exact(&mut answer).await?;
            match (answer[0], security.mode) {
                (b'S', _) => {
                    let dial =
                        MakeTlsConnect::<Raw>::make_tls_connect(&mut tls, &host).map_err(io::Error::other)?;
                    dial.connect(stream).await.map(|stream| Link::Secure(Box::new(stream)))
                }
                (b'N', SslMode::Prefer) => Ok(Link::Plain(stream)),
                (b'N', _) => Err(io::Error::other("the server does not speak TLS, and sslmode asks for it")),
                _ => Err(io::Error::other("the server gave no answer to the request for TLS")),
            }
        })
    }
}

/// A connection's stream.
pub enum Link {
    /// As it is.
    Plain(Raw),
    /// Under TLS.
    Secure(Box<Secure>),
}

impl TlsStream for Link {
    fn channel_binding(&self) -> ChannelBinding {
        match self {
            Self::Plain(_) => ChannelBinding::none(),
            Self::Secure(stream) => stream.channel_binding(),
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Secure(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Secure(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
