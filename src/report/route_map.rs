use super::analysis::{Analysis, IN_USE};
use super::findings::{GroupFinding, Grouping, RouteMap};
use super::measured::{Splits, item_embedding};
use crate::Failure;
use canet_domain::{Catalogue, Route};
use canet_evaluation::{
    GroupDescription, MultiModelEstimate, UserGroup, by_length, by_popularity, by_taste, route_frequencies,
};
use canet_model::Model;
use canet_model::checkpoint::ModelDirectory;

/// Number of clusters of taste.
const TASTES: usize = 8;

/// Groups the test users by taste, by the length of their history and by the popularity of its items.
pub(super) fn user_groups(
    directory: &ModelDirectory,
    model: &Model,
    splits: &Splits<'_>,
    seed: u64,
) -> Result<Vec<UserGroup>, Failure> {
    let groups = [
        by_taste(&splits.test, &item_embedding(directory, model)?, TASTES, seed),
        by_length(&splits.test),
        by_popularity(&splits.test, model.catalogue().popularity()),
    ];
    Ok(groups.into_iter().flatten().collect())
}

/// The routes of each group of users, for the first model's router at the budget with index `point`.
pub(super) fn route_map(
    analysis: &Analysis<'_>,
    catalogue: &Catalogue,
    groups: &[UserGroup],
    point: usize,
) -> Option<RouteMap> {
    let (space, model) = (analysis.space, analysis.models.first()?);
    let choices = &model.choices[point];
    let everybody = route_frequencies(choices, space.len());
    let routes: Vec<Route> = space.routes().filter(|route| everybody[route.index()] >= IN_USE).collect();
    let routed = model.test.assigned(choices);
    let over_matched = routed.differences(&model.test.drawn(&everybody));
    let over_hull = routed.differences(&analysis.mixture_of_equal_flops(model, point));
    let finding = |group: &UserGroup| {
        let of_group = |values: &[f64]| {
            let own: Vec<f64> = group.cases.iter().map(|case| values[*case]).collect();
            MultiModelEstimate::of(&[own]).into()
        };
        let own: Vec<Route> = group.cases.iter().map(|case| choices[*case]).collect();
        let shares = route_frequencies(&own, space.len());
        let flops = |route: Route, case: usize| model.test.flops(route)[case] as f64;
        let routed_flops = |case: &usize| flops(choices[*case], *case) + model.test.router_flops()[*case] as f64;
        let spent: f64 = group.cases.iter().map(routed_flops).sum();
        let full: f64 = group.cases.iter().map(|case| flops(space.full(), *case)).sum();
        let (kind, label) = label(&group.description, catalogue);
        GroupFinding {
            kind,
            label,
            users: group.cases.len(),
            shares: routes.iter().map(|route| shares[route.index()]).collect(),
            saved: 1.0 - spent / full,
            test: of_group(&routed.values),
            over_matched: of_group(&over_matched),
            over_hull: of_group(&over_hull),
        }
    };
    Some(RouteMap {
        point,
        routes: routes.iter().map(|route| space.name(*route).to_owned()).collect(),
        groups: groups.iter().map(finding).collect(),
    })
}

fn label(description: &GroupDescription, catalogue: &Catalogue) -> (Grouping, String) {
    match description {
        GroupDescription::Taste(items) => {
            let name = |item| catalogue.title(item).unwrap_or_else(|| catalogue.id(item));
            (Grouping::Taste, items.iter().map(|item| name(*item)).collect::<Vec<_>>().join(", "))
        }
        GroupDescription::Length(low, high) if low == high => (Grouping::Length, format!("{low:.0} items")),
        GroupDescription::Length(low, high) => (Grouping::Length, format!("{low:.0} to {high:.0} items")),
        GroupDescription::Popularity(low, high) => {
            (Grouping::Popularity, format!("{low:.0} to {high:.0} interactions per item"))
        }
    }
}
