use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName};
use tonic::Request;

use crate::Problem;
use crate::arrival::Arrival;

const HEADER: HeaderName = HeaderName::from_static("grpc-timeout");

impl Arrival {
    /// Of a call whose message is there, which is now: how long it took to send is no time of the server's. What its
    /// client waits counts from its head, as the layer around the services has put it into the request.
    pub(crate) fn of_request<T>(request: &Request<T>) -> Arrival {
        let head = request.extensions().get::<Arrival>();
        Arrival { leaves: head.and_then(|head| head.leaves), ..Arrival::now() }
    }

    /// # Errors
    /// `grpc-timeout` is not one to eight digits and a unit.
    pub(super) fn of(headers: &HeaderMap, arrived: Instant) -> Result<Arrival, Problem> {
        let Some(value) = headers.get(HEADER) else { return Ok(Arrival { arrived, leaves: None }) };
        let timeout = value.to_str().ok().and_then(parse).ok_or_else(|| {
            Problem::invalid(
                "grpc-timeout",
                "the deadline must be one to eight digits and a unit of H, M, S, m, u or n",
            )
        })?;
        // What is too far to be counted is as good as none.
        Ok(Arrival { arrived, leaves: arrived.checked_add(timeout) })
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}
