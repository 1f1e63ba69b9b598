//! Milliseconds since 1970 as date and time, UTC, in the two forms that the logs write.
use std::fmt;

/// A moment of the Gregorian calendar.
struct Date {
    year: u64,
    month: u64,
    day: u64,
    /// 0 is Sunday.
    weekday: usize,
    /// Hour, minute, second, millisecond.
    time: [u64; 4],
}

impl Date {
    /// By days, after Howard Hinnant's `civil_from_days`.
    fn of(wall_ms: u64) -> Date {
        let (seconds, ms) = (wall_ms / 1_000, wall_ms % 1_000);
        let since_1970 = seconds / 86_400;
        let days = since_1970 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Date {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
            weekday: usize::try_from((since_1970 + 4) % 7).unwrap_or(0),
            time: [seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60, ms],
        }
    }
}

/// `2026-11-22T02:00:00.000Z`
pub(crate) struct Iso(pub(crate) u64);

impl fmt::Display for Iso {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Date { year, month, day, time: [hour, minute, second, ms], .. } = Date::of(self.0);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// `Sun Nov 22 02:00:00 2026`, the form of C's `ctime`.
pub(crate) struct Ctime(pub(crate) u64);

impl fmt::Display for Ctime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let Date { year, month, day, weekday, time: [hour, minute, second, _] } = Date::of(self.0);
        let month = usize::try_from(month - 1).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"?");
        let weekday = DAYS.get(weekday).unwrap_or(&"?");
        write!(f, "{weekday} {month} {day:>2} {hour:02}:{minute:02}:{second:02} {year:04}")
    }
}

/// `20261122T020000000Z`, for names of files.
pub(crate) struct Compact(pub(crate) u64);

impl fmt::Display for Compact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Date { year, month, day, time: [hour, minute, second, ms], .. } = Date::of(self.0);
        write!(f, "{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}{ms:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_gregorian_calendar() {
        let rows = [
            (0, "1970-01-01T00:00:00.000Z", "Thu Jan  1 00:00:00 1970"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z", "Tue Feb 29 00:00:00 2000"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z", "Wed Feb 28 23:59:59 2024"),
            (4_102_444_800_001, "2100-01-01T00:00:00.001Z", "Fri Jan  1 00:00:00 2100"),
        ];
        for (ms, iso, ctime) in rows {
            assert_eq!(Iso(ms).to_string(), iso);
            assert_eq!(Ctime(ms).to_string(), ctime);
        }
        assert_eq!(Compact(1_709_164_799_999).to_string(), "20240228T235959999Z");
    }
}
