use std::collections::HashMap;

use super::kmeans::kmeans;
use canet_data::Case;
use canet_domain::Item;

/// Users who have something in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Their places among the cases, at least one.
    pub cases: Vec<usize>,
    /// What tells them from the others.
    pub mark: Mark,
}

/// What the users of a group have in common.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// The items that their histories hold more often than others' do, the most telling first.
    Taste(Vec<Item>),
    /// Items in their histories, from and to.
    Length(f64, f64),
    /// Mean over the items of a history of how often each stands in the training data, from and to.
    Popularity(f64, f64),
}

/// Items that describe a taste.
const TELLING: usize = 3;

/// Groups by taste: k-means of the mean embedding of each history's items, of which `embedding` has one a column (row 0
/// is the padding's), all of one length. Embeddings are taken from their mean over the items and means brought to length
/// 1, so that direction counts and not how popular a history is.
pub fn by_taste(cases: &[Case<'_>], embedding: &[Vec<f32>], clusters: usize, seed: u64) -> Vec<Group> {
    let columns = embedding.first().map_or(0, Vec::len);
    let mut centre = vec![0.0; columns];
    let items = embedding.len().saturating_sub(1).max(1) as f32;
    embedding.iter().skip(1).for_each(|row| add(&mut centre, row, 1.0 / items));
    let point = |case: &Case<'_>| {
        let mut sum = vec![0.0; columns];
        for row in case.history.iter().filter_map(|item| embedding.get(item.column())) {
            add(&mut sum, row, 1.0);
            add(&mut sum, &centre, -1.0);
        }
        let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
        sum.iter_mut().for_each(|value| *value /= length.max(f32::MIN_POSITIVE));
        sum
    };
    let members = kmeans(&cases.iter().map(point).collect::<Vec<_>>(), clusters, seed);
    let everybody = holders(cases.iter());
    let groups = members.iter().max().map_or(0, |most| most + 1);
    let group = |group: usize| {
        let own: Vec<usize> = (0..cases.len()).filter(|case| members[*case] == group).collect();
        let telling = telling(&holders(own.iter().map(|case| &cases[*case])), own.len(), &everybody, cases.len());
        Group { cases: own, mark: Mark::Taste(telling) }
    };
    (0..groups).map(group).filter(|group| !group.cases.is_empty()).collect()
}

/// Quarters of the users by the length of their histories; users of equal length are in one group.
pub fn by_length(cases: &[Case<'_>]) -> Vec<Group> {
    let lengths: Vec<f64> = cases.iter().map(|case| case.history.len() as f64).collect();
    quarters(&lengths, Mark::Length)
}

/// Quarters of the users by how popular the items of their histories are; `popularity` is by column less 1.
pub fn by_popularity(cases: &[Case<'_>], popularity: &[u64]) -> Vec<Group> {
    let count = |item: &Item| popularity.get(item.column() - 1).copied().unwrap_or_default() as f64;
    let mean = |case: &Case<'_>| case.history.iter().map(count).sum::<f64>() / case.history.len().max(1) as f64;
    quarters(&cases.iter().map(mean).collect::<Vec<_>>(), Mark::Popularity)
}

fn quarters(values: &[f64], mark: impl Fn(f64, f64) -> Mark) -> Vec<Group> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let bounds: Vec<f64> = (1..4).filter_map(|quarter| sorted.get(quarter * sorted.len() / 4).copied()).collect();
    let quarter = |value: f64| bounds.iter().filter(|bound| value >= **bound).count();
    let group = |place: usize| {
        let cases: Vec<usize> = (0..values.len()).filter(|case| quarter(values[*case]) == place).collect();
        let of_group = || cases.iter().map(|case| values[*case]);
        let mark = mark(of_group().fold(f64::INFINITY, f64::min), of_group().fold(f64::NEG_INFINITY, f64::max));
        (!cases.is_empty()).then_some(Group { cases, mark })
    };
    (0..4).filter_map(group).collect()
}

/// How many of the cases have each item in their history.
fn holders<'c>(cases: impl Iterator<Item = &'c Case<'c>>) -> HashMap<Item, u32> {
    let mut counts = HashMap::new();
    for case in cases {
        let mut items = case.history.to_vec();
        items.sort_unstable();
        items.dedup();
        items.into_iter().for_each(|item| *counts.entry(item).or_default() += 1);
    }
    counts
}

/// Items by p·ln(p / q), where p is the share of the group that has one and q everybody's: what is more common there,
/// weighted by how common it is.
fn telling(own: &HashMap<Item, u32>, cases: usize, all: &HashMap<Item, u32>, of_all: usize) -> Vec<Item> {
    let weight = |(item, count): (&Item, &u32)| {
        let p = f64::from(*count) / cases.max(1) as f64;
        let q = f64::from(all.get(item).copied().unwrap_or(*count)) / of_all.max(1) as f64;
        (*item, p * (p / q).ln())
    };
    let mut weighted: Vec<(Item, f64)> = own.iter().map(weight).filter(|(_, weight)| *weight > 0.0).collect();
    weighted.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    weighted.into_iter().take(TELLING).map(|(item, _)| item).collect()
}

fn add(sum: &mut [f32], row: &[f32], weight: f32) {
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
}
