//! Times in a format that the user names.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use chrono::DateTime;
use chrono::format::{Fixed, Item, Numeric, Parsed, StrftimeItems, parse_and_remainder};

use super::LineFault;
use super::time::{SECOND, Time, shown};

/// A format of times, such as `%m/%d/%Y %H:%M`, with the specifiers of `strftime`.
///
/// A time without a zone is in UTC, and a date is its first moment. `%Z` reads `UTC`, `GMT` and `Z`, and any name beside an
/// offset (`%z`). `%f` reads a fraction of a second, as in Python.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeFormat {
    text: String,
    items: Vec<Item<'static>>,
}

/// Why a text is not a format of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeFormatError {
    /// A specifier is unknown.
    #[error("a letter behind % is unknown: write the format as strftime does, such as %m/%d/%Y %H:%M")]
    Specifier,
    /// The format has no date.
    #[error("the format needs a year, a month and a day, such as %m/%d/%Y")]
    NoDate,
    /// The format has a time of day without its hour.
    #[error("the format needs an hour beside minutes or seconds: %H, or %I with %p")]
    NoHour,
}

impl FromStr for TimeFormat {
    type Err = TimeFormatError;

    fn from_str(text: &str) -> Result<TimeFormat, TimeFormatError> {
        let items = StrftimeItems::new(text).parse_to_owned().map_err(|_| TimeFormatError::Specifier)?;
        let format = TimeFormat { text: text.to_owned(), items };
        // A format is usable if it reads what it writes.
        let mut written = String::new();
        let moment = DateTime::from_timestamp_nanos(1_700_002_240_123_456_789);
        write!(written, "{}", moment.format_with_items(format.items.iter())).map_err(|_| TimeFormatError::Specifier)?;
        let parsed = format.parsed(&written).ok_or(TimeFormatError::Specifier)?;
        if parsed.timestamp().is_none() && parsed.to_naive_date().is_err() {
            return Err(TimeFormatError::NoDate);
        }
        match nanoseconds(parsed) {
            Some(_) => Ok(format),
            None => Err(TimeFormatError::NoHour),
        }
    }
}

impl fmt::Display for TimeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TimeFormat {
    /// Parses a time as [`Time::parse`] does, or by a format if there is one.
    ///
    /// # Errors
    /// [`LineFault::Time`], [`LineFault::TimeFormat`] or [`LineFault::DateRange`].
    pub(crate) fn parse(format: Option<&TimeFormat>, text: &str, column: &str) -> Result<Time, LineFault> {
        let Some(format) = format else { return Time::parse(text, column) };
        let (column, text_shown) = (column.to_owned(), shown(text));
        match format.nanoseconds(text) {
            Some(nanoseconds) => i64::try_from(nanoseconds)
                .map(Time::Date)
                .map_err(|_| LineFault::DateRange { column, text: text_shown }),
            None if text.is_empty() => Err(LineFault::Time { column, text: text_shown }),
            None => Err(LineFault::TimeFormat { column, text: text_shown, format: format.text.clone() }),
        }
    }

    /// The nanoseconds since 1970 of a text in this format.
    pub(crate) fn nanoseconds(&self, text: &str) -> Option<i128> {
        let parsed = self.parsed(text)?;
        // `%Y` takes two digits too. The year 1 is a null of .NET.
        if matches!(parsed.year(), Some(2..100)) { None } else { nanoseconds(parsed) }
    }

    /// The fields of a text in this format.
    fn parsed(&self, text: &str) -> Option<Parsed> {
        let mut parsed = Parsed::new();
        let mut rest = text;
        for item in &self.items {
            rest = match item {
                Item::Fixed(Fixed::TimezoneName) => {
                    let end = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
                    let (name, rest) = rest.split_at(end);
                    let utc = ["utc", "gmt", "z"].iter().any(|utc| name.eq_ignore_ascii_case(utc));
                    // Other names are of several zones, and half of the year of another offset.
                    (utc || parsed.offset().is_some()).then_some(rest)?
                }
                Item::Numeric(Numeric::Nanosecond, _) => {
                    let end = rest.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(rest.len());
                    let (digits, rest) = rest.split_at(end);
                    let nanoseconds: i64 = format!("{digits:0<9}").get(..9)?.parse().ok()?;
                    parsed.set_nanosecond(nanoseconds).ok().filter(|()| !digits.is_empty()).map(|()| rest)?
                }
                item => parse_and_remainder(&mut parsed, rest, std::iter::once(item)).ok()?,
            };
        }
        rest.is_empty().then_some(parsed)
    }

    /// A format that reads a value, for an error. If the value may begin with the day or the month, a second one.
    pub(crate) fn guess(value: &str) -> Option<(String, Option<String>)> {
        const DATES: &[&str] = &[
            "%m/%d/%Y",
            "%d/%m/%Y",
            "%d.%m.%Y",
            "%d-%m-%Y",
            "%m-%d-%Y",
            "%Y.%m.%d",
            "%Y-%m-%d",
            "%Y/%m/%d",
            "%m/%d/%y",
            "%d/%m/%y",
            "%d.%m.%y",
            "%d-%b-%Y",
            "%d-%b-%y",
            "%d %B %Y",
            "%B %d, %Y",
            "%B %d %Y",
            "%a, %d %b %Y",
            "%d/%b/%Y",
        ];
        const TIMES: &[&str] = &[
            "",
            " %H:%M",
            " %H:%M:%S",
            " %H:%M:%S.%f",
            " %I:%M %p",
            " %I:%M:%S %p",
            " %H:%M:%S %Z",
            " %H:%M:%S %z",
            ", %H:%M",
            ", %H:%M:%S",
            ", %I:%M %p",
            ", %I:%M:%S %p",
            ":%H:%M:%S %z",
            "T%H:%M:%S",
        ];
        const WHOLE: &[&str] = &["%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S %Z %Y"];
        let of_dates = DATES.iter().flat_map(|date| TIMES.iter().map(move |time| format!("{date}{time}")));
        let reads = |format: &String| {
            let format: Result<TimeFormat, _> = format.parse();
            format.is_ok_and(|format| format.nanoseconds(value).is_some())
        };
        let format = of_dates.chain(WHOLE.iter().map(|whole| (*whole).to_owned())).find(reads)?;
        let other = [("%m/%d/", "%d/%m/"), ("%d-%m-", "%m-%d-")].iter().find_map(|(first, second)| {
            let other = format!("{second}{}", format.strip_prefix(first)?);
            reads(&other).then_some(other)
        });
        Some((format, other))
    }
}

/// Nanoseconds since 1970. Minutes and seconds are 0 without any, and so is the hour of a date alone.
fn nanoseconds(mut parsed: Parsed) -> Option<i128> {
    if parsed.timestamp().is_none() {
        if parsed.hour_div_12().is_none() && parsed.hour_mod_12().is_none() && parsed.minute().is_none() {
            parsed.set_hour(0).ok()?;
        }
        if parsed.minute().is_none() && parsed.second().is_none() {
            parsed.set_minute(0).ok()?;
        }
    }
    let offset = parsed.offset().unwrap_or_default();
    let time = parsed.to_naive_datetime_with_offset(offset).ok()?.and_utc();
    let seconds = i128::from(time.timestamp()) - i128::from(offset);
    Some(seconds * i128::from(SECOND) + i128::from(time.timestamp_subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &str, text: &str) -> Result<Time, LineFault> {
        TimeFormat::parse(Some(&format.parse().unwrap()), text, "t")
    }

    #[test]
    fn a_format_reads_what_iso_8601_writes_otherwise() {
        for (format, text, iso) in [
            ("%m/%d/%Y %H:%M", "11/14/2023 22:50", "2023-11-14T22:50:00Z"),
            ("%m/%d/%Y %H:%M", "1/2/2023 9:05", "2023-01-02T09:05:00Z"),
            ("%d.%m.%Y", "14.11.2023", "2023-11-14"),
            ("%a, %d %b %Y %H:%M:%S GMT", "Tue, 14 Nov 2023 22:50:40 GMT", "2023-11-14T22:50:40Z"),
            ("%a, %d %b %Y %T %Z", "Tue, 14 Nov 2023 22:50:40 utc", "2023-11-14T22:50:40Z"),
            ("%a %b %d %H:%M:%S %z %Y", "Tue Nov 14 23:50:40 +0100 2023", "2023-11-14T22:50:40Z"),
            ("%Y-%m-%d %H:%M:%S %z %Z", "2023-11-14 23:50:40 +0100 CET", "2023-11-14T22:50:40Z"),
            ("%Y%m%d", "20231114", "2023-11-14"),
            ("%Y%m%d%H", "2023111422", "2023-11-14T22:00:00Z"),
            ("%m/%d/%y %I %p", "11/14/23 10 PM", "2023-11-14T22:00:00Z"),
            ("%d.%m.%Y %H:%M:%S.%f", "14.11.2023 22:50:40.5", "2023-11-14T22:50:40.5Z"),
            ("%d.%m.%Y %H:%M:%S%.f", "14.11.2023 22:50:40.25", "2023-11-14T22:50:40.25Z"),
            ("%d.%m.%Y %H:%M:%S,%f", "14.11.2023 22:50:40,123456", "2023-11-14T22:50:40.123456Z"),
            ("%Y-%j", "2023-318", "2023-11-14"),
            ("%G-W%V-%u", "2023-W46-2", "2023-11-14"),
            ("%s", "1700002240", "2023-11-14T22:50:40Z"),
        ] {
            assert_eq!(read(format, text), Time::parse(iso, "t"), "{format} {text}");
        }
    }

    #[test]
    fn other_values_are_faults_that_name_the_format() {
        for (format, text) in [
            ("%m/%d/%Y", "14/11/2023"),
            ("%m/%d/%Y", "11/14/23"),
            ("%m/%d/%Y", "11/14/2023 22:50"),
            ("%m/%d/%Y %H:%M", "11/14/2023"),
            ("%d.%m.%Y", "30.02.2023"),
            ("%a, %d %b %Y %T %Z", "Tue, 14 Nov 2023 22:50:40 EST"),
            ("%H:%M:%S.%f %d.%m.%Y", "22:50:40. 14.11.2023"),
        ] {
            let (column, text) = ("t".to_owned(), text.to_owned());
            let fault = LineFault::TimeFormat { column, text: text.clone(), format: format.to_owned() };
            assert_eq!(read(format, &text), Err(fault));
        }
        assert!(matches!(read("%m/%d/%Y", "01/01/0001"), Err(LineFault::DateRange { .. })));
        assert!(matches!(read("%m/%d/%Y", ""), Err(LineFault::Time { .. })));
    }

    #[test]
    fn a_format_without_a_date_is_refused() {
        for (text, error) in [
            ("", TimeFormatError::NoDate),
            ("MM/DD/YYYY", TimeFormatError::NoDate),
            ("%H:%M", TimeFormatError::NoDate),
            ("%Y-%m", TimeFormatError::NoDate),
            ("%m/%d/%Y %I:%M", TimeFormatError::NoHour),
            ("%m/%d/%Y %M", TimeFormatError::NoHour),
            ("%d.%m.%Q", TimeFormatError::Specifier),
            ("%d.%m.%Y %", TimeFormatError::Specifier),
        ] {
            assert_eq!(text.parse::<TimeFormat>(), Err(error), "{text}");
        }
    }

    #[test]
    fn the_format_of_a_value_is_guessed() {
        for (value, first, second) in [
            ("11/14/2023 22:50", "%m/%d/%Y %H:%M", None),
            ("14/11/2023", "%d/%m/%Y", None),
            ("03/04/2023", "%m/%d/%Y", Some("%d/%m/%Y")),
            ("3/4/23 9:05 am", "%m/%d/%y %I:%M %p", Some("%d/%m/%y %I:%M %p")),
            ("14.11.2023 22:50:40", "%d.%m.%Y %H:%M:%S", None),
            ("Tue, 14 Nov 2023 22:50:40 GMT", "%a, %d %b %Y %H:%M:%S %Z", None),
            ("Tue Nov 14 22:50:40 +0000 2023", "%a %b %d %H:%M:%S %z %Y", None),
            ("14/Nov/2023:22:50:40 +0000", "%d/%b/%Y:%H:%M:%S %z", None),
            ("November 14, 2023", "%B %d, %Y", None),
            ("2023-1-4", "%Y-%m-%d", None),
        ] {
            let guess = TimeFormat::guess(value);
            assert_eq!(guess, Some((first.to_owned(), second.map(str::to_owned))), "{value}");
        }
        for value in ["soon", "-", "N/A", "22:50"] {
            assert_eq!(TimeFormat::guess(value), None, "{value}");
        }
    }
}
