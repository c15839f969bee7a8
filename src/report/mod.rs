//! `canet report`: what routing is worth, as a page, pictures and numbers. Trains nothing.

mod findings;
mod judge;
mod map;
mod output;
mod page;
mod picture;
mod study;
mod timing;
mod words;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use self::findings::{Alone, Cost, DataFinding, Findings, Machine, ModelFinding};
use self::judge::Judge;
use self::output::Output;
use self::study::{METRIC, Splits, Study};
use self::timing::Times;
use super::numbers::share;
use super::target::TargetArgs;
use super::{Failure, interactions, model, progress};
use canet_data::{Case, Dataset, Split};
use canet_domain::{History, HistoryError};
use canet_evaluation::{Halves, Markov, Popularity, Ranker, Replicated};
use canet_model::{Backend, Model};

/// The budget that the words and the route map are about, or the one nearest to it.
const DEFAULT_BUDGET: f64 = 0.30;

/// Writes a page on what routing is worth: accuracy against compute and time, beside everything it has to be better than.
///
/// Trains nothing. Routes are chosen on validation and reported on the test split, with 95 % intervals of paired
/// differences over users; the page says what was chosen on what.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Directory of a model, of which the highest version counts; several times for models of the same data and routes
    /// that differ by their seed: numbers are then means over them, with their spread
    #[arg(long, env = "CANET_MODEL", value_name = "DIR", value_delimiter = ',', required = true)]
    model: Vec<PathBuf>,
    /// Interactions, in any form that `train` takes
    #[arg(long, env = "CANET_DATA", value_name = "PATH")]
    data: PathBuf,
    /// Directory of a model whose full route stands beside the routed ones for everybody: a small one trained alone; may
    /// be given several times
    #[arg(long, env = "CANET_TRAINED_ALONE", value_name = "DIR", value_delimiter = ',')]
    trained_alone: Vec<PathBuf>,
    /// Where the report goes: FILE.html, or a directory, which gets report.html; the numbers (.json) and the pictures
    /// (.svg) go beside it
    #[arg(long, env = "CANET_OUT", value_name = "DIR|FILE.html")]
    out: PathBuf,
    /// Budgets of the router, as shares of the full model's FLOPs, with commas
    #[arg(
        long,
        env = "CANET_BUDGETS",
        value_name = "SHARE",
        value_delimiter = ',',
        default_value = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9",
        value_parser = share
    )]
    budgets: Vec<f64>,
    #[command(flatten)]
    target: TargetArgs,
    /// Seed of the halves of users, the permutations and the clusters
    #[arg(long, env = "CANET_SEED", default_value_t = 0)]
    seed: u64,
    /// Leave out lines that cannot be read, and say how many
    #[arg(long, env = "CANET_SKIP_BAD_LINES", value_parser = BoolishValueParser::new())]
    skip_bad_lines: bool,
}

/// Measures, writes the files, and prints what the page says on top.
pub(super) fn run(mut args: ReportArgs) -> Result<(), Failure> {
    args.budgets.sort_unstable_by(f64::total_cmp);
    args.budgets.dedup();
    let output = Output::open(&args.out)?;
    let target = args.target.open()?;
    let Some((first, others)) = args.model.split_first() else { return Err(Failure::usage("--model is needed")) };
    let first = model::open(first, None, &*target)?;
    let dataset = interactions::read_to_measure(&args.data, args.skip_bad_lines, &first)?;
    let splits = Splits { validation: dataset.cases(Split::Validation), test: dataset.cases(Split::Test) };
    if splits.test.is_empty() {
        return Err(interactions::no_cases(&args.data));
    }

    unlearnt(&first, &dataset)?;
    let space = first.space();
    let bar = progress::rankings(Some(2 * splits.test.len() * space.len() * args.model.len()))?;
    let tick = |ranked: usize| bar.inc(ranked as u64);
    let mut models = vec![(model_finding(&first, &dataset), Study::of(&first, &splits, &args.budgets, &tick)?)];
    for path in others {
        let other = model::open(path, None, &*target)?;
        agrees(&first, &other, true)?;
        interactions::say_origin(&other, &dataset);
        unlearnt(&other, &dataset)?;
        models.push((model_finding(&other, &dataset), Study::of(&other, &splits, &args.budgets, &tick)?));
    }
    bar.finish_and_clear();

    let histories = histories(&splits.test, first.config().max_len).map_err(Failure::data)?;
    let times = Times::measure(&first, &histories).map_err(Failure::unavailable)?;
    let (mut records, studies): (Vec<ModelFinding>, Vec<Study>) = models.into_iter().unzip();
    for (record, study) in records.iter_mut().zip(&studies) {
        record.hull = study.hull.routes().iter().map(|route| space.name(*route).to_owned()).collect();
        record.strongest = record.hull.last().cloned().unwrap_or_default();
    }
    let judge = Judge {
        space,
        studies: &studies,
        times: &times,
        halves: Halves::draw(studies[0].test.by_user().users(), args.seed),
        seed: args.seed,
    };
    let found = findings(&args, &*target, &judge, (&first, &dataset, &splits), records)?;
    let written = output.write(&found)?;
    let summary = page::Summary::of(&found);
    let lines = std::iter::once(&summary.verdict).chain(&summary.sentences);
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    write!(io::stdout(), "{text}\n{}\n", written.display()).map_err(Failure::output)
}

fn model_finding(model: &Model, dataset: &Dataset) -> ModelFinding {
    ModelFinding {
        name: model.name().to_owned(),
        version: model.version(),
        created: model.manifest().created.clone(),
        same_data: model.manifest().data.sha256 == dataset.sha256,
        calibrated: model.manifest().calibration.is_some(),
        hull: Vec::new(),
        strongest: String::new(),
    }
}

/// Whether two models answer about the same items, and where they are to be averaged, by the same routes.
fn agrees(first: &Model, other: &Model, averaged: bool) -> Result<(), Failure> {
    let names = || format!("{first} and {other}");
    if first.catalogue().ids() != other.catalogue().ids() {
        return Err(Failure::Data(format!("{} know different items: train them on the same data", names())));
    }
    if !averaged {
        return Ok(());
    }
    if first.config() != other.config() {
        let hint = "give models of one configuration as --model, others as --trained-alone";
        return Err(Failure::Data(format!("{} have different sizes: {hint}", names())));
    }
    if first.manifest().calibration.is_some() != other.manifest().calibration.is_some() {
        return Err(Failure::Data(format!("of {} one is calibrated for budgets and one is not", names())));
    }
    Ok(())
}

/// Whether there is something that a model can be asked: a report on what it has learnt would show nothing.
fn unlearnt(model: &Model, dataset: &Dataset) -> Result<(), Failure> {
    if interactions::all_trained_on(model, dataset) {
        return Err(Failure::Data(format!(
            "{model} has learnt every interaction of these data (--newest-epochs): give a version that has not, or later data"
        )));
    }
    Ok(())
}

fn histories(cases: &[Case<'_>], max_len: usize) -> Result<Vec<History>, HistoryError> {
    cases.iter().map(|case| History::new(case.history, max_len)).collect()
}

fn findings(
    args: &ReportArgs,
    target: &dyn Backend,
    judge: &Judge<'_>,
    (first, dataset, splits): (&Model, &Dataset, &Splits<'_>),
    models: Vec<ModelFinding>,
) -> Result<Findings, Failure> {
    let budgets: Vec<Option<f64>> = match first.manifest().calibration {
        Some(_) => args.budgets.iter().copied().map(Some).collect(),
        None => vec![None],
    };
    let distance = |budget: &Option<f64>| budget.map_or(0.0, |budget| (budget - DEFAULT_BUDGET).abs());
    let nearest = (0..budgets.len()).min_by(|a, b| distance(&budgets[*a]).total_cmp(&distance(&budgets[*b])));
    let groups = map::groups(&args.model[0], first, splits, args.seed)?;
    let map = map::map(judge, first.catalogue(), &groups, nearest.unwrap_or_default())
        .ok_or_else(|| Failure::usage("--model is needed"))?;
    let points: Vec<findings::Point> =
        budgets.iter().enumerate().map(|(place, budget)| judge.point(place, *budget)).collect();
    let baseline = |ranks: Vec<Option<u32>>| {
        let values = ranks.into_iter().map(|rank| METRIC.value(rank)).collect();
        Replicated::of(&[values]).into()
    };
    let alone = |path: &PathBuf| {
        let model = model::open(path, None, target)?;
        agrees(first, &model, false)?;
        unlearnt(&model, dataset)?;
        trained_alone(&model, splits, judge, &points)
    };
    Ok(Findings {
        metric: METRIC.to_string(),
        users: splits.test.len(),
        repeated_targets: Case::repeating(&splits.test),
        items: first.catalogue().len(),
        data: DataFinding { name: dataset.name.clone(), sha256: dataset.sha256.clone() },
        models,
        machine: Machine {
            backend: first.forward().backend(),
            precision: target.precision().name(),
            threads: target.threads(),
        },
        full_flops: judge.full_flops(),
        router: judge.router(),
        routes: judge.space.routes().map(|route| judge.route(route)).collect(),
        hull: judge.hull(),
        hull_by_time: judge.hull_over_time(),
        strongest: judge.strongest(),
        random: judge.random(),
        oracle: judge.oracle(),
        popularity: baseline(Popularity::fit(dataset).ranks(&splits.test)),
        markov: baseline(Markov::fit(dataset).ranks(&splits.test)),
        trained_alone: args.trained_alone.iter().map(alone).collect::<Result<_, _>>()?,
        points,
        map,
    })
}

/// A model's full route for everybody, beside the router.
fn trained_alone(
    model: &Model,
    splits: &Splits<'_>,
    judge: &Judge<'_>,
    points: &[findings::Point],
) -> Result<Alone, Failure> {
    let space = model.space();
    let mut ranker = Ranker::new(model, &splits.test, study::BATCH).map_err(Failure::data)?;
    let run = ranker.fixed(space.full()).map_err(Failure::unavailable)?;
    let values = run.values(METRIC);
    let histories = histories(&splits.test, model.config().max_len).map_err(Failure::data)?;
    let times = Times::of_route(model, space.full(), &histories).map_err(Failure::unavailable)?;
    let flops = histories.iter().map(|history| model.cost(space.full(), history.len()).full);
    let affordable = points.iter().rposition(|point| point.cost.flops <= run.full_flops());
    let point = affordable.unwrap_or_default();
    let over = judge.value(|study| {
        let routed = study.test.assigned(&study.choices[point]).values;
        routed.iter().zip(&values).map(|(routed, alone)| routed - alone).collect()
    });
    Ok(Alone {
        name: model.name().to_owned(),
        version: model.version(),
        slice: space.name(space.full()).to_owned(),
        cost: Cost { flops: run.full_flops(), seconds: times.mean(flops) },
        test: Replicated::of(std::slice::from_ref(&values)).into(),
        point,
        routed_over: over,
    })
}
