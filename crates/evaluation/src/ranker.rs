use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::run::{Draw, Spent};
use super::{ByUser, Metric, RouteTable, Run, target_rank};
use canet_data::Case;
use canet_domain::{Flops, History, ModelShape, Route, RouteSpace, choose_route};
use canet_model::{Forward, ForwardError, Model};

/// Draws over which a run by lot is averaged.
pub const DRAWS: usize = 5;

/// The model under evaluation.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Runs the router and the slices.
    pub forward: &'a dyn Forward,
    /// The routes of `forward`.
    pub space: &'a RouteSpace,
    /// The sizes that fix the cost of a route.
    pub shape: ModelShape,
    /// Longest history that the model reads.
    pub max_len: usize,
}

impl<'a> From<&'a Model> for Subject<'a> {
    fn from(model: &'a Model) -> Subject<'a> {
        Subject {
            forward: &**model.forward(),
            space: model.space(),
            shape: model.shape(),
            max_len: model.config().max_len,
        }
    }
}

/// Ranks the targets of cases on any routes; each (route, case) and each router pass is computed once.
pub struct Ranker<'a> {
    subject: Subject<'a>,
    cases: &'a [Case<'a>],
    histories: Vec<History>,
    /// Cases by length, so that a batch holds histories of about the same length; longest first, so that a
    /// batch too large for the memory fails at once.
    by_length: Vec<usize>,
    batch: usize,
    /// By route, then by case.
    ranks: Vec<Vec<Memo>>,
    logits: Vec<Vec<f32>>,
    progress: Box<dyn Fn(usize) + 'a>,
}

#[derive(Clone, Copy)]
enum Memo {
    Unknown,
    Rank(Option<u32>),
}

impl Memo {
    fn rank(self) -> Option<u32> {
        match self {
            Memo::Rank(rank) => rank,
            Memo::Unknown => None,
        }
    }
}

impl<'a> Ranker<'a> {
    /// A ranker that gives `batch` histories (at least 1) to the model at a time.
    ///
    /// # Errors
    /// [`HistoryError`](canet_domain::HistoryError) where a case has an empty history; [`Dataset::cases`] makes none.
    ///
    /// [`Dataset::cases`]: canet_data::Dataset::cases
    pub fn new(
        subject: impl Into<Subject<'a>>,
        cases: &'a [Case<'a>],
        batch: usize,
    ) -> Result<Ranker<'a>, canet_domain::HistoryError> {
        let subject = subject.into();
        let histories: Result<Vec<History>, _> =
            cases.iter().map(|case| History::new(case.history, subject.max_len)).collect();
        let histories = histories?;
        let mut by_length: Vec<usize> = (0..cases.len()).collect();
        by_length.sort_by_key(|case| std::cmp::Reverse(histories[*case].len()));
        let ranks = vec![Vec::new(); subject.space.len()];
        let (batch, logits, progress) = (batch.max(1), Vec::new(), Box::new(|_| {}));
        Ok(Ranker { subject, cases, histories, by_length, batch, ranks, logits, progress })
    }

    /// Calls `progress` after each batch with the number of cases that it ranked.
    pub fn on_progress(mut self, progress: impl Fn(usize) + 'a) -> Ranker<'a> {
        self.progress = Box::new(progress);
        self
    }

    /// The cases, in the order of every run's users.
    pub fn cases(&self) -> &'a [Case<'a>] {
        self.cases
    }

    /// The routes of the model.
    pub fn space(&self) -> &'a RouteSpace {
        self.subject.space
    }

    /// Router logits of each case, one a route.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub fn logits(&mut self) -> Result<&[Vec<f32>], ForwardError> {
        if self.logits.is_empty() {
            let mut logits = vec![Vec::new(); self.cases.len()];
            for batch in self.by_length.chunks(self.batch) {
                let histories: Vec<&History> = batch.iter().map(|case| &self.histories[*case]).collect();
                let rows = self.subject.forward.router_logits(&histories)?;
                for (place, case) in batch.iter().enumerate() {
                    logits[*case] = row(&rows, place)?.to_vec();
                }
            }
            self.logits = logits;
        }
        Ok(&self.logits)
    }

    /// Serving's choice of route for each case: the argmax of its logits and the budget's `bias`.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub fn choices(&mut self, bias: &[f32]) -> Result<Vec<Route>, ForwardError> {
        let space = self.subject.space;
        Ok(self.logits()?.iter().map(|logits| choose_route(space, logits, bias).route).collect())
    }

    /// `auto`: each user on the router's choice under the budget's `bias`, one a route.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub fn routed(&mut self, bias: &[f32]) -> Result<Run, ForwardError> {
        let routes = self.choices(bias)?;
        let draw = self.draw(routes, Router::Decides)?;
        Ok(self.run("auto", vec![draw]))
    }

    /// Every user on one route, under the route's name.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub fn fixed(&mut self, route: Route) -> Result<Run, ForwardError> {
        let draw = self.draw(vec![route; self.cases.len()], Router::Idle)?;
        Ok(self.run(self.subject.space.name(route), vec![draw]))
    }

    /// `random`: each user on a route drawn uniformly, [`DRAWS`] times.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub fn random(&mut self, seed: u64) -> Result<Run, ForwardError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let routes: Vec<Route> = self.subject.space.routes().collect();
        let draw = |_| {
            let drawn = self.cases.iter().map(|_| routes[rng.gen_range(0..routes.len())]).collect();
            self.draw(drawn, Router::Idle)
        };
        let draws = (0..DRAWS).map(draw).collect::<Result<_, _>>()?;
        Ok(self.run("random", draws))
    }

    /// `random-matched`: the router's own choices dealt out to other users, [`DRAWS`] times. It
    /// spends what the router's frequencies cost, the router included, and knows nothing of the user.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub fn random_matched(&mut self, bias: &[f32], seed: u64) -> Result<Run, ForwardError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut routes = self.choices(bias)?;
        let draw = |_| {
            routes.shuffle(&mut rng);
            self.draw(routes.clone(), Router::Decides)
        };
        let draws = (0..DRAWS).map(draw).collect::<Result<_, _>>()?;
        Ok(self.run("random-matched", draws))
    }

    /// A baseline without a network, from the ranks that it gave to the cases.
    pub fn baseline(&self, name: &str, ranks: Vec<Option<u32>>) -> Run {
        self.run(name, vec![Draw { ranks, spent: None }])
    }

    /// A metric's value and the cost of every route on every case: what any policy of routing can be judged by.
    ///
    /// # Errors
    /// [`ForwardError`] where the device fails.
    pub fn table(&mut self, metric: Metric) -> Result<RouteTable, ForwardError> {
        let Subject { shape, space, .. } = self.subject;
        for route in space.routes() {
            self.rank(route, &vec![route; self.cases.len()])?;
        }
        let lengths = || self.histories.iter().map(History::len);
        let values = |memo: &Vec<Memo>| memo.iter().map(|memo| metric.value(memo.rank())).collect();
        Ok(RouteTable {
            values: self.ranks.iter().map(values).collect(),
            flops: space
                .routes()
                .map(|route| lengths().map(|length| shape.route_flops(space, route, length)).collect())
                .collect(),
            router_flops: lengths().map(|length| shape.router_flops(space.len(), length)).collect(),
            by_user: ByUser::of(self.cases),
        })
    }

    fn run(&self, name: &str, draws: Vec<Draw>) -> Run {
        let Subject { shape, space, .. } = self.subject;
        let full_flops = self.histories.iter().map(|history| shape.full_flops(space, history.len())).collect();
        Run::new(name, draws, full_flops, ByUser::of(self.cases))
    }

    /// Ranks each case on its route, and says what that costs.
    fn draw(&mut self, routes: Vec<Route>, router: Router) -> Result<Draw, ForwardError> {
        let Subject { shape, space, .. } = self.subject;
        for route in space.routes() {
            self.rank(route, &routes)?;
        }
        let cost = |(route, history): (&Route, &History)| -> Flops {
            let router = match router {
                Router::Decides => shape.router_flops(space.len(), history.len()),
                Router::Idle => 0,
            };
            shape.route_flops(space, *route, history.len()) + router
        };
        let known = |(case, route): (usize, &Route)| self.ranks[route.index()][case].rank();
        let ranks = routes.iter().enumerate().map(known).collect();
        let flops = routes.iter().zip(&self.histories).map(cost).collect();
        Ok(Draw { ranks, spent: Some(Spent { routes, flops }) })
    }

    /// Ranks those cases on `route` that are assigned to it and were not ranked on it before.
    fn rank(&mut self, route: Route, assigned: &[Route]) -> Result<(), ForwardError> {
        let memo = &mut self.ranks[route.index()];
        memo.resize(self.cases.len(), Memo::Unknown);
        let due = |case: &usize| assigned[*case] == route && matches!(memo[*case], Memo::Unknown);
        let due: Vec<usize> = self.by_length.iter().copied().filter(due).collect();
        for batch in due.chunks(self.batch) {
            let histories: Vec<&History> = batch.iter().map(|case| &self.histories[*case]).collect();
            let scores = self.subject.forward.scores(route, &histories)?;
            for (place, case) in batch.iter().enumerate() {
                let Case { history, target, .. } = self.cases[*case];
                memo[*case] = Memo::Rank(target_rank(row(&scores, place)?, history, target));
            }
            (self.progress)(batch.len());
        }
        Ok(())
    }
}

/// Whether the router's own cost counts.
#[derive(Clone, Copy)]
enum Router {
    Decides,
    Idle,
}

/// A row of a forward's answer, which has one for each history.
fn row(rows: &canet_model::Rows, place: usize) -> Result<&[f32], ForwardError> {
    rows.row(place).ok_or(ForwardError::Shape { columns: place + 1, values: rows.len() })
}
