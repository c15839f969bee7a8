use std::cell::RefCell;

use canet_domain::RoutePolicy;

use super::*;
use crate::testing::{RingModel, dataset, item, items, space};

#[test]
fn popularity_ranks_by_the_training_part_alone() {
    // The training parts are 1 2 2, 2 3 and 4: item 2 comes three times, items 1, 3 and 4 once, 5 and 6 never.
    let dataset = dataset("a 1 2 2 5 6\nb 2 3 5 4\nc 4 5 6\n");
    let ranks = Popularity::fit(&dataset).ranks(&dataset.cases(Split::Test), SeenItems::Excluded);
    // The unseen items by popularity are 3 4 6 for user a, 1 4 for b and 2 1 3 6 for c.
    assert_eq!(ranks, [Some(3), Some(2), Some(4)]);
}

#[test]
fn markov_ranks_what_followed_the_last_item_then_the_popular() {
    // The training parts are 1 2 1 3, 1 2 4 and 5 1: item 1 comes four times, item 2 twice, items 3, 4 and 5 once.
    let dataset = dataset("a 1 2 1 3 4 1\nb 1 2 4 3 5\nc 5 1 2 3\n");
    let markov = Markov::fit(&dataset, SeenItems::Excluded);
    let case = |history, target| Case { user: 0, history, target: item(target) };
    let (one, two, four) = (items(&[1]), items(&[2]), items(&[4]));
    // Item 1 is followed by 2 twice and by 3 once. Items 4 and 5 follow by popularity, which is equal.
    let after_one = [case(&one, 2), case(&one, 3), case(&one, 4), case(&one, 5)];
    assert_eq!(markov.ranks(&after_one), [Some(1), Some(2), Some(3), Some(4)]);
    // Item 2 is followed by 1 and by 4 once each, and 1 is more popular.
    assert_eq!(markov.ranks(&[case(&two, 1), case(&two, 4), case(&two, 3)]), [Some(1), Some(2), Some(3)]);
    // Nothing follows item 4 in training, so popularity decides.
    assert_eq!(markov.ranks(&[case(&four, 1), case(&four, 2), case(&four, 5)]), [Some(1), Some(2), Some(4)]);
}

#[test]
fn the_strength_of_markovs_prior_is_chosen_on_validation() {
    // In training, item 1 is followed by the rare item 9 once. In validation it is followed by the popular item 2.
    // With the weakest prior 9 ranks before 2. From s·(p(2) - p(9)) > 1 on, 2 ranks first.
    let users: String = (0..20).map(|user| format!("u{user} 2 3 1 2 3\nv{user} 3 1 2 4\n")).collect();
    let backed_off = dataset(&format!("{users}w 1 9 4 5\n"));
    assert!(Markov::fit(&backed_off, SeenItems::Excluded).prior_strength() > 1.0);
    // If validation repeats the transitions of training, the weakest prior is as good as any.
    let chained = dataset("a 1 2 3 1\nb 1 2 3 1 2 3\nc 2 3 1 2 3\n");
    assert!(Markov::fit(&chained, SeenItems::Excluded).prior_strength() <= 1.0);
}

#[test]
fn baselines_rank_items_of_the_history_if_they_are_included() {
    // The training parts are 1 2 1 2, 2 3 and 4: item 2 comes three times, item 1 twice, items 3 and 4 once.
    let dataset = dataset("a 1 2 1 2 5 2\nb 2 3 5 3\nc 4 5 4\n");
    let cases = dataset.cases(Split::Test);
    let popularity = |seen| Popularity::fit(&dataset).ranks(&cases, seen);
    // Every target is in its user's history. By popularity the items are 2 1 3 4 5.
    assert_eq!(popularity(SeenItems::Excluded), [None, None, None]);
    assert_eq!(popularity(SeenItems::Included), [Some(1), Some(3), Some(4)]);
    let (history, excluded) = (items(&[2, 1]), Markov::fit(&dataset, SeenItems::Excluded));
    let repeat = [Case { user: 0, history: &history, target: item(2) }];
    assert_eq!(excluded.ranks(&repeat), [None]);
    // Item 2 follows item 1 in training.
    assert_eq!(Markov::fit(&dataset, SeenItems::Included).ranks(&repeat), [Some(1)]);
}

#[test]
fn baselines_run_in_order_and_once() {
    let space = space();
    let dataset = dataset("a 1 2 3 4\nb 4 5 6 1\nc 2 6\n");
    let cases = dataset.cases(Split::Test);
    let model = RingModel::new();
    let mut ranker = Ranker::new(model.with_space(&space), &cases, 8).unwrap();
    let names = ["smallest", "statics", "markov", "auto", "h4-l2-e4", "popularity", "random-matched", "random", "full"];
    let baselines: Vec<Baseline> = names.iter().map(|name| Baseline::parse(&space, name).unwrap()).collect();
    let policy = RoutePolicy::Router(vec![0.0; 4]);
    let inputs = BaselineInputs::new(&dataset, &policy, SeenItems::Excluded, 7);
    let begun = RefCell::new(Vec::new());
    let begins = |baseline: Baseline| begun.borrow_mut().push(baseline);
    let runs = evaluate(&mut ranker, &inputs, &baselines, begins).unwrap();
    assert_eq!(begun.into_inner(), baselines);
    assert_eq!(
        runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>(),
        [
            "smallest",
            "h4-l1-e4",
            "h4-l2-e4",
            "h8-l1-e4",
            "h8-l2-e4",
            "markov",
            "auto",
            "popularity",
            "random-matched",
            "random",
            "full",
        ]
    );
    assert!(runs.iter().all(|run| run.users() == 2));
    assert_eq!(runs[5].flops(), None);
    assert_eq!(Baseline::parse(&space, "h4-l3-e4"), None);
}
