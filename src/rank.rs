use std::collections::HashSet;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use indicatif::ProgressBar;
use serde::Serialize;

use super::Failure;
use super::exit::say;
use super::numbers::share;
use super::target::TargetArgs;
use super::{interactions, model, progress};
use canet_domain::{Candidates, Catalogue, Flops, History, Item, Ranked, RequestFlops, Route, Selection};
use canet_model::{Model, Query};

/// Recommends to every user of a file, without a server: a line of JSON a user, in the order of their first appearance.
#[derive(Debug, Args)]
pub(crate) struct RankArgs {
    /// Directory of the model, which holds its versions.
    #[arg(long, env = "CANET_MODEL", value_name = "DIR")]
    model: PathBuf,
    /// Version to ask instead of the highest.
    #[arg(long, env = "CANET_VERSION", value_name = "N")]
    version: Option<u64>,
    /// Interactions, in any form that `train` takes: all of a user's are the history. Items that the model does not know
    /// are dropped, and users who have no others.
    #[arg(long, env = "CANET_DATA", value_name = "PATH")]
    data: PathBuf,
    /// Items to recommend to each [default: 10, or all of a smaller catalogue]
    #[arg(long, env = "CANET_K", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    k: Option<u32>,
    /// auto, the router's choice; or full, smallest or a route's name for everybody.
    #[arg(long, env = "CANET_ROUTE", value_name = "ROUTE", default_value = "auto")]
    route: String,
    /// Share of the full model's FLOPs that the router may spend, where the checkpoint is calibrated for budgets.
    #[arg(long, env = "CANET_FLOPS_BUDGET", value_name = "SHARE", default_value_t = 0.30, value_parser = share)]
    flops_budget: f64,
    /// Recommend items of the history too.
    #[arg(long, env = "CANET_INCLUDE_SEEN", value_parser = BoolishValueParser::new())]
    include_seen: bool,
    #[command(flatten)]
    target: TargetArgs,
    /// Users in one batch.
    #[arg(long, env = "CANET_BATCH_SIZE", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
    /// Leave out lines that cannot be read, and say how many.
    #[arg(long, env = "CANET_SKIP_BAD_LINES", value_parser = BoolishValueParser::new())]
    skip_bad_lines: bool,
}

/// Most items that are ranked at once, whatever the batch: their memory is bounded, and no answer depends on it.
const MOST: usize = 1 << 18;

/// One user's answer.
#[derive(Serialize)]
struct Line<'a> {
    user: &'a str,
    /// The best first; fewer than `k` where the user has seen the others.
    items: Vec<Recommended<'a>>,
    route: &'a str,
}

/// As the server writes it.
#[derive(Serialize)]
struct Recommended<'a> {
    item: &'a str,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
}

/// Ranks for everybody and writes the lines on standard output.
pub(crate) fn run(args: RankArgs) -> Result<(), Failure> {
    let model = model::open(&args.model, args.version, &*args.target.open()?)?;
    let (space, catalogue) = (model.space(), model.catalogue());
    let route = match args.route.as_str() {
        "auto" => None,
        name => Some(space.named(name).ok_or_else(|| {
            let example = space.name(space.smallest());
            Failure::Usage(format!("--route {name:?}: use auto, full, smallest or a route's name, as {example}"))
        })?),
    };
    let k = args.k.map_or(10.min(catalogue.len()), |k| k as usize);
    if k > catalogue.len() {
        return Err(Failure::Usage(format!("--k is {k}: the model knows {} items", catalogue.len())));
    }
    if model.manifest().calibration.is_none() && route.is_none() {
        say(format_args!("the checkpoint has no calibration, so --flops-budget changes nothing"));
    }
    let dataset = interactions::read(&args.data, args.skip_bad_lines, &model)?;
    let asked = Asked { model: &model, route, budget: args.flops_budget, k, seen: args.include_seen };
    // On a terminal the lines themselves show how far it is.
    let bar = match io::stdout().is_terminal() {
        true => ProgressBar::hidden(),
        false => progress::rankings(Some(dataset.users.len()))?,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let batch = (args.batch_size as usize).min((MOST / k).max(1));
    let mut spent = Spent::default();
    for (users, sequences) in dataset.users.chunks(batch).zip(dataset.sequences.chunks(batch)) {
        let histories: Result<Vec<History>, _> =
            sequences.iter().map(|sequence| History::new(sequence, model.config().max_len)).collect();
        let histories = histories.map_err(Failure::data)?;
        let routes = asked.routes(&histories)?;
        let ranked = asked.rank(&routes, &histories, sequences)?;
        for (((user, route), history), ranked) in users.iter().zip(routes).zip(&histories).zip(&ranked) {
            spent.add(asked.cost(route, history));
            let items = ranked.iter().map(|ranked| recommended(catalogue, ranked)).collect();
            let line = Line { user, items, route: space.name(route) };
            serde_json::to_writer(&mut out, &line).map_err(Failure::output)?;
            out.write_all(b"\n").map_err(Failure::output)?;
        }
        bar.inc(users.len() as u64);
    }
    out.flush().map_err(Failure::output)?;
    bar.finish_and_clear();
    say(format_args!(
        "recommended to {} users, {:.1} % of the full model's FLOPs saved",
        dataset.users.len(),
        spent.saved()
    ));
    Ok(())
}

/// What is asked of a model for everybody.
struct Asked<'a> {
    model: &'a Model,
    /// Everybody's route, where it is not the router's choice.
    route: Option<Route>,
    /// Share of the full model's FLOPs that the router may spend.
    budget: f64,
    k: usize,
    /// Whether items of the history are recommended too.
    seen: bool,
}

impl Asked<'_> {
    fn routes(&self, histories: &[History]) -> Result<Vec<Route>, Failure> {
        if let Some(route) = self.route {
            return Ok(vec![route; histories.len()]);
        }
        let histories: Vec<&History> = histories.iter().collect();
        let choices = self.model.route(&histories, self.budget).map_err(Failure::unavailable)?;
        Ok(choices.into_iter().map(|choice| choice.route).collect())
    }

    fn rank(
        &self,
        routes: &[Route],
        histories: &[History],
        sequences: &[Vec<Item>],
    ) -> Result<Vec<Vec<Ranked>>, Failure> {
        // Items that the model no longer reads as well: the user has seen them all the same.
        let excluded = |sequence: &Vec<Item>| match self.seen {
            true => HashSet::new(),
            false => sequence.iter().copied().collect::<HashSet<Item>>(),
        };
        let excluded: Vec<HashSet<Item>> = sequences.iter().map(excluded).collect();
        let rows: Vec<(Route, Query<'_>)> = (routes.iter().zip(histories).zip(&excluded))
            .map(|((route, history), excluded)| {
                let selection = Selection { k: self.k, excluded, candidates: Candidates::All };
                (*route, Query { history, selection })
            })
            .collect();
        self.model.rank(&rows).map_err(Failure::unavailable)
    }

    /// What an answer cost, the router included where it ran, and what the full model would have.
    fn cost(&self, route: Route, history: &History) -> [Flops; 2] {
        let RequestFlops { slice, router, full } = self.model.cost(route, history.len());
        [if self.route.is_none() { slice + router } else { slice }, full]
    }
}

/// FLOPs spent, and those of the full model, over everybody.
#[derive(Default)]
struct Spent([Flops; 2]);

impl Spent {
    fn add(&mut self, cost: [Flops; 2]) {
        self.0.iter_mut().zip(cost).for_each(|(sum, cost)| *sum += cost);
    }

    /// Share of the full model's that was saved, in per cent.
    fn saved(&self) -> f64 {
        let [spent, full] = self.0;
        100.0 * (1.0 - spent as f64 / (full as f64).max(1.0))
    }
}

fn recommended<'a>(catalogue: &'a Catalogue, ranked: &Ranked) -> Recommended<'a> {
    Recommended { item: catalogue.id(ranked.item), score: ranked.score, title: catalogue.title(ranked.item) }
}
