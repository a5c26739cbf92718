//! TLS at both doors: what clients are shown at the front, and how backends are known behind it. Reads files, holds what
//! came of them, and makes sessions' configurations; owns no socket. Who drives a session is the engine's business, the
//! prober's, or the database client's.
//!
//! Everything is by `rustls` with `ring`: no system library is linked, and nothing older than TLS 1.2 is spoken.

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
    /// The certificate first, then those that lead to a root.
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

/// What is spoken inside of TLS (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http11,
}

impl Alpn {
    /// As it stands in a handshake.
    pub const fn id(self) -> &'static [u8] {
        match self {
            Self::H2 => b"h2",
            Self::Http11 => b"http/1.1",
        }
    }
}

/// Whether clients show certificates of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Roots of their chains, in PEM form.
    pub ca: PathBuf,
    /// A client without one is turned away. One whose chain leads elsewhere is turned away in any case.
    pub is_required: bool,
}

/// What the front door is run by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontSettings {
    /// At least one; the first is shown to clients that name no server, or one that no certificate is for.
    pub certificates: Vec<PairFiles>,
    /// `tls.min_version`.
    pub oldest: OldestVersion,
    /// `None`: clients are not asked for certificates.
    pub client_auth: Option<ClientAuth>,
    /// What is offered, the best first.
    pub alpn: Vec<Alpn>,
}

/// How backends with `https://` are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendTlsSettings {
    /// Roots of their chains; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The name that their certificates must be for; `None`: the host of each one's URL.
    pub server_name: Option<String>,
    /// What we show of ourselves.
    pub client: Option<PairFiles>,
    /// Take any certificate.
    pub insecure_skip_verify: bool,
}
