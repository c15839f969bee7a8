mod parquet_file;

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use self::parquet_file::ParquetFile;
use super::exit::say;
use super::interactions::DataArgs;
use super::model::ModelArgs;
use super::numbers::{DEFAULT_BUDGET, share};
use super::seen::SeenArgs;
use super::target::TargetArgs;
use super::{Failure, progress};
use canet_domain::{Flops, Ranked, RequestFlops};
use canet_evaluation::SeenItems;
use canet_ranking::{BatchRanker, OptionsError, RankError, RankingOptions, Recommended, UserItems};

/// Recommends items to every user of a file, without a server. Prints one line of JSON per user, or writes Parquet
///
/// A user's history is all of their interactions. Users are printed in the order of their first interaction. Users
/// without an item that the model knows are left out.
#[derive(Debug, Args)]
pub(crate) struct RankArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Number of items to recommend to each user [default: 10, or all of a smaller catalogue]
    #[arg(long, env = "CANET_K", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    k: Option<u32>,
    /// auto (the router's choice for each user), full, smallest, or a route's name
    #[arg(long, env = "CANET_ROUTE", value_name = "ROUTE", default_value = "auto")]
    route: String,
    /// Share of the full model's FLOPs that the router may spend, if the checkpoint is calibrated for budgets
    #[arg(long, env = "CANET_FLOPS_BUDGET", value_name = "SHARE", default_value_t = DEFAULT_BUDGET, value_parser = share)]
    flops_budget: f64,
    /// Parquet file to write instead of lines on standard output. Its columns are user, items, scores and route
    #[arg(long, env = "CANET_OUT", value_name = "FILE.parquet", value_parser = parquet_file)]
    out: Option<PathBuf>,
    #[command(flatten)]
    seen: SeenArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Number of users in a batch
    #[arg(long, env = "CANET_BATCH_SIZE", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
}

/// A file whose name says that it is Parquet.
fn parquet_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet")) {
        true => Ok(path),
        false => Err("the file is Parquet, so its name ends in .parquet; JSON lines go to standard output".to_owned()),
    }
}

/// One line of the output.
#[derive(Serialize)]
struct Line<'a> {
    user: &'a str,
    /// Best first; fewer than `k` if too few items are left unseen.
    items: Vec<RecommendedItem<'a>>,
    route: &'a str,
}

/// An item in the server's JSON form.
#[derive(Serialize)]
struct RecommendedItem<'a> {
    item: &'a str,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
}

/// Recommends to every user and writes the lines to standard output.
pub(crate) fn run(args: RankArgs) -> Result<(), Failure> {
    let model = args.model.open(&*args.target.open()?)?;
    let (space, catalogue) = (model.space(), model.catalogue());
    let seen = args.seen.rule(model.manifest());
    let options = RankingOptions {
        k: args.k.map_or(10.min(catalogue.len()), |k| k as usize),
        route: &args.route,
        budget: args.flops_budget,
        exclude_seen: seen == SeenItems::Excluded,
        excluded: &[],
        candidates: None,
        index: None,
        filter: None,
    };
    let ranker = BatchRanker::new(&model, options).map_err(|error| wrong_flag(&error))?;
    let routed = ranker.fixed_route().is_none();
    if model.manifest().calibration.is_none() && routed {
        say("the checkpoint has no calibration, so --flops-budget changes nothing");
    }
    let dataset = args.data.read_known(&model)?;
    let mut output = match &args.out {
        Some(path) => Output::Parquet(Box::new(ParquetFile::create(path)?)),
        None => Output::Lines(BufWriter::new(io::stdout().lock())),
    };
    // On a terminal the printed lines show the progress.
    let bar = match args.out.is_none() && io::stdout().is_terminal() {
        true => ProgressBar::hidden(),
        false => progress::rankings(Some(dataset.users.len()))?,
    };
    let batch = ranker.batch_size(args.batch_size as usize);
    let mut total = TotalFlops::default();
    for (users, sequences) in dataset.users.chunks(batch).zip(dataset.sequences.chunks(batch)) {
        let items: Vec<UserItems<'_>> =
            sequences.iter().map(|sequence| UserItems { sequence, excluded: &[], candidates: None }).collect();
        let recommended = ranker.rank(&items).map_err(|error| match error {
            RankError::Forward(error) => Failure::forward(error),
            RankError::User { place, source } => Failure::Data(format!("user {:?}: {source}", users[place])),
        })?;
        for (user, Recommended { items, route, read }) in users.iter().zip(recommended) {
            // `read_known` keeps users with a known item alone, and such a user has a route.
            let Some(route) = route else { continue };
            total.add(model.cost(route, read), routed);
            let item = |Ranked { item, score }: &Ranked| RecommendedItem {
                item: catalogue.id(*item),
                score: *score,
                title: catalogue.title(*item),
            };
            let line = Line { user, items: items.iter().map(item).collect(), route: space.name(route) };
            output.write(&line)?;
        }
        bar.inc(users.len() as u64);
    }
    output.finish()?;
    bar.finish_and_clear();
    let left_out = match dataset.unknown_users {
        0 => String::new(),
        unknown => format!(" ({unknown} left out: the model knows none of their items)"),
    };
    let users = match dataset.users.len() {
        1 => "1 user".to_owned(),
        users => format!("{users} users"),
    };
    say(format_args!(
        "recommended to {users}{left_out}, {:.1} % of the full model's FLOPs saved",
        100.0 * total.saved()
    ));
    Ok(())
}

/// Where the recommendations go.
enum Output {
    /// Standard output, a line of JSON per user.
    Lines(BufWriter<StdoutLock<'static>>),
    Parquet(Box<ParquetFile>),
}

impl Output {
    fn write(&mut self, line: &Line<'_>) -> Result<(), Failure> {
        match self {
            Output::Lines(out) => {
                serde_json::to_writer(&mut *out, line).map_err(Failure::output)?;
                out.write_all(b"\n").map_err(Failure::output)
            }
            Output::Parquet(file) => file.write(line),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Output::Lines(mut out) => out.flush().map_err(Failure::output),
            Output::Parquet(file) => file.finish(),
        }
    }
}

/// The failure for an option, by the name of its flag.
fn wrong_flag(error: &OptionsError) -> Failure {
    Failure::Usage(match error {
        OptionsError::K { k, most } => format!("--k is {k}, but the model knows only {most} items"),
        OptionsError::Route { name, example } => {
            format!("--route {name:?}: use auto, full, smallest or a route's name, as {example}")
        }
        OptionsError::Budget(_) | OptionsError::Filter(_) | OptionsError::NoCatalogueFile => error.to_string(),
    })
}

/// FLOPs over all users.
#[derive(Default)]
struct TotalFlops {
    spent: Flops,
    /// FLOPs that the full model would have spent.
    full: Flops,
}

impl TotalFlops {
    fn add(&mut self, cost: RequestFlops, with_router: bool) {
        self.spent += cost.slice + if with_router { cost.router } else { 0 };
        self.full += cost.full;
    }

    /// Saved share of the full model's FLOPs.
    fn saved(&self) -> f64 {
        1.0 - self.spent as f64 / (self.full as f64).max(1.0)
    }
}
