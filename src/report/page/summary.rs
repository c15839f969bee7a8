use super::super::findings::{Findings, Point, Value, Verdict};
use super::super::words::{difference, percent, plain, range};
use crate::cautions::{looks, misses};

/// What the intervals support, and no more.
pub(in crate::report) struct Summary {
    pub(in crate::report) verdict: String,
    pub(in crate::report) sentences: Vec<String>,
}

impl Summary {
    pub(in crate::report) fn of(found: &Findings) -> Summary {
        let verdict = verdict(found);
        let Some(point) = found.points.get(found.map.point) else {
            return Summary { verdict, sentences: Vec::new() };
        };
        let mut sentences = vec![
            spends(point),
            against_hull(point),
            against_full(point, found),
            against_strongest(point, found),
            against_random(point),
            routes(point),
        ];
        sentences.extend(misses(found.repeated_targets, found.users));
        sentences.extend(looks("budgets", found.points.len(), found.users));
        Summary { verdict, sentences }
    }
}

/// Over all budgets, against static mixtures of equal FLOPs.
fn verdict(found: &Findings) -> String {
    let count = |verdict: Verdict| found.points.iter().filter(|point| point.over.hull.verdict() == verdict).count();
    let (better, worse, all) = (count(Verdict::Better), count(Verdict::Worse), found.points.len());
    let budgets = |count: usize| match (count, all) {
        (_, 1) => "at the router's own choice".to_owned(),
        (count, all) if count == all => format!("at each of {all} budgets"),
        (count, all) => format!("at {count} of {all} budgets"),
    };
    match (better, worse) {
        (0, 0) => "Routing is not shown to beat the best static routes of the same compute here.".to_owned(),
        (better, 0) => format!("Routing beats the best static routes of the same compute {}.", budgets(better)),
        (0, worse) => format!("Routing loses to the best static routes of the same compute {}.", budgets(worse)),
        (better, worse) => format!(
            "Routing beats the best static routes of the same compute {}, and loses to them at {worse}.",
            budgets(better)
        ),
    }
}

fn spends(point: &Point) -> String {
    let at = point.budget.map_or_else(
        || "By its own choice (no calibration for budgets)".to_owned(),
        |budget| format!("At a budget of {} of the full model's FLOPs", percent(budget)),
    );
    let interval = point.test.interval.map(|[low, high]| format!(" (95 %: {} to {})", plain(low), plain(high)));
    format!(
        "{at} the router saves {} of the FLOPs, its own cost counted, and {} of the measured time of a request; NDCG@10 \
         is {}{}. The sentences below are about this point.",
        percent(point.saved),
        percent(point.seconds_saved),
        plain(point.test.mean),
        interval.unwrap_or_default(),
    )
}

fn against_hull(point: &Point) -> String {
    let text = match point.over.hull.verdict() {
        Verdict::Better => "It is better than the best static mixture of the same FLOPs",
        Verdict::Worse => "It is worse than the best static mixture of the same FLOPs",
        Verdict::Open => "It is not shown to differ from the best static mixture of the same FLOPs",
    };
    let fitted = &point.over.hull_cross_fitted;
    format!("{text}: {}. Against mixtures chosen on other users: {}.", difference(&point.over.hull), difference(fitted))
}

fn against_full(point: &Point, found: &Findings) -> String {
    let over = &point.over.full;
    let full = found.routes.last().map_or(0.0, |route| route.test.mean);
    let text = match over.verdict() {
        Verdict::Better => "It is better than the full model",
        Verdict::Worse => "It is worse than the full model",
        Verdict::Open => "It is not shown to differ from the full model",
    };
    let bound = match over.interval {
        Some([low, _]) if low < 0.0 && full > 0.0 => {
            format!(
                "; a loss of up to {} of the full model's NDCG@10 is not ruled out",
                percent((-low / full).min(1.0))
            )
        }
        _ => String::new(),
    };
    format!("{text}: {}{bound}.", difference(over))
}

fn against_strongest(point: &Point, found: &Findings) -> String {
    let names: Vec<&str> = found.models.iter().map(|model| model.strongest.as_str()).collect();
    let name = match names.as_slice() {
        [first, rest @ ..] if rest.iter().all(|name| name == first) => (*first).to_owned(),
        names => names.join(", "),
    };
    let cost = found.strongest.cost.flops;
    let text = match point.over.strongest.verdict() {
        Verdict::Better => "It is better than the strongest single route for everybody",
        Verdict::Worse => "It is worse than the strongest single route for everybody",
        Verdict::Open => "It is not shown to differ from the strongest single route for everybody",
    };
    let cheaper = if cost < point.cost.flops && point.over.strongest.verdict() != Verdict::Better {
        " Serving that route to everybody costs less, and nothing here says that it is worse."
    } else {
        ""
    };
    format!(
        "{text} ({name}, by validation, {} of the full FLOPs): {}.{cheaper}",
        percent(cost / found.full_flops),
        difference(&point.over.strongest),
    )
}

fn against_random(point: &Point) -> String {
    let text = match point.over.matched.verdict() {
        Verdict::Better => {
            "What it knows of the user is worth something: over random routes of its own frequencies it gains"
        }
        Verdict::Worse => "It does worse than random routes of its own frequencies",
        Verdict::Open => {
            "What it knows of the user is not shown to be worth anything: over random routes of its own \
                          frequencies it gains"
        }
    };
    let permuted = &point.permuted;
    let [low, high] = permuted.interval;
    let holds = if (low..=high).contains(&0.0) { "nothing, as it should be" } else { "something, which must not be" };
    format!(
        "{text} {}. The control, its choices dealt out to other users, gains {holds} (95 % of the permutations: {}); {} \
         of the permutations gain as much as the router.",
        difference(&point.over.matched),
        range(permuted.interval),
        percent(permuted.p),
    )
}

fn routes(point: &Point) -> String {
    let most = point.shares.iter().max_by(|a, b| a.1.total_cmp(b.1));
    let most = most.map(|(name, share)| format!("; the most frequent, {name}, has {}", percent(*share)));
    let count = (10.0 * point.routes_in_use).round() / 10.0;
    format!("Routes that 2 % of the users or more take: {count}{}.", most.unwrap_or_default())
}

/// The class of a cell, by what its interval says.
pub(super) fn class(value: &Value) -> &'static str {
    match value.verdict() {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Open => "",
    }
}
