use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Number of random initialisations. The run with the least distortion counts.
const RESTARTS: u64 = 4;
/// Largest number of Lloyd iterations of a run.
const MAX_ITERATIONS: usize = 50;

/// Groups points into at most `clusters` clusters. Returns the cluster of each point; cluster 0 is the largest.
///
/// The method is Lloyd's algorithm ("Least squares quantization in PCM", IEEE Transactions on Information Theory 28(2),
/// 1982), initialised by k-means++ (Arthur and Vassilvitskii, SODA 2007). All points must have the same dimension.
pub(crate) fn kmeans(points: &[Vec<f32>], clusters: usize, seed: u64) -> Vec<usize> {
    let run = |restart| lloyd(points, clusters, &mut ChaCha8Rng::seed_from_u64(seed.wrapping_add(restart)));
    let best = (0..RESTARTS).map(run).min_by(|a, b| a.1.total_cmp(&b.1));
    best.map(|(members, _)| largest_first(members)).unwrap_or_default()
}

/// The cluster of each point, and the distortion: the sum of squared distances to the centres.
fn lloyd(points: &[Vec<f32>], clusters: usize, rng: &mut ChaCha8Rng) -> (Vec<usize>, f64) {
    let mut centres = plus_plus_centres(points, clusters, rng);
    let mut members = vec![usize::MAX; points.len()];
    let mut distortion = 0.0;
    for _ in 0..MAX_ITERATIONS {
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

/// Initial centres: points drawn one by one, with probability proportional to the squared distance to the nearest
/// centre so far.
fn plus_plus_centres(points: &[Vec<f32>], clusters: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f32>> {
    let mut centres: Vec<Vec<f32>> = Vec::new();
    let mut distances = vec![1.0; points.len()];
    while centres.len() < clusters {
        let total: f64 = distances.iter().sum();
        if total <= 0.0 {
            // Every point coincides with a centre.
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

/// The nearest centre and the squared distance to it.
fn nearest(point: &[f32], centres: &[Vec<f32>]) -> (usize, f64) {
    let distance = |centre: &Vec<f32>| -> f64 {
        let squares = point.iter().zip(centre).map(|(a, b)| (a - b) * (a - b));
        f64::from(squares.sum::<f32>())
    };
    let measured = centres.iter().map(distance).enumerate();
    measured.fold((0, f64::INFINITY), |best, other| if other.1 < best.1 { other } else { best })
}

/// Renumbers the clusters by descending size.
fn largest_first(members: Vec<usize>) -> Vec<usize> {
    let mut sizes = vec![0_usize; members.iter().max().map_or(0, |most| most + 1)];
    members.iter().for_each(|member| sizes[*member] += 1);
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|cluster| std::cmp::Reverse(sizes[*cluster]));
    let mut places = vec![0; sizes.len()];
    order.into_iter().enumerate().for_each(|(place, cluster)| places[cluster] = place);
    members.into_iter().map(|member| places[member]).collect()
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::kmeans;
    use crate::testing::rng;

    #[test]
    fn separate_clusters_are_found() {
        let mut rng = rng(2);
        let centres = [[0.0, 0.0], [9.0, 1.0], [1.0, 9.0]];
        // 10, 20 and 30 points around the centres, interleaved.
        let of: Vec<usize> = (0..60).map(|place| [0, 1, 1, 2, 2, 2][place % 6]).collect();
        let around = |centre: &usize| centres[*centre].map(|value: f32| value + rng.gen_range(-1.0..1.0)).to_vec();
        let points: Vec<Vec<f32>> = of.iter().map(around).collect();
        let found = kmeans(&points, 3, 4);
        let expected: Vec<usize> = of.iter().map(|centre| 2 - centre).collect();
        assert_eq!(found, expected);
        assert_eq!(kmeans(&points, 3, 4), found);
    }

    #[test]
    fn equal_points_are_one_cluster() {
        assert_eq!(kmeans(&vec![vec![1.0, 1.0]; 5], 3, 0), [0; 5]);
        assert_eq!(kmeans(&[], 3, 0), Vec::<usize>::new());
    }
}
