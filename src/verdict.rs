//! The words of a verdict, for `train`, `eval` and `report`.

use serde::Serialize;

use canet_evaluation::{Difference, Estimate, Rival, Routing, SeenItems, Shown, Unbeaten, Verdict, t_critical};

use crate::columns::{aligned, wrapped};
use crate::numbers::DEFAULT_BUDGET;

/// From this share of repeated targets on, the next command has `--include-seen`.
const MANY_REPEATS: f64 = 0.2;

/// The command lines that a verdict may recommend.
pub(crate) struct Commands {
    /// Flags that name the model, as `--model models/mine`.
    pub(crate) model: String,
    /// The arguments of the training that ended; `None` if no training did.
    pub(crate) retrain: Option<String>,
    /// Whether most repeats of the data have the same time as the interaction that they repeat.
    pub(crate) repeats_by_duplicates: bool,
    /// Whether --include-seen gave another rule than the model's, which a server follows.
    pub(crate) overrides_seen: bool,
}

/// A verdict in words.
#[derive(Clone, Serialize)]
pub(crate) struct Words {
    /// The conclusion in one sentence.
    pub(crate) headline: String,
    /// What follows from it, a sentence or two each.
    pub(crate) sentences: Vec<String>,
    /// The command to run next.
    pub(crate) next: Option<String>,
    /// The numbers.
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

/// The titles of [`Words::rows`].
pub(crate) const COLUMNS: [&str; 5] = ["run", "NDCG@10", "compute", "model minus this (95 %)", "conclusion"];

impl Words {
    /// Puts a verdict into words.
    pub(crate) fn of(verdict: Verdict, commands: &Commands) -> Words {
        let mut sentences = Vec::new();
        let headline = match &verdict.unbeaten {
            Some(unbeaten) => {
                sentences.push(consequence(&verdict, unbeaten));
                sentences.push(routing(&verdict));
                not_beaten(&verdict, unbeaten)
            }
            None if verdict.routing == Routing::SingleRoute => {
                sentences.push(routing(&verdict));
                format!(
                    "This model beats a Markov chain and the most popular items: NDCG@10 {} against {} and {}.",
                    decimal(verdict.routed.mean),
                    decimal(verdict.markov.value.mean),
                    decimal(verdict.popularity.value.mean)
                )
            }
            None => routing(&verdict),
        };
        if verdict.routing != Routing::SingleRoute {
            sentences.push(compute(&verdict));
        }
        sentences.push(match verdict.users {
            1 => "The figures are those of one test user.".to_owned(),
            users => format!("The figures are means over {users} test users."),
        });
        if commands.overrides_seen {
            let (measured, field) = match verdict.seen {
                SeenItems::Included => ("can be", "false"),
                SeenItems::Excluded => ("cannot be", "true"),
            };
            sentences.push(format!(
                "In these figures, items of the history {measured} recommended, which is not the model's rule: on a server, requests \
                 need `exclude_seen: {field}`."
            ));
        }
        let many_repeats = verdict.seen == SeenItems::Excluded && verdict.repeats > MANY_REPEATS;
        sentences.extend(repeats(&verdict, many_repeats, commands));
        let next = next(&verdict, commands, many_repeats);
        Words { headline, sentences, next, verdict }
    }

    /// Recommends no command, because the targets may have been trained on.
    pub(crate) fn without_next(self) -> Words {
        Words { next: None, ..self }
    }

    /// Says first what is unfair about the figures.
    pub(crate) fn caution(mut self, caution: &str) -> Words {
        self.sentences.insert(0, format!("Caution: {caution}."));
        self
    }

    /// Says first if the time limit ended the training after this many epochs.
    pub(crate) fn cut_short(mut self, epochs: Option<u64>) -> Words {
        if let Some(epochs) = epochs {
            let ended = cut_short(epochs);
            self.sentences.insert(0, format!("{ended}: train longer before you judge the model by these figures."));
        }
        self
    }

    /// What was measured, a row each, under [`COLUMNS`].
    pub(crate) fn rows(&self) -> Vec<[String; 5]> {
        let verdict = &self.verdict;
        let single = verdict.routing == Routing::SingleRoute;
        let routed = match (verdict.budget, &verdict.fixed) {
            _ if single => "model".to_owned(),
            (Some(budget), Some(route)) => format!("{route} for all, budget {}", percent(budget)),
            (Some(budget), None) => format!("routed, budget {}", percent(budget)),
            (None, _) => "routed".to_owned(),
        };
        let mut rows = vec![[routed, estimate(verdict.routed), percent(verdict.compute), String::new(), String::new()]];
        let slice = format!("best single slice, {}", verdict.slice.name);
        let full = ("full model".to_owned(), &verdict.full);
        let slices = match (single, verdict.slice.compute == verdict.full.compute) {
            (true, _) => vec![],
            _ if verdict.routing == Routing::Fixed => vec![full],
            (false, true) => vec![full],
            (false, false) => vec![(slice, &verdict.slice), full],
        };
        let simple = [("Markov chain".to_owned(), &verdict.markov), ("most popular".to_owned(), &verdict.popularity)];
        rows.extend(slices.into_iter().chain(simple).map(|(name, rival)| row(name, rival)));
        rows
    }

    /// The lines that a command prints.
    pub(crate) fn text(&self) -> String {
        let rows = self.rows().into_iter().map(Vec::from);
        let mut text = format!("{}\n\n{}\n", wrapped(&self.headline), aligned(&COLUMNS, rows));
        for sentence in &self.sentences {
            text += &format!("{}\n", wrapped(sentence));
        }
        if let Some(next) = &self.next {
            text += &format!("Next: {next}\n");
        }
        text
    }
}

/// How the time limit ended a training after this many epochs.
pub(crate) fn cut_short(epochs: u64) -> String {
    let after = match epochs {
        0 => "before its first epoch was complete".to_owned(),
        1 => "after one epoch".to_owned(),
        epochs => format!("after {epochs} epochs"),
    };
    format!("--max-minutes ended the training {after}")
}

fn row(name: String, rival: &Rival) -> [String; 5] {
    let compute = rival.compute.map_or_else(|| "-".to_owned(), percent);
    let shown = match rival.difference.shown {
        Shown::Better => "model is better",
        Shown::Worse => "model is worse",
        Shown::Open => "not shown",
    };
    let difference = difference(&rival.difference).replace("95 %: ", "");
    [name, estimate(rival.value), compute, difference, shown.to_owned()]
}

/// A baseline's name in a sentence.
fn in_words(name: &str) -> &str {
    match name {
        "markov" => "a Markov chain",
        "popularity" => "the most popular items",
        other => other,
    }
}

fn not_beaten(verdict: &Verdict, unbeaten: &Unbeaten) -> String {
    let rival = if unbeaten.name == verdict.markov.name { &verdict.markov } else { &verdict.popularity };
    let name = in_words(&unbeaten.name);
    let (own, other) = (decimal(verdict.routed.mean), decimal(rival.value.mean));
    let difference = difference(&rival.difference);
    match unbeaten.wins {
        true => {
            let mut name = name.to_owned();
            name[..1].make_ascii_uppercase();
            let verb = if unbeaten.name == verdict.markov.name { "beats" } else { "beat" };
            format!("{name} {verb} this model: NDCG@10 {other} against {own}, model minus it {difference}.")
        }
        false => format!(
            "This model is not shown to beat {name}: NDCG@10 {own} against {other}, model minus it {difference}."
        ),
    }
}

fn consequence(verdict: &Verdict, unbeaten: &Unbeaten) -> String {
    if unbeaten.full_beats {
        return format!("The full model is shown to beat {}.", in_words(&unbeaten.name));
    }
    let (rule, rival) = match unbeaten.name.as_str() {
        "markov" => ("A Markov chain looks up what followed the last item", &verdict.markov),
        _ => ("Popularity recommends the same items to everybody", &verdict.popularity),
    };
    let cheap =
        format!("{rule}: it needs no network and costs next to nothing. Serve the model only once it is better.");
    match users_to_show(&rival.difference, verdict.users) {
        Some(users) => format!(
            "{cheap} About {users} test users would show a difference of this size every other time, and these data have {}.",
            verdict.users
        ),
        None => format!(
            "{cheap} More users, a longer period, or --min-interactions 5, which drops rare users and items, can make it better."
        ),
    }
}

/// About how many users it takes until the interval of this mean reaches 0, to two digits. Then half of all samples show a
/// difference of this size. `None` if the mean is not above 0, or if the trainings differ, which no number of users changes.
fn users_to_show(difference: &Difference, users: usize) -> Option<u64> {
    let Estimate { mean, se } = difference.value;
    let [low, high] = difference.interval?;
    let half = (high - low) / 2.0;
    let needed = users as f64 * (half / mean).powi(2);
    let of_users_alone = half <= 1.01 * t_critical(users as f64 - 1.0) * se?;
    if mean <= 0.0 || !of_users_alone || !needed.is_finite() {
        return None;
    }
    let unit = 10_f64.powf((needed.log10().floor() - 1.0).max(0.0));
    Some(((needed / unit).ceil() * unit) as u64)
}

/// What repeats of earlier items mean for the figures. `None` if there are none.
fn repeats(verdict: &Verdict, many: bool, commands: &Commands) -> Option<String> {
    if commands.repeats_by_duplicates {
        return Some(
            "Most repeats of these data have the user, item and time of an earlier interaction. If lines are there twice, the \
             figures mean nothing: give --drop-duplicates."
                .to_owned(),
        );
    }
    if verdict.seen == SeenItems::Included || verdict.repeats == 0.0 {
        return None;
    }
    let advice = if many { " If your users buy again, give --include-seen to train and eval." } else { "" };
    let share = match verdict.repeats {
        share if share < 0.01 => "Less than 1 %".to_owned(),
        share => percent(share),
    };
    Some(format!(
        "{share} of the test items are repeats: the user had them before, so they count as misses (--include-seen counts \
         them).{advice}"
    ))
}

fn routing(verdict: &Verdict) -> String {
    let Rival { name, difference: over, .. } = &verdict.slice;
    let best = format!("{name}, the best single slice of the same or lower cost");
    match verdict.routing {
        Routing::Pays => {
            format!("Routing pays on these data: the routed model beats {best}, by {} NDCG@10.", difference(over))
        }
        Routing::NotShown => format!(
            "Routing is not shown to pay on these data: the routed model minus {best}, is {} NDCG@10.",
            difference(over)
        ),
        Routing::Loses => {
            format!("Routing loses on these data: the routed model minus {best}, is {} NDCG@10.", difference(over))
        }
        Routing::Fixed => format!(
            "{name} runs every request under this budget: on validation, the router is not shown to gain over the static \
             mixture of the same cost."
        ),
        Routing::SingleRoute => "The model has one slice, so there is nothing to route.".to_owned(),
    }
}

/// What routing saves beside the full model, and what that costs.
fn compute(verdict: &Verdict) -> String {
    let over = &verdict.full.difference;
    let model = if verdict.routing == Routing::Fixed { &verdict.slice.name } else { "The routed model" };
    let spends = if verdict.saved >= 0.0 {
        format!("{model} saves {} of the full model's compute", percent(verdict.saved))
    } else {
        format!("{model} spends {} more compute than the full model", percent(-verdict.saved))
    };
    let result = match over.shown {
        Shown::Open => "No loss or gain is shown",
        Shown::Worse => "It is less accurate",
        Shown::Better => "It is more accurate",
    };
    // What costs much more than the budget is the cheapest. On other users, what is affordable may cost a little more.
    let beyond = match verdict.budget {
        Some(budget) if verdict.compute > 1.25 * budget => {
            let (budget, cost) = (percent(budget), percent(verdict.compute));
            match verdict.routing {
                Routing::Fixed => {
                    format!(
                        " The calibration has no route as cheap as the budget of {budget}: its cheapest costs {cost}."
                    )
                }
                _ => {
                    format!(" The router does not keep the budget of {budget}: it spends {cost} here.")
                }
            }
        }
        _ => String::new(),
    };
    format!("{spends}. {result}: its NDCG@10 minus the full model's is {}.{beyond}", difference(over))
}

/// The command to run next.
fn next(verdict: &Verdict, commands: &Commands, many_repeats: bool) -> Option<String> {
    if let Some(given) = commands.retrain.as_ref().filter(|_| commands.repeats_by_duplicates) {
        return Some(format!("canet train {given} --drop-duplicates"));
    }
    let model = &commands.model;
    match verdict.serve.as_deref() {
        Some("auto") => {
            let other = verdict.budget.filter(|budget| (budget - DEFAULT_BUDGET).abs() > 1e-9);
            let budget = other.map(|budget| format!(" --flops-budget {budget}")).unwrap_or_default();
            Some(format!("canet serve {model}{budget}"))
        }
        Some(route) => Some(format!("canet serve {model} --route {route}")),
        None => commands
            .retrain
            .as_ref()
            .filter(|_| many_repeats)
            .map(|given| format!("canet train {given} --include-seen")),
    }
}

/// `.0867`, `-.0012`
fn decimal(value: f64) -> String {
    signed(value).trim_start_matches('+').to_owned()
}

/// `+.0012`. A value that rounds to zero has no sign.
fn signed(value: f64) -> String {
    let digits = format!("{:.4}", value.abs());
    let sign = match value {
        _ if digits == "0.0000" => "",
        value if value < 0.0 => "-",
        _ => "+",
    };
    format!("{sign}{}", digits.strip_prefix('0').unwrap_or(&digits))
}

/// `.0867 ±.0068`
fn estimate(Estimate { mean, se }: Estimate) -> String {
    se.map_or_else(|| decimal(mean), |se| format!("{} ±{}", decimal(mean), decimal(se)))
}

/// `+.0012 (95 %: +.0004 to +.0020)`
fn difference(difference: &Difference) -> String {
    let mean = signed(difference.value.mean);
    match difference.interval {
        Some([low, high]) => format!("{mean} (95 %: {} to {})", signed(low), signed(high)),
        None => mean,
    }
}

/// `71 %`
fn percent(share: f64) -> String {
    format!("{:.0} %", (100.0 * share).round() + 0.0)
}

#[cfg(test)]
mod tests;
