//! `canet data`: what canet understands of interaction files.

mod json;
mod table;

use std::io::{self, Write};

use clap::Args;
use clap::builder::BoolishValueParser;

pub(crate) use self::table::lines;
use super::Failure;
use super::interactions::DataArgs;
use super::printable::printable_lines;

/// Checks interaction files without training: form, columns, time span, users, items, interactions, repeats, duplicates and bad lines
#[derive(Debug, Args)]
pub(crate) struct CheckDataArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Print one JSON document instead of a table
    #[arg(long, env = "CANET_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

/// Prints the summary. Data that are too few to train on are an error.
pub(crate) fn run(args: CheckDataArgs) -> Result<(), Failure> {
    let dataset = args.data.read()?;
    let text = match args.json {
        true => json::document(&dataset).map_err(Failure::data)?,
        false => printable_lines(&lines(&dataset).map(|line| line + "\n").collect::<String>()),
    };
    io::stdout().write_all(text.as_bytes()).map_err(Failure::output)?;
    dataset.check_size().map_err(Failure::data)?;
    dataset.check_lengths().map_err(Failure::data)
}
