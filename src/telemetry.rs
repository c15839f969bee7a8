use std::io::IsTerminal;

use clap::Args;
use tokio::runtime::Runtime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::Failure;
use super::numbers::share;
use canet_api::SpanExport;

/// The server's logs and spans.
#[derive(Debug, Args)]
pub(crate) struct TelemetryArgs {
    /// Format of log lines
    #[arg(long, env = "CANET_LOG_FORMAT", default_value = "human")]
    log_format: LogFormat,
    /// What to log: a level, or `target=level` pairs separated by commas
    #[arg(long, env = "CANET_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// Send spans to this OpenTelemetry collector over OTLP/gRPC, as http://127.0.0.1:4317
    #[arg(long, env = "CANET_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Share of calls to send spans of. A caller with a trace decides for its own calls
    #[arg(long, env = "CANET_OTLP_SAMPLE", value_name = "SHARE", default_value_t = 1.0, value_parser = share, requires = "otlp_endpoint")]
    otlp_sample: f64,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// One readable line for each event.
    #[default]
    Human,
    /// One JSON object for each event.
    Json,
}

impl TelemetryArgs {
    /// Writes logs to standard error and, with a collector, exports spans. `runtime` drives the connection to the
    /// collector.
    pub(crate) fn install(&self, runtime: &Runtime) -> Result<Option<SpanExport>, Failure> {
        let _runtime = runtime.enter();
        let export = self.otlp_endpoint.as_deref().map(|endpoint| SpanExport::new(endpoint, self.otlp_sample));
        let export = export.transpose().map_err(Failure::usage)?;
        let filter = EnvFilter::try_new(&self.log).map_err(|error| {
            let filter = &self.log;
            Failure::Usage(format!(
                "the log filter {filter:?} cannot be used: {error}; write for example `info` or `canet=debug,warn`"
            ))
        })?;
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = match self.log_format {
            LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        let spans = export.as_ref().map(SpanExport::layer);
        let installed = tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init();
        installed.map_err(|error| Failure::Usage(format!("logs are installed already: {error}")))?;
        Ok(export)
    }
}
