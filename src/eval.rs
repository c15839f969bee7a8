mod json;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::Failure;
use super::exit::say;
use super::numbers::share;
use super::target::TargetArgs;
use super::{interactions, model, progress};
use canet_data::{Case, Split};
use canet_domain::RouteSpace;
use canet_evaluation::{Comparison, Contender, Contest, Metric, Ranker, Run, compare, evaluate};

/// Ranks the whole catalogue for every user and compares the router with everything it has to be better than.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Directory of the model, which holds its versions.
    #[arg(long, env = "CANET_MODEL", value_name = "DIR")]
    model: PathBuf,
    /// Version to evaluate instead of the highest.
    #[arg(long, env = "CANET_VERSION", value_name = "N")]
    version: Option<u64>,
    /// Interactions, in any form that `train` takes; items that the model does not know are dropped.
    #[arg(long, env = "CANET_DATA", value_name = "PATH")]
    data: PathBuf,
    /// What to run, with commas: auto, full, smallest, random, random-matched, popularity, markov, statics (each route
    /// for everybody), or a route's name [default: all of them].
    #[arg(long, env = "CANET_ROUTE", value_name = "NAME", value_delimiter = ',')]
    route: Vec<String>,
    /// Which interaction of each user is to be found: the last but one, or the last.
    #[arg(long, env = "CANET_SPLIT", value_enum, default_value = "test")]
    split: SplitArg,
    /// Rank each user's last N interactions up to the split's own, each from everything before it as a request would
    /// bring it; a user is still one observation, the mean of theirs. A training leaves out the last two interactions
    /// of a user: with N above 1 the validation's is scored too, with N above 2 (validation: 1) what a model trained
    /// on these data has learnt from, so only a model trained on less data is tested fairly.
    #[arg(long, env = "CANET_HOLDOUT", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    holdout: u32,
    /// Share of the full model's FLOPs that the router may spend, where the checkpoint is calibrated for budgets.
    #[arg(long, env = "CANET_FLOPS_BUDGET", value_name = "SHARE", default_value_t = 0.30, value_parser = share)]
    flops_budget: f64,
    /// Two runs to compare over the same users, instead of auto with every other; may be given several times.
    #[arg(long, env = "CANET_COMPARE", value_name = "A,B", value_parser = pair)]
    compare: Vec<(String, String)>,
    /// What runs are compared by: ndcg@5, hr@10, mrr@20, mrr, ...
    #[arg(long, env = "CANET_METRIC", value_name = "NAME", default_value = "ndcg@10", value_parser = metric)]
    metric: Metric,
    #[command(flatten)]
    target: TargetArgs,
    /// Histories in one batch.
    #[arg(long, env = "CANET_BATCH_SIZE", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
    /// Seed of the random runs and of the bootstrap.
    #[arg(long, env = "CANET_SEED", default_value_t = 0)]
    seed: u64,
    /// Leave out lines that cannot be read, and say how many.
    #[arg(long, env = "CANET_SKIP_BAD_LINES", value_parser = BoolishValueParser::new())]
    skip_bad_lines: bool,
    /// Print one JSON document instead of tables.
    #[arg(long, env = "CANET_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SplitArg {
    Validation,
    Test,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once(',') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(',') => Ok((a.to_owned(), b.to_owned())),
        _ => Err("give two runs with a comma between, as auto,full".to_owned()),
    }
}

fn metric(text: &str) -> Result<Metric, String> {
    Metric::all().find(|metric| metric.to_string() == text).ok_or_else(|| {
        let known: Vec<String> = Metric::all().map(|metric| metric.to_string()).collect();
        format!("use one of {}", known.join(", "))
    })
}

/// What an evaluation found; the tables and the JSON document are two views of it.
struct Report<'a> {
    split: &'static str,
    /// Positions a user that are scored, at most.
    holdout: u32,
    /// What a reader has to know of the positions.
    warning: Option<&'static str>,
    /// Targets in the user's own history, which nothing can rank.
    repeated: usize,
    /// What the comparisons are by.
    metric: Metric,
    space: &'a RouteSpace,
    /// At least one.
    runs: Vec<Run>,
    comparisons: Vec<Comparison>,
}

/// Evaluates and prints.
pub(crate) fn run(args: EvalArgs) -> Result<(), Failure> {
    let model = model::open(&args.model, args.version, &*args.target.open()?)?;
    let space = model.space();
    let contenders = contenders(&args, space)?;
    let dataset = interactions::read_to_measure(&args.data, args.skip_bad_lines, &model)?;
    if model.manifest().calibration.is_none() {
        say(format_args!("the checkpoint has no calibration, so --flops-budget changes nothing"));
    }
    let (split, split_name) = match args.split {
        SplitArg::Validation => (Split::Validation, "validation"),
        SplitArg::Test => (Split::Test, "test"),
    };
    let warning = warning(split, args.holdout, interactions::all_trained_on(&model, &dataset));
    if let Some(warning) = warning {
        say(warning);
    }
    let cases = dataset.held_out(split, args.holdout as usize);
    if cases.is_empty() {
        return Err(interactions::no_cases(&args.data));
    }

    // Only all routes for all users are a number that is known beforehand.
    let bar = progress::rankings(contenders.contains(&Contender::Statics).then(|| cases.len() * space.len()))?;
    let mut ranker = Ranker::new(&model, &cases, args.batch_size as usize)
        .map_err(Failure::data)?
        .on_progress(|ranked| bar.inc(ranked as u64));
    let bias = model.bias(args.flops_budget);
    let contest = Contest { dataset: &dataset, bias: &bias, seed: args.seed };
    let runs = evaluate(&mut ranker, &contest, &contenders).map_err(Failure::unavailable)?;
    bar.finish_and_clear();

    let pairs = pairs(&args, &runs)?;
    let comparisons = compare(&pairs, args.metric, args.seed);
    let report = Report {
        split: split_name,
        holdout: args.holdout,
        warning,
        repeated: Case::repeating(&cases),
        metric: args.metric,
        space,
        runs,
        comparisons,
    };
    let text = if args.json { json::document(&report).map_err(Failure::data)? } else { table::tables(&report) };
    io::stdout().write_all(text.as_bytes()).map_err(Failure::output)
}

/// What is wrong with positions that a training does not leave out.
fn warning(split: Split, holdout: u32, all_learnt: bool) -> Option<&'static str> {
    match (split, holdout) {
        _ if all_learnt => Some(
            "this model has learnt every interaction of these data (--newest-epochs), those that are scored here too: what \
             it was worth before stands in its checkpoint (canet inspect)",
        ),
        (Split::Test, 1) => None,
        (Split::Validation, 1) | (Split::Test, 2) => Some(
            "the last position but one is what a training chooses its weights and its budgets by, what its router learns \
             from, and what its weights may end by learning: a model made from these data has an advantage there",
        ),
        _ => Some(
            "a model made from these data has learnt from positions that are scored here, and so have popularity and \
             markov: read it for models that were trained on less",
        ),
    }
}

/// What to run: what `--route` says, or everything, and what `--compare` needs besides.
fn contenders(args: &EvalArgs, space: &RouteSpace) -> Result<Vec<Contender>, Failure> {
    let known = || Contender::NAMED.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let parse = |name: &String| {
        Contender::parse(space, name).ok_or_else(|| {
            Failure::Usage(format!(
                "{name:?} is nothing to run: use {}, or a route as {}",
                known(),
                space.name(space.full())
            ))
        })
    };
    let mut contenders = match args.route.as_slice() {
        [] => Contender::NAMED.iter().map(|(_, contender)| *contender).collect(),
        names => names.iter().map(parse).collect::<Result<Vec<_>, _>>()?,
    };
    for name in args.compare.iter().flat_map(|(a, b)| [a, b]) {
        match parse(name)? {
            Contender::Statics => return Err(Failure::usage("--compare takes one route's name, not statics")),
            contender => contenders.push(contender),
        }
    }
    Ok(contenders)
}

/// The pairs of `--compare`, or auto with every other run.
fn pairs<'r>(args: &EvalArgs, runs: &'r [Run]) -> Result<Vec<(&'r Run, &'r Run)>, Failure> {
    let find = |name: &str| runs.iter().find(|run| run.name == name);
    if args.compare.is_empty() {
        let others = |auto| runs.iter().filter(|run| run.name != "auto").map(move |run| (auto, run));
        return Ok(find("auto").map(|auto| others(auto).collect()).unwrap_or_default());
    }
    let found = |name: &str| find(name).ok_or_else(|| Failure::Usage(format!("--compare: {name:?} was not run")));
    args.compare.iter().map(|(a, b)| Ok((found(a)?, found(b)?))).collect()
}
