use statrs::distribution::{ContinuousCDF, StudentsT};

/// The quantile of the normal distribution between which and its negative 95 % lie.
const NORMAL: f64 = 1.959_963_984_540_054;

/// How many standard errors to either side of a mean hold 95 % of Student's t distribution. Degrees of freedom need not be
/// whole; below 1, which no variance has, they count as 1.
pub fn t_reach(degrees: f64) -> f64 {
    // Fails for what is no number of degrees alone.
    StudentsT::new(0.0, 1.0, degrees.max(1.0)).map_or(NORMAL, |student| student.inverse_cdf(0.975))
}
