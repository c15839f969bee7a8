use std::collections::HashSet;
use std::io::{self, BufWriter, IsTerminal, Write};

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use super::exit::say;
use super::interactions::DataArgs;
use super::model::ModelArgs;
use super::numbers::share;
use super::seen::SeenArgs;
use super::target::TargetArgs;
use super::{Failure, progress};
use canet_domain::{Candidates, Flops, History, Item, Ranked, RequestFlops, Route, RoutePolicy, Selection};
use canet_evaluation::SeenItems;
use canet_model::{ForwardError, Model, Query};

/// Recommends items to every user of a file, without a server. Prints one line of JSON per user
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
    #[arg(long, env = "CANET_FLOPS_BUDGET", value_name = "SHARE", default_value_t = 0.30, value_parser = share)]
    flops_budget: f64,
    #[command(flatten)]
    seen: SeenArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Number of users in a batch
    #[arg(long, env = "CANET_BATCH_SIZE", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
}

/// Largest number of ranked items in memory. It limits the batch if `--k` is large.
const MAX_RANKED_ITEMS: usize = 1 << 18;

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
    let fixed_route = match args.route.as_str() {
        "auto" => None,
        name => Some(space.named(name).ok_or_else(|| {
            let example = space.name(space.smallest());
            Failure::Usage(format!("--route {name:?}: use auto, full, smallest or a route's name, as {example}"))
        })?),
    };
    let k = args.k.map_or(10.min(catalogue.len()), |k| k as usize);
    if k > catalogue.len() {
        return Err(Failure::Usage(format!("--k is {k}, but the model knows only {} items", catalogue.len())));
    }
    if model.manifest().calibration.is_none() && fixed_route.is_none() {
        say("the checkpoint has no calibration, so --flops-budget changes nothing");
    }
    let dataset = args.data.read_known(&model)?;
    let seen = args.seen.rule(model.manifest());
    let policy = fixed_route.map_or_else(|| model.policy(args.flops_budget), RoutePolicy::Fixed);
    let asks_router = policy.bias().is_some();
    let ranker = BatchRanker { model: &model, policy, budget: args.flops_budget, k, seen };
    // On a terminal the printed lines show the progress.
    let bar = match io::stdout().is_terminal() {
        true => ProgressBar::hidden(),
        false => progress::rankings(Some(dataset.users.len()))?,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let batch = (args.batch_size as usize).min((MAX_RANKED_ITEMS / k).max(1));
    let mut total = TotalFlops::default();
    for (users, sequences) in dataset.users.chunks(batch).zip(dataset.sequences.chunks(batch)) {
        let histories: Result<Vec<History>, _> =
            sequences.iter().map(|sequence| History::in_window(sequence, model.config().window(), 0)).collect();
        let histories = histories.map_err(Failure::data)?;
        let routes = ranker.routes(&histories)?;
        let ranked = ranker.rank(&routes, &UserBatch { users, histories: &histories, sequences })?;
        for (((user, route), history), ranked) in users.iter().zip(routes).zip(&histories).zip(&ranked) {
            total.add(model.cost(route, history.len()), asks_router);
            let item = |Ranked { item, score }: &Ranked| RecommendedItem {
                item: catalogue.id(*item),
                score: *score,
                title: catalogue.title(*item),
            };
            let line = Line { user, items: ranked.iter().map(item).collect(), route: space.name(route) };
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
        100.0 * total.saved()
    ));
    Ok(())
}

/// Users that are ranked together.
struct UserBatch<'a> {
    users: &'a [Box<str>],
    /// What the model reads.
    histories: &'a [History],
    /// All items of each user.
    sequences: &'a [Vec<Item>],
}

/// Ranks batches of users with one set of options.
struct BatchRanker<'a> {
    model: &'a Model,
    /// What decides routes.
    policy: RoutePolicy,
    /// Share of the full model's FLOPs that the router may spend.
    budget: f64,
    k: usize,
    seen: SeenItems,
}

impl BatchRanker<'_> {
    fn routes(&self, histories: &[History]) -> Result<Vec<Route>, Failure> {
        if let Some(route) = self.policy.fixed() {
            return Ok(vec![route; histories.len()]);
        }
        let histories: Vec<&History> = histories.iter().collect();
        let choices = self.model.route(&histories, self.budget).map_err(Failure::forward)?;
        Ok(choices.into_iter().map(|choice| choice.route).collect())
    }

    fn rank(&self, routes: &[Route], batch: &UserBatch<'_>) -> Result<Vec<Vec<Ranked>>, Failure> {
        let UserBatch { users, histories, sequences } = batch;
        // The whole sequence counts as seen, including items before the history that the model reads.
        let excluded = |sequence: &Vec<Item>| self.seen.masked(sequence).iter().copied().collect::<HashSet<Item>>();
        let excluded: Vec<HashSet<Item>> = sequences.iter().map(excluded).collect();
        let rows: Vec<(Route, Query<'_>)> = (routes.iter().zip(*histories).zip(&excluded))
            .map(|((route, history), excluded)| {
                let selection = Selection { k: self.k, excluded, candidates: Candidates::All };
                (*route, Query { history, selection })
            })
            .collect();
        let ranked = self.model.rank(&rows).map_err(Failure::forward)?;
        let complete =
            |((_, query), ranked): (&(Route, Query<'_>), &Vec<Ranked>)| self.model.is_complete(query, ranked);
        match rows.iter().zip(&ranked).position(|row| !complete(row)) {
            Some(place) => {
                let error = ForwardError::NotFinite("the scores");
                Err(Failure::Data(format!("user {:?}: {error}", users[place])))
            }
            None => Ok(ranked),
        }
    }
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
