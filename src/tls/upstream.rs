//! TLS to backends: how their certificates are checked, and which one we show. Requests and health checks alike make
//! their connections to backends with `https://` by this.

use std::collections::HashMap;
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
use balancer_pool::backends::DEFAULT_POOL;

/// What new connections to backends are made with, by pool.
#[derive(Default)]
pub struct BackendTls {
    pools: ArcSwap<HashMap<Box<str>, Arc<PoolTls>>>,
    generation: AtomicU64,
}

/// What new connections to the backends of one pool are made with.
pub struct PoolTls {
    /// How log lines call its settings: `upstream.tls`, behind the name of a pool that is not the default one.
    keys: String,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Behind>,
    /// The state of files that could not be used, so that the log says so only once. Locked while `current` is changed.
    failed: Mutex<Option<Stamps>>,
}

/// What was made of the settings and files.
struct Behind {
    settings: BackendTlsSettings,
    /// The state of the files when they were read.
    stamps: Stamps,
    /// `None`: no backend needs it, and no file was read. An error: why there is none.
    client: Option<Result<Arc<ClientConfig>, String>>,
}

impl BackendTls {
    /// Takes over a pool's settings, and reads all files if a backend of it needs them (`is_needed`). Until then it
    /// reads nothing: the system may have no roots, and need none. If something is wrong, the log says so, and
    /// connections fail until it is mended. The settings from before do not stay in force, since they may have checked
    /// less.
    pub fn apply(&self, pool: &str, settings: &BackendTlsSettings, is_needed: bool) {
        if self.of(pool).apply(settings, is_needed) {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// What the connections of a pool are made with. It stays in the table for as long as the returned value is held.
    pub fn of(&self, pool: &str) -> Arc<PoolTls> {
        if let Some(known) = self.pools.load().get(pool) {
            return Arc::clone(known);
        }
        let new = Arc::new(PoolTls::new(pool));
        self.pools.rcu(|pools| {
            let mut pools = HashMap::clone(pools);
            pools.insert(pool.into(), Arc::clone(&new));
            pools
        });
        new
    }

    /// Forgets pools that are not held any more. A pool that a reload has removed is still held by its requests under
    /// way, which may still connect.
    pub fn forget_unheld(&self) {
        self.pools.rcu(|pools| {
            // One reference is the table's own.
            let held = pools.iter().filter(|(_, pool)| Arc::strong_count(pool) > 1);
            held.map(|(name, pool)| (name.clone(), Arc::clone(pool))).collect::<HashMap<_, _>>()
        });
    }

    /// A number that changes whenever new connections are verified in another way. Connections from before must not be
    /// used again.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads files again that have changed. If they can't be used, what is in force stays, and the log says why, once
    /// for each state of the files.
    pub fn look(&self) {
        for pool in self.pools.load().values() {
            if pool.look() {
                self.generation.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// A session for a new connection to a pool's backend. `host`: that of the backend's URL.
    ///
    /// # Errors
    /// Why there is none, for the log.
    pub fn session(&self, pool: &str, host: &str) -> Result<ClientConnection, String> {
        let pools = self.pools.load();
        let of_pool = pools.get(pool).ok_or_else(|| "the pool is configured no more".to_owned())?;
        of_pool.session(host)
    }
}

impl PoolTls {
    fn new(pool: &str) -> Self {
        let settings = BackendTlsSettings::default();
        let nothing = Behind { settings, stamps: Stamps::default(), client: None };
        let of_pool = if pool == DEFAULT_POOL { String::new() } else { format!("pool {pool}: ") };
        let keys = format!("{of_pool}upstream.tls");
        Self {
            keys,
            provider: Arc::new(ring::default_provider()),
            current: ArcSwap::from_pointee(nothing),
            failed: Mutex::new(None),
        }
    }

    /// Takes over settings. True: connections from before must not be used again.
    fn apply(&self, settings: &BackendTlsSettings, is_needed: bool) -> bool {
        let mut failed = self.failed.lock();
        let stamps = Stamps::of(files(settings));
        let current = self.current.load();
        // Once needed, always needed: a backend that was removed may still have requests that are about to connect.
        let is_needed = is_needed || current.client.is_some();
        let is_usable = !matches!(current.client, Some(Err(_))) && current.client.is_some() == is_needed;
        if is_usable && current.settings == *settings && current.stamps == stamps {
            return false;
        }
        *failed = None;
        let client = is_needed.then(|| read(settings, &self.provider).map(Arc::new));
        if let Some(Err(error)) = &client {
            log::error!("{}: TLS to backends can't be used: {error}", self.keys);
        }
        if is_needed
            && settings.insecure_skip_verify
            && (current.client.is_none() || current.settings != *settings)
        {
            log::warn!(
                "{}.insecure_skip_verify: any certificate of a backend is taken, so whoever is on the way can read \
                 and change what is sent",
                self.keys
            );
        }
        let had_connections = current.client.is_some();
        self.current.store(Arc::new(Behind { settings: settings.clone(), stamps, client }));
        had_connections
    }

    /// Reads the files again if they have changed. True: new connections are made in another way from now on.
    fn look(&self) -> bool {
        let mut failed = self.failed.lock();
        let current = self.current.load_full();
        let Some(in_force) = &current.client else { return false };
        let settings = &current.settings;
        let found = Stamps::of(files(settings));
        if found == current.stamps || failed.as_ref() == Some(&found) {
            return false;
        }
        match read(settings, &self.provider) {
            Ok(client) => {
                log::info!("{}: files were read again, since they changed", self.keys);
                let client = Some(Ok(Arc::new(client)));
                self.current.store(Arc::new(Behind { settings: settings.clone(), stamps: found, client }));
                *failed = None;
                true
            }
            Err(error) => {
                let stays = if in_force.is_ok() { ", those from before stay in force" } else { "" };
                log::error!("{}: files changed and can't be used{stays}: {error}", self.keys);
                *failed = Some(found);
                false
            }
        }
    }

    fn session(&self, host: &str) -> Result<ClientConnection, String> {
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

/// The name or address that a certificate must be for. A dot at the end of a name is removed: certificates have none.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    let host = host.strip_suffix('.').unwrap_or(host);
    ServerName::try_from(host.to_owned()).ok()
}

/// Every file that the settings name.
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
