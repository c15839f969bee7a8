use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::Version;
use tokio::sync::Notify;

/// Share by which the maximum age varies at random, so that connections that began together do not end together.
const JITTER: f64 = 0.1;

/// When one connection must end, and the HTTP version that it speaks.
#[derive(Clone)]
pub(super) struct Age {
    ends: Option<Instant>,
    version: Arc<OnceLock<Version>>,
    /// Tells that the version is known.
    known: Arc<Notify>,
}

impl Age {
    /// A connection that begins now and ends after about `max_age`.
    pub(super) fn new(max_age: Option<Duration>) -> Age {
        let ends = max_age.and_then(|age| Instant::now().checked_add(jittered(age)));
        Age { ends, version: Arc::default(), known: Arc::default() }
    }

    /// Records the version of the connection's first bytes or of a request.
    pub(super) fn received(&self, version: Version) {
        if self.version.set(version).is_ok() {
            self.known.notify_waiters();
        }
    }

    /// Whether the connection speaks HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.version.get().is_some_and(|version| *version >= Version::HTTP_2)
    }

    /// Waits until the connection is known to speak HTTP/2. Over HTTP/1 that is never.
    pub(super) async fn http2(&self) {
        loop {
            // Before the look, so that it misses nothing.
            let known = self.known.notified();
            match self.version.get() {
                Some(_) if self.is_http2() => return,
                Some(_) => std::future::pending().await,
                None => known.await,
            }
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

    use axum::http::Version;
    use tokio::time::timeout;

    use super::{Age, jittered};

    #[test]
    fn ages_differ_by_at_most_a_tenth() {
        let ages: Vec<f64> = (0..100).map(|_| jittered(Duration::from_secs(100)).as_secs_f64()).collect();
        assert!(ages.iter().all(|age| (89.9..=110.1).contains(age)), "{ages:?}");
        assert!(ages.iter().any(|age| *age < 100.0) && ages.iter().any(|age| *age > 100.0), "{ages:?}");
    }

    #[tokio::test]
    async fn a_connection_speaks_http2_once_its_first_bytes_say_so() {
        for (version, expected) in [(Version::HTTP_2, true), (Version::HTTP_11, false)] {
            let age = Age::new(None);
            let waiting = tokio::spawn({
                let age = age.clone();
                async move { age.http2().await }
            });
            tokio::task::yield_now().await;
            age.received(version);
            // A later request changes nothing.
            age.received(Version::HTTP_2);
            let ended = match expected {
                true => timeout(Duration::from_secs(300), waiting).await.is_ok(),
                false => timeout(Duration::from_millis(10), waiting).await.is_ok(),
            };
            assert_eq!(ended, expected, "{version:?}");
        }
    }

    #[test]
    fn only_old_connections_are_over() {
        let is_over = |max_age| Age::new(max_age).is_over();
        assert!(is_over(Some(Duration::ZERO)));
        assert!(!is_over(Some(Duration::from_secs(60))) && !is_over(None));
    }
}
