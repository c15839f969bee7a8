//! `canet report`: the value of routing as an HTML page, plots and a JSON document. It trains nothing.
//!
//! A report measures each model on both splits ([`measured`]), times requests ([`timing`]) and derives [`findings`]
//! from both ([`analysis`]). The [`page`] and the [`plot`]s are views of the findings.

mod analysis;
mod findings;
mod format;
mod measured;
mod output;
mod page;
mod plot;
mod route_map;
mod timing;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use self::analysis::{Analysis, SimpleBaselines};
use self::findings::{Cost, DataFinding, Findings, Machine, ModelFinding, OperatingPoint, StandaloneModel};
use self::measured::{METRIC, MeasureOptions, MeasuredModel, Splits};
use self::output::Output;
use self::timing::RequestTimes;
use super::exit::say;
use super::interactions::{self, DataArgs};
use super::model_address::{CacheArgs, ModelAddress};
use super::numbers::{DEFAULT_BUDGET, share};
use super::printable::quoted;
use super::seen::SeenArgs;
use super::target::TargetArgs;
use super::verdict::{Commands, Words};
use super::{Failure, caveats, model, progress};
use canet_data::{Case, Dataset, Split};
use canet_domain::{History, HistoryError, Window};
use canet_evaluation::{Markov, MultiModelEstimate, PolicyOutcome, Popularity, Ranker, SeenItems, TwoFolds};
use canet_model::checkpoint::ModelDirectory;
use canet_model::{Backend, Model};

/// Writes a page about the value of routing: accuracy against FLOPs and time, beside every baseline.
///
/// The report trains nothing. It chooses static routes on the validation split and reports the test split, with 95 %
/// intervals of paired differences over users. The page says which numbers were chosen on which split.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Directory of a model, or s3://BUCKET/PREFIX, whose highest version is used. Give several for models that differ by their seed alone: the
    /// report then shows means over them and their standard deviation
    #[arg(long, env = "CANET_MODEL", value_name = "DIR|S3", value_delimiter = ',', required = true)]
    model: Vec<ModelAddress>,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Directory of a model to compare with the routed ones: its full route runs for every user. Use it for small models
    /// that were trained alone; may be given several times
    #[arg(long, env = "CANET_TRAINED_ALONE", value_name = "DIR|S3", value_delimiter = ',')]
    trained_alone: Vec<ModelAddress>,
    /// FILE.html, or a directory that gets report.html. The numbers (.json) and the plots (.svg) are written beside the
    /// page
    #[arg(long, env = "CANET_OUT", value_name = "DIR|FILE.html")]
    out: PathBuf,
    /// Budgets of the router, as shares of the full model's FLOPs, separated by commas
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
    seen: SeenArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Seed of the two folds of users, the permutations and the clusters
    #[arg(long, env = "CANET_SEED", default_value_t = 0)]
    seed: u64,
}

/// Measures the models, writes the files and prints the summary.
pub(super) fn run(mut args: ReportArgs) -> Result<(), Failure> {
    args.budgets.sort_unstable_by(f64::total_cmp);
    args.budgets.dedup();
    let output = Output::open(&args.out)?;
    let backend = args.target.open()?;
    let Some((first_address, other_addresses)) = args.model.split_first() else {
        return Err(Failure::usage("--model is needed"));
    };
    let directory = first_address.open(&args.cache)?;
    let first = model::open(&directory, None, &*backend)?;
    let dataset = args.data.read_to_measure(&first)?;
    let splits = Splits { validation: dataset.cases(Split::Validation), test: dataset.cases(Split::Test) };
    if splits.test.is_empty() {
        return Err(args.data.no_user());
    }

    check_not_learnt(&first, &dataset)?;
    let space = first.space();
    let bar = progress::rankings(Some(2 * splits.test.len() * space.len() * args.model.len()))?;
    let tick = |ranked: usize| bar.inc(ranked as u64);
    let seen = args.seen.rule(first.manifest());
    let options = MeasureOptions { budgets: &args.budgets, seen, progress: &tick };
    let measure = |model: &Model| MeasuredModel::measure(model, &splits, &options);
    let mut measured = vec![measure(&first)?];
    let mut models = vec![model_finding(&first, &measured[0], &dataset)];
    for address in other_addresses {
        let other = model::open(&address.open(&args.cache)?, None, &*backend)?;
        check_same_items(&first, &other)?;
        check_same_routes(&first, &other)?;
        if args.seen.rule(other.manifest()) != seen {
            return Err(Failure::Data(format!(
                "of {first} and {other}, only one recommends items of the history: give --include-seen or \
                 --include-seen=false"
            )));
        }
        interactions::remark_on_origin(&other, &dataset);
        check_not_learnt(&other, &dataset)?;
        let tables = measure(&other)?;
        models.push(model_finding(&other, &tables, &dataset));
        measured.push(tables);
    }
    bar.finish_and_clear();
    let repeated = leave_repeated_out(&mut args.budgets, &mut measured);
    if !repeated.is_empty() {
        say(format_args!(
            "budgets at which the router spends no more than at a smaller one are left out: {}",
            repeated.join(", ")
        ));
    }

    let histories = histories(&splits.test, first.config().window()).map_err(Failure::data)?;
    let times = RequestTimes::measure(&first, &histories).map_err(Failure::forward)?;
    let analysis = Analysis {
        space,
        models: &measured,
        times: &times,
        folds: TwoFolds::split(measured[0].test.cases_by_user().users(), args.seed),
        seed: args.seed,
    };
    let inputs = Inputs {
        args: &args,
        backend: &*backend,
        directory: &directory,
        model: &first,
        dataset: &dataset,
        splits: &splits,
        seen,
    };
    let found = inputs.findings(&analysis, models)?;
    let written = output.write(&found)?;
    let summary: String = page::summary(&found).into_iter().map(|line| format!("{line}\n")).collect();
    let text = format!("{}\n{summary}\n{}\n", found.verdict.text(), written.display());
    io::stdout().write_all(text.as_bytes()).map_err(Failure::output)
}

/// Leaves out the greatest budgets, if every model's router chooses as at a smaller one, and names them. The budget of the
/// summary stays.
fn leave_repeated_out(budgets: &mut Vec<f64>, models: &mut [MeasuredModel]) -> Vec<String> {
    let repeats = |place: usize| models.iter().all(|model| model.repeats(place));
    let least = nearest(budgets, DEFAULT_BUDGET) + 1;
    let kept = (least..budgets.len()).rev().find(|place| !repeats(*place)).map_or(least, |place| place + 1);
    for model in models {
        model.choices.truncate(kept);
        model.fixed.truncate(kept);
    }
    budgets.split_off(kept).iter().map(f64::to_string).collect()
}

/// The place of the budget that is nearest to another, 0 if there is none.
fn nearest(budgets: &[f64], to: f64) -> usize {
    let distance = |place: &usize| (budgets[*place] - to).abs();
    (0..budgets.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or_default()
}

fn model_finding(model: &Model, measured: &MeasuredModel, dataset: &Dataset) -> ModelFinding {
    let name = |route| model.space().name(route).to_owned();
    ModelFinding {
        name: model.name().to_owned(),
        version: model.version(),
        created: model.manifest().created.clone(),
        same_data: interactions::is_origin(model, dataset),
        may_know_targets: interactions::is_selection(model, dataset),
        started_from_everything: interactions::from_everything(model, dataset).is_some(),
        calibrated: model.manifest().calibration.is_some(),
        cut_short_after: model.manifest().cut_short_after(),
        hull: measured.hull.vertices().iter().map(|route| name(*route)).collect(),
        strongest: measured.strongest().map(name).unwrap_or_default(),
    }
}

/// Refuses to compare models of different catalogues.
fn check_same_items(first: &Model, other: &Model) -> Result<(), Failure> {
    if first.catalogue().ids() != other.catalogue().ids() {
        return Err(Failure::Data(format!("{first} and {other} know different items: train them on the same data")));
    }
    Ok(())
}

/// Refuses to average models with different routes or budgets.
fn check_same_routes(first: &Model, other: &Model) -> Result<(), Failure> {
    if first.config() != other.config() {
        return Err(Failure::Data(format!(
            "{first} and {other} have different sizes: give models of one configuration as --model, others as \
             --trained-alone"
        )));
    }
    if first.manifest().calibration.is_some() != other.manifest().calibration.is_some() {
        return Err(Failure::Data(format!("of {first} and {other}, only one is calibrated for budgets")));
    }
    Ok(())
}

/// Refuses to test a model on interactions that it has learnt.
fn check_not_learnt(model: &Model, dataset: &Dataset) -> Result<(), Failure> {
    if interactions::all_learnt(model, dataset) {
        return Err(Failure::Data(format!(
            "{model} has learnt every interaction of these data (--newest-epochs): give a version that has not, or newer \
             data"
        )));
    }
    Ok(())
}

fn histories(cases: &[Case<'_>], window: Window) -> Result<Vec<History>, HistoryError> {
    cases.iter().map(|case| History::in_window(case.history, window, 0)).collect()
}

/// What the findings are made from, besides the analysis.
struct Inputs<'a> {
    args: &'a ReportArgs,
    backend: &'a dyn Backend,
    /// The first model's versions.
    directory: &'a ModelDirectory,
    /// The first model.
    model: &'a Model,
    dataset: &'a Dataset,
    splits: &'a Splits<'a>,
    /// The rule for items of a user's own history.
    seen: SeenItems,
}

impl Inputs<'_> {
    fn findings(&self, analysis: &Analysis<'_>, models: Vec<ModelFinding>) -> Result<Findings, Failure> {
        let Inputs { args, backend, model, dataset, splits, seen, .. } = *self;
        let budgets: Vec<Option<f64>> = match model.manifest().calibration {
            Some(_) => args.budgets.iter().copied().map(Some).collect(),
            None => vec![None],
        };
        let place = if budgets == [None] { 0 } else { nearest(&args.budgets, DEFAULT_BUDGET) };
        let groups = route_map::user_groups(self.directory, model, splits, args.seed)?;
        let map = route_map::route_map(analysis, model.catalogue(), &groups, place)
            .ok_or_else(|| Failure::usage("--model is needed"))?;
        let points: Vec<OperatingPoint> =
            budgets.iter().enumerate().map(|(place, budget)| analysis.operating_point(place, *budget)).collect();
        let values = |ranks: Vec<Option<u32>>| ranks.into_iter().map(|rank| METRIC.value(rank)).collect::<Vec<f64>>();
        let repeated_targets = Case::repeating(&splits.test);
        let simple = SimpleBaselines {
            popularity: values(Popularity::fit(dataset).ranks(&splits.test, seen)),
            markov: values(Markov::fit(dataset, seen).ranks(&splits.test)),
            repeats: repeated_targets as f64 / splits.test.len() as f64,
        };
        let verdict = analysis.verdict(place, budgets.get(place).copied().flatten(), &simple, seen);
        let words =
            Words::of(verdict, &self.commands()).cut_short(models.iter().find_map(|model| model.cut_short_after));
        let words = if models.iter().any(|model| model.may_know_targets) {
            words.without_next().caution(caveats::OTHER_SELECTION)
        } else if models.iter().any(|model| !model.same_data) {
            words.caution(caveats::OTHER_DATA)
        } else {
            words
        };
        let baseline = |values: &Vec<f64>| MultiModelEstimate::of(std::slice::from_ref(values)).into();
        let standalone = |address: &ModelAddress| self.standalone(address, analysis, &points);
        Ok(Findings {
            verdict: words,
            metric: METRIC.to_string(),
            users: splits.test.len(),
            repeated_targets,
            seen_items: seen,
            items: model.catalogue().len(),
            data: DataFinding { name: dataset.name.clone(), sha256: dataset.sha256.clone() },
            models,
            machine: Machine {
                backend: model.forward().backend(),
                precision: backend.precision().name(),
                threads: backend.threads(),
            },
            full_flops: analysis.full_flops(),
            router: analysis.router(),
            routes: analysis.space.routes().map(|route| analysis.route(route)).collect(),
            hull: analysis.hull_vertices(),
            hull_by_time: analysis.hull_vertices_by_time(),
            strongest: analysis.strongest(),
            random: analysis.random(),
            oracle: analysis.oracle(),
            popularity: baseline(&simple.popularity),
            markov: baseline(&simple.markov),
            trained_alone: args.trained_alone.iter().map(standalone).collect::<Result<_, _>>()?,
            points,
            map,
        })
    }

    /// The commands that the verdict may recommend. They are about the first model.
    fn commands(&self) -> Commands {
        let model = self.args.model.first().map(|model| quoted(model.to_string())).unwrap_or_default();
        let repeats_by_duplicates = self.dataset.repeats_by_duplicates();
        let overrides_seen = self.args.seen.overrides(self.model.manifest());
        Commands { model: format!("--model {model}"), retrain: None, repeats_by_duplicates, overrides_seen }
    }

    /// Measures the full route of a model that was trained alone, and compares the router and slices with it.
    fn standalone(
        &self,
        address: &ModelAddress,
        analysis: &Analysis<'_>,
        points: &[OperatingPoint],
    ) -> Result<StandaloneModel, Failure> {
        let model = &model::open(&address.open(&self.args.cache)?, None, self.backend)?;
        check_same_items(self.model, model)?;
        check_not_learnt(model, self.dataset)?;
        let (space, test) = (model.space(), &self.splits.test);
        let mut ranker = Ranker::new(model, test, measured::BATCH).map_err(Failure::data)?.seeing(self.seen);
        let run = ranker.fixed(space.full()).map_err(Failure::forward)?;
        let values = run.values(METRIC);
        let histories = histories(test, model.config().window()).map_err(Failure::data)?;
        let times = RequestTimes::of_route(model, space.full(), &histories).map_err(Failure::forward)?;
        let flops = histories.iter().map(|history| model.cost(space.full(), history.len()).full);
        let affordable = points.iter().rposition(|point| point.cost.flops <= run.full_flops());
        let point = affordable.unwrap_or_default();
        let over = |ours: PolicyOutcome| -> Vec<f64> {
            ours.values.iter().zip(&values).map(|(ours, alone)| ours - alone).collect()
        };
        let slice = space.name(space.full());
        let same_slice = analysis.space.named(slice);
        Ok(StandaloneModel {
            name: model.name().to_owned(),
            version: model.version(),
            slice: slice.to_owned(),
            cost: Cost { flops: run.full_flops(), seconds: times.mean(flops) },
            point,
            routed_over: analysis.value(|measured| over(measured.test.assigned(&measured.choices[point]))),
            strongest_over: analysis.value(|measured| over(measured.test.fixed(analysis.strongest_of(measured)))),
            same_slice_over: same_slice.map(|route| analysis.value(|measured| over(measured.test.fixed(route)))),
            test: MultiModelEstimate::of(&[values]).into(),
        })
    }
}
