//! Content negotiation by `Accept` (RFC 9110 §12.5.1).

use crate::fields::{Fields, tokens};

/// A weight (RFC 9110 §12.4.2) in thousandths, 0 to 1000.
type Quality = u16;

const JSON: [(&str, &str); 2] = [("application", "problem+json"), ("application", "json")];

/// Whether a client prefers HTML to JSON, as browsers do. False if it wants both equally or does not say.
pub fn prefers_html(fields: &Fields) -> bool {
    let html = quality(fields, ("text", "html"));
    JSON.iter().all(|kind| html > quality(fields, *kind))
}

/// The weight of a media type: that of the most specific range that it is in, 0 if it is in none.
fn quality(fields: &Fields, kind: (&str, &str)) -> Quality {
    let ranges = fields.all("Accept").flat_map(tokens).filter_map(|range| {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let specific = specificity(parts.next()?, kind)?;
        let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
        Some((specific, weight.map_or(Some(1_000), thousandths)?))
    });
    ranges.max().map_or(0, |(_, quality)| quality)
}

/// How exactly a range names a type: 0 for `*/*`, 1 for `kind/*`, 2 for both. `None`: the type is not in the range.
fn specificity(range: &[u8], (kind, sub): (&str, &str)) -> Option<u8> {
    let at = range.iter().position(|byte| *byte == b'/')?;
    let (range_kind, range_sub) = (&range[..at], &range[at + 1..]);
    let is = |text: &[u8], name: &str| text.eq_ignore_ascii_case(name.as_bytes());
    match (range_kind, range_sub) {
        (b"*", b"*") => Some(0),
        (_, b"*") if is(range_kind, kind) => Some(1),
        _ if is(range_kind, kind) && is(range_sub, sub) => Some(2),
        _ => None,
    }
}

/// Reads a weight: `0.8` is 800.
fn thousandths(weight: &[u8]) -> Option<Quality> {
    let (whole, rest) = match weight {
        [whole @ (b'0' | b'1')] => (*whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', rest @ ..] if rest.len() <= 3 => (*whole, rest),
        _ => return None,
    };
    let digits = rest.iter().chain(b"000").take(3);
    let value = digits.map(|digit| Quality::from(digit.wrapping_sub(b'0')));
    let value = value.fold(Quality::from(whole - b'0'), |value, digit| value * 10 + digit);
    (value <= 1_000 && rest.iter().all(u8::is_ascii_digit)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_prefer_html_and_programs_do_not() {
        let rows: &[(&[&str], bool)] = &[
            (&[], false),
            (&["*/*"], false),
            (&["text/html"], true),
            (&["TEXT/HTML"], true),
            (&["text/*"], true),
            // Firefox, Chrome.
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], true),
            (
                &[
                    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,\
                     application/signed-exchange;v=b3;q=0.7",
                ],
                true,
            ),
            (&["application/json"], false),
            (&["application/json, text/plain, */*"], false),
            (&["application/json", "text/html;q=0.5"], false),
            (&["application/json;q=0.5", "text/html"], true),
            (&["application/problem+json, text/html"], false),
            (&["text/html, */*"], false),
            (&["text/html;q=0.3, */*;q=0.2"], true),
            (&["text/html;q=1"], true),
            (&["text/html;q=0"], false),
            (&["text/html;level=1;q=0.9"], true),
            (&["text/html;q=2"], false),
            (&["text/html;q=x"], false),
            (&["text/*;q=0.5, text/html;q=0.1, */*;q=0.3"], false),
            (&["html"], false),
        ];
        for (values, expected) in rows {
            let mut fields = Fields::new();
            values.iter().for_each(|value| fields.push("Accept", value.as_bytes()));
            assert_eq!(prefers_html(&fields), *expected, "{values:?}");
        }
    }
}
