//! What a proxy does to header fields. It removes fields first and adds its own last: in the other order, a client's
//! `Connection` field could delete what we added.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use super::fields::{Fields, tokens};

/// Our name in `Via`; the instance's own id follows as a comment (RFC 9110 §7.6.3).
const VIA: &str = "1.1 balancer";
/// A list of the ids of instances that a request passed, by which a loop is seen where we add no `Via`.
const INSTANCES: &str = "X-Balancer-Instance";
/// The part of the path that a route removed before the request went to the backend.
pub const FORWARDED_PREFIX: &str = "X-Forwarded-Prefix";

/// Whether a field belongs to one connection (RFC 9110 §7.6.1), so that it is never forwarded.
fn is_hop_by_hop(name: &[u8]) -> bool {
    // By length first: this rules out almost every field without a look at its text.
    let candidates: &[&str] = match name.len() {
        2 => &["TE"],
        7 => &["Trailer", "Upgrade"],
        10 => &["Connection", "Keep-Alive"],
        14 => &["HTTP2-Settings"],
        16 => &["Proxy-Connection"],
        17 => &["Transfer-Encoding"],
        18 => &["Proxy-Authenticate"],
        19 => &["Proxy-Authorization"],
        _ => return false,
    };
    candidates.iter().any(|one| is(name, one))
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

/// Whether a field says what only a proxy in front can know: who the client is, and how its request came. An untrusted
/// peer may claim anything in such a field, and an application might believe it.
pub fn is_claim(name: &[u8]) -> bool {
    const FORWARDED: &[u8] = b"X-Forwarded-";
    let starts_with =
        |start: &[u8]| name.len() >= start.len() && name[..start.len()].eq_ignore_ascii_case(start);
    let candidates: &[&str] = match name.len() {
        9 => &["Forwarded", "X-Real-IP", "Client-IP"],
        11 => &["X-Client-IP", "X-Forwarded"],
        14 => &["True-Client-IP"],
        16 => &["CF-Connecting-IP", "Fastly-Client-IP"],
        18 => &["CF-Connecting-IPv6"],
        19 => &["X-Cluster-Client-IP"],
        24 => &["X-Original-Forwarded-For"],
        _ => &[],
    };
    candidates.iter().any(|one| is(name, one)) || starts_with(FORWARDED)
}

/// Whether a field is about one connection or about the framing of a message, so that an operator can't set it.
pub fn is_of_connection(name: &str) -> bool {
    is_hop_by_hop(name.as_bytes()) || ["Content-Length", "Expect"].iter().any(|one| is(name.as_bytes(), one))
}

/// Whether Balancer itself writes a field into every request that goes to a backend ([`to_backend`], or the engine).
pub fn is_own_in_requests(name: &str) -> bool {
    const OWN: [&str; 9] = [
        "Host",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        FORWARDED_PREFIX,
        "Via",
        INSTANCES,
        "Max-Forwards",
        "X-Request-Id",
    ];
    OWN.iter().any(|one| is(name.as_bytes(), one))
}

/// Whether Balancer itself writes a field into answers: the time, the request's id, what the limiter says.
pub fn is_own_in_answers(name: &str) -> bool {
    const OWN: [&str; 7] = [
        "Date",
        "X-Request-Id",
        "RateLimit",
        "RateLimit-Policy",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
    ];
    OWN.iter().any(|one| is(name.as_bytes(), one))
}

/// Whether `Connection` names something else than `close` and `keep-alive`: fields that must not go on.
fn names_fields(fields: &Fields) -> bool {
    let option = |one: &[u8]| is(one, "close") || is(one, "keep-alive");
    !fields.all("Connection").flat_map(tokens).all(option)
}

/// Copies the end-to-end fields of a message to `out` (RFC 9110 §7.6.1): no hop-by-hop field, no field that
/// `Connection` names, none for which `drop` is true. `Host` stays even if `Connection` names it: without it the
/// request would be another one.
fn end_to_end(fields: &Fields, out: &mut Fields, mut drop: impl FnMut(&[u8]) -> bool) {
    let named = fields.has("Connection");
    for (name, value) in fields.lines() {
        // Options like `close` are compared too: a field may have that name.
        let named_away = || {
            named
                && !is(name, "Host")
                && fields.all("Connection").flat_map(tokens).any(|one| one.eq_ignore_ascii_case(name))
        };
        if is_hop_by_hop(name) || drop(name) || named_away() {
            continue;
        }
        out.push_line(name, value);
    }
}

/// Where a request came from, and the names and ids with which it goes to a backend.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The TCP peer.
    pub peer: SocketAddr,
    /// Whether the peer is a trusted proxy, so that its forwarding fields are kept.
    pub trusted: bool,
    /// The host that the client asked for; empty in HTTP/1.0 without Host.
    pub host: &'a str,
    /// Whether it came over TLS.
    pub is_secure: bool,
    /// This request's id.
    pub request_id: &'a str,
    /// This instance's id.
    pub instance: &'a str,
    /// Whether it goes into `Via`; else into `X-Balancer-Instance`.
    pub via: bool,
    /// What `Max-Forwards` is to say; `None`: the client's field stays as it is.
    pub max_forwards: Option<u64>,
}

/// Writes the fields of a request as a backend gets them into `out`, which must be empty. The engine adds `Connection`,
/// `Content-Length` and `Transfer-Encoding`.
pub fn to_backend(fields: &Fields, origin: &Origin<'_>, out: &mut Fields) {
    // A broken trace context is dropped, and `tracestate` with it, as a tracer behind us would have to do (W3C Trace
    // Context §3.2, §3.3).
    let is_traced = traceparent(fields).is_some();
    let replaced = |name: &[u8]| match name.len() {
        3 => origin.via && is(name, "Via"),
        4 => is(name, "Host"),
        6 => is(name, "Expect"),
        10 => !is_traced && is(name, "tracestate"),
        11 => !is_traced && is(name, "traceparent"),
        12 => is(name, "X-Request-Id") || (origin.max_forwards.is_some() && is(name, "Max-Forwards")),
        15 => is(name, "X-Forwarded-For"),
        19 => !origin.via && is(name, INSTANCES),
        _ => false,
    };
    end_to_end(fields, out, |name| replaced(name) || (!origin.trusted && is_claim(name)));
    out.push("Host", origin.host.as_bytes());
    out.push_written("X-Forwarded-For", |text| {
        if origin.trusted {
            continue_list(text, fields.all("X-Forwarded-For").filter(|value| !value.is_empty()));
        }
        push_ip(text, origin.peer.ip());
    });
    if !(origin.trusted && out.has("X-Forwarded-Proto")) {
        out.push("X-Forwarded-Proto", if origin.is_secure { b"https" } else { b"http" });
    }
    if !(origin.trusted && out.has("X-Forwarded-Host")) {
        out.push("X-Forwarded-Host", origin.host.as_bytes());
    }
    let (name, before, behind) =
        if origin.via { ("Via", [VIA, " ("], ")") } else { (INSTANCES, [""; 2], "") };
    out.push_written(name, |text| {
        continue_list(text, fields.all(name));
        for part in [before[0], before[1], origin.instance, behind] {
            text.extend_from_slice(part.as_bytes());
        }
    });
    if let Some(left) = origin.max_forwards {
        out.push("Max-Forwards", left.to_string().as_bytes());
    }
    out.push("X-Request-Id", origin.request_id.as_bytes());
}

/// Appends the values that a list has so far, each with a comma behind it.
fn continue_list<'a>(text: &mut Vec<u8>, values: impl Iterator<Item = &'a [u8]>) {
    for value in values {
        // Bytes that are not UTF-8 become the replacement character.
        text.extend_from_slice(String::from_utf8_lossy(value).as_bytes());
        text.extend_from_slice(b", ");
    }
}

fn push_ip(text: &mut Vec<u8>, address: IpAddr) {
    // Writing to a Vec cannot fail.
    let _ = write!(text, "{}", address.to_canonical());
}

/// Turns a backend's fields into those that go to the client: without hop-by-hop fields, and without `X-Request-Id`,
/// since the client gets ours. The `Upgrade` of a 426 goes on, because it tells the client what to ask for
/// (RFC 9110 §15.5.22).
pub fn to_client(status: u16, fields: Fields) -> Fields {
    if status != 426 || !fields.has("Upgrade") {
        return without_hop_by_hop(fields);
    }
    let offered: Vec<Vec<u8>> = fields.all("Upgrade").map(<[u8]>::to_vec).collect();
    let mut out = without_hop_by_hop(fields);
    for protocols in offered {
        out.push("Upgrade", &protocols);
    }
    // RFC 9110 §7.8: a sender of Upgrade has to name it in Connection.
    out.push("Connection", b"upgrade");
    out
}

fn without_hop_by_hop(mut fields: Fields) -> Fields {
    let drop = |name: &[u8]| is(name, "X-Request-Id");
    if names_fields(&fields) {
        let mut out = Fields::with_room(fields.len() + 8, 1024);
        end_to_end(&fields, &mut out, drop);
        return out;
    }
    let closes = fields.has_token("Connection", "close");
    fields.retain(|name, _| !(is_hop_by_hop(name) || drop(name) || (closes && is(name, "close"))));
    fields
}

/// The first protocol in a request's `Upgrade` (RFC 9110 §7.8) that is in `allowed`, spelled as there. `None` where
/// `Connection` does not name `Upgrade`: then the field is not meant for us.
pub fn upgrade<'a>(fields: &Fields, allowed: &'a [String]) -> Option<&'a str> {
    if allowed.is_empty() || !fields.has_token("Connection", "upgrade") {
        return None;
    }
    let of = |offer: &[u8]| allowed.iter().find(|one| offer.eq_ignore_ascii_case(one.as_bytes()));
    fields.all("Upgrade").flat_map(tokens).find_map(of).map(String::as_str)
}

/// Whether a request has passed this instance before: its id is in `Via` or in `X-Balancer-Instance`. Looks at both,
/// since the setting that decides between them may have changed.
pub fn is_loop(fields: &Fields, instance: &str) -> bool {
    let in_via = fields.all("Via").flat_map(tokens).any(|hop| {
        hop.strip_prefix(VIA.as_bytes())
            .and_then(|rest| rest.trim_ascii_start().strip_prefix(b"("))
            .is_some_and(|rest| rest.strip_suffix(b")") == Some(instance.as_bytes()))
    });
    in_via || fields.all(INSTANCES).flat_map(tokens).any(|id| id == instance.as_bytes())
}

/// The `X-Request-Id` of a request, if it has 1 to 128 characters of `[A-Za-z0-9._-]`.
pub fn request_id(fields: &Fields) -> Option<&str> {
    let value = fields.get("X-Request-Id")?;
    let valid = (1..=128).contains(&value.len())
        && value.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if valid { std::str::from_utf8(value).ok() } else { None }
}

/// The `traceparent` of a request, if there is exactly one and it is valid (W3C Trace Context §3.2).
pub fn traceparent(fields: &Fields) -> Option<&str> {
    let mut values = fields.all("traceparent");
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?;
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let mut parts = text.splitn(5, '-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let more = parts.next();
    let valid = version.len() == 2
        && trace.len() == 32
        && parent.len() == 16
        && flags.len() == 2
        && [version, trace, parent, flags].into_iter().all(hex)
        && version != "ff"
        && !zero(trace)
        && !zero(parent)
        // Version 00 has four parts; later versions may have more, for which 256 bytes are enough.
        && (more.is_none() || (version != "00" && text.len() <= 256));
    valid.then_some(text)
}

/// The trace id in a valid `traceparent`, 32 hexadecimal digits.
pub fn trace_id(traceparent: &str) -> &str {
    traceparent.get(3..35).unwrap_or("")
}

#[cfg(test)]
mod tests;
