use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use canet_api::SpanExport;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// One readable line an event.
    #[default]
    Human,
    /// One JSON object an event.
    Json,
}

/// Why logs cannot be written as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogsError {
    /// A filter that does not parse.
    #[error("the log filter {filter:?} cannot be used: {source}; write for example `info` or `canet=debug,warn`")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A subscriber is there already.
    #[error("logs are installed already: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends the process's log lines to standard error, and its spans to `export`; `filter` is a level or `target=level`
/// pairs and is for the lines.
///
/// # Errors
/// [`LogsError`] where the filter does not parse or logs were installed before.
pub(crate) fn install_logs(format: LogFormat, filter: &str, export: Option<&SpanExport>) -> Result<(), LogsError> {
    let parsed =
        EnvFilter::try_new(filter).map_err(|source| LogsError::Filter { filter: filter.to_owned(), source })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let spans = export.map(SpanExport::layer);
    tracing_subscriber::registry().with(lines.with_filter(parsed)).with(spans).try_init()?;
    Ok(())
}
