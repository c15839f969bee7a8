use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{TchError, Tensor};

use crate::domain::Item;

/// A stretch of one user's training sequence: what is read, and at each place what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window<'a> {
    /// 1 to `max_len` items, oldest first.
    pub inputs: &'a [Item],
    /// The item after each of `inputs`.
    pub targets: &'a [Item],
}

/// Cuts sequences into windows of at most `max_len` inputs, from the newest item backwards, so that each pair of
/// neighbours is trained exactly once an epoch. Sequences of one item teach nothing and give none.
pub fn windows<'a>(sequences: &[&'a [Item]], max_len: usize) -> Vec<Window<'a>> {
    let mut windows = Vec::new();
    for sequence in sequences {
        let mut end = sequence.len().saturating_sub(1);
        while end > 0 {
            let start = end.saturating_sub(max_len);
            windows.push(Window { inputs: &sequence[start..end], targets: &sequence[start + 1..=end] });
            end = start;
        }
    }
    windows
}

/// The order of the windows in an epoch: the same for the same seed and epoch.
pub(super) fn epoch_order(windows: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..windows).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch + 1);
    order.shuffle(&mut rng);
    order
}

/// Windows as tensors: right aligned, 0-padded on the left, as wide as the longest.
pub struct Batch {
    /// Item ids: [B, L]
    pub items: Tensor,
    /// Positions, the newest item at `max_len - 1`: [L]
    pub positions: Tensor,
    /// Whether a place holds a real item: [B, L], bool
    pub real: Tensor,
    /// Places of the real items in the flattened [B·L]: [T]
    pub places: Tensor,
    /// The item after each real item: [T]
    pub targets: Tensor,
    /// The item after each row's newest item: [B]
    pub last_targets: Tensor,
    /// Items of each row.
    pub lengths: Vec<usize>,
}

impl Batch {
    /// Puts windows, at least one, on a device.
    ///
    /// # Errors
    /// LibTorch's, when memory runs out.
    pub fn new(windows: &[Window<'_>], max_len: usize, device: tch::Device) -> Result<Batch, TchError> {
        let lengths: Vec<usize> = windows.iter().map(|window| window.inputs.len()).collect();
        let width = lengths.iter().copied().max().unwrap_or(1);
        let mut items = vec![0_i64; windows.len() * width];
        let (mut places, mut targets, mut last_targets) = (Vec::new(), Vec::new(), Vec::new());
        for (row, window) in windows.iter().enumerate() {
            let start = (row + 1) * width - window.inputs.len();
            for (offset, (input, target)) in window.inputs.iter().zip(window.targets).enumerate() {
                items[start + offset] = i64::from(input.id());
                places.push((start + offset) as i64);
                targets.push(i64::from(target.id()));
            }
            last_targets.extend(window.targets.last().map(|item| i64::from(item.id())));
        }
        let to_device = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        let items = to_device(&items)?.f_reshape([windows.len() as i64, width as i64])?;
        let positions: Vec<i64> = (max_len - width..max_len).map(|position| position as i64).collect();
        Ok(Batch {
            positions: to_device(&positions)?,
            real: items.f_ne(0)?,
            places: to_device(&places)?,
            targets: to_device(&targets)?,
            last_targets: to_device(&last_targets)?,
            items,
            lengths,
        })
    }

    /// Number of windows.
    pub fn rows(&self) -> i64 {
        self.lengths.len() as i64
    }
}
