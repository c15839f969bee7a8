use std::str::FromStr;

use super::{Route, RouteSpace};

/// Which rows may share a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchBy {
    /// Those whose routes have one width: they share layers, and a batch pads narrower embeddings.
    #[default]
    Width,
    /// Those of one route alone.
    Route,
    /// All of them.
    All,
}

/// A word that is no [`BatchBy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of `width`, `route` and `all`")]
pub struct BatchByError(String);

impl BatchBy {
    /// The names of a space's lanes, as `h64`, or as the routes', in their order.
    pub fn lanes(self, space: &RouteSpace) -> Vec<String> {
        match self {
            BatchBy::Width => space.hidden().iter().map(|hidden| format!("h{hidden}")).collect(),
            BatchBy::Route => space.routes().map(|route| space.name(route).to_owned()).collect(),
            BatchBy::All => vec!["all".to_owned()],
        }
    }

    /// The place of a route's lane among them.
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
