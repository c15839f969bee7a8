//! Runs slices for histories of which some positions were computed before.
//!
//! Rows of one width run together, whatever their depths and embeddings, so that they share the reading of the weights.
//! The deepest come first. At each depth of the space the rows that end there leave at the end of the workspace's `x`:
//!
//! 1. The inputs of the blocks up to this depth are laid into `x`: embeddings, or what the depth before left.
//! 2. Each block computes the positions that a row lacks and adds their keys and values to the row's states.
//! 3. The rows' states get the inputs of the next block.
//! 4. Rows of this depth compute their newest position from those inputs.

use super::backbone::Backbone;
use super::block::Continued;
use super::embedding::{EmbeddingSlice, FurtherItems};
use super::kept_states::KeptStates;
use super::newest_attention::Features;
use super::simd::RowMajor;
use super::sync::Arc;
use super::workspace::Workspace;
use canet_domain::{Flops, Item, Route};

/// A row with states that it continues and keeps.
pub(crate) struct Extension<'a> {
    /// Its place among the rows of the call.
    pub(crate) place: usize,
    pub(crate) route: Route,
    /// The items that the model reads.
    pub(crate) items: &'a [Item],
    /// The states of the oldest positions, perhaps of none. Afterwards they are those of all positions.
    pub(crate) states: HeldStates,
    /// What these states save at the start.
    pub(crate) reused: Flops,
}

/// The states of a row while it runs.
pub(crate) enum HeldStates {
    /// Of this row alone, which may extend them.
    Own(KeptStates),
    /// Of all positions of the row, and perhaps of further ones.
    Shared(Arc<KeptStates>),
}

impl HeldStates {
    pub(crate) fn get(&self) -> &KeptStates {
        match self {
            HeldStates::Own(states) => states,
            HeldStates::Shared(states) => states,
        }
    }

    fn own(&mut self) -> Option<&mut KeptStates> {
        match self {
            HeldStates::Own(states) => Some(states),
            HeldStates::Shared(_) => None,
        }
    }
}

impl Extension<'_> {
    /// How many positions the blocks up to a depth have to compute.
    pub(crate) fn lacking(&self, depth: usize) -> usize {
        self.items.len().saturating_sub(self.states.get().tokens(depth))
    }
}

impl Backbone {
    /// The outputs at the newest positions of rows of one width, sorted by descending depth: one row of the workspace's
    /// stride each. No row may have a depth whose only block is the last one.
    ///
    /// The rows together [lack](Extension::lacking) at most as many positions as the workspace has tokens.
    pub(crate) fn extend(&self, rows: &mut [Extension<'_>], workspace: &mut Workspace, newest: &mut [f32]) {
        let Some(first) = rows.first() else { return };
        let slice = &self.slices[self.space.place(first.route)[0]];
        let depth_of = |row: &Extension<'_>| self.space.place(row.route)[1];
        for row in rows.iter_mut() {
            let depth = self.space.place(row.route)[1];
            if let Some(states) = row.states.own() {
                states.deepen(slice.width, self.space.layers()[depth] - 1, depth + 1);
            }
        }
        // The rows that are not done, the number of blocks that every one of them has run, and for how many positions.
        let (mut active, mut layers, mut laid) = (rows.len(), 0, Vec::new());
        for (depth, inner) in self.space.layers().iter().map(|layers| layers - 1).enumerate() {
            if inner == 0 || active == 0 {
                continue;
            }
            let lacking: Vec<usize> = rows[..active].iter().map(|row| row.lacking(depth)).collect();
            // Rows that have run the blocks before for the same positions left their inputs where they belong.
            if layers == 0 || lacking != laid[..active] {
                self.lay_inputs(&rows[..active], depth, layers, workspace);
            }
            for layer in layers..inner {
                let continued = rows[..active].iter_mut().zip(&lacking);
                let mut continued: Vec<Continued<'_>> = continued
                    .filter(|(_, tokens)| **tokens > 0)
                    .filter_map(|(row, tokens)| {
                        Some(Continued { tokens: *tokens, kept: &mut row.states.own()?.blocks[layer] })
                    })
                    .collect();
                self.blocks[layer].further_positions(slice, &mut continued, workspace);
            }
            let mut token = 0;
            for (row, tokens) in rows[..active].iter_mut().zip(&lacking).filter(|(_, tokens)| **tokens > 0) {
                let data = &workspace.x[token * workspace.stride..];
                if let Some(states) = row.states.own() {
                    states.inputs[depth].append(RowMajor { data, stride: workspace.stride }, *tokens);
                }
                token += tokens;
            }
            (layers, laid) = (inner, lacking);
            let staying = rows[..active].iter().take_while(|row| depth_of(row) > depth).count();
            let ending: Vec<(usize, RowMajor<'_>)> = rows[staying..active]
                .iter()
                .map(|row| (row.items.len(), row.states.get().inputs[depth].rows()))
                .collect();
            if !ending.is_empty() {
                let newest = &mut newest[staying * workspace.stride..];
                self.blocks[inner].newest_positions(slice, &Features::Kept(&ending), workspace, newest);
            }
            active = staying;
        }
    }

    /// Lays the inputs of block `layers` into the workspace's `x`, for the positions that rows lack at a depth.
    fn lay_inputs(&self, rows: &[Extension<'_>], depth: usize, layers: usize, workspace: &mut Workspace) {
        if layers == 0 {
            let further = rows.iter().map(|row| FurtherItems {
                items: row.items,
                first: row.items.len() - row.lacking(depth),
                embedding: EmbeddingSlice::of(&self.space, row.route),
            });
            let further: Vec<FurtherItems<'_>> = further.collect();
            self.input.embed_further(self.space.slice(rows[0].route).hidden, &further, workspace);
            return;
        }
        let Workspace { stride, x, .. } = workspace;
        let mut token = 0;
        for row in rows {
            let lacking = row.lacking(depth);
            if lacking == 0 {
                continue;
            }
            let kept = row.states.get().inputs[depth - 1].rows();
            for position in row.items.len() - lacking..row.items.len() {
                let features = &kept.data[position * kept.stride..][..kept.stride];
                x[token * *stride..][..kept.stride].copy_from_slice(features);
                token += 1;
            }
        }
    }
}
