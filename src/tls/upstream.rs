//! The backends' side of TLS: how their certificates are checked, and what we show of ourselves. Every connection to a
//! backend with `https://` is made with it, a request's as well as a health check's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::certificates::CertifiedPair;
use super::stamps::Stamps;
use super::verifier::{ServerCheck, ServerVerifier, chains};
use super::{Alpn, BackendTlsSettings, roots};

/// What new connections to backends are made with.
pub struct BackendTls {
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Behind>,
    /// Files that could not be used, as they were: they are told of once. Held by whoever changes `current`.
    failed: Mutex<Option<Stamps>>,
    generation: AtomicU64,
}

/// What came of settings and files.
struct Behind {
    settings: BackendTlsSettings,
    /// The files as they were when they were read.
    stamps: Stamps,
    /// `None`: no backend needs it, and nothing was read. An error: what is wrong.
    client: Option<Result<Arc<ClientConfig>, String>>,
}

impl BackendTls {
    /// Reads nothing before a backend needs it: the system may have no roots, and need none.
    pub fn new() -> Self {
        let settings = BackendTlsSettings::default();
        let nothing = Behind { settings, stamps: Stamps::default(), client: None };
        Self {
            provider: Arc::new(ring::default_provider()),
            current: ArcSwap::from_pointee(nothing),
            failed: Mutex::new(None),
            generation: AtomicU64::new(0),
        }
    }

    /// Takes over settings and, where a backend needs them, reads all files anew. What is wrong is told in the log, and is
    /// why connections fail until it is mended: old settings must not stay in force that checked less.
    pub fn apply(&self, settings: &BackendTlsSettings, is_needed: bool) {
        let mut failed = self.failed.lock();
        let stamps = Stamps::of(files(settings));
        let current = self.current.load();
        // A backend that goes may still have requests that are about to connect.
        let is_needed = is_needed || current.client.is_some();
        let is_usable = !matches!(current.client, Some(Err(_))) && current.client.is_some() == is_needed;
        if is_usable && current.settings == *settings && current.stamps == stamps {
            return;
        }
        *failed = None;
        let client = is_needed.then(|| read(settings, &self.provider).map(Arc::new));
        if let Some(Err(error)) = &client {
            log::error!("TLS to backends can't be used: {error}");
        }
        if is_needed
            && settings.insecure_skip_verify
            && (current.client.is_none() || current.settings != *settings)
        {
            log::warn!(
                "upstream.tls.insecure_skip_verify: any certificate of a backend is taken, so whoever is on the way \
                 can read and change what is sent"
            );
        }
        self.current.store(Arc::new(Behind { settings: settings.clone(), stamps, client }));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Changes whenever new connections are verified by something else: those from before are not to be used again.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads the files again if they are not as they were. What is wrong with them changes nothing and is told in the log,
    /// once for each state of the files.
    pub fn look(&self) {
        let mut failed = self.failed.lock();
        let current = self.current.load_full();
        let Some(in_force) = &current.client else { return };
        let settings = &current.settings;
        let found = Stamps::of(files(settings));
        if found == current.stamps || failed.as_ref() == Some(&found) {
            return;
        }
        match read(settings, &self.provider) {
            Ok(client) => {
                log::info!("upstream.tls: files were read again, since they changed");
                let client = Some(Ok(Arc::new(client)));
                self.current.store(Arc::new(Behind { settings: settings.clone(), stamps: found, client }));
                self.generation.fetch_add(1, Ordering::Release);
                *failed = None;
            }
            Err(error) => {
                let stays = if in_force.is_ok() { ", those from before stay in force" } else { "" };
                log::error!("upstream.tls: files changed and can't be used{stays}: {error}");
                *failed = Some(found);
            }
        }
    }

    /// The session of a new connection to that host of a backend's URL; it owns no socket.
    ///
    /// # Errors
    /// Why there can be none, for the log.
    pub fn session(&self, host: &str) -> Result<ClientConnection, String> {
        let current = self.current.load();
        let client = match &current.client {
            Some(Ok(client)) => Arc::clone(client),
            Some(Err(error)) => return Err(error.clone()),
            None => return Err("TLS to backends is not set up".to_owned()),
        };
        let name = current.settings.server_name.as_deref().unwrap_or(host);
        let name = server_name(name)
            .ok_or_else(|| format!("{name:?} is no name that a certificate could be for"))?;
        ClientConnection::new(client, name).map_err(|error| error.to_string())
    }
}

impl Default for BackendTls {
    fn default() -> Self {
        Self::new()
    }
}

/// A name or an address; certificates know no dot at a name's end.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    let host = host.strip_suffix('.').unwrap_or(host);
    ServerName::try_from(host.to_owned()).ok()
}

/// Every file that they name.
fn files(settings: &BackendTlsSettings) -> impl Iterator<Item = &Path> {
    let pair = settings.client.iter().flat_map(|pair| [pair.cert.as_path(), pair.key.as_path()]);
    settings.ca.as_deref().into_iter().chain(pair)
}

fn read(settings: &BackendTlsSettings, provider: &Arc<CryptoProvider>) -> Result<ClientConfig, String> {
    let check = if settings.insecure_skip_verify {
        ServerCheck::Nothing
    } else {
        let roots = match &settings.ca {
            Some(ca) => roots::of_file(ca).map_err(|text| format!("{} {text}", ca.display()))?,
            None => roots::of_system().map_err(|text| format!("{text}; name a file with upstream.tls.ca"))?,
        };
        ServerCheck::ChainAndName(chains(roots, provider)?)
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier { check, provider: Arc::clone(provider) }));
    let mut client = match &settings.client {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let pair = CertifiedPair::read(files, provider).map_err(|fault| {
                let file = if fault.is_of_key { &files.key } else { &files.cert };
                format!("{} {}", file.display(), fault.text)
            })?;
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair.key)))
        }
    };
    client.alpn_protocols = vec![Alpn::Http11.id().to_vec()];
    Ok(client)
}
