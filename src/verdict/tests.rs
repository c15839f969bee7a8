use canet_evaluation::{Contender, VerdictInputs};

use super::*;

fn contender_values(hits: usize) -> Vec<f64> {
    (0..200).map(|user| if user < hits { 0.5 } else { 0.0 }).collect()
}

fn contender(name: &str, hits: usize, flops: Option<f64>) -> Contender {
    let values = vec![contender_values(hits)];
    Contender { name: name.to_owned(), route: flops.map(|_| name.to_owned()), values, flops }
}

/// Inputs in which the routed model beats everything.
fn inputs() -> VerdictInputs {
    VerdictInputs {
        routes: 4,
        budget: Some(0.3),
        fixed: None,
        routed: contender("auto", 150, Some(30.0)),
        full: contender("full", 152, Some(100.0)),
        slice: contender("h4-l2-e4", 90, Some(25.0)),
        popularity: contender("popularity", 20, None),
        markov: contender("markov", 50, None),
        full_flops: 100.0,
        repeats: 0.1,
        seen: SeenItems::Excluded,
    }
}

fn words(inputs: &VerdictInputs) -> Words {
    let commands = Commands {
        model: "--model m".to_owned(),
        retrain: Some("--data d --out m".to_owned()),
        repeats_by_duplicates: false,
        overrides_seen: false,
    };
    Words::of(Verdict::new(inputs), &commands)
}

#[test]
fn routing_that_pays_is_the_headline() {
    let found = words(&inputs());
    assert!(
        found.headline.starts_with("Routing pays on these data: the routed model beats h4-l2-e4, "),
        "{}",
        found.headline
    );
    // 60 of 200 users gain .5.
    assert!(found.headline.contains("by +.1500 (95 %: +.1180 to +.1820) NDCG@10."), "{}", found.headline);
    let text = found.text();
    let unwrapped = text.replace('\n', " ");
    let saved = "saves 70 % of the full model's compute. No loss or gain is shown: its NDCG@10";
    assert!(unwrapped.contains(saved), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.ends_with("Next: canet serve --model m\n"), "{text}");
    for row in ["routed, budget 30 %", "best single slice, h4-l2-e4", "full model", "Markov chain", "most popular"] {
        assert!(text.lines().any(|line| line.starts_with(row)), "{row}: {text}");
    }
}

#[test]
fn a_budget_without_a_router_names_the_slice_of_all() {
    let found = words(&VerdictInputs { fixed: Some("h4-l2-e4".to_owned()), ..inputs() });
    assert!(
        found.headline.starts_with("h4-l2-e4 runs every request under this budget: on validation"),
        "{}",
        found.headline
    );
    let text = found.text();
    assert!(text.lines().any(|line| line.starts_with("h4-l2-e4 for all, budget 30 %")), "{text}");
    assert!(!text.contains("best single slice"), "{text}");
    assert!(text.ends_with("Next: canet serve --model m\n"), "{text}");
}

#[test]
fn a_budget_that_is_not_kept_is_named() {
    let text = |inputs: VerdictInputs| words(&inputs).text().replace('\n', " ");
    let low = VerdictInputs { budget: Some(0.05), ..inputs() };
    assert!(text(low.clone()).contains("The router does not keep the budget of 5 %: it spends 30 % here."));
    let fixed = text(VerdictInputs { fixed: Some("h4-l2-e4".to_owned()), ..low });
    assert!(fixed.contains("has no route as cheap as the budget of 5 %: its cheapest costs 30 %."), "{fixed}");
    assert!(!text(inputs()).contains("budget of"));
}

#[test]
fn a_baseline_that_is_not_beaten_comes_first() {
    let wins = words(&VerdictInputs { markov: contender("markov", 190, None), ..inputs() });
    assert!(
        wins.headline.starts_with("A Markov chain beats this model: NDCG@10 .4750 against .3750"),
        "{}",
        wins.headline
    );
    assert!(wins.sentences[1].starts_with("Routing pays"), "{:?}", wins.sentences);
    assert!(wins.sentences[0].ends_with("--min-interactions 5, which drops rare users and items, can make it better."));
    assert_eq!(wins.next, None);
    let ties = words(&VerdictInputs { popularity: contender("popularity", 150, None), ..inputs() });
    assert!(ties.headline.starts_with("This model is not shown to beat the most popular items: "), "{}", ties.headline);
    // The model's mean is higher by 2 of 200 users: a spread of .05, so (1.97 · .05 / .005)² users show it.
    let full = contender("full", 150, Some(100.0));
    let close = words(&VerdictInputs { markov: contender("markov", 148, None), full, ..inputs() });
    assert!(
        close.sentences[0].ends_with(
            "About 390 test users would show a difference of this size every other time, and these data have 200."
        ),
        "{:?}",
        close.sentences
    );
    // Two trainings that differ: no number of users would show the difference.
    let twice = |contender: Contender, second: usize| {
        let values = vec![contender.values[0].clone(), contender_values(second)];
        Contender { values, ..contender }
    };
    let several = words(&VerdictInputs {
        routed: twice(inputs().routed, 190),
        full: twice(inputs().full, 150),
        slice: twice(inputs().slice, 90),
        popularity: twice(inputs().popularity, 20),
        markov: twice(contender("markov", 140, None), 140),
        ..inputs()
    });
    assert!(several.sentences[0].ends_with("which drops rare users and items, can make it better."));
    let popular = words(&VerdictInputs { popularity: contender("popularity", 190, None), ..inputs() });
    assert!(popular.headline.starts_with("The most popular items beat this model: "), "{}", popular.headline);
    let full =
        VerdictInputs { markov: contender("markov", 150, None), full: contender("full", 190, Some(100.0)), ..inputs() };
    assert_eq!(words(&full).next.as_deref(), Some("canet serve --model m --route full"));
}

#[test]
fn the_next_command_serves_what_is_best() {
    let next = |inputs: VerdictInputs| words(&inputs).next.unwrap();
    assert_eq!(next(VerdictInputs { budget: Some(0.5), ..inputs() }), "canet serve --model m --flops-budget 0.5");
    let tie = VerdictInputs { slice: contender("h4-l2-e4", 150, Some(25.0)), ..inputs() };
    assert_eq!(next(tie.clone()), "canet serve --model m --route h4-l2-e4");
    // The best slices of two models, of which the command names the first.
    let names = Contender { name: "h4-l1-e4 or h4-l2-e4".to_owned(), ..tie.slice.clone() };
    assert_eq!(next(VerdictInputs { slice: names, ..tie }), "canet serve --model m --route h4-l2-e4");
    let repeats = VerdictInputs { repeats: 0.4, markov: contender("markov", 190, None), ..inputs() };
    assert_eq!(next(repeats.clone()), "canet train --data d --out m --include-seen");
    let commands = Commands {
        model: "--model m".to_owned(),
        retrain: Some("--data d --out m".to_owned()),
        repeats_by_duplicates: true,
        overrides_seen: true,
    };
    let twice = Words::of(Verdict::new(&repeats), &commands);
    assert_eq!(twice.next.as_deref(), Some("canet train --data d --out m --drop-duplicates"));
    let text = twice.text().replace('\n', " ");
    assert!(text.contains("give --drop-duplicates.") && text.contains("requests need `exclude_seen: true`."), "{text}");
    let text = words(&repeats).text();
    assert!(text.contains("The figures are means over 200 test users."), "{text}");
    assert!(text.contains("40 % of the test items are repeats") && text.contains("If your users buy again"), "{text}");
    let text = words(&inputs()).text();
    assert!(text.contains("10 % of the test items are repeats") && !text.contains("If your users buy again"), "{text}");
    let included = VerdictInputs { seen: SeenItems::Included, ..repeats };
    assert!(!words(&included).text().contains("repeats"));
}

#[test]
fn a_model_of_one_slice_is_compared_with_the_baselines_alone() {
    let found = words(&VerdictInputs { routes: 1, ..inputs() });
    assert!(
        found.headline.starts_with("This model beats a Markov chain and the most popular items: "),
        "{}",
        found.headline
    );
    assert_eq!(found.rows().len(), 3);
    assert!(found.text().contains("nothing to route"));
}
