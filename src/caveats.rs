//! Sentences that tell a reader how to read measured numbers, shared by `eval` and `report`.

use canet_evaluation::SeenItems;

/// Warns of figures on another selection of the interactions that the model was trained on.
pub(crate) const OTHER_SELECTION: &str = "the model was trained on another selection of these interactions, and the \
     Markov chain and popularity are fitted to this one. If the model has learnt some of the targets, its figures are too good. \
     Train with the same --where, --min-interactions and columns";

/// Warns of figures on other data than those that the model was trained on.
pub(crate) const OTHER_DATA: &str = "the model was trained on other data. The Markov chain and popularity are fitted to \
     these, which favours them";

/// Warns that `repeated` of `all` targets cannot be hit, because they are in their user's own history.
pub(crate) fn repeated_targets(repeated: usize, all: usize, seen: SeenItems) -> Option<String> {
    (repeated > 0 && seen == SeenItems::Excluded)
        .then(|| format!("{repeated} of {all} targets are in the user's own history and count as misses."))
}

/// Warns of multiple comparisons. `comparisons` is the plural noun for `count` intervals over the same users.
pub(crate) fn multiple_comparisons(comparisons: &str, count: usize, users: usize) -> Option<String> {
    (count > 1).then(|| {
        format!(
            "Each 95 % interval is for one comparison. Here are {count} {comparisons} over the same {users} users: if \
             nothing differed, about one interval in twenty would still exclude zero."
        )
    })
}
