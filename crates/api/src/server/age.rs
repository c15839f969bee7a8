use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::Version;

/// Share by which the maximum age varies at random, so that connections that began together do not end together.
const JITTER: f64 = 0.1;

/// When one connection must end, and the HTTP version that it speaks.
#[derive(Clone)]
pub(super) struct Age {
    ends: Option<Instant>,
    version: Arc<OnceLock<Version>>,
}

impl Age {
    /// A connection that begins now and ends after about `max_age`.
    pub(super) fn new(max_age: Option<Duration>) -> Age {
        let ends = max_age.and_then(|age| Instant::now().checked_add(jittered(age)));
        Age { ends, version: Arc::default() }
    }

    /// Records the version of the connection's first bytes or of a request.
    pub(super) fn received(&self, version: Version) {
        self.version.get_or_init(|| version);
    }

    /// Whether the connection speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.version.get().is_some_and(|version| *version >= Version::HTTP_2)
    }

    /// Returns at once over HTTP/2, and never over HTTP/1.
    pub(super) async fn http2(&self) {
        if !self.is_http2() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the server should close the connection. Over HTTP/1 that is never, because the client's next request
    /// could be on its way and would be lost: there the last answer announces the end.
    pub(super) async fn ended(&self) {
        let Some(ends) = self.ends else { return std::future::pending().await };
        tokio::time::sleep_until(ends.into()).await;
        if self.version.get().is_some_and(|version| *version < Version::HTTP_2) {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the connection's time is over.
    pub(super) fn is_over(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= Instant::now())
    }
}

fn jittered(age: Duration) -> Duration {
    // Each `RandomState` has new random keys.
    let random = RandomState::new().hash_one(0_u8) as f64 / u64::MAX as f64;
    age.mul_f64(1.0 - JITTER + 2.0 * JITTER * random)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Age, jittered};

    #[test]
    fn ages_differ_by_at_most_a_tenth() {
        let ages: Vec<f64> = (0..100).map(|_| jittered(Duration::from_secs(100)).as_secs_f64()).collect();
        assert!(ages.iter().all(|age| (89.9..=110.1).contains(age)), "{ages:?}");
        assert!(ages.iter().any(|age| *age < 100.0) && ages.iter().any(|age| *age > 100.0), "{ages:?}");
    }

    #[test]
    fn only_old_connections_are_over() {
        let is_over = |max_age| Age::new(max_age).is_over();
        assert!(is_over(Some(Duration::ZERO)));
        assert!(!is_over(Some(Duration::from_secs(60))) && !is_over(None));
    }
}
