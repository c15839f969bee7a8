use std::fmt;

/// One slice, as its index in a [`RouteSpace`].
///
/// Routes are ordered by hidden, then layers, then embedding. Index 0 is the smallest route, and the last one is the full
/// model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route(u16);

impl Route {
    /// Index in the route order.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The sizes of one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// Width of the transformer blocks.
    pub hidden: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Width of the item and position embeddings.
    pub embedding: usize,
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h{}-l{}-e{}", self.hidden, self.layers, self.embedding)
    }
}

/// Every slice of a model: hidden x layers x embedding, or hidden x layers if the embeddings are as wide as the hidden state.
///
/// ```
/// use canet_domain::{RouteSpace, Slice};
///
/// let space = RouteSpace::new(vec![32, 64], vec![2], vec![32, 64])?;
/// assert_eq!(space.len(), 4);
/// assert_eq!(space.name(space.smallest()), "h32-l2-e32");
/// assert_eq!(space.slice(space.full()), Slice { hidden: 64, layers: 2, embedding: 64 });
/// assert_eq!(space.named("h64-l2-e32").map(|route| route.index()), Some(2));
/// # Ok::<(), canet_domain::RouteSpaceError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpace {
    hidden: Vec<usize>,
    layers: Vec<usize>,
    embedding: Vec<usize>,
    /// Whether a slice's embedding is as wide as its hidden state.
    coupled: bool,
    names: Vec<Box<str>>,
}

/// Why three lists are not a route space.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteSpaceError {
    /// A list is empty.
    #[error("`{0}` is empty: give at least one size")]
    Empty(&'static str),
    /// A size is zero, or sizes do not ascend.
    #[error("`{0}` must be ascending positive sizes without repeats, not {1:?}")]
    NotAscending(&'static str, Vec<usize>),
    /// There are more routes than [`RouteSpace::MAX_ROUTES`].
    #[error("{0} routes are too many: at most {max} are allowed", max = RouteSpace::MAX_ROUTES)]
    TooMany(usize),
}

impl RouteSpace {
    /// Limit on the number of routes. Each route has its own metrics series, so this limits their cardinality too.
    pub const MAX_ROUTES: usize = 1024;

    /// A space from its three ascending lists. If `embedding` is empty, each slice's embedding is as wide as its hidden state.
    ///
    /// ```
    /// # use canet_domain::RouteSpace;
    /// let space = RouteSpace::new(vec![16, 32], vec![1, 2], vec![])?;
    /// let names: Vec<&str> = space.routes().map(|route| space.name(route)).collect();
    /// assert_eq!(names, ["h16-l1-e16", "h16-l2-e16", "h32-l1-e32", "h32-l2-e32"]);
    /// # Ok::<(), canet_domain::RouteSpaceError>(())
    /// ```
    ///
    /// # Errors
    /// [`RouteSpaceError`] if another list is empty, if a list is not strictly ascending, or if there are too many routes.
    pub fn new(hidden: Vec<usize>, layers: Vec<usize>, embedding: Vec<usize>) -> Result<RouteSpace, RouteSpaceError> {
        let coupled = embedding.is_empty();
        let embedding = if coupled { hidden.clone() } else { embedding };
        for (name, sizes) in [("hidden", &hidden), ("layers", &layers), ("embedding", &embedding)] {
            if sizes.is_empty() {
                return Err(RouteSpaceError::Empty(name));
            }
            if sizes[0] == 0 || sizes.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(RouteSpaceError::NotAscending(name, sizes.clone()));
            }
        }
        let embeddings = if coupled { 1 } else { embedding.len() };
        let count = hidden.len().saturating_mul(layers.len()).saturating_mul(embeddings);
        if count > RouteSpace::MAX_ROUTES {
            return Err(RouteSpaceError::TooMany(count));
        }
        let mut space = RouteSpace { hidden, layers, embedding, coupled, names: Vec::new() };
        space.names = space.routes().map(|route| space.slice(route).to_string().into()).collect();
        Ok(space)
    }

    /// The widths, ascending.
    pub fn hidden(&self) -> &[usize] {
        &self.hidden
    }

    /// The depths, ascending.
    pub fn layers(&self) -> &[usize] {
        &self.layers
    }

    /// The embedding widths, ascending.
    pub fn embedding(&self) -> &[usize] {
        &self.embedding
    }

    /// Number of routes.
    #[expect(clippy::len_without_is_empty, reason = "a space is never empty")]
    pub fn len(&self) -> usize {
        self.hidden.len() * self.layers.len() * self.embeddings()
    }

    /// Number of embedding widths of a slice of one width and depth.
    fn embeddings(&self) -> usize {
        if self.coupled { 1 } else { self.embedding.len() }
    }

    /// Whether each slice's embedding is as wide as its hidden state.
    pub fn is_coupled(&self) -> bool {
        self.coupled
    }

    /// The smallest slice, which is the first route.
    pub fn smallest(&self) -> Route {
        Route(0)
    }

    /// The full model, which is the last route.
    pub fn full(&self) -> Route {
        Route(to_index(self.len() - 1))
    }

    /// Every route, in order.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = Route> + use<> {
        (0..to_index(self.len())).map(Route)
    }

    /// The route at an index; `None` past the end.
    pub fn route(&self, index: usize) -> Option<Route> {
        (index < self.len()).then(|| Route(to_index(index)))
    }

    /// The route of three sizes; `None` if one is not in its list.
    pub fn find(&self, slice: Slice) -> Option<Route> {
        let hidden = self.hidden.binary_search(&slice.hidden).ok()?;
        let layers = self.layers.binary_search(&slice.layers).ok()?;
        let embedding = self.embedding.binary_search(&slice.embedding).ok()?;
        let own = match self.coupled {
            true if embedding == hidden => 0,
            true => return None,
            false => embedding,
        };
        self.route((hidden * self.layers.len() + layers) * self.embeddings() + own)
    }

    /// The sizes of a route.
    #[inline]
    pub fn slice(&self, route: Route) -> Slice {
        let [hidden, layers, embedding] = self.place(route);
        Slice { hidden: self.hidden[hidden], layers: self.layers[layers], embedding: self.embedding[embedding] }
    }

    /// The indices of a route's sizes in the lists: hidden, layers, embedding.
    #[inline]
    pub fn place(&self, route: Route) -> [usize; 3] {
        let (depths, tables) = (self.layers.len(), self.embeddings());
        let index = route.index();
        let hidden = index / (depths * tables);
        [hidden, index / tables % depths, if self.coupled { hidden } else { index % tables }]
    }

    /// The route's name, as in `h64-l2-e64`.
    pub fn name(&self, route: Route) -> &str {
        &self.names[route.index()]
    }

    /// The route of a name.
    pub fn parse(&self, name: &str) -> Option<Route> {
        self.names.iter().position(|known| &**known == name).and_then(|index| self.route(index))
    }

    /// The route that a request names: `full`, `smallest`, or a route's name.
    pub fn named(&self, name: &str) -> Option<Route> {
        match name {
            "full" => Some(self.full()),
            "smallest" => Some(self.smallest()),
            name => self.parse(name),
        }
    }

    /// The full model's sizes.
    pub fn widest(&self) -> Slice {
        self.slice(self.full())
    }
}

/// [`RouteSpace::MAX_ROUTES`] keeps every index in range.
fn to_index(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_names_and_indices_agree_on_every_route() {
        let space = RouteSpace::new(vec![4, 8], vec![1, 2, 3], vec![6, 10]).unwrap();
        let coupled = RouteSpace::new(vec![4, 8], vec![1, 2, 3], vec![]).unwrap();
        assert_eq!([space.routes().len(), coupled.routes().len()], [12, 6]);
        for space in [&space, &coupled] {
            for route in space.routes() {
                assert_eq!(space.find(space.slice(route)), Some(route));
                assert_eq!(space.parse(space.name(route)), Some(route));
                assert_eq!(space.route(route.index()), Some(route));
                let [hidden, layers, embedding] = space.place(route);
                let slice = Slice {
                    hidden: space.hidden()[hidden],
                    layers: space.layers()[layers],
                    embedding: space.embedding()[embedding],
                };
                assert_eq!(slice, space.slice(route));
            }
        }
        assert_eq!(coupled.find(Slice { hidden: 4, layers: 1, embedding: 8 }), None);
        assert_eq!((space.named("full"), space.named("smallest")), (space.route(11), space.route(0)));
        assert_eq!((space.route(12), space.named("h4-l1-e7")), (None, None));
        assert_eq!(space.find(Slice { hidden: 4, layers: 4, embedding: 6 }), None);
    }

    #[test]
    fn lists_must_be_ascending_positive_and_not_too_long() {
        let new = |hidden: &[usize]| RouteSpace::new(hidden.to_vec(), vec![1], vec![1]);
        assert_eq!(new(&[]), Err(RouteSpaceError::Empty("hidden")));
        for sizes in [&[0, 1][..], &[2, 2], &[3, 1]] {
            assert_eq!(new(sizes), Err(RouteSpaceError::NotAscending("hidden", sizes.to_vec())));
        }
        let many: Vec<usize> = (1..=RouteSpace::MAX_ROUTES + 1).collect();
        assert_eq!(new(&many), Err(RouteSpaceError::TooMany(many.len())));
        assert!(new(&many[1..]).is_ok());
    }
}
