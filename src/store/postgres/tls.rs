//! How a connection to PostgreSQL is secured, by libpq's `sslmode`. The `postgres` crate is told to leave the negotiation
//! to its connector ("direct"). So every stream, also one without TLS, passes through here and gets a deadline
//! ([`super::timed`]).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use postgres::Socket;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::timed::{Deadline, Timed};
use super::url::{SslMode, SslRoot};
use crate::tls::roots;
use crate::tls::verifier::{ServerCheck, ServerVerifier, chains};

/// Asks a server whether it speaks TLS: length 8, code 80877103 (PostgreSQL protocol, `SSLRequest`).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

type Raw = Timed<Socket>;
type Secure = <MakeRustlsConnect as MakeTlsConnect<Raw>>::Stream;

/// What connections are made with.
#[derive(Clone)]
pub struct Security {
    mode: SslMode,
    tls: Option<MakeRustlsConnect>,
}

impl Security {
    /// Reads the root certificates that the mode needs.
    ///
    /// # Errors
    /// Why they can't be read, for the operator.
    pub fn new(mode: SslMode, root: &SslRoot) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        // As in libpq, `require` checks the chain if a root is given.
        let check = match (mode, root) {
            (SslMode::Disable, _) => return Ok(Self { mode, tls: None }),
            // As in libpq, `prefer` and `require` protect against eavesdroppers, but not against impostors.
            (SslMode::Prefer, _) | (SslMode::Require, SslRoot::System) => ServerCheck::Nothing,
            (SslMode::Require, SslRoot::File(_)) | (SslMode::VerifyCa, _) => {
                ServerCheck::Chain(chain(root, &provider)?)
            }
            (SslMode::VerifyFull, _) => ServerCheck::ChainAndName(chain(root, &provider)?),
        };
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerVerifier { check, provider }))
            .with_no_client_auth();
        Ok(Self { mode, tls: Some(MakeRustlsConnect::new(config)) })
    }

    /// The connector for one connection, which must be ready within that time after its socket is connected.
    pub fn connector(&self, deadline: Arc<Deadline>, within: Duration) -> TlsConnector {
        TlsConnector { security: self.clone(), deadline, within }
    }
}

fn chain(root: &SslRoot, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let roots = match root {
        SslRoot::System => {
            roots::of_system().map_err(|error| format!("{error}; name a file with sslrootcert=PATH"))?
        }
        SslRoot::File(path) => {
            roots::of_file(path).map_err(|error| format!("sslrootcert {} {error}", path.display()))?
        }
    };
    chains(roots, provider)
}

/// Makes the stream of one connection.
#[derive(Clone)]
pub struct TlsConnector {
    security: Security,
    deadline: Arc<Deadline>,
    within: Duration,
}

/// A [`TlsConnector`] with the name of the host.
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
            // Reads only one byte: what an attacker sent after it must not count as sent under TLS.
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

/// The stream of a connection.
pub enum Link {
    /// Without TLS.
    Plain(Raw),
    /// With TLS.
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
