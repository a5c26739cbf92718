//! The keys that a request shows, in fields, cookies and certificates, and the ids that they become.
//!
//! A secret becomes `sha256:` and 32 hexadecimal digits, a declared value `NAME=value`. Neither can be read as an
//! address or a range, so no key gives a request the limit of an address. Secrets leave this module only as digests.

use std::borrow::Cow;

use super::ClientId;
use super::secret::secret_id;
use super::values::{Several, bearer, cookies, is_bare_bearer, only};
use balancer_http::fields::{Fields, is_one_variable};
use balancer_http::message::ClientCertificate;

/// Most sources in `rate_limit.key`.
pub const MAX_SOURCES: usize = 8;

/// Which part of a request has a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A field, by its name in lower case.
    Header(String),
    /// A cookie (RFC 6265 §4.2.1), by its name, whose case does not matter.
    Cookie(String),
    /// `Authorization: Bearer …` (RFC 6750 §2.1), without the word.
    Bearer,
    /// The certificate that the client showed in its TLS handshake.
    Certificate,
    /// The first DNS name or URI in that certificate.
    CertificateName,
}

/// The `NAME` in the ids of certificates' names, `san=…`. No declared key may have this name.
pub const CERTIFICATE_NAME: &str = "san";

/// One element of `rate_limit.key`. The client's address, which always ends the list, is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// Which part of a request has the key.
    pub source: Source,
    /// `None`: the key is a secret. Else it is a plain value, declared by a trusted proxy, for this kind of client
    /// (`tenant`); from other peers it is ignored.
    pub declared_as: Option<String>,
}

/// `rate_limit.unknown_keys`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownKeys {
    /// They are ignored: the next source in the list decides.
    #[default]
    Next,
    /// Each has a bucket of its own, with the numbers of the default.
    OwnBucket,
    /// The request is refused.
    Refused,
}

/// What a request shows at one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShownKey {
    /// Nothing, or nothing that this peer may declare.
    Nothing,
    /// Something that can't be a key: it is too long, holds bytes that are not allowed, or is `Bearer` without a token.
    Unusable,
    /// Several different keys, or one that backends read in different ways, so that the client is not known.
    Several,
    /// The id that the key becomes.
    Id(String),
}

impl KeySource {
    /// What a request with these fields shows here. `peer_trusted`: the TCP peer is in `trusted_proxies`.
    /// `certificate`: the client's own, verified.
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

    /// The kind of key and its place, for messages.
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
            // `shown` handles these.
            Source::Certificate | Source::CertificateName => Ok(None),
        }
    }

    /// Whether `Authorization` has the word `Bearer` and no token.
    fn is_bare(&self, fields: &Fields) -> bool {
        self.source == Source::Bearer && fields.all("authorization").any(is_bare_bearer)
    }
}

/// Drops fields that we do not take for a key, but that a backend might: in CGI, everything except letters and digits
/// becomes `_` (RFC 3875 §4.1.18), so that `X_Customer_Key` is the same variable as the key `X-Customer-Key`.
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

/// The id `NAME=value`, if that is a valid one.
fn declared(name: &str, value: &[u8]) -> ShownKey {
    match std::str::from_utf8(value) {
        Ok(value)
            if name.len() + 1 + value.len() <= ClientId::MAX_BYTES
                && !value.chars().any(char::is_control) =>
        {
            ShownKey::Id(format!("{name}={value}"))
        }
        _ => ShownKey::Unusable,
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
