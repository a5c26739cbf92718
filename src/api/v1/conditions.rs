//! `ETag`, `If-Match` and `If-None-Match` (RFC 9110 §8.8.3, §13.1): the strong tag of a row is its version.

use crate::error::Reject;
use crate::store::v1::Condition;
use balancer_http::message::Reason;
use balancer_http::message::RequestHead;

/// The tag of a version.
pub(super) fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// What a field says.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    /// `*`.
    Any,
    /// Tags: whether it is weak, and the text between the quotes.
    These(Vec<(bool, Vec<u8>)>),
}

/// What must hold for a write. A tag that no version can have matches nothing.
pub(super) fn condition(head: &RequestHead) -> Result<Condition, Reject> {
    let absent = match read(head, "If-None-Match")? {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::These(_)) => {
            let detail = "must be * on a call that changes something";
            return Err(Reject::new(Reason::BadRequest, format!("If-None-Match {detail}")));
        }
    };
    let wanted = match read(head, "If-Match")? {
        None if absent => return Ok(Condition::Absent),
        None => return Ok(Condition::None),
        // No row is there and not there at once, so this matches no version.
        Some(_) if absent => return Ok(Condition::Version(Vec::new())),
        Some(Tags::Any) => return Ok(Condition::Exists),
        Some(Tags::These(tags)) => tags,
    };
    // Strong comparison (RFC 9110 §8.8.3.2): a weak tag matches none.
    let versions = wanted.iter().filter(|(weak, _)| !weak).filter_map(|(_, tag)| version(tag));
    Ok(Condition::Version(versions.collect()))
}

/// Whether the caller has the current version already, which is answered 304. 412 when `If-Match` does not hold.
pub(super) fn is_known(head: &RequestHead, current: i64) -> Result<bool, Reject> {
    if let Some(Tags::These(tags)) = read(head, "If-Match")?
        && !tags.iter().any(|(weak, tag)| !weak && version(tag) == Some(current))
    {
        return Err(Reject::new(Reason::PreconditionFailed, "it has changed in the meantime"));
    }
    Ok(match read(head, "If-None-Match")? {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::These(tags)) => tags.iter().any(|(_, tag)| version(tag) == Some(current)),
    })
}

/// A version as [`etag`] writes it, and in no other way.
fn version(tag: &[u8]) -> Option<i64> {
    let version = std::str::from_utf8(tag).ok()?.parse::<i64>().ok()?;
    (etag(version).as_bytes().get(1..=tag.len()) == Some(tag)).then_some(version)
}

/// All lines of a field as one list; 400 when it is none.
fn read(head: &RequestHead, name: &'static str) -> Result<Option<Tags>, Reject> {
    let lines: Vec<&[u8]> = head.fields.all(name).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let fault = || Reject::new(Reason::BadRequest, format!("{name} must be * or a list of quoted tags"));
    parse(&lines.join(&b","[..])).map(Some).ok_or_else(fault)
}

/// A list as RFC 9110 §5.6.1 has it: empty elements count for nothing.
fn parse(list: &[u8]) -> Option<Tags> {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return Some(Tags::Any);
    }
    let mut tags = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        while let Some(behind) = rest.strip_prefix(b",") {
            rest = behind.trim_ascii_start();
        }
        if rest.is_empty() {
            break;
        }
        let (weak, quoted) = rest.strip_prefix(b"W/").map_or((false, rest), |quoted| (true, quoted));
        let opaque = quoted.strip_prefix(b"\"")?;
        let end = opaque.iter().position(|byte| *byte == b'"')?;
        let (tag, behind) = (&opaque[..end], &opaque[end + 1..]);
        if !tag.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)) {
            return None;
        }
        tags.push((weak, tag.to_vec()));
        rest = behind.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
    (!tags.is_empty()).then_some(Tags::These(tags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::bench::Call;
    use crate::api::tests::owned::head;
    use balancer_http::message::BodyLength;

    type FieldRow<'a> = &'a [(&'a str, &'a str)];

    fn with(fields: FieldRow<'_>) -> RequestHead {
        head(&Call { method: "PUT", target: "/", fields, ..Call::default() }, BodyLength::Empty)
    }

    #[test]
    fn a_write_is_held_to_what_its_fields_say() {
        let versions = |list: &[i64]| Some(Condition::Version(list.to_vec()));
        let rows: [(FieldRow<'_>, Option<Condition>); 22] = [
            (&[], Some(Condition::None)),
            (&[("If-None-Match", "*")], Some(Condition::Absent)),
            (&[("If-Match", "*")], Some(Condition::Exists)),
            (&[("If-Match", "\"7\"")], versions(&[7])),
            (&[("If-Match", "\"7\", \"8\"")], versions(&[7, 8])),
            (&[("If-Match", ",\"7\" ,,\"8\",")], versions(&[7, 8])),
            (&[("If-Match", "\"7\""), ("If-Match", "\"8\"")], versions(&[7, 8])),
            (&[("If-Match", "W/\"7\", \"8\"")], versions(&[8])),
            (&[("If-Match", "\"07\", \"+7\", \"-7\", \"x,y\", \"\"")], versions(&[-7])),
            (&[("If-Match", "\"99999999999999999999\"")], versions(&[])),
            (&[("If-Match", "*"), ("If-None-Match", "*")], versions(&[])),
            (&[("If-Match", "")], None),
            (&[("If-Match", ",")], None),
            (&[("If-Match", "7")], None),
            (&[("If-Match", "\"7")], None),
            (&[("If-Match", "\"7\" \"8\"")], None),
            (&[("If-Match", "\"7\", *")], None),
            (&[("If-Match", "*"), ("If-Match", "*")], None),
            (&[("If-Match", "w/\"7\"")], None),
            (&[("If-Match", "\"a b\"")], None),
            (&[("If-None-Match", "\"7\"")], None),
            (&[("If-None-Match", "x")], None),
        ];
        for (fields, expected) in rows {
            assert_eq!(condition(&with(fields)).ok(), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_reader_who_has_it_is_told_so() {
        let rows: [(FieldRow<'_>, Result<bool, u16>); 9] = [
            (&[], Ok(false)),
            (&[("If-None-Match", "\"7\"")], Ok(true)),
            (&[("If-None-Match", "\"6\", W/\"7\"")], Ok(true)),
            (&[("If-None-Match", "\"6\"")], Ok(false)),
            (&[("If-None-Match", "*")], Ok(true)),
            (&[("If-None-Match", "7")], Err(400)),
            (&[("If-Match", "\"7\"")], Ok(false)),
            (&[("If-Match", "\"6\"")], Err(412)),
            (&[("If-Match", "*"), ("If-None-Match", "\"7\"")], Ok(true)),
        ];
        for (fields, expected) in rows {
            let known = is_known(&with(fields), 7).map_err(|reject| reject.status());
            assert_eq!(known, expected, "{fields:?}");
        }
    }
}
