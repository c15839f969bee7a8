use std::collections::HashSet;

use canet_catalogue::{AllowedSet, Quotas, Restriction, SetPool};
use canet_domain::{Candidates, Flops, Item, ItemSet, Ranked, Route, Selection, top_k};
use canet_model::{Forward, ForwardError, Query, RankedBatch};

use super::row::Request;

/// A row that was ranked.
pub struct RankedRow {
    /// Its items, best first. `None` if its scores are NaN or infinite.
    pub ranked: Option<Vec<Ranked>>,
    /// FLOPs that the history cache saved.
    pub reused: Flops,
    /// Whether it ran twice, because the best items that were ranked first did not fill its quotas.
    pub ran_twice: bool,
}

/// Ranks the rows of a batch within their filters and quotas.
///
/// A row's filter becomes a set of items here, not when the request arrives: so as many sets are in memory as rows run,
/// however many wait. `pool` keeps them for the next batch.
///
/// A row with quotas first ranks [more items](Quotas::lookahead) than it asks for and takes from them greedily. That is exact if it
/// fills the answer, or if no item is left. Otherwise the row runs once more for all its scores.
///
/// `items` is the size of the catalogue.
///
/// # Errors
/// [`ForwardError`] if the device fails.
pub fn rank_requests<'a>(
    forward: &dyn Forward,
    items: usize,
    rows: impl ExactSizeIterator<Item = (Route, &'a Request)> + Clone,
    pool: &mut SetPool,
) -> Result<Vec<RankedRow>, ForwardError> {
    let mut sets: Vec<Option<AllowedSet<'a>>> = Vec::new();
    if rows.clone().any(|(_, request)| request.limits_items()) {
        sets.extend(rows.clone().map(|(_, request)| request.allowed(pool)));
    }
    let set = |row: usize| sets.get(row).and_then(Option::as_deref);
    let queries: Vec<(Route, Query<'_>)> =
        rows.clone().enumerate().map(|(row, (route, request))| (route, request.query(set(row)))).collect();
    let RankedBatch { rankings, reused } = forward.rank_reusing(&queries)?;
    let mut ranked_rows = Vec::with_capacity(queries.len());
    let requests = rows.map(|(_, request)| request);
    // A forward without a cache reports nothing.
    let reused = reused.into_iter().chain(std::iter::repeat(0));
    for ((((route, query), request), best), reused) in queries.iter().zip(requests).zip(rankings).zip(reused) {
        if !query.selection.is_complete(&best, items) {
            ranked_rows.push(RankedRow { ranked: None, reused, ran_twice: false });
            continue;
        }
        let row = RowToRank { route: *route, request, query };
        ranked_rows.push(match row.within_quotas(best) {
            Some(ranked) => RankedRow { ranked: Some(ranked), reused, ran_twice: false },
            None => RankedRow { ranked: row.rank_all(forward, items)?, reused, ran_twice: true },
        });
    }
    sets.into_iter().flatten().for_each(|set| set.give_back(pool));
    Ok(ranked_rows)
}

/// A row, and what the forward is asked for it.
struct RowToRank<'a> {
    route: Route,
    request: &'a Request,
    query: &'a Query<'a>,
}

impl RowToRank<'_> {
    /// Takes the answer from the row's best items, within its quotas if it has some. `None` if that does not fill the answer
    /// and further items might.
    fn within_quotas(&self, best: Vec<Ranked>) -> Option<Vec<Ranked>> {
        let Some(mut greedy) = self.request.restriction.as_ref().and_then(Restriction::greedy) else {
            return Some(best);
        };
        let are_all = best.len() < self.query.selection.k || self.request.candidates.is_some();
        let fitting = best.into_iter().filter(|ranked| greedy.take(ranked.item));
        let taken: Vec<Ranked> = fitting.take(self.request.k).collect();
        (are_all || taken.len() == self.request.k).then_some(taken)
    }

    /// Takes items within quotas from all scores of the row. Full values leave the search, so it ends after a few passes over the
    /// scores. `None` if the scores are NaN or infinite.
    fn rank_all(&self, forward: &dyn Forward, items: usize) -> Result<Option<Vec<Ranked>>, ForwardError> {
        let scores = forward.scores(self.route, &[self.query.history])?;
        let greedy = self.request.restriction.as_ref().and_then(Restriction::greedy);
        let Some((scores, mut greedy)) = scores.row(0).zip(greedy) else { return Ok(None) };
        let mut left = match self.query.selection.candidates {
            Candidates::All => ItemSet::full(items),
            Candidates::Set(set) => set.clone(),
            Candidates::Only(listed) => {
                let mut set = ItemSet::empty(items);
                listed.iter().for_each(|item| set.insert(*item));
                set
            }
        };
        self.query.selection.excluded.iter().for_each(|item| left.remove(*item));
        let (nothing, mut taken, mut k) = (HashSet::new(), Vec::with_capacity(self.request.k), self.query.selection.k);
        loop {
            let selection = Selection { k, excluded: &nothing, candidates: Candidates::Set(&left) };
            let best = top_k(scores, &selection);
            if !selection.is_complete(&best, items) {
                return Ok(None);
            }
            let is_last = best.len() < k;
            for ranked in best {
                left.remove(ranked.item);
                if greedy.take(ranked.item) {
                    taken.push(ranked);
                    if taken.len() == self.request.k {
                        return Ok(Some(taken));
                    }
                }
            }
            if is_last {
                return Ok(Some(taken));
            }
            greedy.remove_full(&mut left);
            k = k.saturating_mul(4).min(items);
        }
    }
}

impl Request {
    /// Whether a filter or hidden items limit what may be ranked.
    pub(crate) fn limits_items(&self) -> bool {
        self.restriction.as_ref().is_some_and(Restriction::limits_items)
    }

    /// The items that may be ranked, if they are limited and not listed. Listed candidates were limited when the request was
    /// validated.
    pub(crate) fn allowed(&self, pool: &mut SetPool) -> Option<AllowedSet<'_>> {
        let restriction = self.restriction.as_ref().filter(|of| of.limits_items() && self.candidates.is_none())?;
        Some(restriction.allowed(pool))
    }

    /// The query that the forward answers, within the [allowed](Self::allowed) items. With quotas it asks for more items.
    pub(crate) fn query<'a>(&'a self, allowed: Option<&'a ItemSet>) -> Query<'a> {
        let listed: Option<&[Item]> = self.candidates.as_deref();
        let k = match (&self.restriction, listed) {
            (Some(restriction), Some(listed)) if restriction.has_quotas() => listed.len().max(1),
            (Some(restriction), None) if restriction.has_quotas() => Quotas::lookahead(self.k),
            _ => self.k,
        };
        let candidates = listed.map(Candidates::Only).or(allowed.map(Candidates::Set)).unwrap_or(Candidates::All);
        Query { history: &self.history, selection: Selection { k, excluded: &self.excluded, candidates } }
    }
}
