//! The network in float64 and plain loops, written from its definition alone: no library, no vectors, no packing, no
//! batches.

use canet_domain::{History, RouteSpace, Slice};
use canet_model::{Forward, ModelConfig, Positions as PositionRule, RouterConfig, Rows, Weights, WidthRule};
use proptest::prelude::*;
use proptest::sample::subsequence;

/// What a model must answer for some histories.
pub struct OracleAnswers<'a> {
    histories: Vec<&'a History>,
    space: RouteSpace,
    /// By history and route.
    logits: Vec<Vec<f64>>,
    /// By route, history and column.
    scores: Vec<Vec<Vec<f64>>>,
}

impl<'a> OracleAnswers<'a> {
    /// Computes the logits and the scores of every route.
    pub fn compute(config: &ModelConfig, weights: &Weights, histories: &'a [History]) -> OracleAnswers<'a> {
        let (oracle, space) = (Oracle { config, weights }, config.check().unwrap());
        let scores = |slice: Slice| histories.iter().map(|history| oracle.scores(slice, history)).collect();
        OracleAnswers {
            histories: histories.iter().collect(),
            logits: histories.iter().map(|history| oracle.router_logits(history)).collect(),
            scores: space.routes().map(|route| scores(space.slice(route))).collect(),
            space,
        }
    }

    /// Panics unless the forward's answers are within 1e-4 of these, relative to values above 1.
    pub fn assert_near(&self, name: &str, forward: &dyn Forward) {
        assert_near(&forward.router_logits(&self.histories).unwrap(), &self.logits, &format!("{name}, router"));
        for (route, expected) in self.space.routes().zip(&self.scores) {
            let scores = forward.scores(route, &self.histories).unwrap();
            assert_near(&scores, expected, &format!("{name}, {}", self.space.name(route)));
        }
    }
}

fn assert_near(found: &Rows, expected: &[Vec<f64>], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (column, (found, expected)) in found.iter().zip(expected).enumerate() {
            let distance = (f64::from(*found) - expected).abs();
            let near = distance <= 1e-4 * expected.abs().max(1.0);
            assert!(near, "{what}: row {row}, column {column}: {found} is not {expected}");
        }
    }
}

/// Small networks of every form. Widths start at 4, because a layer norm over fewer values amplifies rounding.
pub fn any_config() -> impl Strategy<Value = ModelConfig> {
    let rule = || prop_oneof![Just(WidthRule::Slice), Just(WidthRule::Full)];
    let router = (1..=3_usize, 4..=6_usize, 1..=20_usize).prop_map(|(heads, head_width, ffn)| RouterConfig {
        dim: heads * head_width,
        heads,
        ffn,
    });
    let lists = (
        1..=4_usize,
        subsequence(vec![4, 5, 6, 7, 9], 1..=3),
        subsequence(vec![1, 2, 3, 4], 1..=3),
        // Without one, the embedding is as wide as the hidden state.
        subsequence(vec![1, 2, 5, 8, 13], 0..=3),
    );
    let positions = prop_oneof![Just(PositionRule::Newest), Just(PositionRule::Oldest), Just(PositionRule::Relative)];
    let flags = (rule(), rule(), positions, any::<bool>(), prop_oneof![Just(1e-5), Just(1e-12), Just(1e-2)]);
    (lists, 1..=9_usize, 1..=30_usize, router, flags).prop_map(
        |((heads, head_widths, layers, embedding), max_len, items, router, flags)| ModelConfig {
            items,
            max_len,
            heads,
            hidden: head_widths.into_iter().map(|width| heads * width).collect(),
            layers,
            embedding,
            router,
            attention_scale: flags.0,
            ffn_inner: flags.1,
            positions: flags.2,
            embedding_norm: flags.3,
            history_stride: 1,
            norm_eps: flags.4,
        },
    )
}

/// One vector a position.
type Positions = Vec<Vec<f64>>;

struct Oracle<'a> {
    config: &'a ModelConfig,
    weights: &'a Weights,
}

/// Sizes of one block's slice.
struct BlockSlice {
    /// The stored width.
    stored: usize,
    /// The slice's width.
    width: usize,
    heads: usize,
    ffn: usize,
    /// The width whose heads set the scale of attention scores.
    scale_width: usize,
    causal: bool,
    /// The layer whose biases by distance are added to the scores.
    biased: Option<usize>,
}

impl Oracle<'_> {
    fn scores(&self, slice: Slice, history: &History) -> Vec<f64> {
        let (widest, h) = (*self.config.hidden.last().unwrap(), slice.hidden);
        let follow = |rule: WidthRule| if rule == WidthRule::Slice { h } else { widest };
        let embedded = self.embed("backbone", self.config.positions, history);
        let mut x: Positions = embedded
            .iter()
            .map(|vector| {
                let read = &vector[..slice.embedding];
                match self.config.embedding_norm {
                    true => self.linear("backbone.input", &self.norm("backbone.embedding_norm", read), &prefix(h)),
                    false => self.linear("backbone.input", read, &prefix(h)),
                }
            })
            .collect();
        for layer in 0..slice.layers {
            let block = BlockSlice {
                stored: widest,
                width: h,
                heads: self.config.heads,
                ffn: 4 * follow(self.config.ffn_inner),
                scale_width: follow(self.config.attention_scale),
                causal: true,
                biased: (self.config.positions == PositionRule::Relative).then_some(layer),
            };
            x = self.block(&format!("backbone.blocks.{layer}"), &block, &x);
        }
        self.linear("backbone.output", x.last().unwrap(), &prefix(self.config.items + 1))
    }

    fn router_logits(&self, history: &History) -> Vec<f64> {
        let RouterConfig { dim, heads, ffn } = self.config.router;
        let block = BlockSlice { stored: dim, width: dim, heads, ffn, scale_width: dim, causal: false, biased: None };
        let x = self.block("router.block", &block, &self.embed("router", PositionRule::Newest, history));
        self.linear("router.head", x.last().unwrap(), &prefix(self.config.routes()))
    }

    /// Item + position. The last row of the table is the newest item's, or its first row the oldest's. Relative
    /// positions have no table.
    fn embed(&self, part: &str, positions: PositionRule, history: &History) -> Positions {
        let first = match positions {
            PositionRule::Newest => self.config.max_len - history.len(),
            PositionRule::Oldest | PositionRule::Relative => 0,
        };
        let rows = history.items().iter().enumerate().map(|(place, item)| {
            let item = self.row(&format!("{part}.item_embedding"), item.column());
            if positions == PositionRule::Relative {
                return item;
            }
            let position = self.row(&format!("{part}.position_embedding"), first + place);
            item.iter().zip(position).map(|(item, position)| item + position).collect()
        });
        rows.collect()
    }

    fn block(&self, name: &str, block: &BlockSlice, x: &Positions) -> Positions {
        let attended = self.attention(name, block, x);
        let a = self.values(&format!("{name}.attention_residual"))[0];
        let x = self.add_and_norm(&format!("{name}.attention_norm"), x, a, &attended);
        let fed: Positions = x
            .iter()
            .map(|vector| {
                let inner = self.linear(&format!("{name}.ffn.inner"), vector, &prefix(block.ffn));
                let inner: Vec<f64> = inner.into_iter().map(gelu).collect();
                self.linear(&format!("{name}.ffn.outer"), &inner, &prefix(block.width))
            })
            .collect();
        let a = self.values(&format!("{name}.ffn_residual"))[0];
        self.add_and_norm(&format!("{name}.ffn_norm"), &x, a, &fed)
    }

    /// Head i of a slice is a prefix of the stored head i.
    fn attention(&self, name: &str, block: &BlockSlice, x: &Positions) -> Positions {
        let (stored, width) = (block.stored / block.heads, block.width / block.heads);
        let rows: Vec<usize> = (0..block.heads).flat_map(|head| head * stored..head * stored + width).collect();
        let project = |kind: &str| -> Positions {
            x.iter().map(|vector| self.linear(&format!("{name}.attention.{kind}"), vector, &rows)).collect()
        };
        let (query, key, value) = (project("query"), project("key"), project("value"));
        let scale = ((block.scale_width / block.heads) as f64).sqrt();
        let attend = |position: usize| {
            let mut mixed = vec![0.0; block.width];
            for head in 0..block.heads {
                let part = head * width..(head + 1) * width;
                let seen = if block.causal { position + 1 } else { x.len() };
                let bias = |key: usize| {
                    let row = |layer| (layer * self.config.heads + head) * self.config.max_len + position - key;
                    block.biased.map_or(0.0, |layer| self.values("backbone.position_bias")[row(layer)])
                };
                let dot = |other: &Vec<f64>| -> f64 {
                    query[position][part.clone()].iter().zip(&other[part.clone()]).map(|(a, b)| a * b).sum()
                };
                let weights: Vec<f64> =
                    key[..seen].iter().enumerate().map(|(at, key)| (dot(key) / scale + bias(at)).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (weight, value) in weights.iter().zip(&value) {
                    for place in part.clone() {
                        mixed[place] += weight / total * value[place];
                    }
                }
            }
            self.linear(&format!("{name}.attention.output"), &mixed, &prefix(block.width))
        };
        (0..x.len()).map(attend).collect()
    }

    /// LN(x + a y)
    fn add_and_norm(&self, name: &str, x: &Positions, a: f64, y: &Positions) -> Positions {
        let sum = |(x, y): (&Vec<f64>, &Vec<f64>)| -> Vec<f64> { x.iter().zip(y).map(|(x, y)| x + a * y).collect() };
        x.iter().zip(y).map(|pair| self.norm(name, &sum(pair))).collect()
    }

    /// Layer norm over the vector's own length.
    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (gain, bias) = (self.values(&format!("{name}.weight")), self.values(&format!("{name}.bias")));
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let scaled = x.iter().map(|value| (value - mean) / (variance + self.config.norm_eps).sqrt());
        scaled.zip(gain.iter().zip(&bias)).map(|(value, (gain, bias))| value * gain + bias).collect()
    }

    /// The given rows of `W[:, ..x.len()] x + b`.
    fn linear(&self, name: &str, x: &[f64], rows: &[usize]) -> Vec<f64> {
        let bias = self.values(&format!("{name}.bias"));
        let weight = format!("{name}.weight");
        let dot = |row: usize| self.row(&weight, row).iter().zip(x).map(|(weight, x)| weight * x).sum::<f64>();
        rows.iter().map(|row| dot(*row) + bias[*row]).collect()
    }

    fn row(&self, name: &str, row: usize) -> Vec<f64> {
        let tensor = self.weights.get(name).unwrap();
        let columns = tensor.shape[1];
        tensor.data[row * columns..(row + 1) * columns].iter().copied().map(f64::from).collect()
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.weights.get(name).unwrap().data.iter().copied().map(f64::from).collect()
    }
}

fn prefix(length: usize) -> Vec<usize> {
    (0..length).collect()
}

/// `x Φ(x)`.
fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

/// `2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (1·3·5…(2n+1))` (Abramowitz and Stegun, 7.1.6). All terms have one sign.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}
