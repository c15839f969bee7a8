use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;

use super::spans::{Caller, ExportedSpan, export_call};

/// Carries a trace from caller to callee.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("traceparent");

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// A trace and this call's span in it, as W3C Trace Context defines them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// 32 hexadecimal digits.
    pub(crate) trace_id: String,
    /// The caller's span, 16 hexadecimal digits. `None` if the trace begins here.
    pub(crate) parent_id: Option<String>,
    /// This call's span, 16 hexadecimal digits.
    pub(crate) span_id: String,
    flags: String,
}

impl TraceParent {
    /// Continues the caller's trace. Without a caller, an exported span begins a trace of its own. Call this before
    /// anything enters the span.
    pub(crate) fn begin(headers: &HeaderMap, span: &Span, name: &dyn Display) -> Option<TraceParent> {
        let caller = TraceParent::read(headers);
        match export_call(span, caller.as_ref().and_then(TraceParent::caller), name) {
            None => caller,
            Some(ExportedSpan { trace_id, span_id }) => Some(TraceParent {
                trace_id,
                parent_id: caller.and_then(|caller| caller.parent_id),
                span_id,
                flags: format!("{SAMPLED:02x}"),
            }),
        }
    }

    fn caller(&self) -> Option<Caller<'_>> {
        let sampled = u8::from_str_radix(&self.flags, 16).is_ok_and(|flags| flags & SAMPLED != 0);
        Some(Caller { trace_id: &self.trace_id, span_id: self.parent_id.as_deref()?, sampled })
    }

    /// Reads the caller's trace. `None` without exactly one valid header.
    fn read(headers: &HeaderMap) -> Option<TraceParent> {
        let mut values = headers.get_all(HEADER).iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        let mut parts = value.to_str().ok()?.split('-');
        let (version, trace_id, parent_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // A later version may add parts. `ff` is no version.
        let known = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        let set = |id: &str, digits| is_hex(id, digits) && id.bytes().any(|digit| digit != b'0');
        (known && set(trace_id, 32) && set(parent_id, 16) && is_hex(flags, 2)).then(|| TraceParent {
            trace_id: trace_id.to_owned(),
            parent_id: Some(parent_id.to_owned()),
            span_id: span_id(),
            flags: flags.to_owned(),
        })
    }

    /// The header for the next callee: the same trace, with this call's span as the parent.
    pub(crate) fn next(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("00-{}-{}-{}", self.trace_id, self.span_id, self.flags)).ok()
    }
}

/// The specification allows lower case only.
fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// A random number other than 0.
fn span_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let random = RandomState::new().hash_one(COUNT.fetch_add(1, Ordering::Relaxed));
    format!("{:016x}", random.max(1))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::{HEADER, TraceParent};

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn read(values: &[&str]) -> Option<TraceParent> {
        let values = values.iter().map(|value| (HEADER, HeaderValue::from_str(value).unwrap()));
        TraceParent::read(&HeaderMap::from_iter(values))
    }

    #[test]
    fn a_valid_header_is_continued_with_a_span_of_our_own() {
        let trace = read(&[&format!("00-{TRACE}-{SPAN}-01")]).unwrap();
        assert_eq!((trace.trace_id.as_str(), trace.parent_id.as_deref()), (TRACE, Some(SPAN)));
        assert!(trace.caller().unwrap().sampled);
        let next = trace.next().unwrap();
        assert_eq!(next, format!("00-{TRACE}-{}-01", trace.span_id));
        assert_ne!(trace.span_id, SPAN);
        assert!(read(&[next.to_str().unwrap()]).is_some());
    }

    #[test]
    fn the_last_bit_of_the_flags_says_that_the_trace_is_sampled() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let trace = read(&[&format!("00-{TRACE}-{SPAN}-{flags}")]).unwrap();
            assert_eq!(trace.caller().unwrap().sampled, sampled, "{flags}");
        }
    }

    #[test]
    fn later_versions_may_add_parts() {
        assert!(read(&[&format!("cc-{TRACE}-{SPAN}-01-more")]).is_some());
        assert!(read(&[&format!("00-{TRACE}-{SPAN}-01-more")]).is_none());
        assert!(read(&[&format!("ff-{TRACE}-{SPAN}-01")]).is_none());
    }

    #[test]
    fn invalid_headers_are_ignored() {
        let valid = format!("00-{TRACE}-{SPAN}-01");
        assert!(read(&[]).is_none());
        assert!(read(&[&valid, &valid]).is_none(), "two headers contradict each other");
        for value in [
            String::new(),
            TRACE.to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}-{SPAN}-0g"),
        ] {
            assert!(read(&[&value]).is_none(), "{value}");
        }
    }
}
