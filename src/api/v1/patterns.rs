//! Regular expressions of what callers write, for the schemas: as much of ECMA-262 as every validator has. Whatever a
//! pattern takes, the code that reads the value takes too; a test checks that.

use crate::declare::between;
use balancer_limiter::limit::MAX_PER_SECS;

/// A bucket's `per`.
pub(super) fn per() -> String {
    let form =
        |unit_secs: u32, unit: &str| format!("{}{unit}", between(1, u128::from(MAX_PER_SECS / unit_secs)));
    let forms = [form(1, "s"), form(60, "m"), form(3_600, "h"), form(86_400, "d"), "1mo".into()];
    format!("^({})$", forms.join("|"))
}

/// A backend's `url`: a name whose last label begins with a letter, or an address.
pub(super) fn backend_url() -> String {
    let label = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";
    let name = format!("({label}\\.){{0,2}}[A-Za-z_]([A-Za-z0-9_-]{{0,61}}[A-Za-z0-9_])?\\.?");
    let byte = between(0, 255);
    let v4 = format!("({byte}\\.){{3}}{byte}");
    let port = between(1, u128::from(u16::MAX));
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
