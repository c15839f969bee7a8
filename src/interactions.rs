//! Interaction data as several commands read it.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use canet_data::{
    BadLinePolicy, Condition, Dataset, Duplicates, OrderedDataset, ReadOptions, TimeColumn, TimeFormat, TimedDataset,
};
use canet_model::Model;

use crate::Failure;
use crate::exit::say;
use crate::memory;
use crate::numbers::share_or_zero;

/// The data of a command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct DataArgs {
    /// Interactions: CSV, RecBole's .inter, JSON lines, Parquet (a file or a directory), MovieLens' files, or lines of ids,
    /// each perhaps packed by gzip or zstd. `-` is standard input. Several files are read as one. A command with --model drops
    /// items that the model does not know
    #[arg(long, env = "CANET_DATA", value_name = "PATH", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
}

/// How to read the data.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct FormatArgs {
    /// Column of users [default: the column with a common name, such as user_id, customer or session_id]
    #[arg(long, env = "CANET_USER_COLUMN", value_name = "NAME")]
    user_column: Option<String>,
    /// Column of items [default: the column with a common name, such as item_id, movieId, product_id, sku or asin]
    #[arg(long, env = "CANET_ITEM_COLUMN", value_name = "NAME")]
    item_column: Option<String>,
    /// Column of times, or `none` if the order of the lines is the order of time [default: the column with a common name,
    /// such as timestamp, ts, date or created_at]
    ///
    /// Times are ISO 8601 dates or date-times (in UTC, if they name no zone), or seconds, milliseconds, microseconds or
    /// nanoseconds since 1970. Other numbers are sorted as numbers.
    #[arg(long, env = "CANET_TIME_COLUMN", value_name = "NAME")]
    time_column: Option<String>,
    /// Format of the times, as strftime writes it, such as `%m/%d/%Y %H:%M` or `%d.%m.%Y`
    ///
    /// Times without a zone are in UTC. Parquet's own dates and timestamps need no format, and are read without it.
    #[arg(long, env = "CANET_TIME_FORMAT", value_name = "FORMAT")]
    time_format: Option<TimeFormat>,
    /// Names of all columns of a table without a header, for example user,item,timestamp
    #[arg(long, env = "CANET_COLUMNS", value_name = "NAMES", value_delimiter = ',')]
    columns: Option<Vec<String>>,
    /// Use only rows that meet a condition, such as `event=purchase`, `event!=view` or `rating>=4`. May be given several times
    ///
    /// Conditions with `=` on one column are alternatives. All others must be met. `>=`, `<=`, `>` and `<` compare with a number or
    /// an ISO 8601 date, and a line with another value is bad unless the value is empty.
    #[arg(long = "where", env = "CANET_WHERE", value_name = "CONDITION")]
    conditions: Vec<Condition>,
    /// Drop interactions with the same user, item and time as an earlier one, before --min-interactions counts
    #[arg(long, env = "CANET_DROP_DUPLICATES", value_parser = BoolishValueParser::new())]
    drop_duplicates: bool,
    /// Drop users and items with fewer interactions, until all have as many (the N-core). 0 keeps all
    #[arg(long, env = "CANET_MIN_INTERACTIONS", value_name = "N", default_value_t = 0)]
    min_interactions: u32,
    /// Skip lines that cannot be read, and report their number
    #[arg(long, env = "CANET_SKIP_BAD_LINES", value_parser = BoolishValueParser::new())]
    skip_bad_lines: bool,
    /// Largest share of a file's lines that --skip-bad-lines may skip
    #[arg(
        long,
        env = "CANET_MAX_BAD_SHARE",
        value_name = "SHARE",
        requires = "skip_bad_lines",
        default_value_t = BadLinePolicy::MAX_SHARE,
        value_parser = share_or_zero
    )]
    max_bad_share: f64,
}

impl FormatArgs {
    pub(crate) fn options(&self) -> ReadOptions {
        ReadOptions {
            bad_lines: match self.skip_bad_lines {
                true => BadLinePolicy::Skip { max_share: self.max_bad_share },
                false => BadLinePolicy::Stop,
            },
            columns: self.columns.clone(),
            user_column: self.user_column.clone(),
            item_column: self.item_column.clone(),
            time_column: match self.time_column.as_deref() {
                None => TimeColumn::Detect,
                Some("none") => TimeColumn::FileOrder,
                Some(name) => TimeColumn::Named(name.to_owned()),
            },
            time_format: self.time_format.clone(),
            conditions: self.conditions.clone(),
            min_interactions: self.min_interactions,
            drop_duplicates: self.drop_duplicates,
            max_bytes: memory::for_interactions(),
        }
    }

    /// Whether a part of the interactions is left out.
    pub(crate) fn selects(&self) -> bool {
        self.min_interactions > 1 || !self.conditions.is_empty()
    }

    /// Reads data with the order in which its items appear.
    pub(crate) fn read_ordered(&self, paths: &[PathBuf]) -> Result<OrderedDataset, Failure> {
        let ordered = Dataset::read_all_ordered(paths, &self.options()).map_err(Failure::data)?;
        remarks(&ordered.dataset);
        Ok(ordered)
    }

    /// Reads data with a model's items.
    pub(crate) fn read_known(&self, paths: &[PathBuf], model: &Model) -> Result<Dataset, Failure> {
        let dataset = Dataset::read_all_known(paths, model.catalogue(), &self.options()).map_err(Failure::data)?;
        remarks(&dataset);
        if dataset.unknown > 0 {
            say(format_args!("interactions dropped because the model does not know their items: {}", dataset.unknown));
        }
        Ok(dataset)
    }
}

impl DataArgs {
    /// Reads the data.
    pub(crate) fn read(&self) -> Result<Dataset, Failure> {
        let dataset = Dataset::read_all(&self.data, &self.format.options()).map_err(Failure::data)?;
        remarks(&dataset);
        Ok(dataset)
    }

    /// Reads the data with the times of the interactions.
    pub(crate) fn read_timed(&self) -> Result<TimedDataset, Failure> {
        let timed = Dataset::read_all_timed(&self.data, &self.format.options()).map_err(Failure::data)?;
        remarks(&timed.dataset);
        Ok(timed)
    }

    /// Reads the data with a model's items.
    pub(crate) fn read_known(&self, model: &Model) -> Result<Dataset, Failure> {
        self.format.read_known(&self.data, model)
    }

    /// Reads data to evaluate a model on, and remarks on their relation to the training data.
    pub(crate) fn read_to_measure(&self, model: &Model) -> Result<Dataset, Failure> {
        let dataset = self.read_known(model)?;
        remark_on_origin(model, &dataset);
        Ok(dataset)
    }

    /// The data have no user to evaluate.
    pub(crate) fn no_user(&self) -> Failure {
        let paths: Vec<String> = self.data.iter().map(|path| path.display().to_string()).collect();
        Failure::Data(format!("{}: no user has the three interactions that an evaluation needs", paths.join(", ")))
    }
}

/// Whether the dataset has other interactions than those that the model was trained on, from the same file.
pub(crate) fn is_selection(model: &Model, dataset: &Dataset) -> bool {
    !is_origin(model, dataset) && dataset.sha256 == model.manifest().data.sha256
}

/// Prints a remark if the model was trained on other data than these.
pub(crate) fn remark_on_origin(model: &Model, dataset: &Dataset) {
    let name = &model.manifest().data.name;
    match (is_origin(model, dataset), learnt_everything(model)) {
        (true, _) => from_everything(model, dataset).into_iter().for_each(say),
        (false, _) if is_selection(model, dataset) => say(format_args!(
            "the model was made from this file ({name}), but other flags (such as --where or --min-interactions) selected its \
             interactions"
        )),
        (false, false) => say(format_args!("the model was made from other data ({name})")),
        (false, true) => say(format_args!(
            "the model was made from another file ({name}) and has learnt every interaction of it (--newest-epochs): \
             interactions that are in both files do not test the model"
        )),
    }
}

/// Whether the model has learnt every interaction of the dataset, including those that would test it.
pub(crate) fn all_learnt(model: &Model, dataset: &Dataset) -> bool {
    learnt_everything(model) && (is_origin(model, dataset) || is_selection(model, dataset))
}

/// Whether the model was trained on these interactions, in whatever form. Of older models only the file is known.
pub(crate) fn is_origin(model: &Model, dataset: &Dataset) -> bool {
    let origin = &model.manifest().data;
    match &origin.parsed_sha256 {
        Some(parsed) => *parsed == dataset.parsed_sha256,
        None => origin.sha256 == dataset.sha256,
    }
}

/// Whether the model's training ended on the validation and test items too (`train --newest-epochs`).
fn learnt_everything(model: &Model) -> bool {
    model.manifest().training.as_ref().is_some_and(|training| training.everything)
}

/// The remark on a model of these data whose training started from weights that had learnt all of their own.
pub(crate) fn from_everything(model: &Model, dataset: &Dataset) -> Option<&'static str> {
    let started = model.manifest().started_from_everything() && !learnt_everything(model);
    (started && is_origin(model, dataset)).then_some(FROM_EVERYTHING)
}

/// Says that the model's weights may know the targets of its own data.
const FROM_EVERYTHING: &str = "the training of this model started from weights that had learnt every interaction \
     of their data (--newest-epochs), which may be among the targets: its figures may be too good";

/// Prints what was skipped or assumed while reading.
fn remarks(dataset: &Dataset) {
    if dataset.skipped.count > 0 {
        say(format_args!("{}", dataset.skipped));
    }
    if let Some(untimed) = &dataset.untimed {
        say(format_args!("{}: {untimed}", untimed.path.display()));
    }
    if let Some(coarse) = &dataset.coarse {
        say(format_args!("{}: {coarse}", coarse.path.display()));
    }
    if let Duplicates { found: found @ 1.., dropped: false } = dataset.duplicates {
        say(format_args!(
            "interactions with the user, item and time of an earlier one: {found}. If the data hold lines twice, give \
             --drop-duplicates: a copy of a user's last interaction makes the test worthless"
        ));
    }
}
