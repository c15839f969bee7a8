use clap::Args;
use tokio::runtime::Runtime;

use super::Failure;
use super::numbers::share;
use crate::logs::{LogFormat, install_logs};
use canet_api::SpanExport;

/// What the server tells of its calls.
#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// How log lines look
    #[arg(long, env = "CANET_LOG_FORMAT", default_value = "human")]
    log_format: LogFormat,
    /// What is logged: a level, or `target=level` pairs with commas
    #[arg(long, env = "CANET_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// OpenTelemetry collector to send spans to over OTLP/gRPC, as http://127.0.0.1:4317
    #[arg(long, env = "CANET_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Share of the calls to send spans of; a caller that is in a trace decides for its calls
    #[arg(long, env = "CANET_OTLP_SAMPLE", value_name = "SHARE", default_value_t = 1.0, value_parser = share, requires = "otlp_endpoint")]
    otlp_sample: f64,
}

impl TraceArgs {
    /// Installs the logs, and the export of spans where there is a collector; its connection lives on `runtime`.
    pub(crate) fn install(&self, runtime: &Runtime) -> Result<Option<SpanExport>, Failure> {
        let _runtime = runtime.enter();
        let export = self.otlp_endpoint.as_deref().map(|endpoint| SpanExport::new(endpoint, self.otlp_sample));
        let export = export.transpose().map_err(Failure::usage)?;
        install_logs(self.log_format, &self.log, export.as_ref()).map_err(Failure::usage)?;
        Ok(export)
    }
}
