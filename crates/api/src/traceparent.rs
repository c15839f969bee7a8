use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;

use crate::spans::{Caller, ExportedSpan, export_call};

/// Where a trace is read from and passed on.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("traceparent");

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// A trace and this call's place in it, after W3C Trace Context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    /// 32 hexadecimal digits.
    pub(crate) trace_id: String,
    /// The caller's span, 16 hexadecimal digits; `None` where the trace begins here.
    pub(crate) parent_id: Option<String>,
    /// This call's span, 16 hexadecimal digits.
    pub(crate) span_id: String,
    flags: String,
}

impl TraceParent {
    /// The place of the call `name` in the trace that its caller is in, or where its span is exported in one that
    /// begins here. Nothing may have entered the span before.
    pub(crate) fn begin(headers: &HeaderMap, span: &Span, name: &dyn Display) -> Option<TraceParent> {
        let caller = TraceParent::of(headers);
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

    /// The trace that the caller is in; `None` where there is no header or it is not one of the specification.
    fn of(headers: &HeaderMap) -> Option<TraceParent> {
        let mut values = headers.get_all(HEADER).iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        let mut parts = value.to_str().ok()?.split('-');
        let (version, trace_id, parent_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // Later versions may add parts; `ff` is none.
        let known = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        let set = |id: &str, digits| is_hex(id, digits) && id.bytes().any(|digit| digit != b'0');
        (known && set(trace_id, 32) && set(parent_id, 16) && is_hex(flags, 2)).then(|| TraceParent {
            trace_id: trace_id.to_owned(),
            parent_id: Some(parent_id.to_owned()),
            span_id: span_id(),
            flags: flags.to_owned(),
        })
    }

    /// The header for whoever comes next: the same trace, with this call's span as the parent.
    pub(crate) fn next(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("00-{}-{}-{}", self.trace_id, self.span_id, self.flags)).ok()
    }
}

/// Lower case alone, as the specification has it.
fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// A random number that is not 0.
fn span_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let random = RandomState::new().hash_one(COUNT.fetch_add(1, Ordering::Relaxed));
    format!("{:016x}", random.max(1))
}
