use std::collections::HashSet;

use super::Problem;
use super::arrival::Arrival;
use super::wire::{HistoryUsed, ItemId, RecommendRequest};
use canet_domain::{Catalogue, History, Item, Route, RouteSpace};
use canet_serving::{Generation, Request};

/// Longest that a client may wait.
const MAX_TIMEOUT_MS: u64 = 60_000;

/// Longest list of ids that a request may send.
const MAX_IDS: usize = 100_000;

/// Most items that a request asks for, or those of a batch together: some 25 MB of answer.
const MAX_RANKED: u64 = 1 << 18;

/// Most requests a call.
pub(crate) const MAX_ROWS: usize = 1024;

/// Checks how many requests one call has.
///
/// # Errors
/// 422 where they are too many.
pub(crate) fn check_rows(rows: usize) -> Result<(), Problem> {
    if rows <= MAX_ROWS {
        return Ok(());
    }
    Err(Problem::invalid("requests", format!("{rows} requests are too many for one call: at most {MAX_ROWS}")))
}

/// Checks how many ids the list `name` of a request has.
///
/// # Errors
/// 422 where they are too many.
pub(crate) fn check_ids(name: &'static str, ids: usize) -> Result<(), Problem> {
    if ids <= MAX_IDS {
        return Ok(());
    }
    Err(Problem::invalid(name, format!("`{name}` has {ids} ids: at most {MAX_IDS}")))
}

/// Most items that one request may ask for in a catalogue of `items`.
pub(crate) fn most_ranked(items: usize) -> usize {
    items.min(usize::try_from(MAX_RANKED).unwrap_or(usize::MAX))
}

/// Keeps the answer of a batch within bounds: a request whose `k` would bring their sum over [`MAX_RANKED`] is refused.
/// `ranked` is the sum so far, `items` the size of the catalogue. A `k` that no request may ask for is refused later,
/// and takes nothing from those behind it.
///
/// # Errors
/// 422 for this request.
pub(crate) fn check_sum(
    request: RecommendRequest,
    items: usize,
    ranked: &mut u64,
) -> Result<RecommendRequest, Problem> {
    let k = request.k(items);
    if k > most_ranked(items) as u64 {
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

/// A request that a generation can answer, and what its answer says about the history.
pub(crate) struct Accepted {
    pub(crate) work: Work,
    pub(crate) history: HistoryUsed,
}

/// How a request is answered.
pub(crate) enum Work {
    /// By the model.
    Rank(Request),
    /// By popularity: there is no known item to read.
    ColdStart(ColdStart),
}

/// What a ranking by popularity needs.
pub(crate) struct ColdStart {
    pub(crate) k: usize,
    pub(crate) excluded: HashSet<Item>,
    pub(crate) candidates: Option<HashSet<Item>>,
}

/// Checks a request against the generation that will answer it: nothing behind this checks again.
///
/// # Errors
/// 422 with the field.
pub(crate) fn accept(wire: RecommendRequest, generation: &Generation, arrival: Arrival) -> Result<Accepted, Problem> {
    let catalogue = generation.model.catalogue();
    let (asked, most) = (wire.k(catalogue.len()), most_ranked(catalogue.len()));
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
    for (name, ids) in
        [("history", Some(&wire.history)), ("exclude", Some(&wire.exclude)), ("candidates", wire.candidates.as_ref())]
    {
        check_ids(name, ids.map_or(0, Vec::len))?;
    }
    let route = parse_route(&wire.route, generation.model.space())?;

    let (mut seen, mut unknown) = (Vec::new(), Vec::new());
    for id in wire.history {
        match catalogue.item(&id.0) {
            Some(item) => seen.push(item),
            None => unknown.push(id.0),
        }
    }
    let mut excluded = known(&wire.exclude, catalogue).collect::<HashSet<Item>>();
    if wire.exclude_seen {
        // Truncated items too: the user has seen them all the same.
        excluded.extend(&seen);
    }
    let candidates = wire.candidates.as_deref().map(|ids| known(ids, catalogue));
    Ok(match History::new(&seen, generation.max_len()) {
        Ok(history) => Accepted {
            history: HistoryUsed { used: history.len(), unknown },
            work: Work::Rank(Request {
                history,
                k,
                excluded,
                candidates: candidates.map(Iterator::collect),
                route,
                budget: wire.budget,
                due: arrival.due(wire.timeout_ms),
            }),
        },
        Err(_) => Accepted {
            history: HistoryUsed { used: 0, unknown },
            work: Work::ColdStart(ColdStart { k, excluded, candidates: candidates.map(Iterator::collect) }),
        },
    })
}

/// The items of the ids that the model knows; others can be neither recommended nor excluded.
fn known(ids: &[ItemId], catalogue: &Catalogue) -> impl Iterator<Item = Item> {
    ids.iter().filter_map(|id| catalogue.item(&id.0))
}

/// `auto` is no override.
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
