//! `Max-Forwards` (RFC 9110 §7.6.2): how many proxies may still pass an OPTIONS or a TRACE on.

use super::fields::Fields;

/// What the field asks a proxy to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxForwards {
    /// Nothing: the request does not have it, or has another method.
    Unlimited,
    /// To answer the request itself, since it may go no further.
    Reached,
    /// To forward the request with that number.
    Left(u64),
    /// The field is not one number.
    Malformed,
}

/// Reads the field of a request with that method.
pub fn of(method: &str, fields: &Fields) -> MaxForwards {
    if !matches!(method, "OPTIONS" | "TRACE") {
        return MaxForwards::Unlimited;
    }
    let mut values = fields.all("Max-Forwards");
    match (values.next(), values.next()) {
        (None, _) => MaxForwards::Unlimited,
        (Some(value), None) if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
            // A number that does not fit is read as the largest one: no chain of proxies is that long.
            let hops = value
                .iter()
                .fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
            hops.checked_sub(1).map_or(MaxForwards::Reached, MaxForwards::Left)
        }
        _ => MaxForwards::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_for_two_methods_and_as_one_number() {
        use MaxForwards::{Left, Malformed, Reached, Unlimited};
        let rows: &[(&str, &[&str], MaxForwards)] = &[
            ("OPTIONS", &[], Unlimited),
            ("OPTIONS", &["0"], Reached),
            ("TRACE", &["0"], Reached),
            ("TRACE", &["000"], Reached),
            ("TRACE", &["1"], Left(0)),
            ("OPTIONS", &["010"], Left(9)),
            ("OPTIONS", &["99999999999999999999999"], Left(u64::MAX - 1)),
            ("OPTIONS", &[""], Malformed),
            ("OPTIONS", &["-1"], Malformed),
            ("OPTIONS", &["+1"], Malformed),
            ("OPTIONS", &["1, 0"], Malformed),
            ("OPTIONS", &["1", "1"], Malformed),
            ("TRACE", &["x"], Malformed),
            ("GET", &["0"], Unlimited),
            ("GET", &["x"], Unlimited),
            ("options", &["0"], Unlimited),
        ];
        for (method, values, expected) in rows {
            let mut fields = Fields::new();
            for value in *values {
                fields.push("max-forwards", value.as_bytes());
            }
            assert_eq!(of(method, &fields), *expected, "{method} {values:?}");
        }
    }
}
