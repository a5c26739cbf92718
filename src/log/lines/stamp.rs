//! Times and numbers as text, for every line of the access log. `fmt` would take several times as long.

use std::time::{SystemTime, UNIX_EPOCH};

/// Appends a time as RFC 3339 has it, in UTC with milliseconds: `2026-03-01T12:00:00.250Z`. Times before 1970 show as
/// 1970.
pub fn push_time(line: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ((year, month, day), second) = (date(since.as_secs() / 86_400), since.as_secs() % 86_400);
    let fields = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second / 3_600, 2, b':'),
        (second / 60 % 60, 2, b':'),
        (second % 60, 2, b'.'),
        (since.subsec_millis().into(), 3, b'Z'),
    ];
    push_fields(line, &fields);
}

/// Appends a time as the common log format has it, in UTC: `01/Mar/2026:12:00:00 +0000`.
pub fn push_log_time(line: &mut Vec<u8>, time: SystemTime) {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ((year, month, day), second) = (date(since.as_secs() / 86_400), since.as_secs() % 86_400);
    push_fields(line, &[(day, 2, b'/')]);
    let name = usize::try_from(month).ok().and_then(|month| MONTHS.get(month.checked_sub(1)?));
    line.extend_from_slice(name.unwrap_or(&MONTHS[0]).as_bytes());
    line.push(b'/');
    push_fields(line, &[(year, 4, b':'), (second / 3_600, 2, b':'), (second / 60 % 60, 2, b':')]);
    push_fields(line, &[(second % 60, 2, b' ')]);
    line.extend_from_slice(b"+0000");
}

fn push_fields(line: &mut Vec<u8>, fields: &[(u64, usize, u8)]) {
    for (value, digits, behind) in fields {
        push_number(line, *value, *digits);
        line.push(*behind);
    }
}

/// Year, month and day of a day that is counted from 1970-01-01; Howard Hinnant's algorithm `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01; years begin in March, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Appends a number in decimal, filled up to that many digits with zeros on the left.
pub fn push_number(line: &mut Vec<u8>, value: u64, digits: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(value).as_bytes();
    line.extend(std::iter::repeat_n(b'0', digits.saturating_sub(text.len())));
    line.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn numbers_agree_with_fmt(value in any::<u64>(), shift in 0_u32..64, digits in 1_usize..=20) {
            let value = value >> shift;
            let mut ours = Vec::new();
            push_number(&mut ours, value, digits);
            prop_assert_eq!(String::from_utf8(ours).unwrap(), format!("{value:0digits$}"));
        }

        #[test]
        fn the_calendar_agrees_with_jiffs(millis in 0_u64..253_402_300_799_000) {
            let time = UNIX_EPOCH + Duration::from_millis(millis);
            let mut ours = Vec::new();
            push_time(&mut ours, time);
            let theirs = jiff::Timestamp::from_millisecond(millis as i64).unwrap();
            prop_assert_eq!(String::from_utf8(ours).unwrap(), format!("{theirs:.3}"));
            let mut ours = Vec::new();
            push_log_time(&mut ours, time);
            let theirs = theirs.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string();
            prop_assert_eq!(String::from_utf8(ours).unwrap(), theirs);
        }
    }
}
