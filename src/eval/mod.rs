mod answers;
mod json;
mod report;
mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};

use self::report::Report;
use super::exit::say;
use super::interactions::{self, DataArgs};
use super::model::ModelArgs;
use super::model_address::{CacheArgs, ModelAddress};
use super::numbers::{DEFAULT_BUDGET, share};
use super::seen::SeenArgs;
use super::target::TargetArgs;
use super::verdict::{Commands, Words};
use super::{Failure, caveats, progress};
use canet_data::{Case, Dataset, Split};
use canet_domain::RouteSpace;
use canet_evaluation::{
    Baseline, BaselineInputs, EvalRun, Metric, Ranker, VerdictRuns, compare, evaluate, selection_cases,
};
use canet_model::Model;

/// Ranks the whole catalogue for every user and says whether the model and its router are worth serving
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Directory of the model, which holds its versions, or s3://BUCKET/PREFIX
    #[arg(long, env = "CANET_MODEL", value_name = "DIR|S3", required_unless_present = "answers")]
    model: Option<ModelAddress>,
    /// Version of the model [default: the highest]
    #[arg(long, env = "CANET_VERSION", value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Judge logged answers (serve --answer-log) by the interactions of --data instead: a directory or a file. It needs
    /// times in the data and no model
    #[arg(long, env = "CANET_ANSWERS", value_name = "PATH")]
    answers: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Runs to evaluate, separated by commas: auto, full, smallest, random, random-matched, popularity, markov, statics
    /// (one run for each route), or a route's name [default: what the verdict compares, with --verbose or --json all]
    #[arg(long, env = "CANET_ROUTE", value_name = "NAME", value_delimiter = ',')]
    route: Vec<String>,
    /// Which interaction of each user is the target: the last (test) or the last but one (validation)
    #[arg(long, env = "CANET_SPLIT", value_enum, default_value = "test")]
    split: SplitArg,
    /// Number of targets per user: the split's own interaction and the N - 1 before it.
    ///
    /// Each target is ranked from all interactions before it. A user still counts as one observation, with the mean over
    /// their targets. A training leaves out only the last two interactions of each user. So with N above 2 (validation:
    /// above 1) the targets include training data, and the numbers are fair only for a model that was trained on less
    /// data.
    #[arg(long, env = "CANET_HOLDOUT", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    holdout: u32,
    /// Share of the full model's FLOPs that the router may spend, if the checkpoint is calibrated for budgets
    #[arg(long, env = "CANET_FLOPS_BUDGET", value_name = "SHARE", default_value_t = DEFAULT_BUDGET, value_parser = share)]
    flops_budget: f64,
    /// Two runs to compare over the same users; may be given several times [default: auto with every other run]
    #[arg(long, env = "CANET_COMPARE", value_name = "A,B", value_parser = pair)]
    compare: Vec<(String, String)>,
    /// Metric of the comparisons: ndcg@5, hr@10, mrr@20, mrr, ... The default is ndcg@10
    #[arg(long, env = "CANET_METRIC", value_name = "NAME", value_parser = metric)]
    metric: Option<Metric>,
    #[command(flatten)]
    seen: SeenArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Number of histories in a batch
    #[arg(long, env = "CANET_BATCH_SIZE", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
    /// Seed of the random runs and of the bootstrap
    #[arg(long, env = "CANET_SEED", default_value_t = 0)]
    seed: u64,
    /// Print every run and comparison after the verdict
    #[arg(long, env = "CANET_VERBOSE", value_parser = BoolishValueParser::new())]
    verbose: bool,
    /// Print one JSON document instead of text
    #[arg(long, env = "CANET_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

/// The flags about the runs of a model, which mean nothing where answers are judged.
const OF_A_RUN: [&str; 16] = [
    "route",
    "split",
    "holdout",
    "flops_budget",
    "compare",
    "metric",
    "include_seen",
    "batch_size",
    "seed",
    "verbose",
    "version",
    "model_cache",
    "backend",
    "device",
    "precision",
    "threads",
];

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SplitArg {
    Validation,
    Test,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once(',') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(',') => Ok((a.to_owned(), b.to_owned())),
        _ => Err("give two runs separated by a comma, as auto,full".to_owned()),
    }
}

fn metric(text: &str) -> Result<Metric, String> {
    Metric::all().find(|metric| metric.to_string() == text).ok_or_else(|| {
        let known: Vec<String> = Metric::all().map(|metric| metric.to_string()).collect();
        format!("use one of {}", known.join(", "))
    })
}

/// The runs that a verdict compares, besides the best single slice.
const COMPARED: [Baseline; 4] = [Baseline::Auto, Baseline::Full, Baseline::Popularity, Baseline::Markov];

/// The flag of the command line, if there is one, that does not go with `--answers`. Values from the environment are ignored,
/// because they may be there for other commands.
pub(crate) fn conflict(matches: &ArgMatches) -> Option<String> {
    let judged = matches.value_source("answers").is_some();
    let given = |id: &&&str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let id = OF_A_RUN.iter().filter(|_| judged).find(given)?;
    Some(format!(
        "--{} cannot be used with --answers, which judges logged answers and runs no model",
        id.replace('_', "-")
    ))
}

/// Evaluates a model, or logged answers, and prints the report.
pub(crate) fn run(args: EvalArgs) -> Result<(), Failure> {
    let text = match &args.answers {
        Some(answers) => judge_answers(answers, &args)?,
        None => evaluate_model(&args)?,
    };
    io::stdout().write_all(text.as_bytes()).map_err(Failure::output)
}

/// The report about logged answers.
fn judge_answers(answers: &Path, args: &EvalArgs) -> Result<String, Failure> {
    let report = answers::judge(answers, &args.data.read_timed()?)?;
    if args.json { report.document().map_err(Failure::data) } else { Ok(report.text()) }
}

/// The report about a model.
fn evaluate_model(args: &EvalArgs) -> Result<String, Failure> {
    let model = args.model()?.open(&*args.target.open()?)?;
    let space = model.space();
    let baselines = baselines(args, space)?;
    let dataset = args.data.read_to_measure(&model)?;
    if model.manifest().calibration.is_none() {
        say("the checkpoint has no calibration, so --flops-budget changes nothing");
    }
    let (split, split_name) = match args.split {
        SplitArg::Validation => (Split::Validation, "validation"),
        SplitArg::Test => (Split::Test, "test"),
    };
    let warning = warning(split, args.holdout, Learnt::by(&model, &dataset));
    let may_know_targets = warning.is_some_and(|warning| warning != caveats::OTHER_DATA);
    // `read_to_measure` has said the rest.
    if let Some(warning) = warning.filter(|_| may_know_targets) {
        say(warning);
    }
    // `read_to_measure` has said this one.
    let warning = warning.or_else(|| interactions::from_everything(&model, &dataset));
    let cases = dataset.held_out(split, args.holdout as usize);
    if cases.is_empty() {
        return Err(args.data.no_user());
    }
    let seen = args.seen.rule(model.manifest());
    // The single slice is chosen on validation, so only the test split has a verdict.
    let selection = (args.judges() && split == Split::Test).then(|| selection_cases(&dataset));

    let progress = progress::Evaluation::new(rankings(args, &baselines, cases.len(), selection.as_deref(), space))?;
    let ranker = |cases| {
        let ranker = Ranker::new(&model, cases, args.batch_size as usize).map_err(Failure::data)?;
        Ok::<Ranker<'_>, Failure>(ranker.seeing(seen).on_progress(|ranked| progress.ranked(ranked)))
    };
    let mut test = ranker(&cases)?;
    let policy = model.policy(args.flops_budget);
    let inputs = BaselineInputs::new(&dataset, &policy, seen, args.seed);
    let runs = evaluate(&mut test, &inputs, &baselines, |baseline| progress.begins(baseline.name(space)));
    let runs = runs.map_err(Failure::forward)?;
    let verdict = match (&selection, VerdictRuns::among(&runs)) {
        (Some(selection), Some(compared)) => {
            progress.begins("the best single slice");
            let budget = model.manifest().calibration.as_ref().map(|_| args.flops_budget);
            let verdict = compared.judge(&mut test, &mut ranker(selection)?, budget, &policy);
            let verdict = verdict.map_err(Failure::forward)?;
            let words =
                Words::of(verdict, &args.commands(&model, &dataset)?).cut_short(model.manifest().cut_short_after());
            Some(if may_know_targets { words.without_next() } else { words })
        }
        _ => None,
    };
    progress.begins("the comparisons");
    let metric = args.metric.unwrap_or(Metric::Ndcg(10));
    let comparisons = if args.details() { compare(&pairs(args, &runs)?, metric, args.seed) } else { Vec::new() };
    progress.ends();

    let report = Report {
        split: split_name,
        holdout: args.holdout,
        warning,
        repeated: Case::repeating(&cases),
        seen,
        metric,
        space,
        runs,
        comparisons,
        verdict,
    };
    match &report.verdict {
        _ if args.json => json::document(&report).map_err(Failure::data),
        Some(words) if !args.details() => Ok(report.caution() + &words.text()),
        _ => Ok(table::tables(&report)),
    }
}

impl EvalArgs {
    /// Whether the runs are those of a verdict, and not a choice of the user's.
    fn judges(&self) -> bool {
        self.route.is_empty()
    }

    /// Whether tables follow the verdict, or stand alone.
    fn details(&self) -> bool {
        let asks = !self.compare.is_empty() || self.metric.is_some() || matches!(self.split, SplitArg::Validation);
        self.verbose || self.json || asks || !self.judges()
    }

    /// The model, which is given unless answers are judged.
    fn model(&self) -> Result<ModelArgs, Failure> {
        let address = self.model.clone().ok_or_else(|| Failure::Usage("--model is needed".to_owned()))?;
        Ok(ModelArgs::new(address, self.version, self.cache.clone()))
    }

    /// The commands that a verdict may recommend.
    fn commands(&self, model: &Model, dataset: &Dataset) -> Result<Commands, Failure> {
        Ok(Commands {
            model: self.model()?.flags(),
            retrain: None,
            repeats_by_duplicates: dataset.repeats_by_duplicates(),
            overrides_seen: self.seen.overrides(model.manifest()),
        })
    }
}

/// The number of rankings of the runs and of the choice of the single slice, at most.
fn rankings(
    args: &EvalArgs,
    baselines: &[Baseline],
    cases: usize,
    selection: Option<&[Case<'_>]>,
    space: &RouteSpace,
) -> Option<usize> {
    let routes = match baselines.contains(&Baseline::Statics) {
        true => space.len(),
        // The routed model, the full one and the single slice.
        false if args.judges() => 3.min(space.len()),
        false => return None,
    };
    Some(cases * routes + selection.map_or(0, |selection| selection.len() * space.len()))
}

/// What the model has learnt of the data.
#[derive(Clone, Copy)]
enum Learnt {
    /// All interactions.
    Everything,
    /// Another selection of the same file's interactions.
    OtherSelection,
    /// Other data.
    OtherData,
    /// The training part.
    TrainingPart,
}

impl Learnt {
    fn by(model: &Model, dataset: &Dataset) -> Learnt {
        match interactions::all_learnt(model, dataset) {
            true => Learnt::Everything,
            false if interactions::is_selection(model, dataset) => Learnt::OtherSelection,
            false if !interactions::is_origin(model, dataset) => Learnt::OtherData,
            false => Learnt::TrainingPart,
        }
    }
}

/// Says which targets a training on the same data has used.
fn warning(split: Split, holdout: u32, learnt: Learnt) -> Option<&'static str> {
    match (split, holdout) {
        _ if matches!(learnt, Learnt::Everything) => Some(
            "this model has learnt every interaction of these data (--newest-epochs), including the targets. For its \
             metrics before that, see canet inspect",
        ),
        _ if matches!(learnt, Learnt::OtherSelection) => Some(caveats::OTHER_SELECTION),
        (Split::Test, 1) if matches!(learnt, Learnt::OtherData) => Some(caveats::OTHER_DATA),
        (Split::Test, 1) => None,
        (Split::Validation, 1) | (Split::Test, 2) => Some(
            "the targets include validation items, and a training on these data has used those: to select weights, to \
             calibrate budgets, to fit the router and perhaps in its last epochs. Such a model has an advantage here",
        ),
        _ => Some(
            "a model trained on these data has learnt some of the targets, and so have popularity and markov. The numbers \
             are fair only for models that were trained on less data",
        ),
    }
}

/// The runs that `--route` names, or all of them, and those that `--compare` needs besides.
fn baselines(args: &EvalArgs, space: &RouteSpace) -> Result<Vec<Baseline>, Failure> {
    let parse = |name: &String| {
        Baseline::parse(space, name).ok_or_else(|| {
            let known: Vec<&str> = Baseline::NAMED.iter().map(|(name, _)| *name).collect();
            let example = space.name(space.full());
            Failure::Usage(format!("{name:?} is no run: use {}, or a route's name, as {example}", known.join(", ")))
        })
    };
    let mut baselines = match args.route.as_slice() {
        [] if !args.details() => COMPARED.to_vec(),
        [] => Baseline::NAMED.iter().map(|(_, baseline)| *baseline).collect(),
        names => names.iter().map(parse).collect::<Result<Vec<_>, _>>()?,
    };
    for name in args.compare.iter().flat_map(|(a, b)| [a, b]) {
        match parse(name)? {
            Baseline::Statics => return Err(Failure::usage("--compare takes one route's name, not statics")),
            baseline => baselines.push(baseline),
        }
    }
    Ok(baselines)
}

/// The pairs of `--compare`, or auto with every other run.
fn pairs<'r>(args: &EvalArgs, runs: &'r [EvalRun]) -> Result<Vec<(&'r EvalRun, &'r EvalRun)>, Failure> {
    let find = |name: &str| runs.iter().find(|run| run.name == name);
    if args.compare.is_empty() {
        let others = |auto| runs.iter().filter(|run| run.name != "auto").map(move |run| (auto, run));
        return Ok(find("auto").map(|auto| others(auto).collect()).unwrap_or_default());
    }
    let found = |name: &str| find(name).ok_or_else(|| Failure::Usage(format!("--compare: {name:?} was not run")));
    args.compare.iter().map(|(a, b)| Ok((found(a)?, found(b)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_about_the_runs_of_a_model_do_not_go_with_answers() {
        let command = EvalArgs::augment_args(clap::Command::new("eval"));
        let found = |flags: &[&str]| {
            let line = [&["eval", "--data", "x.csv"][..], flags].concat();
            conflict(&command.clone().try_get_matches_from(line).unwrap())
        };
        assert_eq!(found(&["--answers=log", "--json", "--model=m"]), None);
        assert_eq!(found(&["--model=m", "--route=full", "--seed=1"]), None);
        for flag in ["--include-seen", "--split=test", "--seed=1", "--verbose", "--route=full", "--batch-size=2"] {
            let error = found(&["--answers=log", flag]).unwrap();
            let name = flag.split('=').next().unwrap();
            assert!(error.starts_with(&format!("{name} cannot be used with --answers")), "{flag}: {error}");
        }
        for id in OF_A_RUN {
            assert!(command.get_arguments().any(|argument| argument.get_id() == id), "there is no flag {id}");
        }
    }
}
