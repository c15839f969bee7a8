mod client;
mod response;
mod table;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::value::RawValue;

use self::client::{Client, RecommendRequest};
use self::response::RecommendResponse;
use super::Failure;
use super::numbers::share;
use super::secret::Secret;
use super::seen::SeenArgs;

/// Asks a server for recommendations
#[derive(Debug, Args)]
pub(super) struct RecommendArgs {
    /// The server, as http://HOST:PORT or https://HOST
    #[arg(long, env = "CANET_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Items of the user, oldest first, separated by commas. `-` reads them from standard input, separated by commas or
    /// line breaks
    #[arg(long, env = "CANET_HISTORY", value_name = "ITEMS", allow_hyphen_values = true)]
    history: String,
    /// Number of items to recommend [default: the server's, which is 10 or all of a smaller catalogue]
    #[arg(long, env = "CANET_K", value_name = "N")]
    k: Option<u64>,
    /// auto, full, smallest or a route's name [default: auto]
    #[arg(long, env = "CANET_ROUTE", value_name = "ROUTE")]
    route: Option<String>,
    /// Share of the full model's FLOPs that the router may spend [default: the server's]
    #[arg(long, env = "CANET_BUDGET", value_name = "SHARE", value_parser = share)]
    budget: Option<f64>,
    /// Items that must not be recommended, separated by commas
    #[arg(long, env = "CANET_EXCLUDE", value_name = "ITEMS", value_delimiter = ',')]
    exclude: Vec<String>,
    /// Items to choose from, separated by commas [default: the whole catalogue]
    #[arg(long, env = "CANET_CANDIDATES", value_name = "ITEMS", value_delimiter = ',')]
    candidates: Option<Vec<String>>,
    #[command(flatten)]
    seen: SeenArgs,
    /// Items to keep, as the JSON of a request: '{"category": ["a", "b"], "not": {"brand": "c"}}'
    #[arg(long, env = "CANET_FILTER", value_name = "JSON", value_parser = json)]
    filter: Option<Box<RawValue>>,
    /// Largest number of items with the same value of a key, such as category=2, separated by commas
    #[arg(long, env = "CANET_MAX_PER", value_name = "KEY=N", value_delimiter = ',', value_parser = quota)]
    max_per: Vec<(String, u64)>,
    /// How many known items of the user are older than those of --history [default: 0]
    #[arg(long, env = "CANET_HISTORY_START", value_name = "N")]
    history_start: Option<u64>,
    /// Milliseconds that the server may take
    #[arg(long, env = "CANET_TIMEOUT_MS", value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout_ms: u64,
    /// Opaque id of the user, for servers that compare their answers with what users do next
    #[arg(long, env = "CANET_USER", value_name = "ID")]
    user: Option<String>,
    /// API key, if the server requires one
    #[arg(long, env = "CANET_API_KEY", value_name = "KEY", hide_env_values = true)]
    api_key: Option<Secret>,
    /// Certificates (PEM) to trust instead of those of the public authorities, for a server with a private certificate
    #[arg(long, env = "CANET_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Client certificate (PEM), if the server requires one
    #[arg(long, env = "CANET_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key (PEM) of the client certificate
    #[arg(long, env = "CANET_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Print the server's JSON document unchanged
    #[arg(long, env = "CANET_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

/// Time for the network, beyond the time that the server may take.
const NETWORK_TIME: Duration = Duration::from_secs(5);

/// Sends one request and prints the response to standard output.
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
    let request = RecommendRequest {
        history: items(&history),
        k: args.k,
        route: args.route.as_deref(),
        budget: args.budget,
        exclude: &args.exclude,
        candidates: args.candidates.as_deref(),
        exclude_seen: args.seen.include_seen.map(|include| !include),
        timeout_ms: args.timeout_ms,
        user: args.user.as_deref(),
        filter: args.filter.as_deref(),
        max_per: args.max_per.iter().map(|(key, most)| (key.as_str(), *most)).collect(),
        history_start: args.history_start,
    };
    let client = Client {
        url: args.url.trim_end_matches('/'),
        api_key: args.api_key.as_ref().map(Secret::reveal),
        authorities: args.ca.as_deref(),
        identity: args.cert.as_deref().zip(args.key.as_deref()),
        timeout: Duration::from_millis(args.timeout_ms) + NETWORK_TIME,
    };
    let text = client.recommend(&request)?;
    let response: RecommendResponse<'_> = serde_json::from_str(&text)
        .map_err(|error| Failure::data(format!("{}: this is no response of a canet server: {error}", client.url)))?;
    let printed = if args.json { format!("{}\n", text.trim_end()) } else { table::of(&response) };
    io::stdout().write_all(printed.as_bytes()).map_err(Failure::output)
}

/// Reads a JSON value, which the server checks.
fn json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("it must be JSON, such as {{\"category\": \"a\"}}: {error}"))
}

/// Reads a pair such as `category=2`.
fn quota(text: &str) -> Result<(String, u64), String> {
    let pair = text.rsplit_once('=').and_then(|(key, most)| Some((key.trim(), most.trim().parse().ok()?)));
    let (key, most) = pair.ok_or("it must be a key and a number, such as category=2")?;
    Ok((key.to_owned(), most))
}

/// The ids in a list, without blanks around them.
fn items(list: &str) -> Vec<&str> {
    list.split([',', '\n']).map(str::trim).filter(|id| !id.is_empty()).collect()
}
