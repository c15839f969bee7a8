use std::path::Path;

use super::gather::Faults;
use super::lines::Lines;
use super::source::Source;
use super::table::Table;
use super::{DataError, Form};

/// Titles by external id.
pub(crate) type Titles = Vec<(Box<str>, Box<str>)>;

/// Reads the titles of RecBole's `.item` file: the first of the columns `movie_title`, `title` and `name`, with
/// `release_year` in brackets where it is a number (MovieLens has other words there too). A file without such a column has no titles.
pub(crate) fn read(path: &Path, faults: &mut Faults) -> Result<Titles, DataError> {
    let unreadable = |source| DataError::Read { path: path.to_owned(), source };
    let mut lines = Lines::new(Source::open(path).map_err(unreadable)?);
    let mut table = Table::open(&mut lines, Form::RecBole).map_err(unreadable)?;
    let title = ["movie_title", "title", "name"].iter().find_map(|name| table.column(name));
    let (Some(item), Some(title)) = (table.column("item_id"), title) else { return Ok(Titles::new()) };
    let year = table.column("release_year");
    let mut titles = Titles::new();
    while let Some((line, row)) = table.next_row().map_err(unreadable)? {
        let taken = row.and_then(|row| {
            let year = year.map_or(Ok(""), |column| row.text(column))?;
            Ok((row.id(item, "item_id")?, row.text(title)?, year))
        });
        match taken {
            Ok((_, "", _)) => {}
            Ok((item, title, year)) => {
                let title = if year.parse::<u16>().is_ok() { format!("{title} ({year})") } else { title.to_owned() };
                titles.push((item.into(), title.into()));
            }
            Err(fault) => faults.report(path, line, fault)?,
        }
    }
    Ok(titles)
}
