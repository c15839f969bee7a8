use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName};
use tonic::Request;

use super::Problem;
use canet_serving::Due;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// When a call arrived, and the deadline that its transport states for the whole call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) arrived: Instant,
    pub(crate) deadline: Option<Instant>,
}

impl Arrival {
    /// A call that arrives now and states no deadline.
    pub(crate) fn now() -> Arrival {
        Arrival { arrived: Instant::now(), deadline: None }
    }

    /// A gRPC call whose head arrived at `arrived`. Its deadline counts from there.
    ///
    /// # Errors
    /// 422 if `grpc-timeout` is not one to eight digits and a unit.
    pub(crate) fn of_head(headers: &HeaderMap, arrived: Instant) -> Result<Arrival, Problem> {
        let Some(value) = headers.get(GRPC_TIMEOUT) else { return Ok(Arrival { arrived, deadline: None }) };
        let timeout = value.to_str().ok().and_then(parse_timeout).ok_or_else(|| {
            let detail = "the deadline must be one to eight digits and a unit of H, M, S, m, u or n";
            Problem::invalid("grpc-timeout", detail)
        })?;
        // A deadline beyond the clock's range is none.
        Ok(Arrival { arrived, deadline: arrived.checked_add(timeout) })
    }

    /// A gRPC call whose message is complete now: the time that the client took to send it is not the server's. The
    /// deadline is the one that [`of_head`](Arrival::of_head) read and a layer put into the request.
    pub(crate) fn of_message<T>(request: &Request<T>) -> Arrival {
        let head = request.extensions().get::<Arrival>();
        Arrival { deadline: head.and_then(|head| head.deadline), ..Arrival::now() }
    }

    /// When a request with this timeout is due: at the earlier of its own deadline and the call's.
    pub(crate) fn due(self, timeout_ms: u64) -> Due {
        let deadline = self.arrived + Duration::from_millis(timeout_ms);
        Due { arrived: self.arrived, deadline: self.deadline.map_or(deadline, |call| deadline.min(call)) }
    }
}

/// The value of `grpc-timeout`, as `100m`.
fn parse_timeout(text: &str) -> Option<Duration> {
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use axum::http::{HeaderMap, HeaderValue};

    use super::{Arrival, GRPC_TIMEOUT, parse_timeout};

    #[test]
    fn timeouts_have_one_to_eight_digits_and_a_unit() {
        for (text, timeout) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("40m", Duration::from_millis(40)),
            ("5u", Duration::from_micros(5)),
            ("00000006n", Duration::from_nanos(6)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse_timeout(text), Some(timeout), "{text}");
        }
        for text in ["", "S", "1", "1s", "+1S", "-1S", "1.5S", " 1S", "123456789S", "1S ", "1é"] {
            assert_eq!(parse_timeout(text), None, "{text}");
        }
    }

    #[test]
    fn a_request_is_due_at_the_earlier_deadline() {
        let arrived = Instant::now();
        let of = |timeout: &'static str| {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(timeout))]);
            Arrival::of_head(&headers, arrived).unwrap()
        };
        let after = |milliseconds| arrived + Duration::from_millis(milliseconds);
        assert_eq!(of("50m").due(100).deadline, after(50));
        assert_eq!(of("1S").due(100).deadline, after(100));
        assert_eq!(Arrival::of_head(&HeaderMap::new(), arrived).unwrap().due(7).deadline, after(7));
    }

    #[test]
    fn another_timeout_names_its_field() {
        let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static("soon"))]);
        let problem = Arrival::of_head(&headers, Instant::now()).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some("grpc-timeout"));
    }
}
