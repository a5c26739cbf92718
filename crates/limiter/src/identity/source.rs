//! What a request shows of who it is: keys in fields and cookies, turned into ids that can only be of their own type.
//!
//! A secret becomes `sha256:` and 32 hex digits, a declared value `NAME=value`: neither can ever be read as an address or a
//! range, so no request can take an address's limit by naming it. Secrets leave this module as digests alone.

use std::borrow::Cow;

use super::secret::secret_id;
use super::values::{Several, bearer, cookies, is_bare_bearer, only};
use balancer_http::fields::{Fields, is_one_variable};
use balancer_http::message::ClientCertificate;

/// Longest declared value in bytes, so that `NAME=value` is an id ([`super::ClientId::MAX_BYTES`]).
pub const MAX_ID_BYTES: usize = super::ClientId::MAX_BYTES;

/// Most sources that a list names.
pub const MAX_SOURCES: usize = 8;

/// Which part of a request has a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A field, by its name in lower case.
    Header(String),
    /// A cookie (RFC 6265 §4.2.1), by its name in any case.
    Cookie(String),
    /// `Authorization: Bearer …` (RFC 6750 §2.1), without the word.
    Bearer,
    /// The certificate that the client showed in its TLS handshake.
    Certificate,
    /// The first DNS name or URI in it.
    CertificateName,
}

/// What ids of certificates' names begin with, as if a proxy had declared them; no declared key has that name.
pub const CERTIFICATE_NAME: &str = "san";

/// One element of `rate_limit.key` before the address, which always ends the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// Which part of a request has the key.
    pub source: Source,
    /// The key is no secret but a name for this kind of client (`tenant`), and counts from trusted peers alone.
    pub declared_as: Option<String>,
}

/// `rate_limit.unknown_keys`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownKeys {
    /// They count as absent.
    #[default]
    Next,
    /// Each has a bucket of its own, at the default's numbers.
    OwnBucket,
    /// The request is refused.
    Refused,
}

/// What a request shows at one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShownKey {
    /// Nothing, or nothing that counts from this peer.
    Nothing,
    /// Something that can't be a key: too long, with control or other bytes that are not allowed there, or `Bearer` alone.
    Unusable,
    /// Several keys that differ, or one that backends read differently: it cannot be told which client this is.
    Several,
    /// An id.
    Id(String),
}

impl KeySource {
    /// What the request shows. `peer_trusted`: whether the TCP peer is in `trusted_proxies`. `certificate`: the client's own,
    /// verified.
    pub fn shown(
        &self,
        fields: &Fields,
        peer_trusted: bool,
        certificate: Option<&ClientCertificate>,
    ) -> ShownKey {
        match (&self.source, certificate) {
            (Source::Certificate | Source::CertificateName, None) => return ShownKey::Nothing,
            (Source::Certificate, Some(certificate)) => {
                return ShownKey::Id(format!("cert:{}", hex::encode(certificate.fingerprint)));
            }
            (Source::CertificateName, Some(certificate)) => {
                let name = certificate.san.as_ref().filter(|name| !name.is_empty());
                return name.map_or(ShownKey::Unusable, |name| declared(CERTIFICATE_NAME, name.as_bytes()));
            }
            _ => {}
        }
        match (self.value(fields, peer_trusted), &self.declared_as) {
            (Err(Several), _) => ShownKey::Several,
            (Ok(None), None) if self.is_bare(fields) => ShownKey::Unusable,
            (Ok(None), _) => ShownKey::Nothing,
            (Ok(Some(value)), Some(name)) => declared(name, &value),
            (Ok(Some(value)), None) => secret_id(&value).map_or(ShownKey::Unusable, ShownKey::Id),
        }
    }

    /// Whether the request shows [`ShownKey::Several`].
    pub fn is_blurred(&self, fields: &Fields, peer_trusted: bool) -> bool {
        self.value(fields, peer_trusted).is_err()
    }

    /// The kind of key and its place, for a message.
    pub fn kind(&self) -> Cow<'static, str> {
        match &self.source {
            Source::Header(name) => format!("header {name}").into(),
            Source::Cookie(name) => format!("cookie {name}").into(),
            Source::Bearer => "bearer token".into(),
            Source::Certificate | Source::CertificateName => "certificate".into(),
        }
    }

    fn value<'a>(&'a self, fields: &'a Fields, peer_trusted: bool) -> Result<Option<Cow<'a, [u8]>>, Several> {
        if self.declared_as.is_some() && !peer_trusted {
            return Ok(None);
        }
        match &self.source {
            Source::Header(name) => only(fields.all(name).map(|value| Ok(value.into()))),
            Source::Cookie(name) => only(fields.all("cookie").flat_map(|line| cookies(line, name))),
            Source::Bearer => only(fields.all("authorization").flat_map(bearer)),
            // The handshake has one, or none.
            Source::Certificate | Source::CertificateName => Ok(None),
        }
    }

    /// `Authorization` says that a token comes, and none does.
    fn is_bare(&self, fields: &Fields) -> bool {
        self.source == Source::Bearer && fields.all("authorization").any(is_bare_bearer)
    }
}

/// Drops fields that a backend may take for a key which we don't: their names are a key's but for what is no letter or digit, and
/// all of that becomes `_` in CGI's variables (RFC 3875 §4.1.18). `X_Customer_Key` beside `X-Customer-Key` is one.
pub fn drop_lookalikes(sources: &[KeySource], fields: &mut Fields) {
    let is_key = |same: fn(&[u8], &[u8]) -> bool, name: &[u8]| {
        sources.iter().any(|key| matches!(&key.source, Source::Header(own) if same(own.as_bytes(), name)))
    };
    let is_lookalike =
        |name: &[u8]| is_key(is_one_variable, name) && !is_key(<[u8]>::eq_ignore_ascii_case, name);
    if fields.lines().any(|(name, _)| is_lookalike(name)) {
        fields.retain(|name, _| !is_lookalike(name));
    }
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            Source::Header(name) => write!(f, "header:{name}")?,
            Source::Cookie(name) => write!(f, "cookie:{name}")?,
            Source::Bearer => f.write_str("bearer")?,
            Source::Certificate => f.write_str("cert")?,
            Source::CertificateName => f.write_str("cert:san")?,
        }
        match &self.declared_as {
            Some(name) => write!(f, " as {name}"),
            None => Ok(()),
        }
    }
}

/// `NAME=value`, where that is an id.
fn declared(name: &str, value: &[u8]) -> ShownKey {
    match std::str::from_utf8(value) {
        Ok(value) if name.len() + 1 + value.len() <= MAX_ID_BYTES && !value.chars().any(char::is_control) => {
            ShownKey::Id(format!("{name}={value}"))
        }
        _ => ShownKey::Unusable,
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
