use serde::{Deserialize, Serialize};

use canet_domain::Item;

/// Whether a ranking may contain the items of the user's own history.
///
/// It is one rule for the model, its baselines and the server. If users buy again, excluding their items makes every repeat
/// purchase a miss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeenItems {
    /// Items of the history are not ranked. A target among them is a miss.
    #[default]
    Excluded,
    /// Every item is ranked.
    Included,
}

impl SeenItems {
    /// The rule of a checkpoint or a request that says `exclude_seen`.
    pub fn excluded_if(exclude_seen: bool) -> SeenItems {
        if exclude_seen { SeenItems::Excluded } else { SeenItems::Included }
    }

    /// The items of a history that are not ranked.
    pub fn masked(self, history: &[Item]) -> &[Item] {
        match self {
            SeenItems::Excluded => history,
            SeenItems::Included => &[],
        }
    }
}
