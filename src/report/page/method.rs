use super::super::findings::Findings;
use canet_evaluation::{PERMUTATIONS, t_reach};

/// How the numbers came about: what was chosen on what, a paragraph each.
pub(super) fn method(found: &Findings) -> Vec<String> {
    let models = found.models.len();
    let mut paragraphs = vec![
        format!(
            "Split: each user's last interaction is the test item and the one before it the validation item; the rest \
             trains. Scored is the rank of the item among all {} less the user's own history, each history as a \
             request would bring it. Every route ran for each of {} users on both splits.",
            found.items, found.users
        ),
        "Chosen in training, before this page: the router and its calibration for budgets, fitted on the validation \
         items. The users of the test split are the same persons one position later, so the router is tested on new \
         positions of known users, not on unknown users; only a training that leaves users out could test that. If the \
         weights were continued on the validation items, the validation column is too good and the choices made on it \
         are less certain."
            .to_owned(),
        "Chosen by this page, on validation: the hull of static routes and the strongest single route. Reported is the \
         test split. The best static mixture of a cost is the mix of the two neighbouring corners of the hull that \
         costs as much on average, in expectation, not by lot; past its last corner it is that corner, which costs \
         less. Chosen on other users: the users are halved by lot, and each half is run on the hull that the \
         validation items of the other half chose."
            .to_owned(),
        "Differences are paired: of the same users, the mean of the differences, with the standard errors over users to \
         either side that hold 95 % by Student's t distribution (1.96 where there are many users). Random routes with the router's own shares are their expectation, route shares times values, \
         whoever the user is; they cost the router too, so only knowledge of the user can make a difference."
            .to_owned(),
        format!(
            "The permuted control deals the router's choices out to other users, {PERMUTATIONS} times. It knows nothing \
             of the user and must show no gain; p is the share of permutations, the router's own included, that gain as \
             much as the router."
        ),
        "The oracle takes the best route of each user after the fact. The best of many noisy values is high whatever \
         the router could know: it is a bound, not a goal."
            .to_owned(),
        format!(
            "FLOPs are those of matrix products at the history's own length, with the last block reduced to the last \
             position; the router's are in the routed costs. Time: a request alone through the {} forward ({}, {} threads \
             allowed), histories spread over all lengths, every route in turn in each round, the fastest of the rounds \
             of each history, a line in FLOPs for the lengths between. \"Rounds\" is the fastest and the slowest round \
             over the median one: what this machine's other work did.",
            found.machine.backend, found.machine.precision, found.machine.threads
        ),
        "Tastes: k-means of the mean item embedding of each history, named by the titles that its users have more \
         often than everybody. Groups were not chosen by their results, but they are many: a single coloured cell \
         among them proves nothing."
            .to_owned(),
    ];
    if models > 1 {
        paragraphs.push(format!(
            "{models} models of the same data: values are means over them, \"models ±\" their standard deviation. \
             An interval adds, as squares, how far the errors over users and over models reach: so few models know \
             little of their own variance, and theirs reaches {:.1} standard errors. The route map is the first model's.",
            t_reach(models as f64 - 1.0)
        ));
    }
    if !found.trained_alone.is_empty() {
        paragraphs.push(
            "Models trained alone run their full route for everybody, and stand beside the router at the largest \
             budget that costs no more FLOPs."
                .to_owned(),
        );
    }
    if found.models.iter().any(|model| !model.same_data) {
        paragraphs.push("Not every model was made from these very data (their digests differ).".to_owned());
    }
    paragraphs
}
