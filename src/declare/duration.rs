//! Durations as users write them: `1m30s`.

use std::time::Duration;

/// `10s`, `50ms`, `1m30s`, `0s`: whole numbers with `ms`, `s`, `m`, `h` or `d`, larger units first, each once.
pub fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = text;
    let mut next_unit = 0;
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_lowercase).count();
        let unit = &rest[digits..digits + letters];
        let index = UNITS.iter().position(|(name, _)| *name == unit).filter(|index| *index >= next_unit)?;
        let amount_ms = rest[..digits].parse::<u64>().ok()?.checked_mul(UNITS[index].1)?;
        total_ms = total_ms.checked_add(amount_ms)?;
        next_unit = index + 1;
        rest = &rest[digits + letters..];
    }
    (next_unit > 0).then(|| Duration::from_millis(total_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_units_from_large_to_small() {
        let ms = |ms| Some(Duration::from_millis(ms));
        for (text, expected) in [
            ("0s", ms(0)),
            ("50ms", ms(50)),
            ("10s", ms(10_000)),
            ("1m30s", ms(90_000)),
            ("1d2h3m4s5ms", ms(93_784_005)),
            ("90s", ms(90_000)),
            ("", None),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("1 s", None),
            (" 1s", None),
            ("30s1m", None),
            ("1s1s", None),
            ("1us", None),
            ("1S", None),
            ("1sec", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
            ("18446744073709551615ms1ms", None),
            ("1é", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
    }
}
