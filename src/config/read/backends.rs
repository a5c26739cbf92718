//! Keys of `backends`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::{DELAY, IN_FLIGHT, MAX_LIST, NEEDS_LOOPS};
use crate::config::forms::Authority;
use crate::config::{Engine, forms, words};
use crate::declare::{FaultOrigin, Member, Node, Section, Shape, Spec, Value, whole_of};
use balancer_pool::backend::{BackendEntry, InFlightBound};

/// What pools are checked against.
pub(super) struct Around<'a> {
    /// Where we listen ourselves.
    pub own: &'a [SocketAddr],
    pub admin: Option<SocketAddr>,
    pub engine: Engine,
    /// Where relative paths count from.
    pub base: &'a Path,
}

/// `is_needed`: there must be one.
pub(super) fn backends(root: &mut Section<'_>, is_needed: bool, around: &Around<'_>) -> Vec<BackendEntry> {
    let shape = Shape::objects(
        "a list of 1 to 1024 backends: [\"http://127.0.0.1:9001\"] or [{\"name\": \"a\", \"url\": \"http://127.0.0.1:9001\"}]",
        usize::from(is_needed),
        MAX_LIST,
    );
    let default = if is_needed { "" } else { "[]" };
    let spec =
        Spec::new("backends", shape, default, "Where requests go; at the top, those that no route takes.");
    let nodes = root.object_nodes(&spec);
    let mut backends: Vec<BackendEntry> = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.into_iter().enumerate() {
        let element = format!("backends[{index}]");
        let backend = backend(root.open_element("backends", index, named(node)));
        if let Some(own) = around.own.iter().chain(&around.admin).find(|own| is_own(own, &backend)) {
            let text = format!("is our own listener {own}: requests would go round in a circle");
            root.fault(&format!("{element}.url"), text);
        }
        if backend.is_tls && around.engine.is_portable() {
            root.fault(
                &format!("{element}.url"),
                format!("begins with https: TLS to backends {NEEDS_LOOPS}"),
            );
        }
        if !backend.name.is_empty() && backends.iter().any(|other| other.name == backend.name) {
            let text = format!("{:?} names another backend already; names must differ", backend.name);
            root.fault(&format!("{element}.name"), text);
        }
        backends.push(backend);
    }
    backends
}

/// A URL alone is a backend whose name is its address.
fn named(node: Node) -> Node {
    match &node.value {
        Value::Text(url) => by_address(&node.origin, url),
        _ => node,
    }
}

/// The backend at a URL, named by the host and the port in it. What else the URL holds becomes a fault when it is read,
/// in a message without the password.
pub(in crate::config) fn by_address(origin: &FaultOrigin, url: &str) -> Node {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    // A password may hold `/`, `?` or `#`, so the user and the password are cut off first.
    let behind = rest.rsplit('@').next().unwrap_or("");
    let name = behind.split(['/', '?', '#']).next().unwrap_or("");
    let member = |(name, value): (&str, &str)| Member {
        name: name.to_owned(),
        origin: origin.clone(),
        node: Node::new(origin.clone(), Value::Text(value.to_owned())),
    };
    let members = [("name", name), ("url", url)].map(member);
    Node::new(origin.clone(), Value::Object(members.into()))
}

/// Whether a backend is one of our listeners, as far as the text tells (a name or an SRV record may still lead to us:
/// then `Via` ends the circle with 508).
pub fn is_own(listener: &SocketAddr, backend: &BackendEntry) -> bool {
    if listener.port() == 0 || listener.port() != backend.port {
        return false;
    }
    let own = listener.ip().to_canonical();
    match backend.host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) => ip == own || ((ip.is_loopback() || ip.is_unspecified()) && own.is_unspecified()),
        Err(_) => backend.host == "localhost" && (own.is_loopback() || own.is_unspecified()),
    }
}

/// A backend from a name and a URL, as the API takes them.
///
/// # Errors
/// What is wrong, by field.
pub fn parse(name: &str, url: &str) -> Result<BackendEntry, Vec<(&'static str, String)>> {
    let mut faults = Vec::new();
    let good = forms::backend_name(name);
    if good.is_none() {
        faults.push(("name", format!("must be {}", words::NAME.words)));
    }
    match (good, forms::backend_url(url)) {
        (Some(name), Ok(Authority { host, port, is_tls })) => {
            return Ok(BackendEntry { is_tls, ..BackendEntry::new(&name, &host, port) });
        }
        (_, Err(why)) => {
            faults.push(("url", why.unwrap_or_else(|| format!("must be {}", words::BACKEND_URL.words))));
        }
        (None, Ok(_)) => {}
    }
    Err(faults)
}

fn max_in_flight(s: &mut Section<'_>) -> Option<InFlightBound> {
    let about = "Most requests at once on all its addresses together; auto: as many as are measured to be of use, up to their \
                 answers' heads (balancing.auto); null: no bound.";
    in_flight(s, &Spec::of("max_in_flight", words::IN_FLIGHT, "null", about).or_null())
}

/// A bound, or `auto`.
pub fn in_flight(s: &mut Section<'_>, spec: &Spec) -> Option<InFlightBound> {
    s.some(spec, |node| match &node.value {
        Value::Text(text) if text == "auto" => Ok(InFlightBound::Auto),
        _ => whole_of(node, &IN_FLIGHT).map(InFlightBound::Number),
    })
}

fn backend(mut s: Section<'_>) -> BackendEntry {
    let name = Spec::of("name", words::NAME, "", "Unique; what logs, metrics and the API call it.");
    let url = Spec::of(
        "url",
        words::BACKEND_URL,
        "",
        "Where it listens; without a port 80, or 443 for https. srv: where SRV records (RFC 2782) say, over plain HTTP.",
    );
    let name = s.text(&name, |text| forms::backend_name(text).ok_or(None)).unwrap_or_default();
    let authority = s.text(&url, forms::backend_url).unwrap_or_default();
    let weight = s.whole("weight", 0..=1_000, "1", "Share relative to the others; 0: no traffic.");
    let backup = s.bool("backup", "false", "Used only when no other backend is left.");
    let slow_start = s.duration(
        "slow_start",
        DELAY,
        "\"0s\"",
        "How long it takes to its full share after it came up, from a tenth of it.",
    );
    let max_in_flight = max_in_flight(&mut s);
    s.end();
    BackendEntry {
        name,
        host: authority.host,
        port: authority.port,
        is_tls: authority.is_tls,
        weight,
        backup,
        slow_start,
        max_in_flight,
    }
}
