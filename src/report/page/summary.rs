use super::super::findings::{Findings, OperatingPoint, Value};
use super::super::format::{difference, percent, plain, range};
use crate::caveats::{multiple_comparisons, repeated_targets};
use canet_evaluation::Shown;

/// Conclusions that the intervals support beyond the verdict, a sentence or two each.
pub(in crate::report) fn summary(found: &Findings) -> Vec<String> {
    let point = found.points.get(found.map.point).filter(|_| found.routes.len() > 1);
    let Some(point) = point else {
        return vec![simple_baselines(found)];
    };
    let mut sentences = vec![over_budgets(found)];
    sentences.extend(fixed(found));
    sentences.extend([
        simple_baselines(found),
        savings(point),
        against_hull(point),
        against_full(point, found),
        against_strongest(point, found),
        against_random(point),
        routes(point),
    ]);
    sentences.extend(repeated_targets(found.repeated_targets, found.users, found.seen_items));
    sentences.extend(multiple_comparisons("budgets", found.points.len(), found.users));
    sentences
}

/// Compares the router at all budgets with static mixtures of equal FLOPs.
fn over_budgets(found: &Findings) -> String {
    let count = |shown: Shown| found.points.iter().filter(|point| point.over.hull.shown() == shown).count();
    let (better, worse, all) = (count(Shown::Better), count(Shown::Worse), found.points.len());
    let budgets = |count: usize| match (count, all) {
        (_, 1) => match found.points.iter().find_map(|point| point.budget) {
            Some(budget) => format!("at a budget of {}", percent(budget)),
            None => "at the router's own choice".to_owned(),
        },
        (count, all) if count == all => format!("at each of {all} budgets"),
        (count, all) => format!("at {count} of {all} budgets"),
    };
    match (better, worse) {
        (0, 0) => "Routing is not shown to beat the best static mixture of the same FLOPs here.".to_owned(),
        (better, 0) => format!("Routing beats the best static mixture of the same FLOPs {}.", budgets(better)),
        (0, worse) => format!("Routing loses to the best static mixture of the same FLOPs {}.", budgets(worse)),
        (better, worse) => format!(
            "Routing beats the best static mixture of the same FLOPs {}, and loses to it at {worse}.",
            budgets(better)
        ),
    }
}

/// Under which budgets a server does not ask the router. `None` if it always does.
fn fixed(found: &Findings) -> Option<String> {
    let models = found.models.len();
    let named = |point: &OperatingPoint| {
        let budget = point.budget.map(percent)?;
        let some = match point.fixed_in {
            all if all == models => String::new(),
            some => format!(" (in {some} of {models} models)"),
        };
        (!point.fixed.is_empty()).then(|| format!("{} at {budget}{some}", point.fixed.join(" or ")))
    };
    let named: Vec<String> = found.points.iter().filter_map(named).collect();
    (!named.is_empty()).then(|| {
        format!(
            "A server does not ask the router under these budgets, because on validation it is not shown to gain over the \
             static mixtures of the same cost. It runs one slice for everybody: {}. The report shows what the router would do.",
            named.join(", ")
        )
    })
}

/// What the baselines without a network reach.
fn simple_baselines(found: &Findings) -> String {
    let full = found.routes.last().map_or(0.0, |route| route.test.mean);
    format!(
        "A Markov chain has an NDCG@10 of {}, the most popular items have {}, and the full model has {}.",
        plain(found.markov.mean),
        plain(found.popularity.mean),
        plain(full)
    )
}

fn savings(point: &OperatingPoint) -> String {
    let at = point.budget.map_or_else(
        || "With its own choices (no calibration for budgets)".to_owned(),
        |budget| format!("At a budget of {} of the full model's FLOPs", percent(budget)),
    );
    let interval = point.test.interval.map(|[low, high]| format!(" (95 %: {} to {})", plain(low), plain(high)));
    let saves = |share: f64| match share < 0.0 {
        true => format!("adds {} to", percent(-share)),
        false => format!("saves {} of", percent(share)),
    };
    format!(
        "{at} the router {} the FLOPs, including its own cost, and {} the measured time of a request. NDCG@10 \
         is {}{}. The following sentences are about this point.",
        saves(point.saved),
        saves(point.seconds_saved),
        plain(point.test.mean),
        interval.unwrap_or_default(),
    )
}

/// The beginning of a sentence that compares the router with `other`.
fn comparison(value: &Value, other: &str) -> String {
    match value.shown() {
        Shown::Better => format!("It is better than {other}"),
        Shown::Worse => format!("It is worse than {other}"),
        Shown::Open => format!("It is not shown to differ from {other}"),
    }
}

fn against_hull(point: &OperatingPoint) -> String {
    let over = &point.over;
    format!(
        "{}: {}. Against mixtures chosen on other users: {}.",
        comparison(&over.hull, "the best static mixture of the same FLOPs"),
        difference(&over.hull),
        difference(&over.hull_cross_fitted)
    )
}

fn against_full(point: &OperatingPoint, found: &Findings) -> String {
    let over = &point.over.full;
    let full = found.routes.last().map_or(0.0, |route| route.test.mean);
    let bound = match over.interval {
        Some([low, _]) if low < 0.0 && full > 0.0 => {
            let loss = percent((-low / full).min(1.0));
            format!("; a loss of up to {loss} of the full model's NDCG@10 is not ruled out")
        }
        _ => String::new(),
    };
    format!("{}: {}{bound}.", comparison(over, "the full model"), difference(over))
}

fn against_strongest(point: &OperatingPoint, found: &Findings) -> String {
    let over = &point.over.strongest;
    let name = found.strongest_names();
    let cost = found.strongest.cost.flops;
    let cheaper = if cost < point.cost.flops && over.shown() != Shown::Better {
        " Serving that slice to every user costs less and is not shown to be worse."
    } else {
        ""
    };
    format!(
        "{} ({name}, chosen on validation, {} of the full FLOPs): {}.{cheaper}",
        comparison(over, "the strongest slice for every user"),
        percent(cost / found.full_flops),
        difference(over),
    )
}

fn against_random(point: &OperatingPoint) -> String {
    let over = &point.over.matched;
    let text = match over.shown() {
        Shown::Better => {
            "Its knowledge about the user pays: compared with random routes of its own frequencies it gains"
        }
        Shown::Worse => "It is worse than random routes of its own frequencies:",
        Shown::Open => {
            "Its knowledge about the user is not shown to pay: compared with random routes of its own frequencies it gains"
        }
    };
    let permuted = &point.permuted;
    let gain = if permuted.gains_nothing { "nothing, as expected" } else { "something, which is an error" };
    format!(
        "{text} {}. In the permutation test, its choices shuffled among the users gain {gain} (95 % of the permutations: \
         {}); {} of the permutations gain as much as the router.",
        difference(over),
        range(permuted.interval),
        percent(permuted.p),
    )
}

fn routes(point: &OperatingPoint) -> String {
    let most = point.shares.iter().max_by(|a, b| a.1.total_cmp(b.1));
    let most = most.map(|(name, share)| format!("; the most frequent one, {name}, has {}", percent(*share)));
    let count = (10.0 * point.routes_in_use).round() / 10.0;
    format!("Number of routes with at least 2 % of the users: {count}{}.", most.unwrap_or_default())
}

/// The CSS class of a cell with a difference.
pub(super) fn class(value: &Value) -> &'static str {
    match value.shown() {
        Shown::Better => "better",
        Shown::Worse => "worse",
        Shown::Open => "",
    }
}
