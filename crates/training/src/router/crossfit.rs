use tch::{Kind, TchError, Tensor};

use super::predictor::UtilityPredictor;
use crate::stage::StageEnd;

/// Number of folds of the users. Each fold is predicted by predictors that did not train on it.
pub(super) const FOLDS: usize = 5;

/// Numbers of training passes that are compared.
const PASSES: [usize; 7] = [1, 2, 4, 7, 11, 16, MOST_PASSES];

/// The greatest of these numbers.
pub(super) const MOST_PASSES: usize = 22;

/// Predictors of a fold, whose predictions are averaged.
const PREDICTORS: usize = 2;

/// Training passes of a [`cross_fit`], at most.
pub(super) const TRAINING_PASSES: usize = FOLDS * PREDICTORS * MOST_PASSES;

/// Utilities, `[M, routes]`, less the mean of their case and of their route, scaled to standard deviation 1. The means of the
/// routes and the scale are taken over `cases`.
///
/// # Errors
/// LibTorch's.
pub(super) fn deviations(utilities: &Tensor, cases: &Tensor) -> Result<Tensor, TchError> {
    let centred = utilities.f_sub(&utilities.f_mean_dim([1_i64].as_slice(), true, Kind::Double)?)?; // [M, routes]
    let own = centred.f_index_select(0, cases)?; // [cases, routes]
    let means = own.f_mean_dim([0_i64].as_slice(), true, Kind::Double)?; // [1, routes]
    let scale = own.f_sub(&means)?.f_square()?.f_mean(Kind::Double)?.f_sqrt()?.f_double_value(&[])?.max(1e-12);
    centred.f_sub(&means)?.f_div_scalar(scale)?.f_to_kind(Kind::Float) // [M, routes]
}

/// Predictions for all cases, each by predictors that did not train on its fold.
#[derive(Debug)]
pub(super) struct CrossFit {
    /// The number of training passes with the smallest error.
    pub passes: usize,
    /// Predicted deviations: `[M, routes]`, row-major
    pub predictions: Vec<f64>,
    /// Share of the deviations' variance that is predicted.
    pub explained: f64,
}

/// Predicts each fold by predictors that trained on the other folds: features `[M, F]`, utilities `[M, routes]`, and a
/// fold for each case. `interrupted` is asked before each training pass. If it is out of time, predictors stay as they are. If
/// it is stopped, there is no result.
///
/// # Errors
/// LibTorch's.
pub(super) fn cross_fit(
    features: &Tensor,
    utilities: &Tensor,
    folds: &[usize],
    interrupted: impl Fn() -> Option<StageEnd>,
) -> Result<Option<CrossFit>, TchError> {
    let (cases, routes) = utilities.size2()?;
    let zeros = || Tensor::f_zeros([cases, routes], (Kind::Float, features.device())); // [M, routes]
    let by_passes: Vec<Tensor> = PASSES.iter().map(|_| zeros()).collect::<Result<_, _>>()?;
    let truth = zeros()?;
    for fold in 0..FOLDS {
        let part = |within: bool| -> Result<Tensor, TchError> {
            let cases = folds.iter().enumerate().filter(|(_, own)| (**own == fold) == within);
            Tensor::f_from_slice(&cases.map(|(case, _)| case as i64).collect::<Vec<_>>())?
                .f_to_device(features.device())
        };
        let (inside, outside) = (part(true)?, part(false)?);
        if inside.numel() == 0 || outside.numel() == 0 {
            continue;
        }
        let deviations = deviations(utilities, &outside)?;
        let _ = truth.shallow_clone().f_index_copy_(0, &inside, &deviations.f_index_select(0, &inside)?)?;
        let seen = features.f_index_select(0, &outside)?; // [outside, F]
        let targets = deviations.f_index_select(0, &outside)?; // [outside, routes]
        let unseen = features.f_index_select(0, &inside)?; // [inside, F]
        for _ in 0..PREDICTORS {
            let mut predictor = UtilityPredictor::new(features.size2()?.1, routes as usize, features.device())?;
            let mut done = 0;
            for (passes, predictions) in PASSES.iter().zip(&by_passes) {
                for _ in done..*passes {
                    match interrupted() {
                        None => predictor.train_pass(&seen, &targets)?,
                        Some(StageEnd::Stopped) => return Ok(None),
                        Some(_) => break,
                    }
                }
                done = *passes;
                let predicted = predictor.predict(&unseen)?.f_div_scalar(PREDICTORS as f64)?; // [inside, routes]
                let _ = predictions.shallow_clone().f_index_add_(0, &inside, &predicted)?;
            }
        }
    }
    let variance = truth.f_square()?.f_mean(Kind::Double)?.f_double_value(&[])?;
    let mut best = (0, f64::INFINITY);
    for (place, predictions) in by_passes.iter().enumerate() {
        let error = predictions.f_sub(&truth)?.f_square()?.f_mean(Kind::Double)?.f_double_value(&[])?;
        if error < best.1 {
            best = (place, error);
        }
    }
    let (place, error) = best;
    Ok(Some(CrossFit {
        passes: PASSES[place],
        predictions: Vec::try_from(&by_passes[place].f_to_kind(Kind::Double)?.f_flatten(0, 1)?)?,
        explained: if variance > 1e-12 { 1.0 - error / variance } else { 0.0 },
    }))
}
