//! How much of a server's certificate is checked. The signature of the handshake is always checked.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// What is checked of a server's certificate.
#[derive(Debug)]
pub enum ServerCheck {
    /// Nothing. The connection is safe from eavesdroppers, and not from servers that pretend to be the backend.
    Nothing,
    /// Its chain leads to a root.
    Chain(Arc<WebPkiServerVerifier>),
    /// Its chain leads to a root, and it is for the name that was called.
    ChainAndName(Arc<WebPkiServerVerifier>),
}

/// Checks servers' certificates.
#[derive(Debug)]
pub struct ServerVerifier {
    /// How much is checked.
    pub check: ServerCheck,
    /// Has the algorithms.
    pub provider: Arc<CryptoProvider>,
}

/// The verifier of chains to those roots.
pub fn chains(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| error.to_string())
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (verifier, name_matters) = match &self.check {
            ServerCheck::Nothing => return Ok(ServerCertVerified::assertion()),
            ServerCheck::Chain(verifier) => (verifier, false),
            ServerCheck::ChainAndName(verifier) => (verifier, true),
        };
        let result = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match result {
            // The name is checked last: a certificate that fails on it has passed everything else.
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
