use std::str::FromStr;

use crate::{Route, RouteSpace};

/// Which rows may share a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchBy {
    /// Rows of one width. LibTorch runs them through the same layers and pads narrower embeddings to the widest of the
    /// batch. The other backends pad nothing.
    #[default]
    Width,
    /// Rows of one route.
    Route,
    /// All rows.
    All,
}

/// A word that does not name a [`BatchBy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of `width`, `route` and `all`")]
pub struct BatchByError(String);

impl BatchBy {
    /// The names of a space's lanes, in order: `h64` by width, the routes' names by route, or `all`.
    pub fn lanes(self, space: &RouteSpace) -> Vec<String> {
        match self {
            BatchBy::Width => space.hidden().iter().map(|hidden| format!("h{hidden}")).collect(),
            BatchBy::Route => space.routes().map(|route| space.name(route).to_owned()).collect(),
            BatchBy::All => vec!["all".to_owned()],
        }
    }

    /// The index of a route's lane.
    pub fn lane(self, space: &RouteSpace, route: Route) -> usize {
        match self {
            BatchBy::Width => space.place(route)[0],
            BatchBy::Route => route.index(),
            BatchBy::All => 0,
        }
    }
}

impl FromStr for BatchBy {
    type Err = BatchByError;

    fn from_str(word: &str) -> Result<BatchBy, BatchByError> {
        match word {
            "width" => Ok(BatchBy::Width),
            "route" => Ok(BatchBy::Route),
            "all" => Ok(BatchBy::All),
            _ => Err(BatchByError(word.to_owned())),
        }
    }
}
