//! Regular expressions of what callers write, for the schemas: as much of ECMA-262 as every validator has. What one of them
//! takes, the reader of that value takes, too; a test holds them to it.

use balancer_limiter::limit::MAX_PER_SECS;

/// The whole numbers from 1 to `most`.
fn up_to(most: u32) -> String {
    let digits = most.to_string();
    let mut forms = vec![digits.clone()];
    for (at, digit) in digits.bytes().enumerate() {
        // What begins as `most` does and has a smaller digit here.
        let least = if at == 0 { b'1' } else { b'0' };
        if digit > least {
            let (prefix, less) = (&digits[..at], char::from(digit - 1));
            let rest = any_digits(digits.len() - at - 1);
            forms.push(format!("{prefix}[{}-{less}]{rest}", char::from(least)));
        }
    }
    if digits.len() > 1 {
        forms.push(format!("[1-9][0-9]{{0,{}}}", digits.len() - 2));
    }
    format!("({})", forms.join("|"))
}

fn any_digits(count: usize) -> String {
    if count == 0 { String::new() } else { format!("[0-9]{{{count}}}") }
}

/// A bucket's `per`.
pub(super) fn per() -> String {
    let form = |unit_secs: u32, unit: &str| format!("{}{unit}", up_to(MAX_PER_SECS / unit_secs));
    let forms = [form(1, "s"), form(60, "m"), form(3_600, "h"), form(86_400, "d"), "1mo".into()];
    format!("^({})$", forms.join("|"))
}

/// A backend's `url`: a name whose last label begins with a letter, or an address.
pub(super) fn backend_url() -> String {
    let label = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";
    let name = format!("({label}\\.){{0,2}}[A-Za-z_]([A-Za-z0-9_-]{{0,61}}[A-Za-z0-9_])?\\.?");
    let byte = format!("(0|{})", up_to(255));
    let v4 = format!("({byte}\\.){{3}}{byte}");
    let port = up_to(u32::from(u16::MAX));
    // A service's name has up to 15 letters (RFC 6335 §5.1).
    let special = "_[A-Za-z0-9]{1,15}\\.";
    format!("^(https?://({name}|{v4}|\\[({})\\])(:{port})?|srv://{special}{special}{name})/?$", v6())
}

/// An IPv6 address (RFC 4291 §2.2), its last 32 bits in hexadecimal.
fn v6() -> String {
    let group = "[0-9A-Fa-f]{1,4}";
    let mut forms = vec![format!("({group}:){{7}}{group}"), format!("({group}:){{1,7}}:"), "::".to_owned()];
    // `::` stands for one group at least.
    forms.push(format!(":(:{group}){{1,7}}"));
    forms.extend((1..7).map(|before| format!("({group}:){{{before}}}(:{group}){{1,{}}}", 7 - before)));
    forms.join("|")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::string::string_regex;

    use super::*;
    use crate::config::parse_backend;
    use balancer_limiter::limit::parse_per;

    #[test]
    fn numbers_end_at_their_bound() {
        assert_eq!(up_to(7), "(7|[1-6])");
        assert_eq!(up_to(59), "(59|[1-4][0-9]{1}|5[0-8]|[1-9][0-9]{0,0})");
    }

    fn strings(pattern: &str) -> impl Strategy<Value = String> + use<> {
        // proptest takes no anchors, and makes whole strings.
        string_regex(pattern.trim_start_matches('^').trim_end_matches('$')).unwrap()
    }

    proptest! {
        #[test]
        fn what_the_schema_takes_the_reader_takes(
            per in strings(&per()), url in strings(&backend_url()),
        ) {
            prop_assert!(parse_per(&per).is_some(), "{per}");
            prop_assert!(parse_backend("a", &url).is_ok(), "{url}");
        }
    }
}
