use crate::{Route, RouteSpace, Slice};

/// Floating-point operations, a multiply-add counted as 2.
pub type Flops = u64;

/// Inner width of a slice's feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FfnInner {
    /// 4 x the slice's width.
    Slice,
    /// 4 x the full width for every slice, as the authors' code trains.
    Full,
}

/// Sizes of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterShape {
    /// Width of its tables and of its block.
    pub dim: usize,
    /// Inner width of its feed-forward network.
    pub ffn: usize,
}

/// The cost of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFlops {
    /// The route's slice.
    pub slice: Flops,
    /// The router.
    pub router: Flops,
    /// The full route's slice, for comparison.
    pub full: Flops,
}

/// The sizes that fix the cost of a request, together with its length and its route.
///
/// The cost counts matrix products only, as PyTorch's `FlopCounterMode` does: the embedding projection, Q, K and V, QK^T and
/// PV, the output projection, both feed-forward products, and the scores. QK^T and PV count as dense, even if a kernel skips
/// the causal triangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelShape {
    /// Catalogue size N. Scores have N + 1 columns.
    pub items: usize,
    /// Width of the widest slice, D.
    pub width: usize,
    /// Rule for the inner width of the feed-forward networks.
    pub ffn_inner: FfnInner,
    /// The router's sizes.
    pub router: RouterShape,
}

impl ModelShape {
    /// Inner width of the feed-forward network of a slice of width `hidden`.
    pub fn ffn_width(&self, hidden: usize) -> usize {
        4 * match self.ffn_inner {
            FfnInner::Slice => hidden,
            FfnInner::Full => self.width,
        }
    }

    /// Cost of one slice for a history of `length` items, without the router.
    ///
    /// With L = length, l = layers and f = [`ffn_width`](Self::ffn_width)(h) it is
    ///
    /// `2Leh + (l-1)(8Lh² + 4L²h + 4Lhf) + (4Lh² + 4h² + 4Lh + 4hf) + 2h(N+1)`
    ///
    /// The last layer computes only keys and values for the positions before the last.
    pub fn slice_flops(&self, slice: Slice, length: usize) -> Flops {
        let [h, e, l, n] = [slice.hidden, slice.embedding, length, self.items].map(|size| size as u64);
        let f = self.ffn_width(slice.hidden) as u64;
        let whole_block = 8 * l * h * h + 4 * l * l * h + 4 * l * h * f;
        2 * l * e * h + (slice.layers as u64 - 1) * whole_block + last_block(h, f, l) + 2 * h * (n + 1)
    }

    /// The part of a slice's cost that kept states of earlier positions save, for a history of `length` items.
    ///
    /// `kept` says for each block before the last, in order, how many of the oldest positions are not computed again. With
    /// k of them a block saves `k(8h² + 4Lh + 4hf)`, and the first block saves the embedding's `2keh` too.
    pub fn reused_flops(&self, slice: Slice, length: usize, kept: impl IntoIterator<Item = usize>) -> Flops {
        let [h, e, l] = [slice.hidden, slice.embedding, length].map(|size| size as u64);
        let position = 8 * h * h + 4 * l * h + 4 * h * self.ffn_width(slice.hidden) as u64;
        let kept = kept.into_iter().map(|positions| positions as u64);
        kept.enumerate().map(|(block, kept)| kept * (position + if block == 0 { 2 * e * h } else { 0 })).sum()
    }

    /// The extra cost of a slice in a batch that projects embeddings of `widest` columns, for a history of `length` items:
    /// `2L(widest - e)h` with L = length.
    pub fn embedding_padding(&self, slice: Slice, widest: usize, length: usize) -> Flops {
        let [h, beyond, l] = [slice.hidden, widest.saturating_sub(slice.embedding), length].map(|size| size as u64);
        2 * l * beyond * h
    }

    /// Cost of the router for `routes` routes and a history of `length` items: one block reduced to its last position, and the
    /// linear head. A model of one route runs no router.
    pub fn router_flops(&self, routes: usize, length: usize) -> Flops {
        if routes == 1 {
            return 0;
        }
        let [d, f, r, l] = [self.router.dim, self.router.ffn, routes, length].map(|size| size as u64);
        last_block(d, f, l) + 2 * d * r
    }

    /// Cost of a route's slice, without the router.
    pub fn route_flops(&self, space: &RouteSpace, route: Route, length: usize) -> Flops {
        self.slice_flops(space.slice(route), length)
    }

    /// Cost of a request on a route, for a history of `length` items.
    pub fn request_flops(&self, space: &RouteSpace, route: Route, length: usize) -> RequestFlops {
        RequestFlops {
            slice: self.route_flops(space, route, length),
            router: self.router_flops(space.len(), length),
            full: self.full_flops(space, length),
        }
    }

    /// Cost of the full model, which is the largest slice without the router.
    pub fn full_flops(&self, space: &RouteSpace, length: usize) -> Flops {
        self.route_flops(space, space.full(), length)
    }
}

/// A block that is reduced to its last position: it computes keys and values at every position, and the rest once.
fn last_block(h: u64, f: u64, l: u64) -> Flops {
    4 * l * h * h + 4 * h * h + 4 * l * h + 4 * h * f
}
