//! Which columns are the user, the item and the time.

mod names;
mod time_columns;

pub(crate) use self::time_columns::{Finer, Sampled};

use self::names::{ITEMS, TIMES, USERS, plain};
use self::time_columns::{Others, is_late_time};
use super::condition::ColumnTest;
use super::error::ColumnFault;
use super::{ReadOptions, TimeColumn, TimeFormat};

/// The roles of a file's columns, by their place.
#[derive(Debug)]
pub(crate) struct Roles {
    pub(crate) user: usize,
    pub(crate) item: usize,
    /// `None`: the order of the file is the order of time.
    pub(crate) time: Option<usize>,
    /// The format of the times, if the user named one.
    pub(crate) time_format: Option<TimeFormat>,
    /// Columns on which `--where` has conditions.
    pub(crate) tests: Vec<ColumnTest>,
    /// A column with times of day, if that of the times has none. It is not read.
    pub(crate) finer: Option<Finer>,
}

/// A role that a column can have.
struct Role<'a> {
    words: &'static str,
    flag: &'static str,
    /// The name that the user gave.
    given: Option<&'a str>,
    common: &'static [&'static str],
}

impl<'a> Role<'a> {
    fn user(options: &'a ReadOptions) -> Role<'a> {
        Role { words: "a user", flag: "--user-column", given: options.user_column.as_deref(), common: USERS }
    }

    fn item(options: &'a ReadOptions) -> Role<'a> {
        Role { words: "an item", flag: "--item-column", given: options.item_column.as_deref(), common: ITEMS }
    }

    /// `None` if the user says that no column is the time.
    fn time(options: &'a ReadOptions) -> Option<Role<'a>> {
        let given = match &options.time_column {
            TimeColumn::FileOrder => return None,
            TimeColumn::Detect => None,
            TimeColumn::Named(name) => Some(name.as_str()),
        };
        Some(Role { words: "a time", flag: "--time-column", given, common: TIMES })
    }

    /// The place of a column's name among the common ones. Earlier ones win.
    fn rank(&self, name: &str) -> Option<usize> {
        let name = plain(name);
        self.common.iter().position(|common| **common == *name)
    }

    /// The column of this role, or `None` if no name is known.
    fn find(&self, names: &[String]) -> Result<Option<usize>, ColumnFault> {
        self.find_among(names, |_| true)
    }

    /// The column of this role. A common name counts only if `may_be` says so of its column.
    fn find_among(
        &self,
        names: &[String],
        mut may_be: impl FnMut(usize) -> bool,
    ) -> Result<Option<usize>, ColumnFault> {
        if let Some(given) = self.given {
            return named(names, given, self.flag).map(Some);
        }
        let ranked = names.iter().enumerate().filter_map(|(column, name)| Some((self.rank(name)?, column)));
        let ranked: Vec<(usize, usize)> = ranked.filter(|(_, column)| may_be(*column)).collect();
        let Some(best) = ranked.iter().map(|(rank, _)| *rank).min() else { return Ok(None) };
        let found: Vec<usize> = ranked.iter().filter(|(rank, _)| *rank == best).map(|(_, column)| *column).collect();
        one_of(names, &found, self.flag).map(Some)
    }

    fn find_needed(&self, names: &[String]) -> Result<usize, ColumnFault> {
        self.find(names)?.ok_or_else(|| ColumnFault::None {
            role: self.words,
            flag: self.flag,
            found: names.join(", "),
        })
    }
}

/// The column with a name that a flag gives. If no name is exactly this one, case does not count, and then neither do blanks and
/// punctuation.
fn named(names: &[String], given: &str, flag: &'static str) -> Result<usize, ColumnFault> {
    let plain_given = plain(given);
    let matches: [&dyn Fn(&String) -> bool; 3] =
        [&|name| name == given, &|name| name.to_lowercase() == given.to_lowercase(), &|name| {
            !plain_given.is_empty() && plain(name) == plain_given
        }];
    for is_match in matches {
        let found: Vec<usize> = (0..names.len()).filter(|column| is_match(&names[*column])).collect();
        if !found.is_empty() {
            return one_of(names, &found, flag);
        }
    }
    Err(ColumnFault::Unknown { flag, name: given.to_owned(), found: names.join(", ") })
}

/// The only column of those that were found.
fn one_of(names: &[String], found: &[usize], flag: &'static str) -> Result<usize, ColumnFault> {
    match found {
        [one] => Ok(*one),
        [first, second, ..] if names[*first] == names[*second] => Err(ColumnFault::Duplicate(names[*first].clone())),
        several => Err(ColumnFault::Ambiguous {
            flag,
            found: several.iter().map(|column| format!("`{}`", names[*column])).collect::<Vec<_>>().join(" and "),
        }),
    }
}

/// Whether two names differ in nothing but case, blanks and punctuation.
pub(crate) fn is_same(name: &str, other: &str) -> bool {
    name == other || (!plain(name).is_empty() && plain(name) == plain(other))
}

impl Roles {
    /// Whether a column is read.
    pub(crate) fn uses(&self, column: usize) -> bool {
        [self.user, self.item].contains(&column)
            || self.time == Some(column)
            || self.tests.iter().any(|test| test.column == column)
    }

    /// Whether a header has a user and an item, so that its separator is the right one.
    pub(crate) fn are_known(names: &[String], options: &ReadOptions) -> bool {
        [Role::user(options), Role::item(options)]
            .iter()
            .all(|role| !matches!(role.find(names), Ok(None) | Err(ColumnFault::Unknown { .. })))
    }

    /// The column with the best common name of items, if one has any.
    pub(crate) fn item_column(names: &[String]) -> Option<usize> {
        Role::item(&ReadOptions::default()).find(names).ok().flatten()
    }

    /// Whether the first word of a line is a common name of users.
    pub(crate) fn is_user_name(word: &str) -> bool {
        USERS.contains(&&*plain(word))
    }

    /// Whether a header's fields at the user's and the item's place are common names of users and items.
    pub(crate) fn are_common(fields: &[String], names: &[String], options: &ReadOptions) -> bool {
        let (user, item) = (Role::user(options), Role::item(options));
        let is_common = |role: &Role<'_>| {
            let column = role.find(names).ok().flatten();
            column.and_then(|column| fields.get(column)).is_some_and(|field| role.rank(field).is_some())
        };
        is_common(&user) && is_common(&item)
    }

    /// The names that flags give and that no column has.
    pub(crate) fn missing(names: &[String], options: &ReadOptions) -> Vec<(&'static str, String)> {
        let roles = [Some(Role::user(options)), Some(Role::item(options)), Role::time(options)];
        let roles = roles.into_iter().flatten().filter_map(|role| Some((role.flag, role.given?)));
        let conditions = options.conditions.iter().map(|condition| ("--where", condition.column.as_str()));
        let missing = roles
            .chain(conditions)
            .filter(|(flag, given)| matches!(named(names, given, flag), Err(ColumnFault::Unknown { .. })));
        let mut missing: Vec<(&'static str, String)> = missing.map(|(flag, name)| (flag, name.to_owned())).collect();
        // One column may have several conditions.
        let mut seen = Vec::new();
        missing.retain(|(_, name)| {
            !seen.contains(name) && {
                seen.push(name.clone());
                true
            }
        });
        missing
    }

    /// Checks a key of JSON lines that no earlier line has. With it the roles could be others.
    pub(crate) fn check_late(
        &self,
        names: &[String],
        options: &ReadOptions,
        line: u64,
        key: &str,
        value: &str,
    ) -> Result<(), ColumnFault> {
        let roles = [
            (Some(Role::user(options)), Some(self.user)),
            (Some(Role::item(options)), Some(self.item)),
            (Role::time(options), self.time),
        ];
        for (role, read) in roles {
            let Some(role) = role.filter(|role| role.given.is_none()) else { continue };
            let rank = role.rank(key);
            let late = match read {
                Some(read) => rank.is_some_and(|rank| role.rank(&names[read]).is_none_or(|read| rank <= read)),
                None => rank.is_some() || is_late_time(key, value),
            };
            if late {
                let read = read.map(|read| names[read].as_str().into());
                return Err(ColumnFault::LateKey { line, key: key.into(), role: role.words, flag: role.flag, read });
            }
        }
        Ok(())
    }

    /// Finds the columns. `sampled` returns what is known of a column's values.
    ///
    /// # Errors
    /// [`ColumnFault`]: a column is missing, or one that looks like a time is not used.
    pub(crate) fn find(
        names: &[String],
        options: &ReadOptions,
        mut sampled: impl FnMut(usize) -> Sampled,
    ) -> Result<Roles, ColumnFault> {
        let user = Role::user(options).find_needed(names)?;
        let item = Role::item(options).find_needed(names)?;
        let role = Role::time(options);
        let time = match &role {
            Some(role) => role.find_among(names, |column| sampled(column).may_be_time())?,
            None => None,
        };
        if user == item || time == Some(user) || time == Some(item) {
            let twice = if user == item { user } else { time.unwrap_or(user) };
            return Err(ColumnFault::Twice(names[twice].clone()));
        }
        if time.is_none() && options.time_format.is_some() {
            return Err(ColumnFault::NoTime(names.join(", ")));
        }
        let mut finer = None;
        if role.is_some_and(|role| role.given.is_none()) && options.time_format.is_none() {
            let columns = (0..names.len()).filter(|column| ![user, item].contains(column)).collect();
            let others = Others { names, columns, sampled };
            match time {
                Some(time) => finer = others.check_timed(time)?,
                None => others.check_untimed()?,
            }
        }
        let mut tests: Vec<ColumnTest> = Vec::new();
        let mut conditions = options.conditions.clone();
        while let Some(first) = conditions.first() {
            let column = named(names, &first.column, "--where")?;
            let of_column = |given: &str| named(names, given, "--where") == Ok(column);
            let (these, others) = conditions.into_iter().partition(|condition| of_column(&condition.column));
            tests.push(ColumnTest::new(column, these));
            conditions = others;
        }
        Ok(Roles { user, item, time, time_format: options.time_format.clone(), tests, finer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(header: &str, options: &ReadOptions) -> Result<(usize, usize, Option<usize>), ColumnFault> {
        let names: Vec<String> = header.split(',').map(str::to_owned).collect();
        let sampled = |column: usize| {
            let value = if names[column].contains("zeit") { "2023-11-14" } else { "x" };
            Sampled::Texts(vec![value.to_owned()])
        };
        Roles::find(&names, options, sampled).map(|roles| (roles.user, roles.item, roles.time))
    }

    #[test]
    fn common_names_are_known_in_every_spelling() {
        for header in [
            "user,item,timestamp",
            "user_id,item_id,ts",
            "userId,movieId,timestamp",
            "USER ID,Product-ID,Event Time",
            "visitor,sku,date",
            "customer_id,article_id,t_dat",
            "reviewerID,asin,unixReviewTime",
            "session_id,itemid,created_at",
            "CustomerID,StockCode,InvoiceDate",
        ] {
            assert_eq!(roles(header, &ReadOptions::default()), Ok((0, 1, Some(2))), "{header}");
        }
        // A user is known better than a session, and an event's time better than a date.
        let header = "event_time,date,product_id,user_session,user_id";
        assert_eq!(roles(header, &ReadOptions::default()), Ok((4, 2, Some(0))));
    }

    #[test]
    fn flags_name_other_columns() {
        let named = ReadOptions {
            user_column: Some("who".to_owned()),
            item_column: Some("What".to_owned()),
            time_column: TimeColumn::Named("zeit".to_owned()),
            ..ReadOptions::default()
        };
        assert_eq!(roles("zeit,who,what", &named), Ok((1, 2, Some(0))));
        let unknown = ReadOptions { user_column: Some("whom".to_owned()), ..named };
        assert!(matches!(roles("zeit,who,what", &unknown), Err(ColumnFault::Unknown { flag: "--user-column", .. })));
    }

    #[test]
    fn what_is_missing_or_doubtful_is_an_error() {
        let default = ReadOptions::default();
        assert!(matches!(roles("who,item", &default), Err(ColumnFault::None { flag: "--user-column", .. })));
        assert!(matches!(roles("user_id,UserID,item", &default), Err(ColumnFault::Ambiguous { .. })));
        assert!(matches!(roles("user,item,zeit", &default), Err(ColumnFault::UnusedTime { .. })));
        let file_order = ReadOptions { time_column: TimeColumn::FileOrder, ..ReadOptions::default() };
        assert_eq!(roles("user,item,zeit", &file_order), Ok((0, 1, None)));
        let same = ReadOptions { item_column: Some("user".to_owned()), ..ReadOptions::default() };
        assert_eq!(roles("user,item", &same), Err(ColumnFault::Twice("user".to_owned())));
    }

    #[test]
    fn a_flag_names_a_column_in_every_spelling_but_no_duplicate() {
        let named = |header: &str, user: &str| {
            roles(header, &ReadOptions { user_column: Some(user.to_owned()), ..ReadOptions::default() })
        };
        assert_eq!(named("item,user_x,user x", "user x"), Ok((2, 0, None)));
        assert_eq!(named("item,User_X,a", "user_x"), Ok((1, 0, None)));
        assert_eq!(named("item,user_x,a", "User X"), Ok((1, 0, None)));
        assert!(matches!(named("item,user_x,user-x", "User X"), Err(ColumnFault::Ambiguous { .. })));
        assert_eq!(named("item,who,who", "who"), Err(ColumnFault::Duplicate("who".to_owned())));
        assert_eq!(roles("item,user,user", &ReadOptions::default()), Err(ColumnFault::Duplicate("user".to_owned())));
        assert!(matches!(named("item,--", "__"), Err(ColumnFault::Unknown { .. })));
    }

    #[test]
    fn a_late_key_with_a_better_name_is_an_error() {
        let names: Vec<String> = ["session_id", "item"].map(str::to_owned).to_vec();
        let default = ReadOptions::default();
        let found = Roles::find(&names, &default, |_| Sampled::Texts(Vec::new())).unwrap();
        let late =
            |options: &ReadOptions, key: &str, value: &str| match found.check_late(&names, options, 7, key, value) {
                Err(ColumnFault::LateKey { flag, .. }) => Some(flag),
                other => {
                    assert_eq!(other, Ok(()));
                    None
                }
            };
        assert_eq!(late(&default, "userId", "u"), Some("--user-column"));
        assert_eq!(late(&default, "ts", "7"), Some("--time-column"));
        assert_eq!(late(&default, "when", "2023-11-14"), Some("--time-column"));
        assert_eq!(late(&default, "seen_at", "1700000000"), Some("--time-column"));
        assert_eq!(late(&default, "phone", "1700000000"), None);
        assert_eq!(late(&default, "product_id", "7"), None);
        let given = ReadOptions {
            user_column: Some("session_id".to_owned()),
            time_column: TimeColumn::FileOrder,
            ..ReadOptions::default()
        };
        assert_eq!([late(&given, "userId", "u"), late(&given, "ts", "7")], [None; 2]);
    }
}
