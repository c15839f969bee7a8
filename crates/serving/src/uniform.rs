/// The upper 53 bits of a hash, as a number from 0 up to but not including 1. A float holds 53 bits exactly, so every value
/// is below a share of 1.
pub(crate) fn uniform(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
