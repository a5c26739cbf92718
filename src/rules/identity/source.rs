//! What a request shows of who it is: keys in fields and cookies, turned into ids that can only be of their own type.
//!
//! A secret becomes `sha256:` and 32 hex digits, a declared value `NAME=value`: neither can ever be read as an address or a
//! range, so no request can take an address's limit by naming it. Secrets leave this module as digests alone.

use super::secret::secret_id;
use crate::rules::fields::Fields;

/// Longest declared value in bytes, so that `NAME=value` is an id ([`super::ClientId::MAX_BYTES`]).
pub const MAX_ID_BYTES: usize = super::ClientId::MAX_BYTES;

/// Most sources that a list names.
pub const MAX_SOURCES: usize = 8;

/// Where a key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A field, by its name in lower case.
    Header(String),
    /// A cookie (RFC 6265 §4.2.1), by its name as it is.
    Cookie(String),
    /// `Authorization: Bearer …` (RFC 6750 §2.1), without the word.
    Bearer,
}

/// One element of `rate_limit.key` before the address, which always ends the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// Where the key stands.
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
pub enum Shown {
    /// Nothing, or nothing that counts from this peer.
    Nothing,
    /// Something that can't be a key: too long, with control or other bytes that may not stand there, or several. The
    /// request counts as keyless.
    Unusable,
    /// An id.
    Id(String),
}

impl KeySource {
    /// What the request shows. `peer_trusted`: whether the TCP peer is in `trusted_proxies`.
    pub fn shown(&self, fields: &Fields, peer_trusted: bool) -> Shown {
        if self.declared_as.is_some() && !peer_trusted {
            return Shown::Nothing;
        }
        let value = match &self.source {
            Source::Header(name) => only(fields.all(name)),
            Source::Cookie(name) => only(fields.all("cookie").flat_map(|line| cookies(line, name))),
            Source::Bearer => only(fields.all("authorization").filter_map(bearer)),
        };
        let value = match value {
            Ok(Some(value)) => value.trim_ascii(),
            Ok(None) => return Shown::Nothing,
            Err(Several) => return Shown::Unusable,
        };
        match &self.declared_as {
            _ if value.is_empty() => Shown::Nothing,
            Some(name) => declared(name, value),
            None => secret_id(value).map_or(Shown::Unusable, Shown::Id),
        }
    }
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            Source::Header(name) => write!(f, "header:{name}")?,
            Source::Cookie(name) => write!(f, "cookie:{name}")?,
            Source::Bearer => f.write_str("bearer")?,
        }
        match &self.declared_as {
            Some(name) => write!(f, " as {name}"),
            None => Ok(()),
        }
    }
}

/// `NAME=value`, where that is an id.
fn declared(name: &str, value: &[u8]) -> Shown {
    match std::str::from_utf8(value) {
        Ok(value) if name.len() + 1 + value.len() <= MAX_ID_BYTES && !value.chars().any(char::is_control) => {
            Shown::Id(format!("{name}={value}"))
        }
        _ => Shown::Unusable,
    }
}

/// There are several, and they differ: nobody can say which one a backend would take.
struct Several;

fn only<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, Several> {
    let mut found = None;
    for value in values {
        match found {
            Some(first) if first != value => return Err(Several),
            _ => found = Some(value),
        }
    }
    Ok(found)
}

/// The values of one name in a `Cookie` line.
fn cookies<'a>(line: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    line.split(|byte| *byte == b';').filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        (&pair[..equals] == name.as_bytes()).then_some(&pair[equals + 1..])
    })
}

/// The token of `Bearer token`; the scheme in any case (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::MAX_KEY_BYTES;
    use super::super::{ClientId, IdForm};
    use super::*;

    fn source(source: Source, declared_as: Option<&str>) -> KeySource {
        KeySource { source, declared_as: declared_as.map(str::to_owned) }
    }

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in list {
            fields.push(name, value.as_bytes());
        }
        fields
    }

    // printf 'k1' | sha256sum
    const K1: &str = "sha256:6ab9f1eb8f7d3388f4f9d586f66e99fd54080df2c446f0e58668b09c08a16dd0";

    #[test]
    fn a_key_is_found_where_it_stands() {
        let id = Shown::Id(K1[.."sha256:".len() + 32].to_owned());
        let header = source(Source::Header("x-api-key".into()), None);
        let cookie = source(Source::Cookie("session".into()), None);
        let bearer = source(Source::Bearer, None);
        type Row<'a> = (&'a KeySource, &'a [(&'a str, &'a str)], Shown);
        let rows: &[Row<'_>] = &[
            (&header, &[("X-Api-Key", "k1")], id.clone()),
            (&header, &[("X-API-KEY", " k1 ")], id.clone()),
            (&header, &[("X-Api-Key", "k1"), ("X-Api-Key", "k1")], id.clone()),
            (&header, &[("X-Api-Key", "k1"), ("X-Api-Key", "k2")], Shown::Unusable),
            (&header, &[("X-Api-Key", "")], Shown::Nothing),
            (&header, &[("X-Api-Key", "a\tb")], Shown::Unusable),
            (&header, &[], Shown::Nothing),
            (&cookie, &[("Cookie", "a=1; session=k1; b=2")], id.clone()),
            (&cookie, &[("Cookie", "a=1"), ("Cookie", "session=k1")], id.clone()),
            (&cookie, &[("Cookie", "Session=k1")], Shown::Nothing),
            (&cookie, &[("Cookie", "session=k1; session=k2")], Shown::Unusable),
            (&bearer, &[("Authorization", "Bearer k1")], id.clone()),
            (&bearer, &[("Authorization", "bEARER  k1")], id.clone()),
            (&bearer, &[("Authorization", "Basic k1")], Shown::Nothing),
            (&bearer, &[("Authorization", "Bearer")], Shown::Nothing),
        ];
        for (source, list, shown) in rows {
            assert_eq!(source.shown(&fields(list), false), *shown, "{source} {list:?}");
        }
    }

    #[test]
    fn a_key_that_is_too_long_is_none() {
        let header = source(Source::Header("x-api-key".into()), None);
        let long = "k".repeat(MAX_KEY_BYTES + 1);
        assert_eq!(header.shown(&fields(&[("x-api-key", &long)]), false), Shown::Unusable);
        assert!(matches!(header.shown(&fields(&[("x-api-key", &long[1..])]), false), Shown::Id(_)));
    }

    #[test]
    fn a_declared_name_counts_from_trusted_peers_alone() {
        let tenant = source(Source::Header("x-tenant".into()), Some("tenant"));
        let acme = fields(&[("X-Tenant", "acme")]);
        assert_eq!(tenant.shown(&acme, true), Shown::Id("tenant=acme".into()));
        assert_eq!(tenant.shown(&acme, false), Shown::Nothing);
        let long = "v".repeat(MAX_ID_BYTES - "tenant=".len() + 1);
        assert_eq!(tenant.shown(&fields(&[("X-Tenant", &long)]), true), Shown::Unusable);
        assert!(matches!(tenant.shown(&fields(&[("X-Tenant", &long[1..])]), true), Shown::Id(_)));
    }

    proptest! {
        /// Whatever stands in a field, what comes of it is an opaque id: never an address, a port or a range.
        #[test]
        fn no_key_can_be_read_as_an_address(value in prop_oneof![
            "[0-9.:/\\[\\]a-f]{1,40}", "\\PC{1,60}",
            Just("1.2.3.4".to_owned()), Just("[::1]:80".to_owned()), Just("10.0.0.0/8".to_owned()),
        ]) {
            for declared_as in [None, Some("t")] {
                let key = source(Source::Header("x-key".into()), declared_as);
                if let Shown::Id(id) = key.shown(&fields(&[("x-key", &value)]), true) {
                    let id = ClientId::parse(&id).expect("every key's id is an id");
                    prop_assert_eq!(id.form(), IdForm::Opaque);
                }
            }
        }
    }
}
