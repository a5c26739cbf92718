//! What all loops of an engine share: settings that do not change, counts, and what each tells the others.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::counts::Counts;
use super::pace::Timeouts;
use super::state::LoopState;
use crate::clock::Clock;
use crate::proxy::service::Service;
use crate::tls::front::FrontTls;
use crate::tls::upstream::BackendTls;
use balancer_http::framing::request::Bounds;

/// See the module.
pub(super) struct LoopsShared {
    pub loops: Box<[LoopState]>,
    /// The plain ones first, then those on which clients speak TLS.
    pub listeners: Vec<TcpListener>,
    pub plain_listeners: usize,
    /// What clients' handshakes are made with.
    pub front_tls: Option<Arc<FrontTls>>,
    pub backend_tls: Arc<BackendTls>,
    /// Clients may begin with HTTP/2 on a plain connection.
    pub h2c: bool,
    pub service: Arc<dyn Service>,
    pub clock: Clock,
    pub timeouts: Timeouts,
    pub bounds: Bounds,
    pub max_body_bytes: u64,
    pub request_buffer_bytes: usize,
    pub response_buffer_bytes: usize,
    pub abort_on_close: bool,
    pub can_upgrade: bool,
    /// Peers whose first bytes must be a PROXY header; `None` when the option is off.
    pub proxy_peers: Option<ArcSwap<Vec<IpNet>>>,
    pub counts: Arc<Counts>,
    /// No new connections are accepted.
    pub closed_door: AtomicBool,
    /// Each answer ends its connection.
    pub draining: AtomicBool,
    /// The loops' threads end.
    pub stopping: AtomicBool,
}
