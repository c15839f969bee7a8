use std::str::FromStr;

/// When something happened, in any unit.
///
/// Ordered by the number, and by its whole part where float64 rounds two to one: whole numbers beyond 2^53, as nanoseconds
/// since 1970 are.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub(crate) struct Moment {
    number: f64,
    whole: i64,
}

impl FromStr for Moment {
    type Err = ();

    /// # Errors
    /// Where it is no finite number.
    fn from_str(text: &str) -> Result<Moment, ()> {
        let number: f64 = text.parse().map_err(drop)?;
        // Of a number that is not written as whole the fraction decides already.
        let whole = text.parse().unwrap_or(number as i64);
        if number.is_finite() { Ok(Moment { number, whole }) } else { Err(()) }
    }
}
