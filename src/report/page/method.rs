use super::super::findings::Findings;
use canet_evaluation::{PERMUTATIONS, SeenItems, t_critical};

/// The paragraphs that explain how the numbers were made and which of them were chosen on which split.
pub(super) fn method(found: &Findings) -> Vec<String> {
    let models = found.models.len();
    let mut paragraphs = vec![
        format!(
            "Split: each user's last interaction is the test item and the one before it is the validation item. The rest \
             is training data. The metric scores the rank of the item among all {} items{}. \
             Each history is the one that a request at that time would bring. Every route ran for each of {} users on \
             both splits.",
            found.items,
            match found.seen_items {
                SeenItems::Excluded => " without the user's own history",
                SeenItems::Included => ", with those of the user's own history",
            },
            found.users
        ),
        "Chosen in training, before this report: the router and its calibration for budgets, both fitted on the \
         validation items. The test split has the same users one position later. So the report tests the router on new \
         positions of known users and not on unknown users; only a training that leaves users out could test that. If a \
         training ended on the validation items, the validation column is too high, and the choices based on it are less \
         reliable."
            .to_owned(),
        "Chosen by this report, on the validation split: the hull of the slices and the strongest slice. The \
         reported values are from the test split. A static mixture sends a fixed share of the users to each of two \
         neighbouring slices of the hull, so that its mean cost equals the router's. Its value is computed as an \
         expectation, without a random draw. Beyond the last slice of the hull the mixture is that slice, which costs \
         less. For the column \"chosen on other users\", the users are split at random into two folds, and each fold runs \
         on the hull from the validation items of the other fold."
            .to_owned(),
        "Differences are paired: each is the mean over the users of their own differences. The 95 % interval is Student's \
         t interval over users. Random routes with the router's shares are computed as an expectation: the sum of route \
         shares times route values, regardless of the user. They also pay for the router, so only knowledge about the \
         user can make a difference."
            .to_owned(),
        format!(
            "The permutation test shuffles the router's choices among the users {PERMUTATIONS} times. A shuffled choice \
             knows nothing about the user and must show no gain. p is the share of permutations, including the router's \
             own choices, that gain at least as much as the router."
        ),
        "The oracle takes each user's best route in hindsight. The best of many noisy values is high whatever the router \
         could know, so the oracle is an upper bound and not a goal."
            .to_owned(),
        format!(
            "FLOPs count matrix products at the history's own length, with the last block reduced to the last position. \
             Costs of routed runs include the router. Times are those of a request that runs alone through the {} forward \
             ({}, up to {} threads). The timed histories are spread over all lengths. Each round runs every route in turn, \
             and the fastest round of each history counts. A line fitted over FLOPs gives the times of the other lengths. \
             \"Rounds\" is the duration of the fastest and of the slowest round relative to the median: it shows how much \
             other work disturbed the measurement.",
            found.machine.backend, found.machine.precision, found.machine.threads
        ),
        "Tastes are clusters (k-means) of the mean item embedding of each history. Their names are the titles that are \
         over-represented in the group. The groups were not chosen by their results, but there are many of them: a single \
         coloured cell among them proves nothing."
            .to_owned(),
    ];
    if models > 1 {
        paragraphs.push(format!(
            "The values are means over {models} models of the same data, and \"models ±\" is the standard deviation over \
             them. An interval combines the half-widths over users and over models as the root of the sum of squares. So \
             few models estimate their variance badly, so the half-width over models is {:.1} standard errors. The route \
             map shows the first model.",
            t_critical(models as f64 - 1.0)
        ));
    }
    if !found.trained_alone.is_empty() {
        paragraphs.push(
            "Models trained alone run their full route for every user. They are compared with the router at the largest \
             budget that costs no more FLOPs."
                .to_owned(),
        );
    }
    if found.models.iter().any(|model| !model.same_data) {
        paragraphs.push("At least one model was trained on other interactions: another file, or another selection of this one (--where, --min-interactions, columns). If it has learnt some of the targets, its figures are too good.".to_owned());
    }
    if found.models.iter().any(|model| model.started_from_everything) {
        paragraphs.push(
            "The training of at least one model started from weights that had learnt every interaction of their data \
             (--newest-epochs). If the targets are among them, the figures of that model are too good."
                .to_owned(),
        );
    }
    paragraphs
}
