use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, Version, header};
use axum::response::Response;

/// By how much of the age that is asked for a connection may differ from it, so that those of a start do not end
/// together.
const JITTER: f64 = 0.1;

/// One connection's time, and what it turned out to speak.
#[derive(Clone)]
pub(super) struct Age {
    ends: Option<Instant>,
    version: Arc<OnceLock<Version>>,
}

impl Age {
    /// Of a connection that begins now and may grow about as old as `oldest`.
    pub(super) fn new(oldest: Option<Duration>) -> Age {
        let ends = oldest.and_then(|oldest| Instant::now().checked_add(jittered(oldest)));
        Age { ends, version: Arc::default() }
    }

    /// A request of this version came.
    pub(super) fn asked(&self, version: Version) {
        self.version.get_or_init(|| version);
    }

    /// Whether a request has come.
    pub(super) fn has_asked(&self) -> bool {
        self.version.get().is_some()
    }

    /// Whether what came was over HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.version.get().is_some_and(|version| *version >= Version::HTTP_2)
    }

    /// Waits until the connection should be closed. Over HTTP/1 that is never: the client could be about to send its
    /// next request, which would be lost, so there the last answer says it.
    pub(super) async fn ended(&self) {
        let Some(ends) = self.ends else { return std::future::pending().await };
        tokio::time::sleep_until(ends.into()).await;
        if self.version.get().is_some_and(|version| *version < Version::HTTP_2) {
            std::future::pending::<()>().await;
        }
    }

    /// Says in an answer over HTTP/1 that it is the connection's last one, where its time is over.
    pub(super) fn close(&self, response: &mut Response) {
        let is_over = self.ends.is_some_and(|ends| ends <= Instant::now());
        if is_over && self.version.get().is_some_and(|version| *version < Version::HTTP_2) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

fn jittered(age: Duration) -> Duration {
    // The hasher is another one each time.
    let random = RandomState::new().hash_one(0_u8) as f64 / u64::MAX as f64;
    age.mul_f64(1.0 - JITTER + 2.0 * JITTER * random)
}
