use std::path::Path;

use super::super::Failure;
use super::findings::{GroupFinding, Kind, Map};
use super::judge::{IN_USE, Judge};
use super::study::{Splits, item_embedding};
use canet_domain::{Catalogue, Route};
use canet_evaluation::{Group, Mark, Replicated, by_length, by_popularity, by_taste, frequencies};
use canet_model::Model;

/// Clusters of taste.
const TASTES: usize = 8;

/// Which users the first model's router sends where at one of the budgets.
pub(super) fn map(judge: &Judge<'_>, catalogue: &Catalogue, groups: &[Group], point: usize) -> Option<Map> {
    let (space, study) = (judge.space, judge.studies.first()?);
    let choices = &study.choices[point];
    let everybody = frequencies(choices, space.len());
    let routes: Vec<Route> = space.routes().filter(|route| everybody[route.index()] >= IN_USE).collect();
    let routed = study.test.assigned(choices);
    let over_matched = routed.differences(&study.test.drawn(&everybody));
    let over_hull = routed.differences(&judge.equal_flops(study, point));
    let finding = |group: &Group| {
        let of = |values: &[f64]| -> Vec<f64> { group.cases.iter().map(|case| values[*case]).collect() };
        let own: Vec<Route> = group.cases.iter().map(|case| choices[*case]).collect();
        let shares = frequencies(&own, space.len());
        let flops = |route: Route, case: usize| study.test.flops(route)[case] as f64;
        let spent: f64 =
            group.cases.iter().map(|case| flops(choices[*case], *case) + study.test.router_flops()[*case] as f64).sum();
        let full: f64 = group.cases.iter().map(|case| flops(space.full(), *case)).sum();
        let (kind, label) = label(&group.mark, catalogue);
        GroupFinding {
            kind,
            label,
            users: group.cases.len(),
            shares: routes.iter().map(|route| shares[route.index()]).collect(),
            saved: 1.0 - spent / full,
            test: Replicated::of(&[of(&routed.values)]).into(),
            over_matched: Replicated::of(&[of(&over_matched)]).into(),
            over_hull: Replicated::of(&[of(&over_hull)]).into(),
        }
    };
    Some(Map {
        point,
        routes: routes.iter().map(|route| space.name(*route).to_owned()).collect(),
        groups: groups.iter().map(finding).collect(),
    })
}

/// The test users by taste, by the length of their history and by the popularity of its items.
pub(super) fn groups(directory: &Path, model: &Model, splits: &Splits<'_>, seed: u64) -> Result<Vec<Group>, Failure> {
    let groups = [
        by_taste(&splits.test, &item_embedding(directory, model)?, TASTES, seed),
        by_length(&splits.test),
        by_popularity(&splits.test, model.catalogue().popularity()),
    ];
    Ok(groups.into_iter().flatten().collect())
}

fn label(mark: &Mark, catalogue: &Catalogue) -> (Kind, String) {
    match mark {
        Mark::Taste(items) => {
            let name = |item| catalogue.title(item).unwrap_or_else(|| catalogue.id(item));
            (Kind::Taste, items.iter().map(|item| name(*item)).collect::<Vec<_>>().join(", "))
        }
        Mark::Length(from, to) if from == to => (Kind::Length, format!("{from:.0} items")),
        Mark::Length(from, to) => (Kind::Length, format!("{from:.0} to {to:.0} items")),
        Mark::Popularity(from, to) => (Kind::Popularity, format!("{from:.0} to {to:.0} interactions an item")),
    }
}
