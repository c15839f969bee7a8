use half::bf16;

use canet_model::{ModelConfig, Positions, Precision, Weights, WeightsError};

/// The names of a network's tables.
struct Tables {
    items: &'static str,
    positions: &'static str,
}

/// The weights of a network as the kernels read them, in words: matrices, vectors and both tables. Relative positions
/// have biases in place of a table.
pub(crate) struct PackedNetwork {
    pub(crate) matrices: Vec<u32>,
    pub(crate) vectors: Vec<u32>,
    pub(crate) items: Vec<u32>,
    pub(crate) positions: Vec<u32>,
}

const MATRICES: [&str; 6] =
    ["attention.query", "attention.key", "attention.value", "attention.output", "ffn.inner", "ffn.outer"];
/// The last two are single numbers. Two zeros follow them, so that a block's vectors fill whole sixteen bytes.
const VECTORS: [&str; 12] = [
    "attention.query.bias",
    "attention.key.bias",
    "attention.value.bias",
    "attention.output.bias",
    "attention_norm.weight",
    "attention_norm.bias",
    "ffn.inner.bias",
    "ffn.outer.bias",
    "ffn_norm.weight",
    "ffn_norm.bias",
    "attention_residual",
    "ffn_residual",
];

impl PackedNetwork {
    /// The input projection, the norm of the embedding if there is one, then every block.
    pub(crate) fn backbone(
        weights: &Weights,
        config: &ModelConfig,
        precision: Precision,
    ) -> Result<PackedNetwork, WeightsError> {
        let (mut matrices, mut vectors) = (Vec::new(), Vec::new());
        matrices.extend(&weights.get("backbone.input.weight")?.data);
        vectors.extend(&weights.get("backbone.input.bias")?.data);
        if config.embedding_norm {
            for part in ["weight", "bias"] {
                vectors.extend(&weights.get(&format!("backbone.embedding_norm.{part}"))?.data);
            }
        }
        for layer in 0..config.depth() {
            block(weights, &format!("backbone.blocks.{layer}"), &mut matrices, &mut vectors)?;
        }
        let positions = match config.positions {
            Positions::Newest | Positions::Oldest => "backbone.position_embedding",
            Positions::Relative => "backbone.position_bias",
        };
        let tables = Tables { items: "backbone.item_embedding", positions };
        PackedNetwork::new(weights, tables, precision, &matrices, &vectors)
    }

    /// The block, then the head.
    pub(crate) fn router(weights: &Weights) -> Result<PackedNetwork, WeightsError> {
        let (mut matrices, mut vectors) = (Vec::new(), Vec::new());
        block(weights, "router.block", &mut matrices, &mut vectors)?;
        matrices.extend(&weights.get("router.head.weight")?.data);
        vectors.extend(&weights.get("router.head.bias")?.data);
        let tables = Tables { items: "router.item_embedding", positions: "router.position_embedding" };
        PackedNetwork::new(weights, tables, Precision::Fp32, &matrices, &vectors)
    }

    fn new(
        weights: &Weights,
        tables: Tables,
        precision: Precision,
        matrices: &[f32],
        vectors: &[f32],
    ) -> Result<PackedNetwork, WeightsError> {
        let matrices = match precision {
            Precision::Fp32 => words(matrices),
            Precision::Bf16 => matrices.chunks(2).map(pair).collect(),
        };
        Ok(PackedNetwork {
            matrices,
            vectors: words(vectors),
            items: words(&weights.get(tables.items)?.data),
            positions: words(&weights.get(tables.positions)?.data),
        })
    }
}

fn block(weights: &Weights, name: &str, matrices: &mut Vec<f32>, vectors: &mut Vec<f32>) -> Result<(), WeightsError> {
    for matrix in MATRICES {
        matrices.extend(&weights.get(&format!("{name}.{matrix}.weight"))?.data);
    }
    for vector in VECTORS {
        vectors.extend(&weights.get(&format!("{name}.{vector}"))?.data);
    }
    vectors.extend([0.0; 2]);
    Ok(())
}

/// Two numbers of a matrix in a word, the first in the low half.
fn pair(values: &[f32]) -> u32 {
    let half = |value: &f32| u32::from(bf16::from_f32(*value).to_bits());
    values.iter().rev().fold(0, |word, value| word << 16 | half(value))
}

pub(crate) fn words(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
