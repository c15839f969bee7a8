use std::fmt::Display;
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::field::display;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// Sends spans to an OpenTelemetry collector over OTLP/gRPC, in batches and from a thread of its own: a collector that
/// is slow or gone costs spans, which are then dropped, and no request.
///
/// A span whose caller is in a trace is sampled as the caller was, others by chance. `OTEL_RESOURCE_ATTRIBUTES`,
/// `OTEL_EXPORTER_OTLP_HEADERS` and the `OTEL_BSP_*` variables are read as OpenTelemetry specifies them.
#[derive(Debug)]
pub struct SpanExport(SdkTracerProvider);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be sent to {endpoint:?}: {source}; write a collector's address as http://127.0.0.1:4317")]
pub struct SpanExportError {
    endpoint: String,
    source: ExporterBuildError,
}

impl SpanExport {
    /// Prepares to send a `share` of the traces to the collector at `endpoint`; it need not be there yet. The current
    /// tokio runtime carries the connection.
    ///
    /// # Errors
    /// [`SpanExportError`] where `endpoint` is no http address.
    pub fn new(endpoint: &str, share: f64) -> Result<SpanExport, SpanExportError> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|source| SpanExportError { endpoint: endpoint.to_owned(), source })?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
            .with_resource(Resource::builder().with_service_name("canet").with_attribute(version).build());
        Ok(SpanExport(provider.build()))
    }

    /// Sends what is left, for at most `within`.
    pub fn finish(&self, within: Duration) {
        if let Err(error) = self.0.shutdown_with_timeout(within) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }

    /// What turns our crates' spans into spans of the collector.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let ours = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("canet"));
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("canet"))
            // Requests await: what runs on a thread meanwhile is no child of theirs.
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_filter(ours)
    }
}

/// The span that called: 32 and 16 hexadecimal digits, and whether its trace is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller<'a> {
    /// The trace.
    pub trace_id: &'a str,
    /// The span in it.
    pub span_id: &'a str,
    /// The caller's decision to record the trace.
    pub sampled: bool,
}

/// The ids of a span as the collector will know it, hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExportedSpan {
    /// The trace: the caller's, where there is one.
    pub trace_id: String,
    /// The span.
    pub span_id: String,
}

/// Begins the exported twin of a call's span, which nothing has entered yet; `None` where spans are not exported or
/// this one was not sampled.
///
/// The span must have the fields `otel.name` and `otel.kind`.
pub(crate) fn export_call(span: &Span, caller: Option<Caller<'_>>, name: &dyn Display) -> Option<ExportedSpan> {
    span.set_parent(caller.map(remote).unwrap_or_default()).ok()?;
    span.record("otel.name", display(name)).record("otel.kind", "server");
    let context = span.context();
    let begun = context.span();
    let ids = begun.span_context();
    ids.is_sampled().then(|| ExportedSpan { trace_id: ids.trace_id().to_string(), span_id: ids.span_id().to_string() })
}

/// A context without a parent where the ids are none.
fn remote(caller: Caller<'_>) -> Context {
    let (Ok(trace), Ok(span)) = (TraceId::from_hex(caller.trace_id), SpanId::from_hex(caller.span_id)) else {
        return Context::new();
    };
    let flags = if caller.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    Context::new().with_remote_span_context(SpanContext::new(trace, span, flags, true, TraceState::NONE))
}
