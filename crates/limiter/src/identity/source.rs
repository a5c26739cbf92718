//! What a request shows of who it is: keys in fields and cookies, turned into ids that can only be of their own type.
//!
//! A secret becomes `sha256:` and 32 hex digits, a declared value `NAME=value`: neither can ever be read as an address or a
//! range, so no request can take an address's limit by naming it. Secrets leave this module as digests alone.

use std::borrow::Cow;

use super::secret::secret_id;
use super::values::{Several, bearer, cookies, only};
use balancer_http::fields::Fields;

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
    /// Something that can't be a key: too long, or with control or other bytes that may not stand there.
    Unusable,
    /// Several keys that differ, or one that backends read differently: nobody can say which client this is.
    Several,
    /// An id.
    Id(String),
}

impl KeySource {
    /// What the request shows. `peer_trusted`: whether the TCP peer is in `trusted_proxies`.
    pub fn shown(&self, fields: &Fields, peer_trusted: bool) -> Shown {
        match (self.value(fields, peer_trusted), &self.declared_as) {
            (Err(Several), _) => Shown::Several,
            (Ok(None), _) => Shown::Nothing,
            (Ok(Some(value)), Some(name)) => declared(name, &value),
            (Ok(Some(value)), None) => secret_id(&value).map_or(Shown::Unusable, Shown::Id),
        }
    }

    /// Whether the request shows [`Shown::Several`].
    pub fn is_blurred(&self, fields: &Fields, peer_trusted: bool) -> bool {
        self.value(fields, peer_trusted).is_err()
    }

    /// The kind of key and where it stands, for a message.
    pub fn kind(&self) -> Cow<'static, str> {
        match &self.source {
            Source::Header(name) => format!("header {name}").into(),
            Source::Cookie(name) => format!("cookie {name}").into(),
            Source::Bearer => "bearer token".into(),
        }
    }

    fn value<'a>(&'a self, fields: &'a Fields, peer_trusted: bool) -> Result<Option<Cow<'a, [u8]>>, Several> {
        if self.declared_as.is_some() && !peer_trusted {
            return Ok(None);
        }
        match &self.source {
            Source::Header(name) => only(fields.all(name).map(|value| Ok(value.into()))),
            Source::Cookie(name) => only(fields.all("cookie").flat_map(|line| cookies(line, name))),
            Source::Bearer => {
                only(fields.all("authorization").flat_map(bearer).map(|token| Ok(token.into())))
            }
        }
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

/// Whether two names become one variable.
fn is_one_variable(one: &[u8], two: &[u8]) -> bool {
    let letter = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' };
    one.len() == two.len() && one.iter().map(letter).eq(two.iter().map(letter))
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
            (&header, &[("X-Api-Key", "k1"), ("X-Api-Key", "k2")], Shown::Several),
            (&header, &[("X-Api-Key", ""), ("X-Api-Key", "k1")], id.clone()),
            (&header, &[("X-Api-Key", "")], Shown::Nothing),
            (&header, &[("X-Api-Key", "a\tb")], Shown::Unusable),
            (&header, &[], Shown::Nothing),
            (&cookie, &[("Cookie", "a=1; session=k1; b=2")], id.clone()),
            (&cookie, &[("Cookie", "a=1"), ("Cookie", "session=k1")], id.clone()),
            (&cookie, &[("Cookie", "Session=k1")], Shown::Nothing),
            (&cookie, &[("Cookie", "session=k1; session=k2")], Shown::Several),
            (&cookie, &[("Cookie", "session=k1"), ("Cookie", "session=k2")], Shown::Several),
            (&bearer, &[("Authorization", "Bearer k1")], id.clone()),
            (&bearer, &[("Authorization", "bEARER  k1")], id.clone()),
            (&bearer, &[("Authorization", "Bearer\tk1")], id.clone()),
            (&bearer, &[("Authorization", "Bearer k1 k2")], id.clone()),
            (&bearer, &[("Authorization", "Basic eA=="), ("Authorization", "Bearer k1")], id.clone()),
            (&bearer, &[("Authorization", "Basic eA==, Bearer k1")], id.clone()),
            (&bearer, &[("Authorization", "Bearer k1"), ("Authorization", "Bearer k2")], Shown::Several),
            (&bearer, &[("Authorization", "Bearer k1, Bearer k2")], Shown::Several),
            (&bearer, &[("Authorization", "Basic k1")], Shown::Nothing),
            (&bearer, &[("Authorization", "Bearer")], Shown::Nothing),
        ];
        for (source, list, shown) in rows {
            assert_eq!(source.shown(&fields(list), false), *shown, "{source} {list:?}");
        }
    }

    #[test]
    fn a_cookie_is_one_key_however_it_is_written() {
        let id = secret_id(b"k1").unwrap();
        for line in [
            "session=k1",
            "session = k1",
            "session=\"k1\"",
            "session=\"k\\1\"",
            "session=\"\\153\\061\"; a=b",
            "session=%6b1",
            "session=\"%6B%31\" ; a",
            "a=b,session=k1",
            "a=b session=k1, c=d",
            "session=; session=k1; session=%6b%31",
            "$Version=1; session=k1; $Path=/",
            "s%65ssion=k1",
            "other=%zz%; session=k1",
        ] {
            let cookie = source(Source::Cookie("session".into()), None);
            assert_eq!(cookie.shown(&fields(&[("Cookie", line)]), false), Shown::Id(id.clone()), "{line}");
        }
        for name in ["my.key", "my key", "my_key", "my[key"] {
            let cookie = source(Source::Cookie("my_key".into()), None);
            let line = format!("a=b; {name}=k1");
            assert_eq!(cookie.shown(&fields(&[("Cookie", &line)]), false), Shown::Id(id.clone()), "{line}");
        }
    }

    #[test]
    fn a_cookie_that_backends_read_differently_is_several() {
        for line in [
            "session=k1; session=k2",
            "session=k1, session=k2",
            "session=k1 session=k2",
            "session=k1; session=\"k2\"",
            "session=k1; s%65ssion=k2",
            "session=\"k1",
            "session=\"k1x",
            "session=\"k1\"x",
            "session=k1\"",
            "session=\"k1\\",
            "a=\"b; session=k1\"; session=k1",
        ] {
            let cookie = source(Source::Cookie("session".into()), None);
            assert_eq!(cookie.shown(&fields(&[("Cookie", line)]), false), Shown::Several, "{line}");
        }
    }

    #[test]
    fn a_line_of_cookies_is_read_in_one_go() {
        let cookie = source(Source::Cookie("session".into()), None);
        for piece in ["=", "%=", " =", "session=", "session =,", "session=; ", ";=\"", "session=%"] {
            let line = piece.repeat(1 << 17);
            // A long line: an effort that grows with its square would not end.
            let shown = cookie.shown(&fields(&[("Cookie", &line)]), false);
            assert!(!matches!(shown, Shown::Id(_)), "{piece}");
        }
    }

    #[test]
    fn fields_that_become_a_keys_variable_are_dropped() {
        let key = |name: &str| source(Source::Header(name.into()), None);
        let keys = [key("x-customer-key"), key("api_key"), source(Source::Bearer, None)];
        let names = "X-Customer-Key X_Customer_Key x-customer_key X.Customer.Key X-Customer-Kez API_Key api-key \
                     Authorization X_Other";
        let mut asked = Fields::new();
        names.split(' ').for_each(|name| asked.push(name, b"k"));
        drop_lookalikes(&keys, &mut asked);
        let left: Vec<&str> = asked.iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["X-Customer-Key", "X-Customer-Kez", "API_Key", "Authorization", "X_Other"]);
        let both = [key("api_key"), key("api-key")];
        let mut asked = fields(&[("api_key", "a"), ("Api-Key", "b"), ("api.key", "c")]);
        drop_lookalikes(&both, &mut asked);
        assert_eq!(asked.len(), 2);
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
        /// A cookie's value quoted, escaped and encoded in any way is the same key, and never a plain other one.
        #[test]
        fn no_writing_of_a_cookie_hides_it(
            value in "[a-z0-9]{1,12}", quoted in any::<bool>(), how in any::<u64>(), blanks in "[ \t]{0,2}",
        ) {
            let letter = |(place, byte): (usize, u8)| match how >> (2 * (place % 32)) & 3 {
                0 => format!("%{byte:02x}"),
                1 if quoted => format!("\\{byte:03o}"),
                _ => char::from(byte).to_string(),
            };
            let text: String = value.bytes().enumerate().map(letter).collect();
            let text = if quoted { format!("\"{text}\"") } else { text };
            let line = format!("a=b;{blanks}session{blanks}={blanks}{text}{blanks};c=d");
            let cookie = source(Source::Cookie("session".into()), None);
            let id = secret_id(value.as_bytes()).unwrap();
            prop_assert_eq!(cookie.shown(&fields(&[("Cookie", &line)]), false), Shown::Id(id), "{}", line);
        }

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
