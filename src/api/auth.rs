//! Who may call the API. `allow` judges the TCP peer; a token, when one is set, must be right as well. Without a token
//! a call must not look as if a proxy, a web page or a rebound name had sent it on: reaching our loopback address
//! proves nothing about who is behind it. The public port, which may have proxies in front of it, asks for more
//! ([`direct`]) than a listener of the API's own.

mod direct;
mod failures;

use std::net::IpAddr;

use ipnet::IpNet;

use super::Surface;
use crate::config::{self, ADMIN_TOKEN, ApiToken, Role, SecretHash};
use crate::error::Reject;
use crate::store::v1::Actor;
use balancer_http::message::Reason;
use balancer_http::message::RequestHead;
use balancer_limiter::identity;
use balancer_time::Nanos;

pub(super) use failures::WrongTokens;

/// Fields that tell of a proxy between the caller and us.
const PROXY_FIELDS: [&str; 4] = ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"];

/// The detail of a 403 for a call without a token, on a listener of the API's own.
const DIRECT: &str = "without admin.token only direct calls are answered: no proxy, no web page, and a Host that is an \
                      IP address, localhost or in admin.hosts";
/// The same on the public port.
const DIRECT_FROM_OUR_USER: &str = "without admin.token the public port answers only direct calls by processes of its \
                                    own user on this machine: no proxy, no web page, and a Host that is an IP address, \
                                    localhost or in admin.hosts; set admin.token, or give the API a port of its own \
                                    with admin.listen";

/// Who calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// For the audit: the token's name, or the peer's address.
    pub actor: Actor,
    role: Role,
}

impl Caller {
    /// The caller of something that needs no token, such as a probe or a page.
    pub fn nobody() -> Self {
        Self { actor: Actor("".into()), role: Role::Read }
    }

    /// 403 for a token that may only read.
    pub fn may_write(&self) -> Result<(), Reject> {
        match self.role {
            Role::Write => Ok(()),
            Role::Read => Err(forbidden("this token may only read")
                .because(format!("token {:?} has the role read", self.actor.0))),
        }
    }
}

/// The access rules, ready to be asked. Of a token only its hash is kept.
#[derive(Debug)]
pub(super) struct AccessRules {
    allow: Vec<IpNet>,
    hosts: Vec<String>,
    tokens: Vec<ApiToken>,
    metrics_without_token: bool,
    trusted_proxies: Vec<IpNet>,
}

impl AccessRules {
    pub(super) fn new(admin: &config::Admin, trusted_proxies: &[IpNet]) -> Self {
        let first = admin.token.as_ref().map(|token| ApiToken {
            name: ADMIN_TOKEN.to_owned(),
            role: Role::Write,
            hash: SecretHash::of(token.reveal().as_bytes()),
        });
        Self {
            allow: admin.allow.clone(),
            hosts: admin.hosts.iter().map(|host| bare(host).to_ascii_lowercase()).collect(),
            tokens: first.into_iter().chain(admin.tokens.iter().cloned()).collect(),
            metrics_without_token: admin.metrics_without_token,
            trusted_proxies: trusted_proxies.to_vec(),
        }
    }

    /// [`AccessRules::check`] for `/metrics` of the admin listener, which the configuration may open to callers without
    /// a token. A token that is sent all the same is judged.
    pub(super) fn check_metrics(
        &self,
        head: &RequestHead,
        surface: Surface,
        failures: &WrongTokens,
        now: Nanos,
    ) -> Result<Caller, Reject> {
        if !self.metrics_without_token || head.fields.has("Authorization") {
            return self.check(head, surface, failures, now);
        }
        self.check_address(head, surface)?;
        self.check_tokenless(head, surface)?;
        Ok(Caller::nobody())
    }

    /// Who calls. Else 403 or, after that, 401 or 429, with the cause for the log. Wrong tokens are noted in
    /// `failures`.
    pub(super) fn check(
        &self,
        head: &RequestHead,
        surface: Surface,
        failures: &WrongTokens,
        now: Nanos,
    ) -> Result<Caller, Reject> {
        let peer = self.check_address(head, surface)?;
        if self.tokens.is_empty() {
            self.check_tokenless(head, surface)?;
            return Ok(Caller { actor: Actor(peer.to_string().into()), role: Role::Write });
        }
        let token = SecretHash::of(bearer(head)?);
        // All are looked at, each in constant time, so neither a common beginning nor a place in the list shows.
        let mut found = None;
        for known in &self.tokens {
            if bool::from(known.hash.same(&token)) {
                found = Some(known);
            }
        }
        let Some(found) = found else {
            // Asked only after a wrong token: a right one must work at an address from which others guess, such as a
            // proxy's.
            if let Some(wait_s) = failures.wait_s(peer, now) {
                let detail = "too many wrong tokens came from this address";
                return Err(Reject::new(Reason::TooManyRequests, detail).retry_after(wait_s));
            }
            failures.note(peer, now);
            return Err(unauthorized("a wrong token"));
        };
        Ok(Caller { actor: Actor(found.name.as_str().into()), role: found.role })
    }

    /// 403 for an address that is not in `admin.allow`; else the address.
    fn check_address(&self, head: &RequestHead, surface: Surface) -> Result<IpAddr, Reject> {
        let peer = head.peer.ip().to_canonical();
        // A proxy may name loopback, or no address, for a request that comes from elsewhere. So a proxied loopback
        // address is not let in by a network of loopback addresses alone.
        let counts = |net: &&IpNet| !(head.is_proxied && peer.is_loopback() && net.addr().is_loopback());
        if !self.allow.iter().filter(counts).any(|net| identity::is_in(std::slice::from_ref(net), peer)) {
            let detail = match surface {
                Surface::Public if !self.needs_token() => DIRECT_FROM_OUR_USER,
                _ => "this address may not call the API",
            };
            return Err(forbidden(detail).because("not in admin.allow"));
        }
        Ok(peer)
    }

    /// 403 for a peer that may not see the dashboard, whose page needs no token. On the public port the pages of
    /// backends have the same origin. Where no token protects the API from these, only callers of the API get the
    /// dashboard.
    pub(super) fn check_page(&self, head: &RequestHead, surface: Surface) -> Result<(), Reject> {
        self.check_address(head, surface)?;
        if surface == Surface::Public && !self.needs_token() {
            self.check_tokenless(head, surface)?;
        }
        Ok(())
    }

    /// Whether calls need a token.
    pub(super) fn needs_token(&self) -> bool {
        !self.tokens.is_empty()
    }

    fn check_tokenless(&self, head: &RequestHead, surface: Surface) -> Result<(), Reject> {
        let refuse = |cause: String| {
            Err(forbidden(match surface {
                Surface::Public => DIRECT_FROM_OUR_USER,
                Surface::Admin => DIRECT,
            })
            .because(cause))
        };
        if let Some(name) = PROXY_FIELDS.iter().find(|name| head.fields.has(name)) {
            return refuse(format!("it came through a proxy: it has {name}"));
        }
        if head
            .fields
            .all("Sec-Fetch-Site")
            .any(|value| value.trim_ascii().eq_ignore_ascii_case(b"cross-site"))
        {
            return refuse("a web page of another site sent it (Sec-Fetch-Site)".into());
        }
        let fields = head.fields.all("Host").map(|value| std::str::from_utf8(value).unwrap_or(""));
        if !head.host.as_deref().into_iter().chain(fields).all(|host| self.is_ours(host)) {
            return refuse("its Host is neither an IP address, localhost nor in admin.hosts".into());
        }
        let own = head.host.as_deref().unwrap_or("");
        if !head.fields.all("Origin").all(|origin| is_origin_of(origin, own, head.secure.is_some())) {
            return refuse("a web page of another origin sent it (Origin)".into());
        }
        let doubt = (surface == Surface::Public).then(|| direct::doubt(head, &self.trusted_proxies));
        doubt.flatten().map_or(Ok(()), refuse)
    }

    /// Whether an authority is an address or a name of ours: a page that uses DNS rebinding comes with a name of its
    /// own.
    fn is_ours(&self, authority: &str) -> bool {
        let Some((host, _)) = split_port(authority) else { return false };
        let name = bare(host).to_ascii_lowercase();
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_address = match address {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => name.parse::<std::net::Ipv4Addr>().is_ok(),
        };
        is_address || name == "localhost" || self.hosts.contains(&name)
    }
}

fn forbidden(detail: &str) -> Reject {
    Reject::new(Reason::Forbidden, detail.to_owned())
}

fn unauthorized(cause: &str) -> Reject {
    Reject::new(Reason::Unauthorized, "a bearer token is needed: Authorization: Bearer …").because(cause)
}

/// The token of one `Authorization: Bearer TOKEN` (RFC 6750 §2.1).
fn bearer(head: &RequestHead) -> Result<&[u8], Reject> {
    let mut values = head.fields.all("Authorization");
    let value = values.next().ok_or_else(|| unauthorized("no Authorization"))?;
    if values.next().is_some() {
        return Err(unauthorized("more than one Authorization"));
    }
    let space = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, token) = value.split_at(space);
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return Err(unauthorized("an Authorization that is not Bearer"));
    }
    Ok(token.trim_ascii())
}

/// Host and port of an authority (RFC 3986 §3.2, without user information); the brackets of an IPv6 address stay.
/// `None` when the port is none.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(end);
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((host, None)),
        Some("") => Some((host, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((host, Some(port.parse().ok()?)))
        }
        _ => None,
    }
}

/// A name without the dot that ends an absolute one.
fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether an Origin (RFC 6454 §7) has the host and port of `authority`, so that our own page sent the call; no port
/// means the scheme's own. `null` is never our page's.
fn is_origin_of(origin: &[u8], authority: &str, is_secure: bool) -> bool {
    let Ok(origin) = std::str::from_utf8(origin) else { return false };
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" if !is_secure => 80,
        "https" => 443,
        _ => return false,
    };
    let (Some((theirs, their_port)), Some((own, own_port))) = (split_port(rest), split_port(authority))
    else {
        return false;
    };
    // A Host without a port means that of what is spoken on the connection.
    let usual_port = if is_secure { 443 } else { 80 };
    !theirs.is_empty()
        && bare(theirs).eq_ignore_ascii_case(bare(own))
        && their_port.unwrap_or(default_port) == own_port.unwrap_or(usual_port)
}

#[cfg(test)]
mod tests;
