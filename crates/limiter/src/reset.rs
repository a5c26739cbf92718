//! Periods of the UTC calendar: which one an instant is in, and when one begins. Some buckets are filled when a new
//! period begins, and at no other time.

use super::limit::MONTH_SECS;

/// When such a bucket is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reset {
    /// At each full hour (`per` is `1h`).
    Hour,
    /// At midnight (`1d`).
    Day,
    /// At midnight on the first of a month (`1mo`, also written `30d`).
    Month,
}

const HOUR_SECS: u64 = 3_600;

const DAY_SECS: u64 = 86_400;

/// Days from 0000-03-01 to 1970-01-01. Years are counted from March on here, so that the leap day is the last of its
/// year.
const DAYS_TO_1970: u64 = 719_468;

/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;

impl Reset {
    /// The period of a bucket with `"reset": "utc"` and that `per`; `None` if there is no such period.
    pub fn of_per(per_secs: u32) -> Option<Self> {
        match per_secs {
            3_600 => Some(Self::Hour),
            86_400 => Some(Self::Day),
            MONTH_SECS => Some(Self::Month),
            _ => None,
        }
    }

    /// The number of the period in which a second since the Unix epoch lies. Later periods have larger numbers.
    pub fn turn(self, wall_s: u64) -> u32 {
        let number = match self {
            Self::Hour => wall_s / HOUR_SECS,
            Self::Day => wall_s / DAY_SECS,
            Self::Month => month_of_day(wall_s / DAY_SECS),
        };
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// The second since the Unix epoch in which the period with that number begins.
    pub fn begins(self, turn: u32) -> u64 {
        let turn = u64::from(turn);
        match self {
            Self::Hour => turn * HOUR_SECS,
            Self::Day => turn * DAY_SECS,
            Self::Month => day_of_month(turn) * DAY_SECS,
        }
    }
}

/// The month in which a day since the Unix epoch lies, counted from 0000-03: the algorithm `civil_from_days` of H.
/// Hinnant.
fn month_of_day(day: u64) -> u64 {
    let shifted = day.saturating_add(DAYS_TO_1970);
    let (era, day_of_era) = (shifted / ERA_DAYS, shifted % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    (era * 400 + year_of_era) * 12 + (5 * day_of_year + 2) / 153
}

/// The day since the Unix epoch on which a month begins, counted as [`month_of_day`] does; 0 for months before the
/// epoch.
fn day_of_month(month: u64) -> u64 {
    let (year, month_from_march) = (month / 12, month % 12);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month_from_march + 2) / 5;
    let day = era * ERA_DAYS + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    day.saturating_sub(DAYS_TO_1970)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn second(text: &str) -> u64 {
        text.parse::<jiff::Timestamp>().unwrap().as_second() as u64
    }

    #[test]
    fn a_period_ends_where_the_calendar_turns() {
        let rows = [
            (Reset::Hour, "2026-03-01T12:59:59Z", "2026-03-01T13:00:00Z"),
            (Reset::Day, "2026-03-01T12:59:59Z", "2026-03-02T00:00:00Z"),
            (Reset::Day, "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z"),
            (Reset::Month, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"),
            (Reset::Month, "2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z"),
            (Reset::Month, "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
            (Reset::Month, "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"),
            (Reset::Month, "2000-02-29T23:59:59Z", "2000-03-01T00:00:00Z"),
            (Reset::Month, "2000-03-01T00:00:00Z", "2000-04-01T00:00:00Z"),
            (Reset::Month, "2100-02-28T23:59:59Z", "2100-03-01T00:00:00Z"),
            (Reset::Month, "2100-03-01T00:00:00Z", "2100-04-01T00:00:00Z"),
            (Reset::Month, "2400-02-29T23:59:59Z", "2400-03-01T00:00:00Z"),
            (Reset::Month, "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            (Reset::Month, "1970-01-01T00:00:00Z", "1970-02-01T00:00:00Z"),
        ];
        for (reset, within, next) in rows {
            assert_eq!(reset.begins(reset.turn(second(within)) + 1), second(next), "{reset:?} {within}");
        }
        assert_eq!(Reset::Month.turn(u64::MAX), u32::MAX);
        assert_eq!(Reset::Month.begins(0), 0, "before the epoch");
        assert_eq!((Reset::Hour.turn(7_199), Reset::Hour.turn(7_200)), (1, 2));
        assert_eq!((Reset::Day.turn(172_799), Reset::Day.turn(172_800)), (1, 2));
        let kinds = [3_600, 86_400, MONTH_SECS, 1, 60, 7_200].map(Reset::of_per);
        assert_eq!(kinds, [Some(Reset::Hour), Some(Reset::Day), Some(Reset::Month), None, None, None]);
    }

    proptest! {
        #[test]
        fn months_agree_with_jiffs(at in 0_u64..253_402_300_799) {
            use jiff::tz::TimeZone;
            let zoned = jiff::Timestamp::from_second(at as i64).unwrap().to_zoned_datetime(TimeZone::UTC);
            let first = zoned.first_of_month().unwrap().start_of_day().unwrap();
            let turn = Reset::Month.turn(at);
            prop_assert_eq!(Reset::Month.begins(turn), first.timestamp().as_second() as u64);
            prop_assert_eq!(Reset::Month.turn(first.timestamp().as_second() as u64), turn);
        }

        #[test]
        fn an_instant_lies_between_the_beginnings_of_its_period_and_the_next(at in 0_u64..253_402_300_799) {
            for reset in [Reset::Hour, Reset::Day, Reset::Month] {
                let turn = reset.turn(at);
                prop_assert!(reset.begins(turn) <= at && at < reset.begins(turn + 1));
            }
        }
    }
}
