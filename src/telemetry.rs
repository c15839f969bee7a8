use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Runtime;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
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

/// Log lines that wait for standard error. More are dropped.
const WAITING_LINES: usize = 8192;

/// How often dropped log lines are reported.
const REPORT_DROPPED: Duration = Duration::from_secs(1);

/// The installed logs and spans.
pub(crate) struct Telemetry {
    export: Option<SpanExport>,
    /// Writes the log lines that wait when it drops, for a second at most.
    _writer: WorkerGuard,
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
    /// Whether log lines are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.log_format == LogFormat::Json
    }

    /// Writes logs to standard error and, with a collector, exports spans. `runtime` drives the connection to the
    /// collector.
    ///
    /// A thread of its own writes the log lines. If nobody reads standard error, lines are dropped and no request waits.
    pub(crate) fn install(&self, runtime: &Runtime) -> Result<Telemetry, Failure> {
        let _runtime = runtime.enter();
        let export = self.otlp_endpoint.as_deref().map(|endpoint| SpanExport::new(endpoint, self.otlp_sample));
        let export = export.transpose().map_err(Failure::usage)?;
        let filter = EnvFilter::try_new(&self.log).map_err(|error| {
            let filter = &self.log;
            Failure::Usage(format!(
                "the log filter {filter:?} cannot be used: {error}; write for example `info` or `canet=debug,warn`"
            ))
        })?;
        let (stderr, writer) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(WAITING_LINES)
            .thread_name("logs")
            .finish(std::io::stderr());
        runtime.spawn(report_dropped(stderr.error_counter()));
        let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
        let lines = match self.log_format {
            LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        let spans = export.as_ref().map(SpanExport::layer);
        let installed = tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init();
        installed.map_err(|error| Failure::Usage(format!("logs are installed already: {error}")))?;
        Ok(Telemetry { export, _writer: writer })
    }
}

impl Telemetry {
    /// Sends the spans that wait, for at most `timeout`, and writes the log lines that wait.
    pub(crate) fn finish(self, timeout: Duration) {
        if let Some(export) = self.export {
            export.finish(timeout);
        }
    }
}

/// Logs how many lines were dropped since the last report. The report is dropped too while nobody reads.
async fn report_dropped(counter: ErrorCounter) {
    let mut reported = 0;
    loop {
        tokio::time::sleep(REPORT_DROPPED).await;
        let dropped = counter.dropped_lines();
        if dropped > reported {
            tracing::warn!(
                lines = dropped - reported,
                "log lines were dropped: nobody reads standard error fast enough"
            );
            reported = dropped;
        }
    }
}
