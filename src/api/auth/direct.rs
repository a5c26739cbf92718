//! Whether a call without a token came to the public port directly from a process of our own user on this machine. A
//! proxy on this machine, such as nginx or HAProxy, calls from loopback too, for clients from anywhere, and by default
//! adds no field that shows it. So the kernel is asked which user has the caller's socket.
//!
//! A proxy that runs as our own user can't be told apart (docs/api.md). A call is refused when the kernel does not
//! know.

use ipnet::IpNet;

use balancer_http::message::{RequestHead, Version};
use balancer_limiter::identity;

/// Beginnings of the names of fields that proxies add.
const PREFIXES: [&str; 4] = ["x-forwarded-", "x-original-", "x-envoy-", "cf-"];
/// Whole names of such.
const NAMES: [&str; 6] =
    ["forwarded", "via", "x-real-ip", "true-client-ip", "x-client-ip", "x-cluster-client-ip"];

/// Whether the kernel can say which user has a socket. Where it can't, the address alone decides.
const KERNEL_TELLS: bool = cfg!(target_os = "linux");

/// Why it is no such call, for the log; `None`: it is one. The kernel is asked last, since that costs most.
pub(super) fn doubt(head: &RequestHead, trusted_proxies: &[IpNet]) -> Option<String> {
    let peer = head.peer.ip().to_canonical();
    if head.version < Version::Http11 {
        return Some("it is HTTP/1.0, which proxies speak".into());
    }
    if let Some(name) = proxy_field(head) {
        return Some(format!("it came through a proxy: it has {name}"));
    }
    if head.lost_claim {
        return Some(
            "it came through a proxy: it had a field of one, with _ for -, which was dropped".into(),
        );
    }
    if head.is_proxied || identity::is_in(trusted_proxies, peer) {
        return Some("it came through a proxy of rate_limit.trusted_proxies".into());
    }
    if !KERNEL_TELLS {
        return None;
    }
    if !peer.is_loopback() {
        return Some("it did not come over loopback".into());
    }
    let connection = head.connection.as_ref().and_then(std::sync::Weak::upgrade);
    let owner = connection.map_or_else(|| Err("its connection has ended".into()), |one| one.peer_owner());
    let own = rustix::process::geteuid().as_raw();
    match owner {
        Ok(uid) if uid == own => None,
        Ok(uid) => Some(format!("its socket is user {uid}'s, and this process is user {own}'s")),
        Err(cause) => Some(cause),
    }
}

/// The first field that a proxy has added. Some proxies and frameworks take `_` for `-`, so both count.
fn proxy_field(head: &RequestHead) -> Option<&str> {
    let tells = |name: &str| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        NAMES.contains(&name.as_str()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    head.fields.iter().map(|(name, _)| name).find(|name| tells(name))
}
