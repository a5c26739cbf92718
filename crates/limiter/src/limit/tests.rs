use proptest::prelude::*;

use super::*;

#[test]
fn rates_are_read_exactly() {
    use LimitFault::*;
    let long_zero = format!("1.{}", "0".repeat(400));
    for (text, expected) in [
        ("0", Ok(0)),
        ("-0", Ok(0)),
        ("-0.0e5", Ok(0)),
        ("0e99999999999999999999", Ok(0)),
        ("1", Ok(1_000_000)),
        ("1.000000", Ok(1_000_000)),
        (long_zero.as_str(), Ok(1_000_000)),
        ("0.5", Ok(500_000)),
        ("0.000001", Ok(1)),
        ("1e-6", Ok(1)),
        ("1E3", Ok(1_000_000_000)),
        ("1e+3", Ok(1_000_000_000)),
        ("12.5e-1", Ok(1_250_000)),
        ("100e-2", Ok(1_000_000)),
        ("0.1", Ok(100_000)),
        ("1000000000", Ok(Rate::MAX_MICRO)),
        ("1e9", Ok(Rate::MAX_MICRO)),
        ("999999999.999999", Ok(Rate::MAX_MICRO - 1)),
        ("1000000000.000001", Err(TooLarge)),
        ("1e10", Err(TooLarge)),
        ("1e16", Err(TooLarge)),
        ("1e400", Err(TooLarge)),
        ("99999999999999999999999999999999999999999999", Err(TooLarge)),
        ("1e99999999999999999999", Err(TooLarge)),
        ("0.0000001", Err(TooManyDecimals)),
        ("1.0000001", Err(TooManyDecimals)),
        ("1e-7", Err(TooManyDecimals)),
        ("1e-99999999999999999999", Err(TooManyDecimals)),
        ("-1", Err(Negative)),
        ("-1e-400", Err(Negative)),
        ("", Err(NotANumber)),
        ("-", Err(NotANumber)),
        (".5", Err(NotANumber)),
        ("5.", Err(NotANumber)),
        ("01", Err(NotANumber)),
        ("+1", Err(NotANumber)),
        ("1e", Err(NotANumber)),
        ("1e1.0", Err(NotANumber)),
        (" 1", Err(NotANumber)),
        ("1_000", Err(NotANumber)),
        ("0x10", Err(NotANumber)),
        ("NaN", Err(NotANumber)),
        ("Infinity", Err(NotANumber)),
        ("١", Err(NotANumber)),
    ] {
        assert_eq!(Rate::parse_decimal(text), expected.map(Rate::per_second), "{text:?}");
    }
}

#[test]
fn limits_are_read_as_people_write_them() {
    use LimitFault::*;
    for (text, expected) in [
        ("100/s", Ok((100, 100_000_000, 1))),
        ("600/m burst 50", Ok((50, 600_000_000, 60))),
        ("10000/d", Ok((10_000, 10_000_000_000, 86_400))),
        ("5/h", Ok((5, 5_000_000, 3_600))),
        ("7/90s burst 9", Ok((9, 7_000_000, 90))),
        ("100/1mo", Ok((100, 100_000_000, 2_592_000))),
        ("100/0s", Err(Form)),
        ("0.5/s burst 1", Ok((1, 500_000, 1))),
        ("0/s", Ok((0, 0, 1))),
        ("0/s burst 20", Ok((20, 0, 1))),
        ("1000000000/s burst 1000000000", Ok((1_000_000_000, Rate::MAX_MICRO, 1))),
        ("1000000001/s", Err(TooLarge)),
        ("1/s burst 1000000001", Err(TooLarge)),
        ("1/s burst 99999999999999999999", Err(TooLarge)),
        ("0.5/s", Err(NeedsBurst)),
        ("-1/s", Err(Negative)),
        ("0.0000001/s burst 1", Err(TooManyDecimals)),
        ("100", Err(Form)),
        ("100/w", Err(Form)),
        ("100/", Err(Form)),
        ("/s", Err(Form)),
        ("100/s burst", Err(Form)),
        ("100/s burst ", Err(Form)),
        ("100/s burst 1.5", Err(Form)),
        ("100/s burst -1", Err(Form)),
        ("100/sburst 5", Err(Form)),
        ("100/s burst5", Err(Form)),
        ("100/s 5", Err(Form)),
        ("", Err(Form)),
    ] {
        let read = Limit::parse(text).map(|limit| (limit.capacity, limit.rate.micro, limit.rate.per_secs));
        assert_eq!(read, expected, "{text:?}");
    }
}

#[test]
fn rates_print_without_a_point_when_they_are_whole() {
    for (rate, text) in [
        (Rate::per_second(0), "0"),
        (Rate::per_second(1), "0.000001"),
        (Rate::per_second(500_000), "0.5"),
        (Rate::per_second(1_000_000), "1"),
        (Rate::per_second(10_050_000), "10.05"),
        (Rate::per_second(Rate::MAX_MICRO), "1000000000"),
        (Rate { micro: 600_000_000, per_secs: 60 }, "600/m"),
        (Rate { micro: 5_000_000, per_secs: 3_600 }, "5/h"),
        (Rate { micro: 10_000_000_000, per_secs: 86_400 }, "10000/d"),
        (Rate { micro: 7_000_000, per_secs: 90 }, "7/90s"),
    ] {
        assert_eq!(rate.to_string(), text);
    }
}

#[test]
fn a_whole_amount_is_a_capacity() {
    let rows = [
        (0, Some(0)),
        (1, None),
        (1_000_000, Some(1)),
        (1_500_000, None),
        (Rate::MAX_MICRO, Some(Limit::MAX_CAPACITY)),
    ];
    for (micro, capacity) in rows {
        assert_eq!(Rate { micro, per_secs: 60 }.whole(), capacity, "{micro}");
    }
}

proptest! {
    #[test]
    fn what_a_rate_prints_is_read_back_as_the_same_rate(micro in 0..=Rate::MAX_MICRO) {
        let rate = Rate::per_second(micro);
        prop_assert_eq!(Rate::parse_decimal(&rate.to_string()), Ok(rate));
    }

    #[test]
    fn no_text_makes_the_parsers_panic_or_leave_their_bounds(text in "[-+0-9.eE/smhd burst]{0,40}|.{0,20}") {
        if let Ok(rate) = Rate::parse_decimal(&text) {
            prop_assert!(rate.micro <= Rate::MAX_MICRO);
            prop_assert!(serde_json::from_str::<f64>(&text).is_ok(), "accepted what JSON does not");
        }
        if let Ok(limit) = Limit::parse(&text) {
            prop_assert!(limit.capacity <= Limit::MAX_CAPACITY && limit.rate.micro <= Rate::MAX_MICRO);
        }
    }
}

#[test]
fn a_span_is_a_whole_number_of_one_unit() {
    let rows = [
        ("1s", Some(1)),
        ("90s", Some(90)),
        ("1m", Some(60)),
        ("1h", Some(3_600)),
        ("1d", Some(86_400)),
        ("30d", Some(MONTH_SECS)),
        ("1mo", Some(MONTH_SECS)),
        ("366d", Some(MAX_PER_SECS)),
        ("367d", None),
        ("0s", None),
        ("s", None),
        ("", None),
        ("1", None),
        ("+1s", None),
        ("1.5s", None),
        ("1 s", None),
        ("2mo", None),
        ("1é", None),
        ("9999999999s", None),
        ("000000001s", Some(1)),
        ("0000000001s", None),
    ];
    for (text, secs) in rows {
        assert_eq!(parse_per(text), secs, "{text:?}");
    }
    for (secs, text) in [
        (1, "1s"),
        (59, "59s"),
        (60, "1m"),
        (61, "61s"),
        (3_600, "1h"),
        (5_400, "90m"),
        (7_200, "2h"),
        (86_400, "1d"),
        (90_000, "25h"),
        (MONTH_SECS, "30d"),
    ] {
        let rate = Rate { micro: 1, per_secs: secs };
        assert_eq!((per_text(rate).as_str(), parse_per(text)), (text, Some(secs)));
    }
}

#[test]
fn numbers_of_another_process_are_held_to_the_same_bounds() {
    const BILLION: u32 = Limit::MAX_CAPACITY;
    for (capacity, micro, per_secs, within) in [
        (0, 0, 1, true),
        (BILLION, Rate::MAX_MICRO, MAX_PER_SECS, true),
        (BILLION + 1, 0, 1, false),
        (0, Rate::MAX_MICRO + 1, 1, false),
        (0, 0, 0, false),
        (0, 0, MAX_PER_SECS + 1, false),
    ] {
        let limit = Limit { capacity, rate: Rate { micro, per_secs } };
        assert_eq!(limit.is_within_bounds(), within, "{limit:?}");
    }
    assert_eq!(LimitFault::TooLarge.to_string(), "must be at most 1000000000");
}
