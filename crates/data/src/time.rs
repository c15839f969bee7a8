//! Points in time as files write them.

use super::LineFault;

/// A point in time, as one field gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Time {
    /// A whole number of a unit that the whole column decides.
    Whole(i64),
    /// A number of that unit, times 10^18.
    Fine(i128),
    /// Nanoseconds since 1970 in UTC.
    Date(i64),
}

/// The factor of [`Time::Fine`].
pub(crate) const FINE: i128 = 1_000_000_000_000_000_000;

/// Nanoseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000_000;

impl Time {
    /// Parses a number or an ISO 8601 date or date-time.
    ///
    /// A date-time without a zone is in UTC. A date is its first moment. Fractions below 10^-18 of a unit are dropped.
    ///
    /// # Errors
    /// [`LineFault::Time`], or [`LineFault::DateRange`] for a date outside the years 1677 to 2262. Both name the column.
    pub(crate) fn parse(text: &str, column: &str) -> Result<Time, LineFault> {
        if let Some(whole) = whole(text.as_bytes()) {
            return Ok(whole);
        }
        if let Some(nanoseconds) = date(text) {
            let far = |_| LineFault::DateRange { column: column.to_owned(), text: shown(text) };
            return i64::try_from(nanoseconds).map(Time::Date).map_err(far);
        }
        number(text).ok_or_else(|| LineFault::Time { column: column.to_owned(), text: shown(text) })
    }

    /// The time of a finite float.
    pub(crate) fn of_float(number: f64) -> Option<Time> {
        // Beyond this, 10^18 times the number would not fit.
        const LARGEST: f64 = 1.6e20;
        if !number.is_finite() || number.abs() > LARGEST {
            return None;
        }
        let integer = number.trunc();
        let fine = integer as i128 * FINE + ((number - integer) * FINE as f64) as i128;
        Some(Time::of_fine(fine))
    }

    fn of_fine(fine: i128) -> Time {
        match i64::try_from(fine / FINE) {
            Ok(whole) if fine % FINE == 0 => Time::Whole(whole),
            _ => Time::Fine(fine),
        }
    }
}

/// As much of a value as an error shows.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A whole number of at most 18 digits, the most frequent case.
fn whole(text: &[u8]) -> Option<Time> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(Time::Whole(if negative { -value } else { value }))
}

fn number(text: &str) -> Option<Time> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(Time::Whole(whole));
    }
    decimal(text).or_else(|| Time::of_float(text.parse().ok()?))
}

/// A number like `-1700000000.25`, without the rounding of floats.
fn decimal(text: &str) -> Option<Time> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let numeric = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if (integer.is_empty() && fraction.is_empty()) || !numeric(integer) || !numeric(fraction) {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(18)];
    let integer: i128 = if integer.is_empty() { 0 } else { integer.parse().ok()? };
    let exponent = 18 - u32::try_from(fraction.len()).ok()?;
    let parts: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let fine = integer.checked_mul(FINE)?.checked_add(parts * 10i128.pow(exponent))?;
    Some(Time::of_fine(if negative { -fine } else { fine }))
}

/// Nanoseconds since 1970 of an ISO 8601 date or date-time, in the extended or the basic format. Slashes may separate the date,
/// and a blank may stand for `T` and before the zone. An hour may have one digit, or be one of 12 with AM or PM behind the time.
pub(crate) fn date(text: &str) -> Option<i128> {
    let mut rest = Rest(text.as_bytes());
    let year = rest.digits(4)?;
    let separator = rest.any_of(b"-/");
    let month = rest.digits(2)?;
    if let Some(separator) = separator {
        rest.any_of(&[separator])?;
    }
    let day = rest.digits(2)?;
    let mut seconds = days_since_1970(year, month, day)? * 86_400;
    let mut nanoseconds = 0;
    if rest.0.is_empty() {
        // Eight digits alone are a number, which sorts as the date does.
        separator?;
    } else {
        rest.any_of(b"Tt ")?;
        let hour = if rest.0.get(1) == Some(&b':') { rest.digits(1)? } else { rest.digits(2)? };
        let colon = rest.any_of(b":");
        let minute = rest.digits(2)?;
        let has_seconds = match colon {
            Some(_) => rest.any_of(b":").is_some(),
            None => rest.0.first().is_some_and(u8::is_ascii_digit),
        };
        let second = if has_seconds { rest.digits(2)? } else { 0 };
        if has_seconds && rest.any_of(b".,").is_some() {
            nanoseconds = rest.fraction()?;
        }
        let hour = match rest.half_of_day() {
            None => hour,
            Some(half) if (1..=12).contains(&hour) => hour % 12 + half,
            Some(_) => return None,
        };
        // 60 is a leap second, and 24:00 the end of a day.
        let ends_day = (hour, minute, second, nanoseconds) == (24, 0, 0, 0);
        if (hour > 23 && !ends_day) || minute > 59 || second > 60 {
            return None;
        }
        seconds += hour * 3600 + minute * 60 + second - rest.zone()?;
    }
    Some(i128::from(seconds) * i128::from(SECOND) + i128::from(nanoseconds))
}

/// Nanoseconds since 1970 of a number whose digits are a date of the years 1970 to 2099, perhaps with hour, minute and second:
/// 20231114, 2023111422, 202311142250 or 20231114225040.
///
/// Seconds since 1970 have ten digits too, so ten digits are a date from 1995 on. As seconds these are times after 2033.
pub(crate) fn date_of_digits(number: i64) -> Option<i64> {
    let (date, time) = match number {
        19_700_101..=20_991_231 => (number, 0),
        1_995_010_100..=2_099_123_123 => (number / 100, number % 100 * 10_000),
        197_001_010_000..=209_912_312_359 => (number / 10_000, number % 10_000 * 100),
        19_700_101_000_000..=20_991_231_235_959 => (number / 1_000_000, number % 1_000_000),
        _ => return None,
    };
    let (hour, minute, second) = (time / 10_000, time / 100 % 100, time % 100);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_since_1970(date / 10_000, date / 100 % 100, date % 100)?;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) * SECOND)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if !(1..=longest).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// A point in time, in nanoseconds since 1970, as an RFC 3339 date-time in UTC. A fraction of a second has nine digits. Years
/// outside 0 to 9999 become the nearest moment of these.
pub fn rfc3339(nanoseconds: i128) -> String {
    const FIRST: i128 = -62_167_219_200 * SECOND as i128;
    const LAST: i128 = 253_402_300_800 * SECOND as i128 - 1;
    let nanoseconds = nanoseconds.clamp(FIRST, LAST);
    let (seconds, fraction) =
        (nanoseconds.div_euclid(SECOND.into()) as i64, nanoseconds.rem_euclid(SECOND.into()) as i64);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // As in `days_since_1970`, eras of 400 years begin in March.
    let since_era = days + 719_468;
    let (era, day) = (since_era.div_euclid(146_097), since_era.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:09}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The unread rest of a date.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
    }

    fn any_of(&mut self, bytes: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if !bytes.contains(first) {
            return None;
        }
        self.0 = rest;
        Some(*first)
    }

    /// The digits behind a decimal point, in nanoseconds.
    fn fraction(&mut self) -> Option<i64> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        let digit = |place: usize| digits.get(place).map_or(0, |byte| i64::from(byte - b'0'));
        (count > 0).then(|| (0..9).fold(0, |value, place| value * 10 + digit(place)))
    }

    /// The hours before the half of the day that AM or PM names.
    fn half_of_day(&mut self) -> Option<i64> {
        let text = self.0.trim_ascii_start();
        let (half, rest) = text.split_at_checked(2)?;
        let hours = if half.eq_ignore_ascii_case(b"am") {
            0
        } else if half.eq_ignore_ascii_case(b"pm") {
            12
        } else {
            return None;
        };
        self.0 = rest;
        Some(hours)
    }

    /// Seconds by which the zone is ahead of UTC. It reads to the end.
    ///
    /// The zone's name may follow its offset: `[Europe/Berlin]` as RFC 9557 and Java write it, or `UTC` as Go does.
    fn zone(&mut self) -> Option<i64> {
        while self.any_of(b" ").is_some() {}
        if self.0.is_empty() {
            return Some(0);
        }
        if self.0.last() == Some(&b']') {
            let name = self.0.iter().position(|byte| *byte == b'[').filter(|name| *name > 0)?;
            self.0 = &self.0[..name];
        }
        if [&b"z"[..], b"utc", b"gmt"].iter().any(|zone| self.0.eq_ignore_ascii_case(zone)) {
            return Some(0);
        }
        let sign = if self.any_of(b"+-")? == b'-' { -1 } else { 1 };
        let hours = self.digits(2)?;
        let minutes = match self.any_of(b":") {
            None if self.0.first().is_none_or(|byte| *byte == b' ') => 0,
            _ => self.digits(2)?,
        };
        let named = self.0.split_first().is_some_and(|(blank, name)| {
            *blank == b' ' && !name.is_empty() && name.iter().all(u8::is_ascii_alphabetic)
        });
        let ended = self.0.is_empty() || named;
        (ended && hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Time {
        Time::parse(text, "t").unwrap()
    }

    /// The same moment by another library.
    fn nanoseconds(rfc3339: &str) -> i64 {
        let time = humantime::parse_rfc3339(rfc3339).unwrap();
        i64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
    }

    /// The seconds are those of Python's `datetime`.
    #[test]
    fn moments_are_written_as_they_are_read() {
        for (seconds, expected) in [
            (-446_751_900, "1955-11-05T06:15:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (-11_670_955_200, "1600-02-29T12:00:00Z"),
            (-62_135_596_800, "0001-01-01T00:00:00Z"),
            (-99_999_999_999, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds * i128::from(SECOND)), expected);
        }
        assert_eq!(rfc3339(i128::MAX), "9999-12-31T23:59:59.999999999Z");
        for nanoseconds in [-500_000_000, 1, 1_700_000_000_123_456_789, i64::MIN, i64::MAX] {
            let text = rfc3339(nanoseconds.into());
            assert_eq!(Time::parse(&text, "").unwrap(), Time::Date(nanoseconds), "{text}");
        }
    }

    #[test]
    fn dates_of_every_spelling_are_one_moment() {
        let expected = Time::Date(nanoseconds("2023-11-14T22:50:40Z"));
        for text in [
            "2023-11-14T22:50:40Z",
            "2023-11-14t22:50:40z",
            "2023-11-14T22:50:40",
            "2023-11-14 22:50:40",
            "2023-11-14 22:50:40 UTC",
            "2023-11-14 22:50:40+00:00",
            "2023-11-14 22:50:40.000 +0000",
            "2023-11-14T23:50:40+01",
            "2023-11-15T04:20:40+05:30",
            "2023-11-14T14:50:40-0800",
            "2023/11/14 22:50:40",
            "20231114T225040Z",
            "2023-11-14T22:50:40,0",
            "2023-11-14T22:50:40Z[UTC]",
            "2023-11-14T23:50:40+01:00[Europe/Berlin]",
            "2023-11-14 22:50:40 +0000 UTC",
            "2023-11-14 23:50:40 +0100 CET",
            "2023-11-14 23:50:40 +01 CET",
            "2023-11-14 10:50:40 PM",
            "2023/11/14 10:50:40pm",
            "2023-11-14 10:50:40.0 PM UTC",
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
        let minute = Time::Date(nanoseconds("2023-11-14T22:50:00Z"));
        assert_eq!([time("2023-11-14 22:50"), time("20231114T2250Z")], [minute; 2]);
        let morning = Time::Date(nanoseconds("2023-11-14T09:05:00Z"));
        assert_eq!([time("2023-11-14 9:05"), time("2023-11-14T9:05:00 AM")], [morning; 2]);
        let midnight = Time::Date(nanoseconds("2023-11-15T00:00:00Z"));
        assert_eq!([time("2023-11-14T24:00:00"), time("20231114T2400"), time("2023-11-15 12:00 AM")], [midnight; 3]);
        assert_eq!(time("2024-02-29"), Time::Date(nanoseconds("2024-02-29T00:00:00Z")));
        let fine = time("2023-11-14T22:50:40.123456789123Z");
        assert_eq!(fine, Time::Date(nanoseconds("2023-11-14T22:50:40.123456789Z")));
        assert_eq!(time("1969-12-31T23:59:59.5Z"), Time::Date(-500_000_000));
    }

    #[test]
    fn dates_that_nanoseconds_do_not_hold_are_refused() {
        for text in ["0001-01-01", "0001-01-01T00:00:00Z", "1677-09-21", "2262-04-12", "9999-12-31"] {
            let far = LineFault::DateRange { column: "t".to_owned(), text: text.to_owned() };
            assert_eq!(Time::parse(text, "t"), Err(far));
        }
        assert!(Time::parse("1677-09-22", "t").is_ok() && Time::parse("2262-04-11", "t").is_ok());
    }

    #[test]
    fn digits_of_a_date_are_its_moment() {
        for (number, expected) in [
            (20_231_114, "2023-11-14T00:00:00Z"),
            (2_023_111_422, "2023-11-14T22:00:00Z"),
            (202_311_142_250, "2023-11-14T22:50:00Z"),
            (20_231_114_225_040, "2023-11-14T22:50:40Z"),
            (19_700_101, "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(date_of_digits(number), Some(nanoseconds(expected)), "{number}");
        }
        for number in [0, 19_691_231, 20_230_230, 21_000_101, 1_700_005_060, 2_023_111_424, 20_231_114_226_040] {
            assert_eq!(date_of_digits(number), None, "{number}");
        }
    }

    #[test]
    fn numbers_keep_every_digit() {
        assert_eq!(time("-17"), Time::Whole(-17));
        assert_eq!(time("9223372036854775807"), Time::Whole(i64::MAX));
        assert_eq!([time("1700000000.0"), time("1.7e9"), time("+1700000000.")], [Time::Whole(1_700_000_000); 3]);
        assert_eq!(time("20.5"), Time::Fine(20_500_000_000_000_000_000));
        assert_eq!(time("-.000000000000000001"), Time::Fine(-1));
        assert_eq!(time("18446744073709551616"), Time::Fine(FINE * (1 << 64)));
    }

    #[test]
    fn other_texts_are_no_time() {
        for text in [
            "",
            "x1",
            "NaN",
            "inf",
            "1 2",
            ".",
            "-",
            "1e30",
            "11/14/2023",
            "2023-13-01",
            "2023-02-29",
            "2023-1-1",
            "22:50:40",
            "2023-11-14T",
            "2023-11-14T25:00",
            "2023-11-14T22:50:40Q",
            "2023-11-14T22:50:40+",
            "2023-11-14T22:50:40.Z",
            "2023-11/14",
            "2023-11-14T22:50:40+01:00x",
            "2023-11-14T22:50:40 CET",
            "2023-11-14T22:50:40[Europe/Berlin]",
            "2023-11-14T22:50:40+01:00[Europe/Berlin",
            "2023-11-14T24:00:01",
            "2023-11-14 22:50 PM",
            "2023-11-14 0:50 AM",
            "2023-11-14 9",
        ] {
            assert!(Time::parse(text, "t").is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_second_is_what_another_library_says(seconds in 0u64..9_223_372_036) {
            let text = humantime::format_rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
            prop_assert_eq!(time(&text), Time::Date(seconds as i64 * SECOND));
        }
    }
}
