use std::collections::HashMap;

use crate::kmeans::kmeans;
use canet_data::Case;
use canet_domain::Item;

/// A group of users.
#[derive(Clone, Debug, PartialEq)]
pub struct UserGroup {
    /// Indices of the group's cases, at least one.
    pub cases: Vec<usize>,
    /// What the users of the group have in common.
    pub description: GroupDescription,
}

/// What the users of a group have in common.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupDescription {
    /// The items that are over-represented in the group's histories, the most telling first.
    Taste(Vec<Item>),
    /// The shortest and the longest history, in items.
    Length(f64, f64),
    /// The least and the greatest mean popularity of a history. Popularity counts an item's training interactions.
    Popularity(f64, f64),
}

/// Number of items that describe a taste.
const DESCRIBING_ITEMS: usize = 3;

/// Groups users by taste: k-means of the mean embedding of each history's items.
///
/// `embedding` has one row per column of the scores; row 0 is the padding's. The catalogue's mean embedding is
/// subtracted and each history's mean is scaled to length 1. So the direction of a taste decides, and the popularity of
/// the items does not.
pub fn by_taste(cases: &[Case<'_>], embedding: &[Vec<f32>], clusters: usize, seed: u64) -> Vec<UserGroup> {
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
    let everybody = ItemHolders::of(cases.iter());
    let clusters = members.iter().max().map_or(0, |most| most + 1);
    let group = |cluster: usize| {
        let own: Vec<usize> = (0..cases.len()).filter(|case| members[*case] == cluster).collect();
        let holders = ItemHolders::of(own.iter().map(|case| &cases[*case]));
        UserGroup { description: GroupDescription::Taste(over_represented(&holders, &everybody)), cases: own }
    };
    (0..clusters).map(group).filter(|group| !group.cases.is_empty()).collect()
}

/// Quarters of the users by the length of their histories. Users with histories of equal length share a group.
pub fn by_length(cases: &[Case<'_>]) -> Vec<UserGroup> {
    let lengths: Vec<f64> = cases.iter().map(|case| case.history.len() as f64).collect();
    quarters(&lengths, GroupDescription::Length)
}

/// Quarters of the users by the mean popularity of their items. `popularity` holds the count of column i at i - 1.
pub fn by_popularity(cases: &[Case<'_>], popularity: &[u64]) -> Vec<UserGroup> {
    let count = |item: &Item| popularity.get(item.column() - 1).copied().unwrap_or_default() as f64;
    let mean = |case: &Case<'_>| case.history.iter().map(count).sum::<f64>() / case.history.len().max(1) as f64;
    quarters(&cases.iter().map(mean).collect::<Vec<_>>(), GroupDescription::Popularity)
}

fn quarters(values: &[f64], describe: impl Fn(f64, f64) -> GroupDescription) -> Vec<UserGroup> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let bounds: Vec<f64> = (1..4).filter_map(|quarter| sorted.get(quarter * sorted.len() / 4).copied()).collect();
    let quarter_of = |value: f64| bounds.iter().filter(|bound| value >= **bound).count();
    let group = |quarter: usize| {
        let cases: Vec<usize> = (0..values.len()).filter(|case| quarter_of(values[*case]) == quarter).collect();
        let own = || cases.iter().map(|case| values[*case]);
        let description = describe(own().fold(f64::INFINITY, f64::min), own().fold(f64::NEG_INFINITY, f64::max));
        (!cases.is_empty()).then_some(UserGroup { cases, description })
    };
    (0..4).filter_map(group).collect()
}

/// How many of some cases have each item in their history.
struct ItemHolders {
    cases: u32,
    by_item: HashMap<Item, u32>,
}

impl ItemHolders {
    fn of<'c>(cases: impl Iterator<Item = &'c Case<'c>>) -> ItemHolders {
        let mut holders = ItemHolders { cases: 0, by_item: HashMap::new() };
        for case in cases {
            let mut items = case.history.to_vec();
            items.sort_unstable();
            items.dedup();
            items.into_iter().for_each(|item| *holders.by_item.entry(item).or_default() += 1);
            holders.cases += 1;
        }
        holders
    }

    /// Share of the cases whose history has the item.
    fn share(&self, item: Item) -> f64 {
        f64::from(self.by_item.get(&item).copied().unwrap_or_default()) / f64::from(self.cases.max(1))
    }
}

/// The items with the largest p·ln(p / q): p is the share of the group's users with the item, q the share of all users.
///
/// This is the item's term of the Kullback-Leibler divergence: an item describes a group if it is more common there
/// than elsewhere, and the more so the more common it is.
fn over_represented(group: &ItemHolders, everybody: &ItemHolders) -> Vec<Item> {
    let weight = |item: &Item| {
        let (p, q) = (group.share(*item), everybody.share(*item));
        (*item, p * (p / q).ln())
    };
    let mut weighted: Vec<(Item, f64)> = group.by_item.keys().map(weight).filter(|(_, weight)| *weight > 0.0).collect();
    weighted.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    weighted.into_iter().take(DESCRIBING_ITEMS).map(|(item, _)| item).collect()
}

fn add(sum: &mut [f32], row: &[f32], weight: f32) {
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ITEMS, item, items};

    /// Twenty histories of two tastes: items 1 and 2, or 4 and 5. The first ten also have item 3.
    fn histories() -> Vec<Vec<Item>> {
        let taste = |user: usize| if user.is_multiple_of(4) { [4, 5, 3] } else { [1, 2, 3] };
        (0..20).map(|user| items(&taste(user)[..if user < 10 { 3 } else { 2 }])).collect()
    }

    fn cases(histories: &[Vec<Item>]) -> Vec<Case<'_>> {
        histories.iter().enumerate().map(|(user, history)| Case { user, history, target: item(1) }).collect()
    }

    fn assert_partition(groups: &[UserGroup]) {
        let mut members: Vec<usize> = groups.iter().flat_map(|group| group.cases.clone()).collect();
        members.sort_unstable();
        assert_eq!(members, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn tastes_are_described_by_over_represented_items() {
        let histories = histories();
        let row = |column: usize| vec![if column > 3 { 1.0 } else { -1.0 }, if column == 3 { 0.1 } else { 0.0 }];
        let embedding: Vec<Vec<f32>> = (0..=ITEMS).map(row).collect();
        let groups = by_taste(&cases(&histories), &embedding, 2, 1);
        assert_partition(&groups);
        assert_eq!(groups[0].cases.len(), 15);
        // 7 of 15 users and 3 of 5 have item 3, of all users 10 of 20.
        assert_eq!(groups[0].description, GroupDescription::Taste(items(&[1, 2])));
        assert_eq!(groups[1].description, GroupDescription::Taste(items(&[4, 5, 3])));
    }

    #[test]
    fn quarters_keep_equal_values_together() {
        let histories = histories();
        let lengths = by_length(&cases(&histories));
        assert_partition(&lengths);
        let descriptions: Vec<GroupDescription> = lengths.into_iter().map(|group| group.description).collect();
        assert_eq!(descriptions, [GroupDescription::Length(2.0, 2.0), GroupDescription::Length(3.0, 3.0)]);

        let popular = by_popularity(&cases(&histories), &[10, 10, 10, 40, 40, 40]);
        assert_partition(&popular);
        assert_eq!(popular.last().unwrap().description, GroupDescription::Popularity(30.0, 40.0));
    }
}
