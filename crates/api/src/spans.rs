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

/// Sends spans to an OpenTelemetry collector over OTLP/gRPC. Its own thread sends them in batches: if the collector is
/// slow or gone, spans are dropped and requests do not wait.
///
/// A call with a caller in a trace is sampled as the caller was. Others are sampled at random.
/// `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_BSP_*` work as OpenTelemetry specifies.
#[derive(Debug)]
pub struct SpanExport(SdkTracerProvider);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error(
    "spans cannot be sent to {endpoint:?}: write a collector's address as http://127.0.0.1:4317; https:// is not supported, \
     put a local collector in between"
)]
pub struct SpanExportError {
    endpoint: String,
    source: ExporterBuildError,
}

impl SpanExport {
    /// Exports a `share` of the traces to the collector at `endpoint`, which need not run yet. Call this in a tokio
    /// runtime: it drives the connection.
    ///
    /// # Errors
    /// [`SpanExportError`] if `endpoint` is no http address.
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

    /// Sends the remaining spans, within a time limit.
    pub fn finish(&self, within: Duration) {
        if let Err(error) = self.0.shutdown_with_timeout(within) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }

    /// The layer that exports the spans of the `canet` crates.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let ours = filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("canet"));
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("canet"))
            // While a request awaits, its thread runs other requests. Their spans are not its children.
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_filter(ours)
    }
}

/// The caller's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller<'a> {
    /// 32 hexadecimal digits.
    pub trace_id: &'a str,
    /// 16 hexadecimal digits.
    pub span_id: &'a str,
    /// Whether the caller records the trace.
    pub sampled: bool,
}

/// The hexadecimal ids of a span at the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExportedSpan {
    /// The caller's trace if there is one.
    pub trace_id: String,
    pub span_id: String,
}

/// Begins to export a call's span, before anything enters it. `None` if it is not exported or not sampled.
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

/// The caller's context. Invalid ids give a context without a parent.
fn remote(caller: Caller<'_>) -> Context {
    let (Ok(trace), Ok(span)) = (TraceId::from_hex(caller.trace_id), SpanId::from_hex(caller.span_id)) else {
        return Context::new();
    };
    let flags = if caller.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    Context::new().with_remote_span_context(SpanContext::new(trace, span, flags, true, TraceState::NONE))
}
