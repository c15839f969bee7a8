use std::fmt;

/// One submodel: its place in the route order of its [`RouteSpace`], 0-based.
///
/// The order is hidden, then layers, then embedding, each by its place in its ascending list, so 0 is the
/// smallest route and the last one is the full model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route(u16);

impl Route {
    /// Place in the route order.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The sizes of one submodel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// Width of the transformer blocks.
    pub hidden: usize,
    /// Number of blocks that run.
    pub layers: usize,
    /// Width of the item and position embeddings that are read.
    pub embedding: usize,
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h{}-l{}-e{}", self.hidden, self.layers, self.embedding)
    }
}

/// Every submodel that a checkpoint holds: hidden x layers x embedding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpace {
    hidden: Vec<usize>,
    layers: Vec<usize>,
    embedding: Vec<usize>,
    names: Vec<Box<str>>,
}

/// Why three lists do not make a route space.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteSpaceError {
    /// A list without an entry.
    #[error("`{0}` is empty: give at least one size")]
    Empty(&'static str),
    /// A size of zero, or sizes out of order.
    #[error("`{0}` must be ascending positive sizes without repeats, not {1:?}")]
    NotAscending(&'static str, Vec<usize>),
    /// More routes than [`RouteSpace::MAX_ROUTES`].
    #[error("{0} routes are too many: at most {max} are allowed", max = RouteSpace::MAX_ROUTES)]
    TooMany(usize),
}

impl RouteSpace {
    /// Bound on the number of routes: each has its own metrics series, so it bounds their cardinality too.
    pub const MAX_ROUTES: usize = 1024;

    /// A space from its three ascending lists.
    ///
    /// # Errors
    /// [`RouteSpaceError`] where a list is empty, not strictly ascending, or the product is too large.
    pub fn new(hidden: Vec<usize>, layers: Vec<usize>, embedding: Vec<usize>) -> Result<RouteSpace, RouteSpaceError> {
        for (name, sizes) in [("hidden", &hidden), ("layers", &layers), ("embedding", &embedding)] {
            if sizes.is_empty() {
                return Err(RouteSpaceError::Empty(name));
            }
            if sizes[0] == 0 || sizes.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(RouteSpaceError::NotAscending(name, sizes.clone()));
            }
        }
        let count = hidden.len().saturating_mul(layers.len()).saturating_mul(embedding.len());
        if count > RouteSpace::MAX_ROUTES {
            return Err(RouteSpaceError::TooMany(count));
        }
        let mut space = RouteSpace { hidden, layers, embedding, names: Vec::new() };
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
        self.hidden.len() * self.layers.len() * self.embedding.len()
    }

    /// The first route: the smallest submodel.
    pub fn smallest(&self) -> Route {
        Route(0)
    }

    /// The last route: the full model.
    pub fn full(&self) -> Route {
        Route(to_index(self.len() - 1))
    }

    /// Every route, in order.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = Route> + use<> {
        (0..to_index(self.len())).map(Route)
    }

    /// The route at a place in the order, `None` past the end.
    pub fn route(&self, index: usize) -> Option<Route> {
        (index < self.len()).then(|| Route(to_index(index)))
    }

    /// The route of three sizes, `None` where one is not in its list.
    pub fn find(&self, slice: Slice) -> Option<Route> {
        let hidden = self.hidden.binary_search(&slice.hidden).ok()?;
        let layers = self.layers.binary_search(&slice.layers).ok()?;
        let embedding = self.embedding.binary_search(&slice.embedding).ok()?;
        self.route((hidden * self.layers.len() + layers) * self.embedding.len() + embedding)
    }

    /// The sizes of a route.
    #[inline]
    pub fn slice(&self, route: Route) -> Slice {
        let place = self.place(route);
        Slice { hidden: self.hidden[place[0]], layers: self.layers[place[1]], embedding: self.embedding[place[2]] }
    }

    /// The places of a route's sizes in the lists: hidden, layers, embedding.
    #[inline]
    pub fn place(&self, route: Route) -> [usize; 3] {
        let (depths, tables) = (self.layers.len(), self.embedding.len());
        let index = route.index();
        [index / (depths * tables), index / tables % depths, index % tables]
    }

    /// The route's name, as `h64-l2-e64`.
    pub fn name(&self, route: Route) -> &str {
        &self.names[route.index()]
    }

    /// The route of a name.
    pub fn parse(&self, name: &str) -> Option<Route> {
        self.names.iter().position(|known| &**known == name).and_then(|index| self.route(index))
    }

    /// What a request may call a route: `full`, `smallest`, or its name.
    pub fn named(&self, name: &str) -> Option<Route> {
        match name {
            "full" => Some(self.full()),
            "smallest" => Some(self.smallest()),
            name => self.parse(name),
        }
    }

    /// The full model's sizes: the widths in which the weights are stored.
    pub fn widest(&self) -> Slice {
        self.slice(self.full())
    }
}

/// [`RouteSpace::MAX_ROUTES`] keeps every index in range.
fn to_index(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}
