//! The front door's side of TLS: one configuration that all loops share and that is swapped in whole, so that new
//! handshakes take new certificates and no connection is lost.

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
    /// Files that could not be used, as they were: they are told of once. Held by whoever changes `current`.
    failed: Mutex<Option<Stamps>>,
}

/// What came of settings and files.
struct Front {
    settings: FrontSettings,
    /// The files as they were when they were read.
    stamps: Stamps,
    certificates: Arc<Certificates>,
    tickets: Tickets,
    server: Arc<ServerConfig>,
}

/// Keys of tickets, by which clients come back without a whole handshake. The library makes new ones every six hours; each
/// process has its own.
#[derive(Clone)]
struct Tickets {
    /// Who may come back by them: a ticket says that its client was verified, so others are made when the roots change.
    roots: Option<(bool, Vec<CertificateDer<'static>>)>,
    keys: Arc<dyn ProducesTickets>,
}

/// A certificate, as the operator is shown it.
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
    /// Reads the files. `speaks_h2`: HTTP/2 may be offered. Warns of what is not right and yet usable.
    ///
    /// # Errors
    /// What in which file is wrong.
    pub fn new(settings: &FrontSettings, speaks_h2: bool, now: SystemTime) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let front = Front::read(settings, speaks_h2, &provider, None)?;
        front.warn(now);
        Ok(Self { provider, speaks_h2, current: ArcSwap::from_pointee(front), failed: Mutex::new(None) })
    }

    /// What a new handshake is to be made with.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().server)
    }

    /// What is shown to clients, the default first; of several with one name the first to expire.
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

    /// Takes over settings and reads all files anew. After an error nothing has changed.
    ///
    /// # Errors
    /// What in which file is wrong.
    pub fn apply(&self, settings: &FrontSettings, now: SystemTime) -> Result<(), String> {
        let mut failed = self.failed.lock();
        self.swap(settings, now)?;
        *failed = None;
        Ok(())
    }

    /// Reads the files again if they are not as they were. What is wrong with them changes nothing and is told in the log,
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

/// Every file that they name.
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
        // Tickets alone: a table of sessions would be a lock that all loops share.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let offered = settings.alpn.iter().filter(|alpn| speaks_h2 || **alpn != Alpn::H2);
        server.alpn_protocols = offered.map(|alpn| alpn.id().to_vec()).collect();
        // An empty list would let a client agree on nothing with what it has.
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

/// Whether clients need a certificate, and where its chain has to lead.
fn roots(auth: &ClientAuth) -> Result<(bool, Vec<CertificateDer<'static>>), String> {
    let wrong = |text: String| format!("{} {text}", auth.ca.display());
    // Judged as roots before they count.
    super::roots::of_file(&auth.ca).map_err(wrong)?;
    Ok((auth.is_required, pem::certificates(&auth.ca).map_err(wrong)?))
}
