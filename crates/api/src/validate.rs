use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use super::Problem;
use super::deadline::Arrival;
use super::limits::{MAX_HISTORY_START, MAX_RANKED, MAX_TIMEOUT_MS, MAX_USER, check_ids, max_k};
use super::restriction::restriction;
use super::side::side;
use super::wire::{ExternalId, HistoryUsed, RecommendRequest, UserId};
use canet_catalogue::ColdStart;
use canet_domain::{Catalogue, History, Item, Route, RouteSpace};
use canet_serving::{CatalogueView, Due, Request, Serving, Side, Visit};

/// Bounds the answer of a batch: the sum of all `k` is at most [`MAX_RANKED`]. `items` is the size of the catalogue, and
/// `ranked` the sum so far. A `k` that [`accept`] will refuse adds nothing to the sum.
///
/// # Errors
/// 422 if this request brings the sum over the bound.
pub(crate) fn check_sum(
    request: RecommendRequest,
    items: usize,
    ranked: &mut u64,
) -> Result<RecommendRequest, Problem> {
    let k = request.k(items);
    if k > max_k(items) as u64 {
        return Ok(request);
    }
    let sum = ranked.saturating_add(k);
    if sum > MAX_RANKED {
        let detail = format!("with `k` {k} the batch asks for more than {MAX_RANKED} items together");
        return Err(Problem::invalid("k", detail));
    }
    *ranked = sum;
    Ok(request)
}

/// A request that a generation can answer, and the answer's report about the history.
pub(crate) struct Accepted {
    /// Which generation answers it.
    pub(crate) side: Side,
    pub(crate) work: Work,
    /// The catalogue file as the answer follows it.
    pub(crate) view: Option<Arc<CatalogueView>>,
    pub(crate) history: HistoryUsed,
    /// How many items of the whole history the model knows.
    pub(crate) known: usize,
    /// The budget that the request names.
    pub(crate) budget: Option<f64>,
    /// The user's id, if the request has one.
    pub(crate) user: Option<UserId>,
    /// What judges the answer before, if the server judges answers.
    pub(crate) visit: Option<Visit>,
    /// The request's place in its call, from 0.
    pub(crate) place: usize,
    /// Whether the request [narrows](RecommendRequest::narrows) the choice.
    pub(crate) narrowed: bool,
}

/// How a request is answered.
pub(crate) enum Work {
    /// The model ranks.
    Rank(Request),
    /// Popularity ranks, because the history has no known item.
    ColdStart(ColdStart, Due),
}

/// Checks a request against the generation of `serving` that will answer it. Nothing checks it again later.
///
/// # Errors
/// 422 with the wrong field.
pub(crate) fn accept(wire: RecommendRequest, serving: &Serving, arrival: Arrival) -> Result<Accepted, Problem> {
    let side = side(&wire, serving);
    let generation = serving.generation(side);
    let catalogue = generation.model.catalogue();
    let k = check_bounds(&wire, catalogue.len())?;
    let route = parse_route(&wire.route, generation.model.space())?;
    let view = generation.catalogue_view();
    let narrowed = wire.narrows();
    let restriction = restriction(wire.filter.as_ref(), wire.max_per.as_ref(), view.as_ref())?;

    let (mut seen, mut unknown) = (Vec::new(), Vec::new());
    for id in wire.history {
        match catalogue.item(&id.0) {
            Some(item) => seen.push(item),
            None => unknown.push(id.0),
        }
    }
    let mut excluded = known(&wire.exclude, catalogue).collect::<HashSet<Item>>();
    if wire.exclude_seen.unwrap_or(generation.model.manifest().exclude_seen) {
        // Includes items that the model does not read because the history is too long: the user saw them too.
        excluded.extend(&seen);
    }
    let is_allowed = |item: &Item| restriction.as_ref().is_none_or(|restriction| restriction.allows(*item));
    let candidates = wire.candidates.as_deref().map(|ids| known(ids, catalogue).filter(is_allowed));
    let before = usize::try_from(wire.history_start.unwrap_or_default()).unwrap_or(usize::MAX);
    let due = arrival.due(wire.timeout_ms);
    let (used, work) = match History::in_window(&seen, generation.model.config().window(), before) {
        Ok(history) => {
            let history = history.of_owner(wire.user.as_ref().map_or(0, owner));
            let candidates = candidates.map(Iterator::collect);
            let request = Request { history, k, excluded, candidates, restriction, route, budget: wire.budget, due };
            (request.history.len(), Work::Rank(request))
        }
        Err(_) => {
            let candidates = candidates.map(Iterator::collect);
            (0, Work::ColdStart(ColdStart { k, excluded, candidates, restriction }, due))
        }
    };
    let (history, known) = (HistoryUsed { used, unknown }, seen.len());
    let (budget, user) = (wire.budget, wire.user);
    Ok(Accepted { side, work, view, history, known, budget, user, visit: None, place: 0, narrowed })
}

/// Checks what depends on no item, and returns `k`. The catalogue has `items`.
fn check_bounds(wire: &RecommendRequest, items: usize) -> Result<usize, Problem> {
    let (asked, most) = (wire.k(items), max_k(items));
    let k = match usize::try_from(asked) {
        Ok(k) if (1..=most).contains(&k) => k,
        _ => return Err(Problem::invalid("k", format!("`k` is {asked}: it must be from 1 to {most}"))),
    };
    if !(1..=MAX_TIMEOUT_MS).contains(&wire.timeout_ms) {
        let detail = format!("`timeout_ms` is {}: it must be from 1 to {MAX_TIMEOUT_MS}", wire.timeout_ms);
        return Err(Problem::invalid("timeout_ms", detail));
    }
    if let Some(budget) = wire.budget.filter(|budget| !(*budget > 0.0 && *budget <= 1.0)) {
        return Err(Problem::invalid("budget", format!("`budget` is {budget}: it must be above 0 and at most 1")));
    }
    let before = wire.history_start.unwrap_or_default();
    if before > MAX_HISTORY_START {
        let detail = format!("`history_start` is {before}: it must be from 0 to {MAX_HISTORY_START}");
        return Err(Problem::invalid("history_start", detail));
    }
    for (name, ids) in
        [("history", Some(&wire.history)), ("exclude", Some(&wire.exclude)), ("candidates", wire.candidates.as_ref())]
    {
        check_ids(name, ids.map_or(0, Vec::len))?;
    }
    let bytes = wire.user.as_ref().map_or(0, |user| user.as_str().len());
    if bytes > MAX_USER {
        return Err(Problem::invalid("user", format!("`user` has {bytes} bytes: at most {MAX_USER}")));
    }
    Ok(k)
}

/// The owner of a user's history. Nobody outside this process can find another id of the same owner.
fn owner(user: &UserId) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(user.as_str()).max(1)
}

/// The items of known ids. Unknown ones can be neither recommended nor excluded.
fn known(ids: &[ExternalId], catalogue: &Catalogue) -> impl Iterator<Item = Item> {
    ids.iter().filter_map(|id| catalogue.item(&id.0))
}

/// Reads a route's name. `auto` gives `None`.
fn parse_route(name: &str, space: &RouteSpace) -> Result<Option<Route>, Problem> {
    if name == "auto" {
        return Ok(None);
    }
    space.named(name).map(Some).ok_or_else(|| {
        let example = space.name(space.smallest());
        let detail = format!("there is no route {name:?}: use auto, full, smallest or a name of /routes, as {example}");
        Problem::invalid("route", detail)
    })
}

#[cfg(test)]
mod tests {
    use canet_serving::Serving;

    use super::accept;
    use crate::deadline::Arrival;
    use crate::limits::MAX_USER;
    use crate::testing::Fixture;
    use crate::wire::{ExternalId, RecommendRequest, UserId};

    #[tokio::test]
    async fn user_ids_are_bounded_in_bytes_and_kept_as_sent() {
        let fixture = Fixture::new();
        fixture.reloader.reload(None).await.unwrap();
        let generation = fixture.recommender.generation().unwrap();
        let known = ExternalId(generation.model.catalogue().ids()[0].clone());
        let serving = Serving::only(generation);
        for history in [vec![], vec![known]] {
            let user = |user: &str| {
                let request = RecommendRequest { user: UserId::given(user), ..RecommendRequest::new(history.clone()) };
                accept(request, &serving, Arrival::now()).map(|accepted| accepted.user).map_err(|problem| problem.field)
            };
            let longest = "é".repeat(MAX_USER / 2);
            for given in ["17", " a ", &longest] {
                assert_eq!(user(given), Ok(UserId::given(given)));
            }
            assert_eq!(user(""), Ok(None));
            assert_eq!(user(&format!("{longest}x")), Err(Some("user".into())));
        }
    }
}
