use super::{Markov, Popularity, Ranker, Run};
use canet_data::Dataset;
use canet_domain::{Route, RouteSpace};
use canet_model::ForwardError;

/// Something to be evaluated, by the name that a user types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// `auto`: the router under the budget.
    Auto,
    /// `full`: the largest route for everybody.
    Full,
    /// `smallest`: the smallest route for everybody.
    Smallest,
    /// `statics`: one run for each route, under its name.
    Statics,
    /// `random`: routes drawn uniformly.
    Random,
    /// `random-matched`: routes drawn with the router's own frequencies.
    RandomMatched,
    /// `popularity`: the most popular items.
    Popularity,
    /// `markov`: what followed the last item.
    Markov,
    /// A route's name: this route for everybody.
    Fixed(Route),
}

/// What the contenders need besides the model.
#[derive(Clone, Copy, Debug)]
pub struct Contest<'a> {
    /// Where the baselines learn; the ranker's cases come from it.
    pub dataset: &'a Dataset,
    /// The budget's bias, one a route.
    pub bias: &'a [f32],
    /// For what is drawn by lot.
    pub seed: u64,
}

impl Contender {
    /// The names besides those of routes, in the order of a report.
    pub const NAMED: [(&'static str, Contender); 8] = [
        ("auto", Contender::Auto),
        ("full", Contender::Full),
        ("smallest", Contender::Smallest),
        ("random", Contender::Random),
        ("random-matched", Contender::RandomMatched),
        ("popularity", Contender::Popularity),
        ("markov", Contender::Markov),
        ("statics", Contender::Statics),
    ];

    /// The contender of a name, `None` where it is neither one of [`Contender::NAMED`] nor a route's.
    pub fn parse(space: &RouteSpace, name: &str) -> Option<Contender> {
        let named = Contender::NAMED.iter().find(|(known, _)| *known == name).map(|(_, contender)| *contender);
        named.or_else(|| space.parse(name).map(Contender::Fixed))
    }
}

/// Runs the contenders over the ranker's cases, in the order given; no name comes twice.
///
/// # Errors
/// [`ForwardError`] where the device fails.
pub fn evaluate(
    ranker: &mut Ranker<'_>,
    contest: &Contest<'_>,
    contenders: &[Contender],
) -> Result<Vec<Run>, ForwardError> {
    let (space, Contest { dataset, bias, seed }) = (ranker.space(), *contest);
    let mut runs: Vec<Run> = Vec::new();
    for contender in contenders {
        let new = match *contender {
            Contender::Auto => vec![ranker.routed(bias)?],
            Contender::Full => vec![ranker.fixed(space.full())?.named("full")],
            Contender::Smallest => vec![ranker.fixed(space.smallest())?.named("smallest")],
            Contender::Statics => space.routes().map(|route| ranker.fixed(route)).collect::<Result<_, _>>()?,
            Contender::Random => vec![ranker.random(seed)?],
            Contender::RandomMatched => vec![ranker.random_matched(bias, seed)?],
            Contender::Popularity => {
                vec![ranker.baseline("popularity", Popularity::fit(dataset).ranks(ranker.cases()))]
            }
            Contender::Markov => vec![ranker.baseline("markov", Markov::fit(dataset).ranks(ranker.cases()))],
            Contender::Fixed(route) => vec![ranker.fixed(route)?],
        };
        for run in new {
            if runs.iter().all(|known| known.name != run.name) {
                runs.push(run);
            }
        }
    }
    Ok(runs)
}
