use super::norm::Norm;
use super::panels::{Packer, Panels, padded};
use super::product::{Product, enter};
use super::simd::{Left, Level};
use super::tables::Tables;
use super::workspace::Workspace;
use canet_domain::{History, Route, RouteSpace};
use canet_model::{ModelConfig, Precision, WeightsError};

/// Bytes up to which products of the tables are kept.
const KEPT: usize = 64 << 20;

/// What the first block takes: `W_in LN(item + position) + b`, where the norm and the position are optional.
pub(crate) enum Input {
    /// `W_in item + b` and `W_in position` in place of the tables, one of each an embedding width: a token is the sum of two
    /// rows. Without a table of positions it is one row, `W_in LN(item) + b`. In float32 whatever the precision, as there is
    /// no product left.
    Kept(Vec<Tables>),
    /// The tables as they are, and the layer, [D, E], which every token passes.
    Computed(Box<Tables>, Panels),
}

impl Input {
    pub(crate) fn load(
        level: Level,
        packer: Packer<'_>,
        config: &ModelConfig,
        space: &RouteSpace,
    ) -> Result<Input, WeightsError> {
        let (weights, name) = (packer.weights, "backbone.input");
        let mut tables = Tables::load(weights, "backbone", config.positions, config.max_len)?;
        if config.embedding_norm {
            tables = tables.normed(Norm::load(weights, "backbone.embedding_norm", config.norm_eps as f32)?);
        }
        let rows = tables.rows().saturating_mul(space.embedding().len());
        let fits = rows.saturating_mul(padded(config.width()) * size_of::<f32>()) <= KEPT;
        if !fits || !tables.pass_layers() {
            return Ok(Input::Computed(Box::new(tables), packer.layer(name)?));
        }
        let layer = Packer { precision: Precision::Fp32, ..packer }.layer(name)?;
        Ok(Input::Kept(space.embedding().iter().map(|width| tables.through(level, &layer, *width)).collect()))
    }

    /// Fills the workspace's `x`, a row a token, one history behind the other. Returns how many items each has.
    pub(crate) fn enter(
        &self,
        level: Level,
        (space, route): (&RouteSpace, Route),
        histories: &[&History],
        workspace: &mut Workspace,
    ) -> Vec<usize> {
        let Workspace { stride, x, mixed, pairs, .. } = workspace;
        let (stride, slice) = (*stride, space.slice(route));
        match self {
            Input::Kept(tables) => {
                let [.., embedding] = space.place(route);
                tables[embedding].embed(level, histories, slice.hidden, (x, stride))
            }
            Input::Computed(tables, layer) => {
                let lengths = tables.embed(level, histories, slice.embedding, (mixed, stride));
                let tokens = lengths.iter().sum();
                let embedded = (Left { data: mixed, stride }, [tokens, slice.embedding]);
                let embedded = enter(level, layer.numbers(), embedded, pairs);
                Product::new(layer, [slice.embedding, slice.hidden], embedded, tokens).into(level, x, stride);
                lengths
            }
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Input::Kept(tables) => tables.iter().map(Tables::bytes).sum(),
            Input::Computed(tables, layer) => tables.bytes() + layer.bytes(),
        }
    }
}
