/// In which numbers a forward stores its weights and multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// float32 everywhere.
    Fp32,
    /// The backbone's linear layers in bfloat16: their weights, and their inputs as they enter a product, whose sums
    /// are float32. Embedding tables, layer norms, softmax, residuals and the router stay float32.
    Bf16,
}

impl Precision {
    /// Its name, as it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
        }
    }
}
