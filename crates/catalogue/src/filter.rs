use canet_domain::{Item, ItemSet};

use super::expression::FilterExpression;
use super::index::ItemIndex;
use super::nearest::{list, shortened};
use super::pool::SetPool;

/// A name that the catalogue file does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct UnknownName {
    /// The request's field, such as `filter.category`.
    pub field: String,
    /// What is wrong, and the names that exist, the most similar first.
    pub detail: String,
}

/// A filter by the keys and values of one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    terms: Vec<Term>,
    not: Vec<Filter>,
}

/// Any of these values of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    key: usize,
    /// Ascending.
    values: Vec<u32>,
}

impl Filter {
    /// Finds the names of an expression. `field` is the request's field that has it.
    pub(crate) fn new(expression: &FilterExpression, index: &ItemIndex, field: &str) -> Result<Filter, UnknownName> {
        let mut terms = Vec::with_capacity(expression.terms.len());
        for (name, values) in &expression.terms {
            let key = find_key(index, name, field)?;
            let field = || format!("{field}.{}", shortened(name));
            if values.is_empty() {
                let detail = format!("no value of {name:?} is named: name at least one, or leave the key out");
                return Err(UnknownName { field: field(), detail });
            }
            let place = |value: &str| {
                index.values(key).binary_search_by(|known| (**known).cmp(value)).map(|place| place as u32).map_err(
                    |_| {
                        let known: Vec<&str> = index.values(key).iter().map(|value| &**value).collect();
                        let value = shortened(value);
                        let detail = match known.is_empty() {
                            true => format!("no item has a value of {name:?}"),
                            false => {
                                format!("no item has {value:?} as {name:?}: the values are {}", list(&value, &known))
                            }
                        };
                        UnknownName { field: field(), detail }
                    },
                )
            };
            let mut values = values.iter().map(|value| place(value)).collect::<Result<Vec<u32>, UnknownName>>()?;
            values.sort_unstable();
            values.dedup();
            terms.push(Term { key, values });
        }
        let several = expression.not.len() > 1;
        let not = expression.not.iter().enumerate().map(|(place, not)| {
            let field = if several { format!("{field}.not[{place}]") } else { format!("{field}.not") };
            Filter::new(not, index, &field)
        });
        Ok(Filter { terms, not: not.collect::<Result<_, _>>()? })
    }

    /// Whether the filter keeps an item.
    pub(crate) fn keeps(&self, index: &ItemIndex, item: Item) -> bool {
        let has =
            |term: &Term| index.values_of(term.key, item).iter().any(|value| term.values.binary_search(value).is_ok());
        self.terms.iter().all(has) && !self.not.iter().any(|not| not.keeps(index, item))
    }

    /// The items that the filter keeps.
    pub(crate) fn evaluate(&self, index: &ItemIndex, pool: &mut SetPool) -> ItemSet {
        let mut kept = pool.take(index.len());
        match self.terms.split_first() {
            None => kept.complement(),
            Some((first, others)) => {
                first.add_items(index, &mut kept);
                for term in others {
                    let mut of_term = pool.take(index.len());
                    term.add_items(index, &mut of_term);
                    kept.intersect_with(&of_term);
                    pool.give_back(of_term);
                }
            }
        }
        for not in &self.not {
            let others = not.evaluate(index, pool);
            kept.subtract(&others);
            pool.give_back(others);
        }
        kept
    }
}

impl Term {
    fn add_items(&self, index: &ItemIndex, to: &mut ItemSet) {
        self.values.iter().for_each(|value| index.add_items(self.key, *value, to));
    }
}

/// The place of a key. `field` is the request's field that names it.
pub(crate) fn find_key(index: &ItemIndex, name: &str, field: &str) -> Result<usize, UnknownName> {
    index.key(name).ok_or_else(|| {
        let mut known: Vec<&str> = index.keys().map(|key| key.name).collect();
        known.sort_unstable();
        let field = format!("{field}.{}", shortened(name));
        let name = shortened(name);
        let detail = match known.is_empty() {
            true => format!("the catalogue file has no key {name:?}: it has no keys"),
            false => format!("the catalogue file has no key {name:?}: its keys are {}", list(&name, &known)),
        };
        UnknownName { field, detail }
    })
}
