//! The times of one file, and what they are in nanoseconds.

use std::fmt;

use super::LineFault;
use super::time::{FINE, SECOND, Time, date, date_of_digits};

/// What a file's times are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Dates or date-times as texts, or Parquet's own timestamps.
    Dates,
    /// Numbers whose digits are a date, such as 20231114, perhaps with hour, minute and second.
    DateDigits,
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
    /// Microseconds since 1970.
    Microseconds,
    /// Nanoseconds since 1970.
    Nanoseconds,
    /// Numbers of several of these units.
    Mixed,
    /// Numbers that are no dates, such as a running number. Only their order counts.
    Numbers,
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeUnit::Dates => "dates",
            TimeUnit::DateDigits => "dates as numbers such as 20231114",
            TimeUnit::Seconds => "seconds since 1970",
            TimeUnit::Milliseconds => "milliseconds since 1970",
            TimeUnit::Microseconds => "microseconds since 1970",
            TimeUnit::Nanoseconds => "nanoseconds since 1970",
            TimeUnit::Mixed => "numbers since 1970 in several units",
            TimeUnit::Numbers => "numbers",
        })
    }
}

/// The units of numbers, with their nanoseconds.
const UNITS: [(TimeUnit, i64); 4] = [
    (TimeUnit::Seconds, SECOND),
    (TimeUnit::Milliseconds, 1_000_000),
    (TimeUnit::Microseconds, 1_000),
    (TimeUnit::Nanoseconds, 1),
];

/// Numbers between these are taken for times in seconds: 1995 to 2100. The other units have their own ranges, and no two
/// overlap.
const PLAUSIBLE_SECONDS: std::ops::Range<i64> = 788_918_400..4_102_444_800;

/// The place in [`UNITS`] of the unit in which a number is a plausible time.
fn plausible_unit(number: i64) -> Option<usize> {
    (0..UNITS.len()).find(|unit| PLAUSIBLE_SECONDS.contains(&(number / 1000i64.pow(*unit as u32))))
}

/// The place in [`UNITS`] of the unit that fits a number's magnitude.
fn unit_of_magnitude(number: i64) -> usize {
    match number.unsigned_abs() {
        0..100_000_000_000 => 0,
        100_000_000_000..100_000_000_000_000 => 1,
        100_000_000_000_000..100_000_000_000_000_000 => 2,
        _ => 3,
    }
}

/// Whether a text is a date, or a number that is likely to be a time since 1970.
pub(crate) fn looks_like_time(text: &str) -> bool {
    match Time::parse(text, "") {
        Ok(Time::Date(_)) => true,
        Ok(Time::Whole(number)) => plausible_unit(number).is_some(),
        Ok(Time::Fine(number)) => i64::try_from(number / FINE).is_ok_and(|number| plausible_unit(number).is_some()),
        Err(_) => false,
    }
}

/// The nanoseconds since 1970 of a date, or of a number by its magnitude.
pub(crate) fn nanoseconds(text: &str) -> Option<i128> {
    let fine = match Time::parse(text, "") {
        Ok(Time::Date(time)) => return Some(time.into()),
        Ok(Time::Whole(number)) => i128::from(number) * FINE,
        Ok(Time::Fine(number)) => number,
        Err(_) => return date(text),
    };
    let whole = i64::try_from(fine / FINE).ok()?;
    let (_, unit) = UNITS[unit_of_magnitude(whole)];
    // A unit has at most 10^9 nanoseconds, and its part that matters 9 digits.
    Some((fine / i128::from(SECOND)) * i128::from(unit) / FINE_PER_NANOSECOND)
}

/// The times of one file, in its order. They are all dates or all numbers.
#[derive(Default)]
pub(crate) struct Times {
    values: Values,
    /// How many numbers are plausible in each of the [`UNITS`].
    plausible: [u64; UNITS.len()],
    /// How many numbers are 0, which many exports write for a missing time.
    zeros: u64,
    /// The largest magnitude, without its fraction.
    largest: i64,
}

#[derive(Default)]
enum Values {
    #[default]
    None,
    /// Nanoseconds since 1970.
    Dates(Vec<i64>),
    Whole(Vec<i64>),
    /// Times 10^18. A column whose numbers are all whole does not pay for these.
    Fine(Vec<i128>),
}

/// Times that sort across files.
pub(crate) enum Keys {
    /// Nanoseconds since 1970.
    Nanoseconds(Vec<i64>),
    /// 10^-18 seconds since 1970, for numbers that nanoseconds do not hold.
    Fine(Vec<i128>),
}

/// 10^-18 seconds in a nanosecond.
const FINE_PER_NANOSECOND: i128 = FINE / SECOND as i128;

impl Times {
    /// Adds the time of the next interaction.
    ///
    /// # Errors
    /// [`LineFault::MixedTimes`], if it is a date among numbers or a number among dates.
    pub(crate) fn push(&mut self, time: Time) -> Result<(), LineFault> {
        match (&mut self.values, time) {
            (Values::Dates(values), Time::Date(time)) => values.push(time),
            (Values::Whole(values), Time::Whole(time)) => values.push(time),
            (Values::Fine(values), Time::Fine(time)) => values.push(time),
            (Values::Fine(values), Time::Whole(time)) => values.push(i128::from(time) * FINE),
            (Values::Whole(values), Time::Fine(time)) => {
                let mut fine: Vec<i128> = values.iter().map(|whole| i128::from(*whole) * FINE).collect();
                fine.push(time);
                self.values = Values::Fine(fine);
            }
            (Values::None, Time::Date(time)) => self.values = Values::Dates(vec![time]),
            (Values::None, Time::Whole(time)) => self.values = Values::Whole(vec![time]),
            (Values::None, Time::Fine(time)) => self.values = Values::Fine(vec![time]),
            (Values::Dates(_), _) => return Err(LineFault::MixedTimes { found: "a number", earlier: "dates" }),
            (_, Time::Date(_)) => return Err(LineFault::MixedTimes { found: "a date", earlier: "numbers" }),
        }
        let whole = match time {
            Time::Date(_) => return Ok(()),
            Time::Whole(whole) => whole,
            Time::Fine(fine) => i64::try_from(fine / FINE).unwrap_or(i64::MAX),
        };
        match plausible_unit(whole) {
            Some(unit) => self.plausible[unit] += 1,
            None => self.zeros += u64::from(whole == 0),
        }
        if whole.unsigned_abs() > self.largest.unsigned_abs() {
            self.largest = whole;
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Values::None => 0,
            Values::Dates(values) | Values::Whole(values) => values.len(),
            Values::Fine(values) => values.len(),
        }
    }

    /// The unit, and each number's place in [`UNITS`].
    ///
    /// Numbers of several units are told apart only if nearly all of them are plausible times; zeros, which are early in every
    /// unit, do not count. Otherwise the largest number decides for all, which keeps their order whatever they are.
    fn unit(&self) -> (TimeUnit, impl Fn(i64) -> usize + use<>) {
        let plausible: u64 = self.plausible.iter().sum();
        let nearly_all = plausible * 100 >= (self.len() as u64 - self.zeros) * 99;
        let units = self.plausible.iter().filter(|count| **count > 0).count();
        let of_largest = unit_of_magnitude(self.largest);
        let (unit, one) = match units {
            2.. if nearly_all => (TimeUnit::Mixed, None),
            1.. if plausible_unit(self.largest).is_some() => (UNITS[of_largest].0, Some(of_largest)),
            _ => (TimeUnit::Numbers, Some(of_largest)),
        };
        (unit, move |number| one.unwrap_or_else(|| unit_of_magnitude(number)))
    }

    /// The times in one unit for all files. `None` if there are none.
    pub(crate) fn finish(self) -> Option<(Keys, TimeUnit)> {
        let (unit, unit_of) = self.unit();
        let nanoseconds = |number: i64| UNITS[unit_of(number)].1;
        let keys = match self.values {
            Values::None => return None,
            Values::Dates(values) => return Some((Keys::Nanoseconds(values), TimeUnit::Dates)),
            Values::Whole(values) => {
                if let Some(dates) = dates_of_digits(&values) {
                    return Some((Keys::Nanoseconds(dates), TimeUnit::DateDigits));
                }
                if values.iter().all(|number| number.checked_mul(nanoseconds(*number)).is_some()) {
                    Keys::Nanoseconds(values.into_iter().map(|number| number * nanoseconds(number)).collect())
                } else {
                    let fine = |number| i128::from(number) * i128::from(nanoseconds(number)) * FINE_PER_NANOSECOND;
                    Keys::Fine(values.into_iter().map(fine).collect())
                }
            }
            Values::Fine(mut values) => {
                for value in &mut values {
                    let whole = i64::try_from(*value / FINE).unwrap_or(i64::MAX);
                    *value /= i128::from(SECOND / nanoseconds(whole));
                }
                let nanoseconds = |value: i128| {
                    (value % FINE_PER_NANOSECOND == 0).then(|| i64::try_from(value / FINE_PER_NANOSECOND).ok())?
                };
                match values.iter().map(|value| nanoseconds(*value)).collect() {
                    Some(whole) => Keys::Nanoseconds(whole),
                    None => Keys::Fine(values),
                }
            }
        };
        Some((keys, unit))
    }
}

/// The dates that the digits of all numbers are, with as many digits each. Zeros stay, as missing times before them.
fn dates_of_digits(numbers: &[i64]) -> Option<Vec<i64>> {
    let digits = |number: &i64| number.checked_ilog10();
    let first = digits(numbers.iter().find(|number| **number != 0)?)?;
    let date = |number: &i64| match number {
        0 => Some(0),
        number => date_of_digits(*number).filter(|_| digits(number) == Some(first)),
    };
    numbers.iter().map(date).collect()
}

impl Keys {
    /// Appends the keys of a later file.
    pub(crate) fn append(&mut self, later: Keys) {
        match (&mut *self, later) {
            (Keys::Nanoseconds(keys), Keys::Nanoseconds(later)) => keys.extend(later),
            (Keys::Fine(keys), Keys::Fine(later)) => keys.extend(later),
            (Keys::Fine(keys), Keys::Nanoseconds(later)) => keys.extend(later.into_iter().map(fine)),
            (Keys::Nanoseconds(keys), Keys::Fine(later)) => {
                *self = Keys::Fine(keys.iter().copied().map(fine).chain(later).collect());
            }
        }
    }

    /// Keeps the keys at the places that `kept` marks.
    pub(crate) fn retain(&mut self, kept: &[bool]) {
        let mut marks = kept.iter();
        let mut mark = || marks.next().copied().unwrap_or_default();
        match self {
            Keys::Nanoseconds(keys) => keys.retain(|_| mark()),
            Keys::Fine(keys) => keys.retain(|_| mark()),
        }
    }

    /// Each in nanoseconds. Those outside the years 1677 to 2262 become the nearest moment of those years.
    pub(crate) fn nanoseconds(&self) -> Box<dyn Iterator<Item = i64> + '_> {
        let whole = |fine: &i128| {
            let nanoseconds = fine.div_euclid(FINE_PER_NANOSECOND);
            i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX })
        };
        match self {
            Keys::Nanoseconds(keys) => Box::new(keys.iter().copied()),
            Keys::Fine(keys) => Box::new(keys.iter().map(whole)),
        }
    }

    /// The earliest and the latest, in nanoseconds.
    pub(crate) fn span(&self) -> Option<(i128, i128)> {
        let nanoseconds = |key: &i128| key.div_euclid(FINE_PER_NANOSECOND);
        Some(match self {
            Keys::Nanoseconds(keys) => (i128::from(*keys.iter().min()?), i128::from(*keys.iter().max()?)),
            Keys::Fine(keys) => (keys.iter().min().map(nanoseconds)?, keys.iter().max().map(nanoseconds)?),
        })
    }
}

fn fine(nanoseconds: i64) -> i128 {
    i128::from(nanoseconds) * FINE_PER_NANOSECOND
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(texts: &[&str]) -> (Vec<i128>, TimeUnit) {
        let mut times = Times::default();
        for text in texts {
            times.push(Time::parse(text, "t").unwrap()).unwrap();
        }
        let (keys, unit) = times.finish().unwrap();
        let keys = match keys {
            Keys::Nanoseconds(keys) => keys.into_iter().map(fine).collect(),
            Keys::Fine(keys) => keys,
        };
        (keys, unit)
    }

    #[test]
    fn one_moment_is_one_key_in_every_unit() {
        let second = "1700005060";
        let expected = keys(&[second]);
        assert_eq!(expected.1, TimeUnit::Seconds);
        for (text, unit) in [
            ("1700005060.0", TimeUnit::Seconds),
            ("1700005060000", TimeUnit::Milliseconds),
            ("1700005060000000", TimeUnit::Microseconds),
            ("1700005060000000000", TimeUnit::Nanoseconds),
            ("2023-11-14T23:37:40Z", TimeUnit::Dates),
        ] {
            assert_eq!(keys(&[text]), (expected.0.clone(), unit), "{text}");
        }
        let mixed = keys(&[second, "1700005060000", "1700005060.5", "1700005061"]);
        assert_eq!(mixed.1, TimeUnit::Mixed);
        assert!(mixed.0[0] == mixed.0[1] && mixed.0[1] < mixed.0[2] && mixed.0[2] < mixed.0[3], "{:?}", mixed.0);
    }

    #[test]
    fn digits_of_dates_are_dates() {
        let expected = keys(&["2023-11-14", "2023-11-15"]).0;
        for texts in [["20231114", "20231115"], ["2023111400", "2023111500"], ["20231114000000", "20231115000000"]] {
            assert_eq!(keys(&texts), (expected.clone(), TimeUnit::DateDigits), "{texts:?}");
        }
        assert_eq!(keys(&["0", "20231114"]), (vec![0, expected[0]], TimeUnit::DateDigits));
        // A day that no month has, and two numbers of digits.
        for (texts, unit) in [
            (["20231114", "20231132"], TimeUnit::Numbers),
            (["20231114", "20231114225040"], TimeUnit::Numbers),
            (["2023111400", "1700005060"], TimeUnit::Seconds),
        ] {
            assert_eq!(keys(&texts).1, unit, "{texts:?}");
        }
    }

    #[test]
    fn zeros_do_not_hide_that_units_are_mixed() {
        let texts: Vec<&str> = [["1700005060"; 49], ["1700005060000"; 49]].concat();
        for (others, unit) in [(["0"; 2], TimeUnit::Mixed), (["1"; 2], TimeUnit::Milliseconds)] {
            let (keys, found) = keys(&[&texts[..], &others[..]].concat());
            assert_eq!(found, unit);
            assert_eq!((keys[98] < keys[0], keys[0] == keys[97]), (true, unit == TimeUnit::Mixed));
        }
    }

    #[test]
    fn numbers_that_are_no_dates_keep_their_order() {
        let (running, unit) = keys(&["0", "1", "99999999999", "100000000000"]);
        assert!(running.is_sorted() && unit == TimeUnit::Numbers, "{running:?} {unit}");
        let (unknown, unit) = keys(&["0", "1700005060000", "-1"]);
        assert!(unknown[2] < unknown[0] && unknown[0] < unknown[1] && unit == TimeUnit::Milliseconds, "{unknown:?}");
    }

    #[test]
    fn dates_and_numbers_do_not_mix() {
        let mut times = Times::default();
        times.push(Time::Date(1)).unwrap();
        assert_eq!(times.push(Time::Whole(1)), Err(LineFault::MixedTimes { found: "a number", earlier: "dates" }));
        assert_eq!(times.len(), 1);
    }

    #[test]
    fn files_of_different_units_sort_together() {
        let of = |text: &str| {
            let mut times = Times::default();
            times.push(Time::parse(text, "t").unwrap()).unwrap();
            times.finish().unwrap().0
        };
        let mut all = of("1700005060000");
        all.append(of("2023-11-14T23:37:41Z"));
        all.append(of("1700005060.0000000001"));
        let Keys::Fine(keys) = &all else { panic!("nanoseconds do not hold the last one") };
        assert!(keys[0] < keys[2] && keys[2] < keys[1], "{keys:?}");
        assert_eq!(all.span(), Some((1_700_005_060_000_000_000, 1_700_005_061_000_000_000)));
    }

    proptest! {
        #[test]
        fn whole_numbers_keep_their_order(numbers in prop::collection::vec(any::<i64>(), 1..20)) {
            let texts: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            let (keys, unit) = keys(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assume!(unit != TimeUnit::Mixed);
            for (place, number) in numbers.iter().enumerate() {
                prop_assert_eq!(number.cmp(&numbers[0]), keys[place].cmp(&keys[0]));
            }
        }
    }
}
