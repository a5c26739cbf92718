//! The forms that single values are written in. Pure: text in, value or reason out.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::{CollectorUrl, DatabaseUrl, RetryOn, Secret};
use crate::declare::Parsed;
use balancer_pool::strategy::HashOn;

/// A duration as the configuration takes it: `"10s"`, or `"1500ms"` where seconds do not say it. Whole milliseconds.
pub fn written(time: Duration) -> String {
    match time.as_millis() {
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

/// What a backend's URL says.
#[derive(Default)]
pub(super) struct Authority {
    pub host: String,
    /// 0 where SRV records say it.
    pub port: u16,
    /// Whether it is called over TLS.
    pub is_tls: bool,
}

/// `http://host[:port][/]`, the same with `https`, or `srv://_service._proto.domain[/]`, and nothing more. A URL with a
/// user in it is never repeated in a message.
pub(super) fn backend_url(text: &str) -> Parsed<Authority> {
    const FORMS: [(&str, &str, u16); 3] = [
        ("http://", "HOST[:PORT]", 80),
        ("https://", "HOST[:PORT]", 443),
        ("srv://", "_SERVICE._PROTO.DOMAIN", 0),
    ];
    let lower = text.to_ascii_lowercase();
    let form = FORMS.iter().find(|(scheme, ..)| lower.starts_with(scheme)).ok_or(None)?;
    let (scheme, form, usual_port) = *form;
    let wrong = |why: &str| Err(Some(format!("{why}; must be {scheme}{form}")));
    let rest = &text[scheme.len()..];
    if rest.contains('@') {
        return wrong("must not hold a user or password");
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(extra) = authority.find(['/', '?', '#']) {
        let part = match authority.as_bytes()[extra] {
            b'/' => "path",
            b'?' => "query",
            _ => "fragment",
        };
        return wrong(&format!("must not have a {part}: requests keep their own"));
    }
    if usual_port == 0 {
        return match service_name(authority) {
            Some(host) => Ok(Authority { host, port: 0, is_tls: false }),
            None if authority.contains(':') => wrong("must not have a port: SRV records say it"),
            None => wrong("is no name of SRV records (RFC 2782)"),
        };
    }
    let (host, port) = host_and_port(authority).ok_or(None)?;
    Ok(Authority { host, port: port.unwrap_or(usual_port), is_tls: usual_port == 443 })
}

/// `http://host[:port][/path]`, the same with `https`. Behind the path comes `/v1/traces`, unless it ends so already. A
/// URL with a user in it is never repeated in a message.
pub(super) fn collector_url(text: &str) -> Parsed<CollectorUrl> {
    const PATH: &str = "/v1/traces";
    let lower = text.to_ascii_lowercase();
    let forms = [("http://", 80), ("https://", 443)];
    let (scheme, usual_port) = forms.into_iter().find(|(scheme, _)| lower.starts_with(scheme)).ok_or(None)?;
    let rest = &text[scheme.len()..];
    if rest.contains('@') {
        return Err(Some("must not hold a user or password".into()));
    }
    if rest.contains(['?', '#']) {
        return Err(Some("must not have a query or fragment".into()));
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = host_and_port(authority).ok_or(None)?;
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(None);
    }
    let path = path.trim_end_matches('/');
    let path = format!("{}{PATH}", path.strip_suffix(PATH).unwrap_or(path));
    Ok(CollectorUrl { is_tls: usual_port == 443, host, port: port.unwrap_or(usual_port), path })
}

/// A name that SRV records may have, in lower case: `_service._proto.domain` (RFC 2782, "The format of the SRV RR").
fn service_name(text: &str) -> Option<String> {
    let name = host_name(text)?;
    let mut labels = name.split('.');
    let is_special =
        |label: Option<&str>| label.is_some_and(|label| label.starts_with('_') && label.len() > 1);
    let is_one = is_special(labels.next())
        && is_special(labels.next())
        && labels.next().is_some_and(|one| !one.is_empty());
    is_one.then_some(name)
}

/// A name, an IPv4 address or an IPv6 address in brackets (without them in the result), and a port from 1.
fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            let host = host.parse::<Ipv6Addr>().ok()?.to_string();
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => {
            let (host, port) = match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            };
            (host_name(host)?, port)
        }
    };
    let port = match port {
        None => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse::<u16>().ok().filter(|port| *port > 0)?)
        }
        Some(_) => return None,
    };
    Some((host, port))
}

/// A host name in lower case (RFC 1123 §2.1, with underscores, which compose and Kubernetes names may have) or an IPv4
/// address. A name of digits and dots that is no address is neither.
pub(super) fn host_name(text: &str) -> Option<String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if name.len() > 253 || !name.split('.').all(label) || (numeric && name.parse::<IpAddr>().is_err()) {
        return None;
    }
    Some(text.to_ascii_lowercase())
}

/// A backend's name as logs and paths can carry it; `host:port` is one.
pub(super) fn backend_name(text: &str) -> Option<String> {
    is_backend_name(text).then(|| text.to_owned())
}

/// Whether a backend may be called that: 1 to 128 letters, digits and `. _ - : [ ]`.
pub fn is_backend_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:[]".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(plain)
}

/// `IP:PORT`, `[IPv6]:PORT`, `localhost:PORT`.
pub(super) fn address(text: &str) -> Parsed<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return format!("127.0.0.1:{port}").parse().map_err(|_| None);
    }
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) if text.starts_with(':') && text[1..].bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(Some(format!(
                "needs an IP address before the port: \"127.0.0.1{text}\" for this machine alone, \"0.0.0.0{text}\" for every network"
            )))
        }
        Err(_) => Err(None),
    }
}

/// `10.0.0.0/8` or a single address; host bits are masked, an IPv4-mapped one becomes IPv4.
pub(super) fn network(text: &str) -> Parsed<IpNet> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| None)?),
    };
    Ok(canonical(net.trunc()))
}

fn canonical(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= 96
        && let Some(mapped) = v6.addr().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(mapped, v6.prefix_len() - 96)
    {
        return IpNet::V4(v4);
    }
    net
}

/// A path that a route or a rule is for: it begins with `/` and has no query.
pub(super) fn route_path(text: &str) -> Parsed<String> {
    let is_path = text.starts_with('/') && !text.contains(['?', '#']) && text.len() <= 1_024;
    is_path.then(|| text.to_owned()).ok_or(None)
}

/// The name of a file, which counts from a folder.
pub(super) fn file(text: &str, base: &Path) -> Parsed<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| base.join(text)).ok_or(None)
}

/// `200-399`, `200`, `200,204,301-302`: inclusive ranges of status codes.
pub(super) fn status_ranges(text: &str) -> Option<Vec<(u16, u16)>> {
    let code = |text: &str| {
        let text = text.trim();
        (text.len() == 3)
            .then(|| text.parse::<u16>().ok())
            .flatten()
            .filter(|code| (100..=599).contains(code))
    };
    text.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = (code(first)?, code(last)?);
            (range.0 <= range.1).then_some(range)
        })
        .collect()
}

/// The name of a field or a cookie: a token (RFC 9110 §5.6.2).
pub(super) fn token_name(text: &str) -> Option<String> {
    let is_token =
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    ((1..=128).contains(&text.len()) && is_token).then(|| text.to_owned())
}

/// `ip`, `client`, `uri`, `header:NAME`, `cookie:NAME`; both names are tokens (RFC 9110 §5.1, RFC 6265 §4.1.1).
pub(super) fn hash_on(text: &str) -> Option<HashOn> {
    match (text, text.split_once(':')) {
        ("ip", _) => Some(HashOn::Ip),
        ("client", _) => Some(HashOn::Client),
        ("uri", _) => Some(HashOn::Uri),
        (_, Some(("header", of))) => token_name(of).map(HashOn::Header),
        (_, Some(("cookie", of))) => token_name(of).map(HashOn::Cookie),
        _ => None,
    }
}

/// `connect`, `reset`, `timeout`, or status codes from 400: what went well is not asked for again.
pub(super) fn retry_on(text: &str) -> Option<RetryOn> {
    let mut on = RetryOn::default();
    match text {
        "connect" => on.connect = true,
        "reset" => on.reset = true,
        "timeout" => on.timeout = true,
        _ => on.statuses = status_ranges(text).filter(|all| all.iter().all(|(first, _)| *first >= 400))?,
    }
    Some(on)
}

/// A request target in origin form without a fragment (RFC 9112 §3.2.1).
pub(super) fn target(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte);
    (text.starts_with('/') && text.len() <= 2_048 && text.bytes().all(plain)).then(|| text.to_owned())
}

/// A serialised origin (RFC 6454 §6.1), `https://HOST[:PORT]`, in lower case.
pub(super) fn origin(text: &str) -> Option<String> {
    let (scheme, host) = text.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    (is_scheme && (1..=255).contains(&host.len()) && host.bytes().all(is_host))
        .then(|| text.to_ascii_lowercase())
}

/// Shortest bearer token. Wrong tokens never slow down a right one, so its length is all that protects it from being
/// guessed.
const MIN_TOKEN_BYTES: usize = 16;

/// What [`token`] takes.
pub(super) const TOKEN: &str = "16 to 512 visible ASCII characters without spaces";

/// What a bearer token may be: visible ASCII, so that it fits into a header field.
pub(super) fn token(text: &str) -> Parsed<Secret> {
    if text.is_empty() {
        return Err(Some("must not be empty: that would let anybody in; take it out or give one".into()));
    }
    if !(MIN_TOKEN_BYTES..=512).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(None);
    }
    Ok(Secret::new(text))
}

/// `sqlite:PATH`, relative to `base`, or `postgres://…`. No message repeats any of it.
pub(super) fn database_url(text: &str, base: &Path) -> Parsed<DatabaseUrl> {
    if let Some(path) = text.strip_prefix("sqlite:") {
        if path.starts_with("//") && !path.starts_with("///") {
            return Err(Some("must be sqlite:PATH, without slashes before a relative path".into()));
        }
        if path.is_empty() || path.ends_with('/') || path.contains(['\0', '?']) {
            return Err(Some("must be sqlite:PATH, where the path names a file".into()));
        }
        if path == ":memory:" {
            return Err(Some("must name a file: limits are kept over a restart".into()));
        }
        return Ok(DatabaseUrl::Sqlite(base.join(path)));
    }
    if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
        return Err(None);
    }
    postgres_url(text)?;
    Ok(DatabaseUrl::Postgres(Secret::new(text)))
}

/// The client's own parser judges everything but the TLS parameters, which the store reads itself. Its error may hold a
/// piece of a password, so none of it is shown.
fn postgres_url(text: &str) -> Parsed<()> {
    const MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];
    let (head, query) = text.split_once('?').unwrap_or((text, ""));
    let mut rest = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("sslmode", mode)) if MODES.contains(&mode) => {}
            Some(("sslmode", _)) => {
                return Err(Some(format!("must have an sslmode of {}", MODES.join(", "))));
            }
            Some(("sslrootcert", _) | ("sslnegotiation", "postgres")) => {}
            _ => rest.push(part),
        }
    }
    let url = if rest.is_empty() { head.to_owned() } else { format!("{head}?{}", rest.join("&")) };
    match url.parse::<postgres::Config>() {
        Ok(config) if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() => {
            Err(Some("names no host; must be postgres://USER:PASSWORD@HOST[:PORT]/DATABASE".into()))
        }
        Ok(config) if config.get_user().is_none() => {
            Err(Some("names no user; must be postgres://USER:PASSWORD@HOST[:PORT]/DATABASE".into()))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(Some(
            "is no PostgreSQL URL: must be postgres://USER:PASSWORD@HOST[:PORT]/DATABASE[?sslmode=…]; percent-encode \
             @ : / ? # % in user and password"
                .into(),
        )),
    }
}

#[cfg(test)]
mod tests;
