use canet_cpu::{CpuForward, Level};
use canet_domain::History;
use canet_model::Precision;
use canet_testing::{OracleAnswers, any_config, random_history, random_weights, rng};
use proptest::prelude::*;

use super::options;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_level_agrees_with_a_float64_recomputation(config in any_config(), seed in any::<u64>()) {
        let mut rng = rng(seed);
        let weights = random_weights(&config, &mut rng);
        let histories: Vec<History> =
            (1..=config.max_len).map(|length| random_history(config.items, length, &mut rng)).collect();
        let expected = OracleAnswers::compute(&config, &weights, &histories);
        for level in Level::available() {
            let forward = CpuForward::load(&config, &weights, options(level, Precision::Fp32, 2)).unwrap();
            expected.assert_near(&level.to_string(), &forward);
        }
    }
}
