//! `rate_limit.key` and `rate_limit.unknown_keys`: what tells clients apart.

use crate::config::{forms, words};
use crate::declare::{Node, Section, Spec, Value};
use balancer_limiter::identity::{CERTIFICATE_NAME, KeySource, MAX_SOURCES, Source, UnknownKeys};

/// Longest `as`: most of an id is left for the value.
const MAX_KIND_BYTES: usize = 64;

/// The sources that are looked at before the address, in order; empty: the address alone.
/// `knows_certificates`: clients are asked for theirs.
pub(super) fn keys(s: &mut Section<'_>, knows_certificates: bool) -> Vec<KeySource> {
    let spec = Spec::of(
        "key",
        words::CLIENT_KEYS,
        "\"ip\"",
        "What tells clients apart: the first that a request has and the store knows; the address ends every list.",
    );
    let keys: Vec<KeySource> = s.value(&spec, |node| match &node.value {
        Value::List(elements) if elements.is_empty() || elements.len() > MAX_SOURCES => Err(None),
        Value::List(elements) => list(elements).map_err(Some),
        _ => Ok(source(node).map_err(Some)?.into_iter().collect()),
    });
    let of_certificate =
        |key: &&KeySource| matches!(key.source, Source::Certificate | Source::CertificateName);
    if let Some(key) = keys.iter().find(of_certificate).filter(|_| !knows_certificates) {
        s.fault("key", format!("names {key}, and no client is asked for a certificate: set tls.client_auth"));
    }
    keys
}

pub(super) fn unknown_keys(s: &mut Section<'_>) -> UnknownKeys {
    let words =
        [("next", UnknownKeys::Next), ("own_bucket", UnknownKeys::OwnBucket), ("401", UnknownKeys::Refused)];
    let about = "What becomes of a key without a stored limit: next: it counts as absent; own_bucket: it has a bucket of its \
                 own at the default's numbers, which lets a client have as many as it likes; 401: the request is refused, as one with a \
                 key that can be none.";
    s.choice("unknown_keys", &words, "\"next\"", about).unwrap_or_default()
}

/// `"ip"` is allowed at the end alone.
fn list(elements: &[Node]) -> Result<Vec<KeySource>, String> {
    let mut sources = Vec::with_capacity(elements.len());
    for (at, element) in elements.iter().enumerate() {
        match source(element)? {
            Some(source) if sources.contains(&source) => {
                return Err(format!("holds {source} twice"));
            }
            Some(source) => sources.push(source),
            None if at + 1 == elements.len() => {}
            None => {
                return Err(
                    "holds \"ip\" before its end: every request has an address, so nothing behind it counts"
                        .into(),
                );
            }
        }
    }
    Ok(sources)
}

/// One element; `None`: the address.
fn source(node: &Node) -> Result<Option<KeySource>, String> {
    let wrong = || format!("must be {}; found {}", words::CLIENT_KEYS.words, node.describe(true));
    match &node.value {
        Value::Text(text) => match (text.as_str(), text.split_once(':')) {
            ("ip", _) => Ok(None),
            ("bearer", _) => Ok(Some(KeySource { source: Source::Bearer, declared_as: None })),
            ("cert", _) => Ok(Some(KeySource { source: Source::Certificate, declared_as: None })),
            ("cert:san", _) => Ok(Some(KeySource { source: Source::CertificateName, declared_as: None })),
            (_, Some((of, name))) => {
                Ok(Some(KeySource { source: named(of, name).ok_or_else(wrong)?, declared_as: None }))
            }
            _ => Err(wrong()),
        },
        Value::Object(members) => {
            let (mut place, mut declared_as) = (None, None);
            for member in members {
                let Value::Text(text) = &member.node.value else { return Err(wrong()) };
                match member.name.as_str() {
                    "as" if declared_as.is_none() => declared_as = Some(kind(text).ok_or_else(kind_wrong)?),
                    of if place.is_none() => place = Some(named(of, text).ok_or_else(wrong)?),
                    _ => return Err(wrong()),
                }
            }
            Ok(Some(KeySource { source: place.ok_or_else(wrong)?, declared_as }))
        }
        _ => Err(wrong()),
    }
}

fn named(of: &str, name: &str) -> Option<Source> {
    match of {
        "header" => forms::token_name(name).map(|name| Source::Header(name.to_ascii_lowercase())),
        "cookie" => forms::token_name(name).map(Source::Cookie),
        _ => None,
    }
}

/// A name that no id of another form begins with.
fn kind(text: &str) -> Option<String> {
    let fits = text.len() <= MAX_KIND_BYTES
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (fits && text != CERTIFICATE_NAME).then(|| text.to_owned())
}

fn kind_wrong() -> String {
    "\"as\" must be 1 to 64 letters, digits, \"-\", \"_\" or \".\", the first a letter, such as \"tenant\", and not \"san\""
        .into()
}
