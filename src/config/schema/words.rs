//! What a text or a number is, as a JSON Schema, by the words that its key says it with: keys that take the same say the
//! same. Never narrower than the readers in [`crate::config::forms`] and beside the keys; wider where a pattern can't say it.

use serde_json::{Value, json};

use crate::declare::parse_duration;

/// What a backend's URL is.
pub(super) const BACKEND_URL: &str =
    "http://HOST[:PORT], https://HOST[:PORT] or srv://_SERVICE._PROTO.DOMAIN";

/// `None`: whatever is a text, or a value of any kind.
pub(super) fn form(words: &str) -> Option<Value> {
    let pattern = match words {
        "a path" | "the name of a variable" => "^.".to_owned(),
        "1 to 512 visible ASCII characters without spaces" => "^[!-~]{1,512}$".into(),
        "16 to 512 visible ASCII characters without spaces" => "^[!-~]{16,512}$".into(),
        "1 to 128 letters, digits and . _ - : [ ]" => r"^[A-Za-z0-9._:\[\]-]{1,128}$".into(),
        "1 to 128 letters, digits and other characters of a token (RFC 9110 §5.6.2)" => format!("^{TOKEN}$"),
        BACKEND_URL => backend_url(),
        "\"h2\" or \"http/1.1\"" => "^(h2|http/1\\.1)$".into(),
        "a host name without a port" => format!("^{}$", host()),
        "\"websocket\", the one protocol that is relayed" => "^[Ww][Ee][Bb][Ss][Oo][Cc][Kk][Ee][Tt]$".into(),
        "\"ip\", \"client\", \"uri\", \"header:NAME\" or \"cookie:NAME\"" => {
            format!("^(ip|client|uri|(header|cookie):{TOKEN})$")
        }
        "an origin such as \"https://app.example\", or \"*\" for all" => {
            r"^(\*|[A-Za-z]+://[A-Za-z0-9._:\[\]-]{1,255})$".into()
        }
        "a path that begins with /, without a query, such as \"/login\"" => "^/[^?#]{0,1023}$".into(),
        "1 to 64 printable ASCII characters, and not \"concurrency\"" => {
            "^(?!concurrency$)[ -~]{1,64}$".into()
        }
        "a path below which others stand, such as \"/v2\"" => {
            r##"^/[^\u0000-\u0020\u007f-\uffff"#<>?\\^`{|}]{1,2047}$"##.into()
        }
        "a limit such as \"5/m\" or \"600/m burst 50\"" => limit(),
        words if words.starts_with("a limit: \"100/s\", ") => limit(),
        words if words.starts_with("a span such as ") => "^(0*[1-9][0-9]{0,8}[smhd]|1mo)$".into(),
        words if words.starts_with("an address with a port, ") => {
            format!("^(localhost|{}):{PORT}$", ip_in_url())
        }
        words if words.starts_with("an IP address with a port, ") => format!("^{}:{PORT}$", ip_in_url()),
        words if words.starts_with("an IP network ") => network(),
        words if words.starts_with("a host such as ") => format!(r"^(\*\.)?({}|\[{V6}\])$", host()),
        words if words.starts_with("a URL such as ") => {
            let plain = r##"[^\u0000-\u0020\u007f-\uffff"<>\\^`{|}]*"##;
            let host = r##"[^\u0000-\u0020\u007f-\uffff"<>\\^`{|}/?#@]+"##;
            format!("^([Hh][Tt][Tt][Pp][Ss]?://{host}([/?#]{plain})?|/(?!/){plain})$")
        }
        words if words.starts_with("a path that begins with /, such as ") => {
            r##"^/[^\u0000-\u0020\u007f-\uffff"#<>\\^`{|}]{0,2047}$"##.into()
        }
        words if words.starts_with("status codes from 100 to 599, ") => {
            format!("^{}(,{})*$", statuses("1-5"), statuses("1-5"))
        }
        words if words.starts_with("\"connect\", \"reset\", \"timeout\" or a status ") => {
            format!("^(connect|reset|timeout|{}(,{})*)$", statuses("45"), statuses("45"))
        }
        words if words.starts_with("sqlite:PATH or postgres://") => {
            format!("^(sqlite:(?!//[^/]|:memory:$)[^?\\u0000]*[^?/\\u0000]|{POSTGRES})$")
        }
        words if words.starts_with("postgres://") => format!("^{POSTGRES}$"),
        "a duration from \"1ms\" to \"1d\", such as \"1m\"" => duration("1ms", "1d"),
        _ => return other(words),
    };
    Some(json!({ "type": "string", "pattern": pattern }))
}

/// What is no text, or not alone.
fn other(words: &str) -> Option<Value> {
    Some(match words {
        "a URL or a path" => json!({ "type": "string" }),
        "a text of at most 65536 bytes" => json!({ "type": "string", "maxLength": 65_536 }),
        "a number from 0 to 1, such as 0.5" => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        "a number above 0 and at most 1, such as 0.5" => {
            json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 })
        }
        // No `multipleOf`: readers that divide by floats get it wrong.
        "a number: 0, or 0.000001 to 1000000000 with at most 6 decimals" => json!({
            "type": "number", "maximum": 1_000_000_000, "anyOf": [{ "const": 0 }, { "minimum": 0.000_001 }],
        }),
        "true, false or \"file:PATH\"" => json!({ "anyOf": [
            { "type": "boolean" }, { "type": "string", "pattern": "^file:[^\\u0000]*[^/\\u0000]$" },
        ] }),
        "a method such as \"POST\", or a list of 1 to 16" => {
            let method = json!({ "type": "string", "pattern": format!("^{TOKEN}$") });
            let list = json!({ "type": "array", "items": method, "minItems": 1, "maxItems": 16 });
            json!({ "anyOf": [method, list] })
        }
        "a whole number from 1 to 1000000, \"auto\"" => json!({ "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 1_000_000 }, { "const": "auto" },
        ] }),
        "301, 302, 303, 307 or 308" => json!({ "enum": [301, 302, 303, 307, 308] }),
        words if words.starts_with("an object of at most 64 fields: ") => json!({
            "type": "object", "maxProperties": 64, "propertyNames": { "pattern": format!("^{TOKEN}$") },
            "additionalProperties": { "anyOf": [{ "type": "null" }, {
                "type": "string", "maxLength": 4096, "pattern": r"^(?![ \t])[^\u0000-\u0008\u000a-\u001f\u007f]*(?<![ \t])$",
            }] },
        }),
        words if words.starts_with("an object of statuses from 400 to 599 and files: ") => json!({
            "type": "object", "propertyNames": { "pattern": "^[45][0-9]{2}$" },
            "additionalProperties": { "type": "string", "pattern": "^." },
        }),
        words if words.starts_with("\"ip\", \"header:NAME\", \"cookie:NAME\", \"bearer\", ") => client_keys(),
        _ => return None,
    })
}

/// The most elements that the words of a list allow: `a list of at most 64 rules`, `a list of 1 to 4 buckets`.
pub(super) fn most(words: &str) -> Option<u64> {
    let rest = words.strip_prefix("a list of at most ").or_else(|| words.strip_prefix("a list of 1 to "))?;
    rest.split(' ').next()?.parse().ok()
}

/// A duration within bounds, as far as it stands in one unit; of several units only the form is judged.
pub(super) fn duration(min: &str, max: &str) -> String {
    let bound_ms = |text| parse_duration(text).map_or(0, |bound| bound.as_millis());
    let (min_ms, max_ms) = (bound_ms(min), bound_ms(max));
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let one = units.iter().filter_map(|(unit, unit_ms)| {
        let (least, most) = (min_ms.div_ceil(*unit_ms), max_ms / unit_ms);
        (least <= most).then(|| format!("0*{}{unit}", between(least, most)))
    });
    let one = one.collect::<Vec<_>>().join("|");
    // Two of the units at least: what begins with one goes on with a digit.
    let several = "(?=[0-9]+[a-z]+[0-9])([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?";
    format!("^({one}|{several})$")
}

/// The whole numbers from `least` to `most`, without zeros in front.
fn between(least: u128, most: u128) -> String {
    let (low, high) = (least.to_string(), most.to_string());
    let mut forms = Vec::new();
    for digits in low.len()..=high.len() {
        let from = if digits == low.len() { low.clone() } else { format!("1{}", "0".repeat(digits - 1)) };
        let to = if digits == high.len() { high.clone() } else { "9".repeat(digits) };
        same_length(&from, &to, String::new(), &mut forms);
    }
    format!("({})", forms.join("|"))
}

/// Those between two numbers of as many digits, `before` in front of each.
fn same_length(from: &str, to: &str, before: String, forms: &mut Vec<String>) {
    let (Some(first), Some(last)) = (from.chars().next(), to.chars().next()) else {
        forms.push(before);
        return;
    };
    let rest = from.len() - 1;
    let (lowest, highest) = ("0".repeat(rest), "9".repeat(rest));
    if first == last {
        return same_length(&from[1..], &to[1..], format!("{before}{first}"), forms);
    }
    let (mut low, mut high) = (u32::from(first), u32::from(last));
    if from[1..] != lowest {
        same_length(&from[1..], &highest, format!("{before}{first}"), forms);
        low += 1;
    }
    if to[1..] != highest {
        same_length(&lowest, &to[1..], format!("{before}{last}"), forms);
        high -= 1;
    }
    if low <= high {
        let digit = |one: u32| char::from_u32(one).unwrap_or('0');
        let any = if rest == 0 { String::new() } else { format!("[0-9]{{{rest}}}") };
        forms.push(format!("{before}[{}-{}]{any}", digit(low), digit(high)));
    }
}

/// RFC 9110 §5.6.2.
const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}";
const PORT: &str = "0*([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
const BYTE: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
/// Which colons belong where is left to the reader.
const V6: &str = "[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*";
/// All else is the client's own parser's.
const POSTGRES: &str = "postgres(ql)?://.+";

fn v4() -> String {
    format!(r"({BYTE}\.){{3}}{BYTE}")
}

fn ip_in_url() -> String {
    format!(r"({}|\[{V6}(%[0-9]+)?\])", v4())
}

/// A name whose last label is no number, or an address.
fn host() -> String {
    let label = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";
    let number_last = r"([A-Za-z0-9_-]*\.)*[0-9]+\.?([:/]|$)";
    format!(r"({}\.?|(?!{number_last})({label}\.)*{label}\.?)", v4())
}

fn backend_url() -> String {
    let port = PORT.replacen("0*", "(?!0+/?$)0*", 1);
    let host = host();
    let special = "_[A-Za-z0-9_-]{0,61}[A-Za-z0-9_]";
    format!(
        r"^([Hh][Tt][Tt][Pp][Ss]?://({host}|\[{V6}\])(:{port})?|[Ss][Rr][Vv]://{special}\.{special}\.{host})/?$"
    )
}

fn network() -> String {
    format!("^({}(/([0-9]|[12][0-9]|3[0-2]))?|{V6}(/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))?)$", v4())
}

/// One status or a range of them.
fn statuses(first: &str) -> String {
    let code = format!("\\s*[{first}][0-9]{{2}}\\s*");
    format!("{code}(-{code})?")
}

/// `100/s burst 20`.
fn limit() -> String {
    let amount = r"(-0(\.0+)?|[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?)";
    let span = "(s|m|h|d|0*[1-9][0-9]{0,8}[smhd]|1mo)";
    format!("^\\s*{amount}/{span}\\s*( burst \\s*[0-9]+\\s*)?$")
}

/// `rate_limit.key`.
fn client_keys() -> Value {
    let text = json!({ "type": "string", "pattern": format!("^(ip|bearer|cert|cert:san|(header|cookie):{TOKEN})$") });
    let name = json!({ "type": "string", "pattern": format!("^{TOKEN}$") });
    let kind = json!({ "type": "string", "pattern": "^(?!san$)[A-Za-z][A-Za-z0-9_.-]{0,63}$" });
    let declared = json!({
        "type": "object", "additionalProperties": false,
        "properties": { "header": name, "cookie": name, "as": kind },
        "oneOf": [{ "required": ["header"] }, { "required": ["cookie"] }],
    });
    let one = json!({ "anyOf": [text, declared] });
    json!({ "anyOf": [text, declared, {
        "type": "array", "items": one, "minItems": 1, "maxItems": 8, "uniqueItems": true,
    }] })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_end_at_their_bounds() {
        assert_eq!(between(1, 9), "([1-9])");
        assert_eq!(between(0, 60), "([0-9]|60|[1-5][0-9]{1})");
        assert_eq!(between(100, 100), "(100)");
    }

    #[test]
    fn the_words_tell_how_many() {
        assert_eq!(most("a list of 1 to 4 buckets: [{\"name\": \"day\"}]"), Some(4));
        assert_eq!(most("a list of at most 64 rules: …"), Some(64));
        assert_eq!(most("a path"), None);
    }

    proptest! {
        #[test]
        fn a_number_is_between_its_bounds(least in 0..3_000_u128, more in 0..90_000_u128, text in "[1-9][0-9]{0,5}|0") {
            let most = least + more;
            let number: u128 = text.parse().unwrap();
            let pattern = between(least, most);
            let taken = pattern[1..pattern.len() - 1].split('|').any(|form| matches(form, &text));
            prop_assert_eq!(taken, (least..=most).contains(&number), "{} {}", pattern, text);
        }

    }

    /// Digits and `[a-b]`, with `{n}` behind.
    fn matches(form: &str, text: &str) -> bool {
        let (mut form, mut text) = (form, text.as_bytes());
        while !form.is_empty() {
            let (low, high, rest) = match form.strip_prefix('[') {
                Some(set) => (set.as_bytes()[0], set.as_bytes()[2], &set[4..]),
                None => (form.as_bytes()[0], form.as_bytes()[0], &form[1..]),
            };
            let (count, rest) = match rest.strip_prefix('{') {
                Some(more) => {
                    more.split_once('}').map(|(count, rest)| (count.parse().unwrap(), rest)).unwrap()
                }
                None => (1, rest),
            };
            for _ in 0..count {
                match text.split_first() {
                    Some((digit, behind)) if (low..=high).contains(digit) => text = behind,
                    _ => return false,
                }
            }
            form = rest;
        }
        text.is_empty()
    }
}
