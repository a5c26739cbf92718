//! TLS to clients: one configuration that all loops share. A reload replaces it at once, so that new handshakes use new
//! certificates and no connection is lost.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::certificates::{Certificates, CertifiedPair};
use super::stamps::Stamps;
use super::{Alpn, ClientAuth, FrontSettings, OldestVersion, PairFiles, pem};

/// What new handshakes are made with.
pub struct FrontTls {
    provider: Arc<CryptoProvider>,
    /// Whether the engine speaks HTTP/2.
    speaks_h2: bool,
    current: ArcSwap<Front>,
    /// The state of files that could not be used, so that the log says so only once. Locked while `current` is changed.
    failed: Mutex<Option<Stamps>>,
}

/// What was made of the settings and files.
struct Front {
    settings: FrontSettings,
    /// The state of the files when they were read.
    stamps: Stamps,
    certificates: Arc<Certificates>,
    tickets: Tickets,
    server: Arc<ServerConfig>,
}

/// Keys of session tickets, with which clients come back without a full handshake. Each process has its own. The
/// library renews them every six hours.
#[derive(Clone)]
struct Tickets {
    /// How the clients of these tickets were verified. A ticket stands for that check, so there are new keys when this
    /// changes.
    roots: Option<(bool, Vec<CertificateDer<'static>>)>,
    keys: Arc<dyn ProducesTickets>,
}

/// A certificate, as the API and metrics show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateShown {
    /// The first of its names, else its file.
    pub name: String,
    /// All of its names.
    pub names: Vec<String>,
    /// Valid until then.
    pub not_after: SystemTime,
}

impl FrontTls {
    /// Reads the files. `speaks_h2`: HTTP/2 may be offered. Logs warnings about certificates that are usable and not
    /// right.
    ///
    /// # Errors
    /// Which file is wrong, and what in it.
    pub fn new(settings: &FrontSettings, speaks_h2: bool, now: SystemTime) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let front = Front::read(settings, speaks_h2, &provider, None)?;
        front.warn(now);
        Ok(Self { provider, speaks_h2, current: ArcSwap::from_pointee(front), failed: Mutex::new(None) })
    }

    /// The configuration for a new handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().server)
    }

    /// The certificates for clients, the default first. Of several with one name it is the first to expire.
    pub fn certificates(&self) -> Vec<CertificateShown> {
        let current = self.current.load();
        let mut all: Vec<CertificateShown> = Vec::new();
        for pair in current.certificates.pairs() {
            let CertifiedPair { details, .. } = pair;
            match all.iter_mut().find(|other| other.name == pair.name()) {
                Some(other) => other.not_after = other.not_after.min(details.not_after),
                None => all.push(CertificateShown {
                    name: pair.name(),
                    names: details.names.clone(),
                    not_after: details.not_after,
                }),
            }
        }
        all
    }

    /// Takes over settings, and reads all files again. After an error nothing has changed.
    ///
    /// # Errors
    /// Which file is wrong, and what in it.
    pub fn apply(&self, settings: &FrontSettings, now: SystemTime) -> Result<(), String> {
        let mut failed = self.failed.lock();
        self.swap(settings, now)?;
        *failed = None;
        Ok(())
    }

    /// Reads the files again if they have changed. If they can't be used, what is in force stays, and the log says why,
    /// once for each state of the files.
    pub fn look(&self, now: SystemTime) {
        let mut failed = self.failed.lock();
        let current = self.current.load_full();
        let found = Stamps::of(files(&current.settings));
        if found == current.stamps || failed.as_ref() == Some(&found) {
            return;
        }
        match self.swap(&current.settings, now) {
            Ok(()) => {
                log::info!("tls: certificates were read again, since their files changed");
                *failed = None;
            }
            Err(error) => {
                log::error!("tls: files changed and can't be used, those from before stay in force: {error}");
                *failed = Some(found);
            }
        }
    }

    fn swap(&self, settings: &FrontSettings, now: SystemTime) -> Result<(), String> {
        let tickets = self.current.load().tickets.clone();
        let front = Front::read(settings, self.speaks_h2, &self.provider, Some(tickets))?;
        front.warn(now);
        self.current.store(Arc::new(front));
        Ok(())
    }
}

/// Every file that the settings name.
fn files(settings: &FrontSettings) -> impl Iterator<Item = &Path> {
    let pairs =
        settings.certificates.iter().flat_map(|PairFiles { cert, key }| [cert.as_path(), key.as_path()]);
    pairs.chain(settings.client_auth.iter().map(|auth| auth.ca.as_path()))
}

impl Front {
    fn read(
        settings: &FrontSettings,
        speaks_h2: bool,
        provider: &Arc<CryptoProvider>,
        tickets: Option<Tickets>,
    ) -> Result<Self, String> {
        let stamps = Stamps::of(files(settings));
        let pair = |files: &PairFiles| {
            CertifiedPair::read(files, provider).map_err(|fault| {
                let file = if fault.is_of_key { &files.key } else { &files.cert };
                format!("{} {}", file.display(), fault.text)
            })
        };
        let pairs = settings.certificates.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
        let certificates = Arc::new(Certificates::new(pairs));
        let roots = settings.client_auth.as_ref().map(|auth| roots(auth)).transpose()?;
        let tickets = match tickets {
            Some(tickets) if tickets.roots == roots => tickets,
            _ => Tickets { roots, keys: ring::Ticketer::new().map_err(|error| error.to_string())? },
        };
        let versions: &[_] = match settings.oldest {
            OldestVersion::Tls12 => &[&TLS13, &TLS12],
            OldestVersion::Tls13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?;
        let builder = match &tickets.roots {
            None => builder.with_no_client_auth(),
            Some((is_required, roots)) => {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(roots.iter().cloned());
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
                let verifier = if *is_required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
            }
        };
        let mut server = builder.with_cert_resolver(Arc::clone(&certificates) as Arc<_>);
        server.ticketer = Arc::clone(&tickets.keys);
        // Only tickets: a table of sessions would have a lock that all loops share.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let offered = settings.alpn.iter().filter(|alpn| speaks_h2 || **alpn != Alpn::H2);
        server.alpn_protocols = offered.map(|alpn| alpn.id().to_vec()).collect();
        // With an empty list nothing would be agreed on, even with a client that offers only what we do not speak.
        if server.alpn_protocols.is_empty() {
            server.alpn_protocols.push(Alpn::Http11.id().to_vec());
        }
        Ok(Self { settings: settings.clone(), stamps, certificates, tickets, server: Arc::new(server) })
    }

    fn warn(&self, now: SystemTime) {
        for warning in self.certificates.pairs().iter().flat_map(|pair| pair.warnings(now)) {
            log::warn!("tls: {warning}");
        }
    }
}

/// Whether clients need a certificate, and the roots that its chain has to lead to.
fn roots(auth: &ClientAuth) -> Result<(bool, Vec<CertificateDer<'static>>), String> {
    let wrong = |text: String| format!("{} {text}", auth.ca.display());
    // Checks that each can be a root.
    super::roots::of_file(&auth.ca).map_err(wrong)?;
    Ok((auth.is_required, pem::certificates(&auth.ca).map_err(wrong)?))
}
