use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};

use canet_catalogue::{ColdStart, FilterExpression, ItemIndex, Restriction, SetPool, UnknownName, most_popular};
use canet_domain::{Candidates, History, Item, ItemSet, Ranked, Route, Selection};
use canet_model::{ForwardError, Model, Query};

/// Largest number of ranked items of a batch. It limits the batch if `k` is large.
pub const MAX_RANKED_ITEMS: usize = 1 << 18;

/// What the users of a [`BatchRanker`] get.
#[derive(Clone, Copy, Debug)]
pub struct RankingOptions<'a> {
    /// Number of items for each user, from 1 to the size of the catalogue.
    pub k: usize,
    /// The name of every user's route: a route's own name, `full` or `smallest`. `auto` leaves the choice to the router.
    pub route: &'a str,
    /// Share of the full model's FLOPs that the router may spend, above 0 and at most 1.
    pub budget: f64,
    /// Whether a user's own items are left out.
    pub exclude_seen: bool,
    /// Items that nobody gets.
    pub excluded: &'a [Item],
    /// The items to choose from for everybody. `None` means the whole catalogue.
    pub candidates: Option<&'a [Item]>,
    /// The catalogue file, whose hidden items nobody gets.
    pub index: Option<&'a Arc<ItemIndex>>,
    /// The items that are recommended, by keys of the catalogue file. It needs one.
    pub filter: Option<&'a FilterExpression>,
}

/// An option has no meaning for the model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OptionsError {
    /// The number of items is out of range.
    #[error("`k` is {k}: it must be from 1 to {most}")]
    K {
        /// The number.
        k: usize,
        /// The size of the catalogue.
        most: usize,
    },
    /// The budget is out of range.
    #[error("`budget` is {0}: it must be above 0 and at most 1")]
    Budget(f64),
    /// The model has no such route.
    #[error("there is no route {name:?}: use auto, full, smallest or a route's name, as {example}")]
    Route {
        /// The name.
        name: String,
        /// The name of a route of the model.
        example: String,
    },
    /// The catalogue file lacks a key or a value.
    #[error("`{}`: {}", .0.field, .0.detail)]
    Filter(#[from] UnknownName),
    /// There is a filter without a catalogue file.
    #[error("`filter` needs a catalogue file: open the model with one")]
    NoCatalogueFile,
}

/// Why a batch was not ranked.
#[derive(Debug, thiserror::Error)]
pub enum RankError {
    /// The device failed, or the router's logits are not finite.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The scores of a user are not finite.
    #[error("user {place} of the batch: {source}")]
    User {
        /// The user's place in the batch, from 0.
        place: usize,
        /// The reason.
        source: ForwardError,
    },
}

/// A user of a batch.
#[derive(Clone, Copy, Debug)]
pub struct UserItems<'a> {
    /// All known items of the user, oldest first. The model reads the newest.
    pub sequence: &'a [Item],
    /// Further items that the user must not get.
    pub excluded: &'a [Item],
    /// The items to choose from, of those that everybody may get. `None` means all of them.
    pub candidates: Option<&'a [Item]>,
}

/// What a user gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommended {
    /// Best first. There are fewer than `k` if too few are allowed. The scores of a user without a route count interactions.
    pub items: Vec<Ranked>,
    /// The route that ran. `None` if the user has no known item: the items are then the most popular ones.
    pub route: Option<Route>,
    /// Number of items that the model read.
    pub read: usize,
}

/// Ranks batches of users with one set of options.
#[derive(Debug)]
pub struct BatchRanker<'a> {
    model: &'a Model,
    route: Option<Route>,
    budget: f64,
    k: usize,
    exclude_seen: bool,
    /// The items that everybody may get. `None` stands for all.
    allowed: Option<ItemSet>,
    /// These, the most popular first, once a user has no known item.
    popular: OnceLock<Vec<Item>>,
}

impl<'a> BatchRanker<'a> {
    /// A ranker of users of a model.
    ///
    /// # Errors
    /// [`OptionsError`] names the wrong option.
    pub fn new(model: &'a Model, options: RankingOptions<'_>) -> Result<BatchRanker<'a>, OptionsError> {
        let RankingOptions { k, route, budget, exclude_seen, excluded, candidates, index, filter } = options;
        let most = model.catalogue().len();
        if !(1..=most).contains(&k) {
            return Err(OptionsError::K { k, most });
        }
        if !(budget > 0.0 && budget <= 1.0) {
            return Err(OptionsError::Budget(budget));
        }
        let space = model.space();
        let route = match route {
            "auto" => model.policy(budget).fixed(),
            name => Some(space.named(name).ok_or_else(|| OptionsError::Route {
                name: name.to_owned(),
                example: space.name(space.smallest()).to_owned(),
            })?),
        };
        let restriction = match (index, filter) {
            (Some(index), filter) => Restriction::new(index, filter, None)?,
            (None, Some(filter)) if !filter.is_empty() => return Err(OptionsError::NoCatalogueFile),
            (None, _) => None,
        };
        let mut allowed =
            restriction.as_ref().map(|restriction| restriction.allowed(&mut SetPool::default()).into_set());
        if let Some(candidates) = candidates {
            let mut listed = ItemSet::empty(most);
            candidates.iter().for_each(|item| listed.insert(*item));
            allowed.get_or_insert_with(|| ItemSet::full(most)).intersect_with(&listed);
        }
        if !excluded.is_empty() {
            let allowed = allowed.get_or_insert_with(|| ItemSet::full(most));
            excluded.iter().for_each(|item| allowed.remove(*item));
        }
        Ok(BatchRanker { model, route, budget, k, exclude_seen, allowed, popular: OnceLock::new() })
    }

    /// Number of users in a batch, out of the number that the caller prefers: their rankings have at most [`MAX_RANKED_ITEMS`]
    /// items together.
    pub fn batch_size(&self, preferred: usize) -> usize {
        preferred.min(MAX_RANKED_ITEMS / self.k).max(1)
    }

    /// Recommends to each user of a batch, in order.
    ///
    /// # Errors
    /// [`RankError`] if the device fails or numbers are not finite.
    pub fn rank(&self, users: &[UserItems<'_>]) -> Result<Vec<Recommended>, RankError> {
        let known = Known::of(self.model, users.iter().map(|user| user.sequence));
        let routes = known.routes(self.model, self.route, self.budget)?;
        let excluded: Vec<HashSet<Item>> = known.places.iter().map(|place| self.excluded(&users[*place])).collect();
        let listed: Vec<Option<Vec<Item>>> = known.places.iter().map(|place| self.candidates(&users[*place])).collect();
        let for_everybody = self.allowed.as_ref().map_or(Candidates::All, Candidates::Set);
        let queries: Vec<(Route, Query<'_>)> = (routes.into_iter().zip(&known.histories))
            .zip(excluded.iter().zip(&listed))
            .map(|((route, history), (excluded, listed))| {
                let candidates = listed.as_deref().map_or(for_everybody, Candidates::Only);
                (route, Query { history, selection: Selection { k: self.k, excluded, candidates } })
            })
            .collect();
        let ranked = self.model.rank(&queries)?;
        let mut ranked = known.places.iter().zip(&queries).zip(ranked).peekable();
        let recommended = |(place, user): (usize, &UserItems<'_>)| {
            let Some(((_, (route, query)), items)) = ranked.next_if(|((known, _), _)| **known == place) else {
                return Ok(self.most_popular(user));
            };
            if !self.model.is_complete(query, &items) {
                return Err(RankError::User { place, source: ForwardError::NotFinite("the scores") });
            }
            Ok(Recommended { items, route: Some(*route), read: query.history.len() })
        };
        users.iter().enumerate().map(recommended).collect()
    }

    /// Writes the score of every item of the catalogue, in its order, for each user of a batch. `scores` has a row for each user,
    /// which becomes NaN if the user has no known item. Options other than the route and the budget change nothing.
    ///
    /// # Errors
    /// [`RankError`] if the device fails or numbers are not finite.
    pub fn scores(&self, sequences: &[&[Item]], scores: &mut [f32]) -> Result<(), RankError> {
        let items = self.model.catalogue().len();
        scores.fill(f32::NAN);
        let known = Known::of(self.model, sequences.iter().copied());
        let mut by_route: BTreeMap<Route, Vec<usize>> = BTreeMap::new();
        for (user, route) in known.routes(self.model, self.route, self.budget)?.into_iter().enumerate() {
            by_route.entry(route).or_default().push(user);
        }
        for (route, users) in by_route {
            let histories: Vec<&History> = users.iter().map(|user| &known.histories[*user]).collect();
            let computed = self.model.forward().scores(route, &histories)?;
            for (user, computed) in users.iter().zip(computed.iter()) {
                let place = known.places[*user];
                // Column 0 is padding.
                let computed = &computed[1..];
                if !computed.iter().all(|score| score.is_finite()) {
                    return Err(RankError::User { place, source: ForwardError::NotFinite("the scores") });
                }
                scores[place * items..][..items].copy_from_slice(computed);
            }
        }
        Ok(())
    }

    /// The route of every user, by name or by the budget; `None` if the router chooses.
    pub fn fixed_route(&self) -> Option<Route> {
        self.route
    }

    /// All of a user's sequence counts as seen, including items before those that the model reads.
    fn excluded(&self, user: &UserItems<'_>) -> HashSet<Item> {
        let seen = if self.exclude_seen { user.sequence } else { &[] };
        seen.iter().chain(user.excluded).copied().collect()
    }

    /// The user's own candidates, of those that everybody may get.
    fn candidates(&self, user: &UserItems<'_>) -> Option<Vec<Item>> {
        let is_allowed = |item: &Item| self.allowed.as_ref().is_none_or(|allowed| allowed.contains(*item));
        Some(user.candidates?.iter().copied().filter(is_allowed).collect())
    }

    fn most_popular(&self, user: &UserItems<'_>) -> Recommended {
        let catalogue = self.model.catalogue();
        let excluded = self.excluded(user);
        let items: Vec<Item> = match (self.candidates(user), &self.allowed) {
            (Some(own), _) => {
                let candidates = Some(own.into_iter().collect());
                most_popular(catalogue, &ColdStart { k: self.k, excluded, candidates, restriction: None })
            }
            (None, allowed) => {
                let popular = allowed.as_ref().map_or(catalogue.by_popularity(), |allowed| {
                    self.popular.get_or_init(|| {
                        catalogue.by_popularity().iter().copied().filter(|item| allowed.contains(*item)).collect()
                    })
                });
                popular.iter().copied().filter(|item| !excluded.contains(item)).take(self.k).collect()
            }
        };
        let ranked = |item: Item| Ranked { item, score: catalogue.popularity()[item.column() - 1] as f32 };
        let items = items.into_iter().map(ranked).collect();
        Recommended { items, route: None, read: 0 }
    }
}

/// The users of a batch who have a known item.
struct Known {
    /// Their places in the batch.
    places: Vec<usize>,
    histories: Vec<History>,
}

impl Known {
    fn of<'a>(model: &Model, sequences: impl Iterator<Item = &'a [Item]>) -> Known {
        let window = model.config().window();
        let history = |(place, sequence)| Some((place, History::in_window(sequence, window, 0).ok()?));
        let (places, histories) = sequences.enumerate().filter_map(history).unzip();
        Known { places, histories }
    }

    /// The route of each of them.
    fn routes(&self, model: &Model, fixed: Option<Route>, budget: f64) -> Result<Vec<Route>, ForwardError> {
        if let Some(route) = fixed {
            return Ok(vec![route; self.places.len()]);
        }
        let histories: Vec<&History> = self.histories.iter().collect();
        Ok(model.route(&histories, budget)?.into_iter().map(|choice| choice.route).collect())
    }
}
