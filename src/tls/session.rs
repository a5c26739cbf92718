//! What a handshake with a client has settled.

use balancer_http::message::{ClientCertificate, TlsSession};
use rustls::{CipherSuite, ProtocolVersion, ServerConnection};
use sha2::{Digest, Sha256};

use super::details;

/// For a connection whose handshake is over.
pub fn session_of(connection: &ServerConnection) -> TlsSession {
    // Only a verified chain gets this far: the handshake fails otherwise.
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    TlsSession {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        cipher: connection.negotiated_cipher_suite().map_or("", |suite| cipher_name(suite.suite())),
        sni: connection.server_name().map(str::to_ascii_lowercase),
        certificate: certificate.map(|der| ClientCertificate {
            fingerprint: fingerprint(der),
            san: details::of(der).ok().and_then(|details| details.san),
        }),
    }
}

/// The first 16 bytes of the SHA-256 of a certificate in DER form.
fn fingerprint(der: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&Sha256::digest(der)[..16]);
    first
}

/// IANA's name of a cipher suite. For those of TLS 1.3 the library has names of its own.
fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or(""),
    }
}
