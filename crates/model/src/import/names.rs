use crate::{ModelConfig, Parameter};

/// A weight and its source in the authors' state dict.
pub(super) struct Origin {
    /// Our name and shape.
    pub(super) ours: Parameter,
    /// The authors' name.
    pub(super) theirs: String,
    /// The authors' shape.
    pub(super) shape: Vec<usize>,
}

/// Whether the import ignores a tensor: the router's second head, which the authors' training never uses.
pub(super) fn is_unused(name: &str) -> bool {
    name.starts_with("router.output_depth.")
}

/// Every weight of a configuration with its origin. Residual scalars are left out if the authors' run had none.
///
/// The authors' item tables have N + 2 rows, and never use the last one.
pub(super) fn origins(config: &ModelConfig, learnt_residuals: bool) -> Vec<Origin> {
    let parameters = config.parameters().into_iter();
    let wanted = parameters.filter(|parameter| learnt_residuals || !is_residual(&parameter.name));
    wanted
        .map(|ours| {
            let mut shape = ours.shape.clone();
            if ours.name.ends_with(".item_embedding") {
                shape[0] += 1;
            }
            Origin { theirs: their_name(&ours.name), shape, ours }
        })
        .collect()
}

/// Whether a weight is the scalar of a residual connection.
pub(super) fn is_residual(name: &str) -> bool {
    name.ends_with("_residual")
}

/// The authors' name of a weight. Their backbone wraps its linear layers; their router does not.
fn their_name(ours: &str) -> String {
    let (part, layer) = if ours.starts_with("backbone.") { ("backbone", ".layer") } else { ("router", "") };
    let path: Vec<&str> = ours.split('.').skip(1).collect();
    let name = match path.as_slice() {
        ["item_embedding"] => "token.weight".to_owned(),
        ["position_embedding"] => "position.pe.weight".to_owned(),
        ["input", kind] => format!("input_projection.layer.{kind}"),
        ["output", kind] => format!("output.layer.{kind}"),
        ["head", kind] => format!("output_emb.{kind}"),
        ["blocks", number, weight @ ..] => format!("TRMs.{number}.{}", in_block(weight, layer)),
        ["block", weight @ ..] => format!("TRMs.0.{}", in_block(weight, layer)),
        other => other.join("."),
    };
    format!("{part}.{name}")
}

fn in_block(path: &[&str], layer: &str) -> String {
    match path {
        ["attention", "query", kind] => format!("attn.linear_layers.0{layer}.{kind}"),
        ["attention", "key", kind] => format!("attn.linear_layers.1{layer}.{kind}"),
        ["attention", "value", kind] => format!("attn.linear_layers.2{layer}.{kind}"),
        ["attention", "output", kind] => format!("attn.output_linear{layer}.{kind}"),
        ["ffn", "inner", kind] => format!("ffn.linear1{layer}.{kind}"),
        ["ffn", "outer", kind] => format!("ffn.linear2{layer}.{kind}"),
        ["attention_residual"] => "skipconnect1.a".to_owned(),
        ["attention_norm", kind] => format!("skipconnect1.norm.{kind}"),
        ["ffn_residual"] => "skipconnect2.a".to_owned(),
        ["ffn_norm", kind] => format!("skipconnect2.norm.{kind}"),
        other => other.join("."),
    }
}
