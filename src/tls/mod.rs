//! TLS on both sides: the certificates that clients are shown, and how the certificates of backends are checked. Reads
//! files and makes the configurations of sessions. Owns no socket: the engines, the health checks and the database
//! client drive sessions.
//!
//! All of it uses `rustls` with `ring`: no system library is linked, and nothing older than TLS 1.2 is spoken.

pub mod certificates;
pub mod details;
pub mod front;
mod pem;
pub mod roots;
pub mod session;
mod stamps;
#[cfg(test)]
pub(crate) mod tests;
pub mod upstream;
pub mod verifier;

use std::path::PathBuf;

/// A certificate with its chain, and its private key, both in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// The certificate first, then those of its chain to a root.
    pub cert: PathBuf,
    /// PKCS #8, PKCS #1 or SEC 1, without a password.
    pub key: PathBuf,
}

/// The oldest version that clients may speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OldestVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// A protocol that is spoken inside of TLS (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http11,
}

impl Alpn {
    /// Its name in a handshake.
    pub const fn id(self) -> &'static [u8] {
        match self {
            Self::H2 => b"h2",
            Self::Http11 => b"http/1.1",
        }
    }
}

/// How clients' own certificates are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// A file with the roots of their chains, in PEM form.
    pub ca: PathBuf,
    /// Whether a client without a certificate is turned away. One whose chain leads to another root is turned away in
    /// any case.
    pub is_required: bool,
}

/// The settings of TLS to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontSettings {
    /// At least one. The first is shown to clients that name no server, or one that no certificate is for.
    pub certificates: Vec<PairFiles>,
    /// `tls.min_version`.
    pub oldest: OldestVersion,
    /// `None`: clients are not asked for certificates.
    pub client_auth: Option<ClientAuth>,
    /// What is offered, the preferred one first.
    pub alpn: Vec<Alpn>,
}

/// The settings of TLS to backends with `https://`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendTlsSettings {
    /// A file with the roots of their chains; `None`: the system's roots.
    pub ca: Option<PathBuf>,
    /// The name that their certificates must be for; `None`: the host of each one's URL.
    pub server_name: Option<String>,
    /// Our own certificate, which we show to them.
    pub client: Option<PairFiles>,
    /// Take any certificate, unchecked.
    pub insecure_skip_verify: bool,
}
