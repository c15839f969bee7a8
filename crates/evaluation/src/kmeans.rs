use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Starts of which the one with the least distortion counts.
const STARTS: u64 = 4;
/// Most rounds of a start; each lowers the distortion, and what is left after so many is little.
const ROUNDS: usize = 50;

/// Groups points into at most `clusters` clusters by k-means (Lloyd's rounds from k-means++ starts): the cluster of each
/// point, the largest cluster first. The points have the same number of columns.
pub fn kmeans(points: &[Vec<f32>], clusters: usize, seed: u64) -> Vec<usize> {
    let run = |start| lloyd(points, clusters, &mut ChaCha8Rng::seed_from_u64(seed.wrapping_add(start)));
    let best = (0..STARTS).map(run).min_by(|a, b| a.1.total_cmp(&b.1));
    best.map(|(members, _)| largest_first(members)).unwrap_or_default()
}

/// The cluster of each point, and the sum of squared distances to the centres.
fn lloyd(points: &[Vec<f32>], clusters: usize, rng: &mut ChaCha8Rng) -> (Vec<usize>, f64) {
    let mut centres = spread_out(points, clusters, rng);
    let mut members = vec![usize::MAX; points.len()];
    let mut distortion = 0.0;
    for _ in 0..ROUNDS {
        let nearest: Vec<(usize, f64)> = points.iter().map(|point| nearest(point, &centres)).collect();
        distortion = nearest.iter().map(|(_, distance)| distance).sum();
        let moved = nearest.iter().zip(&mut members).filter(|((new, _), old)| new != *old).count();
        members = nearest.into_iter().map(|(centre, _)| centre).collect();
        if moved == 0 {
            break;
        }
        for (place, centre) in centres.iter_mut().enumerate() {
            let own = || points.iter().zip(&members).filter(|(_, member)| **member == place).map(|(point, _)| point);
            let count = own().count();
            // A centre that lost all its points stays where it is.
            if count > 0 {
                centre.fill(0.0);
                own().for_each(|point| centre.iter_mut().zip(point).for_each(|(sum, value)| *sum += value));
                centre.iter_mut().for_each(|sum| *sum /= count as f32);
            }
        }
    }
    (members, distortion)
}

/// Centres that are points, each drawn with a chance that grows with the squared distance to those before it.
fn spread_out(points: &[Vec<f32>], clusters: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f32>> {
    let mut centres: Vec<Vec<f32>> = Vec::new();
    let mut distances = vec![1.0; points.len()];
    while centres.len() < clusters {
        let total: f64 = distances.iter().sum();
        if total <= 0.0 {
            // No point is left that is not a centre's.
            break;
        }
        let mut left = rng.gen_range(0.0..total);
        let drawn = distances.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        let Some(point) = points.get(drawn.unwrap_or(points.len() - 1)) else { break };
        centres.push(point.clone());
        distances = points.iter().map(|point| nearest(point, &centres).1).collect();
    }
    centres
}

fn nearest(point: &[f32], centres: &[Vec<f32>]) -> (usize, f64) {
    let distance = |centre: &Vec<f32>| -> f64 {
        let squares = point.iter().zip(centre).map(|(a, b)| (a - b) * (a - b));
        f64::from(squares.sum::<f32>())
    };
    let measured = centres.iter().map(distance).enumerate();
    measured.fold((0, f64::INFINITY), |best, other| if other.1 < best.1 { other } else { best })
}

/// Numbers the clusters by falling size.
fn largest_first(members: Vec<usize>) -> Vec<usize> {
    let mut sizes = vec![0_usize; members.iter().max().map_or(0, |most| most + 1)];
    members.iter().for_each(|member| sizes[*member] += 1);
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|cluster| std::cmp::Reverse(sizes[*cluster]));
    let mut places = vec![0; sizes.len()];
    order.into_iter().enumerate().for_each(|(place, cluster)| places[cluster] = place);
    members.into_iter().map(|member| places[member]).collect()
}
