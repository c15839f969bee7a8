mod answer;
mod ask;
mod table;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use self::answer::Answer;
use self::ask::{Request, Server};
use super::Failure;
use super::numbers::share;
use super::secret::Secret;

/// Asks a server for recommendations.
#[derive(Debug, Args)]
pub(super) struct RecommendArgs {
    /// The server, as http://HOST:PORT or https://HOST
    #[arg(long, env = "CANET_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Items of the user, oldest first, with commas; `-` reads them from standard input, there line breaks part them too
    #[arg(long, env = "CANET_HISTORY", value_name = "ITEMS", allow_hyphen_values = true)]
    history: String,
    /// Items to recommend [default: the server's, 10 or all of a smaller catalogue]
    #[arg(long, env = "CANET_K", value_name = "N")]
    k: Option<u64>,
    /// auto, full, smallest or a route's name [default: auto]
    #[arg(long, env = "CANET_ROUTE", value_name = "ROUTE")]
    route: Option<String>,
    /// Share of the full model's FLOPs that the router may spend [default: the server's]
    #[arg(long, env = "CANET_BUDGET", value_name = "SHARE", value_parser = share)]
    budget: Option<f64>,
    /// Items that must not be recommended, with commas
    #[arg(long, env = "CANET_EXCLUDE", value_name = "ITEMS", value_delimiter = ',')]
    exclude: Vec<String>,
    /// Items to choose from, with commas [default: the whole catalogue]
    #[arg(long, env = "CANET_CANDIDATES", value_name = "ITEMS", value_delimiter = ',')]
    candidates: Option<Vec<String>>,
    /// Recommend items of the history too
    #[arg(long, env = "CANET_INCLUDE_SEEN", value_parser = BoolishValueParser::new())]
    include_seen: bool,
    /// Milliseconds that the server may take
    #[arg(long, env = "CANET_TIMEOUT_MS", value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout_ms: u64,
    /// Key of a server that asks for one
    #[arg(long, env = "CANET_API_KEY", value_name = "KEY", hide_env_values = true)]
    api_key: Option<Secret>,
    /// Certificates (PEM) to trust instead of the public authorities', for an https server with one of its own
    #[arg(long, env = "CANET_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Certificate (PEM) to show to an https server that asks for one
    #[arg(long, env = "CANET_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, env = "CANET_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Print the server's answer as it is: one JSON document
    #[arg(long, env = "CANET_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

/// Time on the way to and from the server, beyond what the server may take.
const WAY: Duration = Duration::from_secs(5);

/// Asks once and prints the answer on standard output.
pub(super) fn run(args: RecommendArgs) -> Result<(), Failure> {
    let history = match args.history.as_str() {
        "-" => {
            let mut text = String::new();
            let read = io::stdin().read_to_string(&mut text);
            read.map_err(|error| Failure::data(format!("standard input: {error}")))?;
            text
        }
        given => given.to_owned(),
    };
    let request = Request {
        history: items(&history),
        k: args.k,
        route: args.route.as_deref(),
        budget: args.budget,
        exclude: &args.exclude,
        candidates: args.candidates.as_deref(),
        exclude_seen: !args.include_seen,
        timeout_ms: args.timeout_ms,
    };
    let server = Server {
        url: args.url.trim_end_matches('/'),
        key: args.api_key.as_ref().map(Secret::reveal),
        authorities: args.ca.as_deref(),
        identity: args.cert.as_deref().zip(args.key.as_deref()),
        patience: Duration::from_millis(args.timeout_ms) + WAY,
    };
    let text = server.ask(&request)?;
    let answer: Answer<'_> = serde_json::from_str(&text)
        .map_err(|error| Failure::data(format!("{} does not answer as canet does: {error}", server.url)))?;
    let printed = if args.json { format!("{}\n", text.trim_end()) } else { table::of(&answer) };
    io::stdout().write_all(printed.as_bytes()).map_err(Failure::output)
}

/// The ids in a list; blanks around them are not theirs.
fn items(list: &str) -> Vec<&str> {
    list.split([',', '\n']).map(str::trim).filter(|id| !id.is_empty()).collect()
}
