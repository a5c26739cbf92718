//! `tls`, checked.

use std::net::SocketAddr;
use std::time::Duration;

use crate::tls::FrontSettings;

/// `tls`.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// Where the TLS port listens: one address or several.
    pub listen: Vec<SocketAddr>,
    /// Certificates, and what handshakes go by.
    pub front: FrontSettings,
    /// The plain port sends clients to this one.
    pub redirect: bool,
    /// From a connection's first byte to the end of its handshake.
    pub handshake_timeout: Duration,
}
