//! Which columns are the user, the item and the time.

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
}

/// Common names of users, without blanks, signs and capitals. Earlier ones win.
const USERS: &[&str] = &[
    "user",
    "userid",
    "useridx",
    "uid",
    "userkey",
    "usernumber",
    "customer",
    "customerid",
    "customerkey",
    "visitor",
    "visitorid",
    "fullvisitorid",
    "userpseudoid",
    "member",
    "memberid",
    "account",
    "accountid",
    "client",
    "clientid",
    "buyer",
    "buyerid",
    "shopper",
    "shopperid",
    "reviewerid",
    "reviewer",
    "profileid",
    "personid",
    "person",
    "subscriberid",
    "playerid",
    "anonymousid",
    "deviceid",
    "cookieid",
    "username",
    "author",
    "authorid",
    "steamid",
    "household",
    "householdkey",
    "householdid",
    "session",
    "sessionid",
    "sid",
    "usersession",
];

/// Common names of items, likewise.
const ITEMS: &[&str] = &[
    "item",
    "itemid",
    "iid",
    "itemidx",
    "itemkey",
    "itemsku",
    "product",
    "productid",
    "productkey",
    "productcode",
    "productsku",
    "sku",
    "skuid",
    "asin",
    "parentasin",
    "article",
    "articleid",
    "stockcode",
    "movie",
    "movieid",
    "film",
    "filmid",
    "book",
    "bookid",
    "isbn",
    "track",
    "trackid",
    "song",
    "songid",
    "video",
    "videoid",
    "news",
    "newsid",
    "business",
    "businessid",
    "gmapid",
    "game",
    "gameid",
    "appid",
    "app",
    "anime",
    "animeid",
    "recipe",
    "recipeid",
    "course",
    "courseid",
    "poi",
    "poiid",
    "venue",
    "venueid",
    "place",
    "placeid",
    "restaurant",
    "restaurantid",
    "hotel",
    "hotelid",
    "listing",
    "listingid",
    "offer",
    "offerid",
    "goods",
    "goodsid",
    "gid",
    "content",
    "contentid",
    "document",
    "documentid",
    "doc",
    "docid",
    "post",
    "postid",
    "page",
    "pageid",
    "photo",
    "photoid",
    "artist",
    "artistid",
    "ad",
    "adid",
    "merchandiseid",
    "itemname",
    "productname",
    "movietitle",
];

/// Common names of times, likewise.
const TIMES: &[&str] = &[
    "timestamp",
    "eventtimestamp",
    "ts",
    "eventts",
    "time",
    "eventtime",
    "unixtime",
    "epoch",
    "datetime",
    "eventdatetime",
    "unixreviewtime",
    "timestampms",
    "timestampmicros",
    "timems",
    "eventtimems",
    "createdat",
    "createdtime",
    "created",
    "creationtime",
    "createtime",
    "creationdate",
    "createdate",
    "createddate",
    "occurredat",
    "eventat",
    "servertime",
    "actiontime",
    "clicktime",
    "viewtime",
    "visittime",
    "playedat",
    "listenedat",
    "watchedat",
    "viewedat",
    "purchasedat",
    "purchasetime",
    "ordertime",
    "orderedat",
    "orderdate",
    "purchasedate",
    "transactiontime",
    "transactiondate",
    "invoicedate",
    "date",
    "eventdate",
    "day",
    "datestr",
    "tdat",
    "ratedat",
    "ratingtime",
    "reviewtime",
    "reviewdate",
    "submittedat",
    "postedat",
    "timecreated",
    "updatedat",
];

/// The name of a column without what spellings differ in.
fn plain(name: &str) -> String {
    name.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect()
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

    /// The column of this role, or `None` if no name is known.
    fn find(&self, names: &[String]) -> Result<Option<usize>, ColumnFault> {
        if let Some(given) = self.given {
            return named(names, given, self.flag).map(Some);
        }
        let rank = |name: &String| self.common.iter().position(|common| *common == plain(name));
        let Some(best) = names.iter().filter_map(rank).min() else { return Ok(None) };
        let found: Vec<usize> = (0..names.len()).filter(|column| rank(&names[*column]) == Some(best)).collect();
        match found.as_slice() {
            [one] => Ok(Some(*one)),
            several => Err(ColumnFault::Ambiguous {
                flag: self.flag,
                found: several.iter().map(|column| format!("`{}`", names[*column])).collect::<Vec<_>>().join(" and "),
            }),
        }
    }

    fn find_needed(&self, names: &[String]) -> Result<usize, ColumnFault> {
        self.find(names)?.ok_or_else(|| ColumnFault::None {
            role: self.words,
            flag: self.flag,
            found: names.join(", "),
        })
    }
}

/// The column with a name that a flag gives. Capitals count only if two columns differ in nothing else.
fn named(names: &[String], given: &str, flag: &'static str) -> Result<usize, ColumnFault> {
    let exact = names.iter().position(|name| name == given);
    let similar = || names.iter().position(|name| name.eq_ignore_ascii_case(given));
    exact.or_else(similar).ok_or_else(|| ColumnFault::Unknown { flag, name: given.to_owned(), found: names.join(", ") })
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

    /// Finds the columns.
    ///
    /// `time_value` returns a value of a column whose values all look like times.
    ///
    /// # Errors
    /// [`ColumnFault`]: a column is missing, or one that looks like a time is not used.
    pub(crate) fn find(
        names: &[String],
        options: &ReadOptions,
        mut time_value: impl FnMut(usize) -> Option<String>,
    ) -> Result<Roles, ColumnFault> {
        let user = Role::user(options).find_needed(names)?;
        let item = Role::item(options).find_needed(names)?;
        let role = Role::time(options);
        let time = match &role {
            Some(role) => role.find(names)?,
            None => None,
        };
        if user == item || time == Some(user) || time == Some(item) {
            let twice = if user == item { user } else { time.unwrap_or(user) };
            return Err(ColumnFault::Twice(names[twice].clone()));
        }
        if time.is_none() && options.time_format.is_some() {
            return Err(ColumnFault::NoTime(names.join(", ")));
        }
        if role.is_some() && time.is_none() {
            let others = (0..names.len()).filter(|column| ![user, item].contains(column));
            for column in others {
                if let Some(value) = time_value(column) {
                    return Err(ColumnFault::UnusedTime { name: names[column].clone(), value });
                }
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
        Ok(Roles { user, item, time, time_format: options.time_format.clone(), tests })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(header: &str, options: &ReadOptions) -> Result<(usize, usize, Option<usize>), ColumnFault> {
        let names: Vec<String> = header.split(',').map(str::to_owned).collect();
        let time_like = |column: usize| names[column].contains("zeit").then(|| "2023-11-14".to_owned());
        Roles::find(&names, options, time_like).map(|roles| (roles.user, roles.item, roles.time))
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
}
