//! The `canet` binary: the command line, the environment, signals and exit codes.

#![allow(rustdoc::bare_urls, reason = "doc comments of flags are help texts, printed as they are written")]

mod access;
mod address;
mod bench;
mod caveats;
mod columns;
mod data;
mod eval;
mod exit;
mod feedback;
#[cfg(feature = "libtorch")]
mod gpu;
#[cfg(not(feature = "libtorch"))]
#[path = "without_gpu.rs"]
mod gpu;
mod import;
mod inspect;
mod interactions;
mod listen;
mod memory;
mod model;
mod model_address;
#[cfg_attr(not(feature = "libtorch"), allow(dead_code, reason = "canet train alone uses some of the parsers"))]
mod numbers;
mod printable;
mod progress;
mod publish;
mod rank;
mod recommend;
mod reloads;
mod report;
mod secret;
mod seen;
mod serve;
mod signals;
mod target;
mod telemetry;
#[cfg(feature = "libtorch")]
mod train;
#[cfg(not(feature = "libtorch"))]
#[path = "without_training.rs"]
mod train;
mod variables;
mod verdict;

use exit::Failure;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// A request makes many small, short-lived allocations, for which mimalloc is faster than the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trains, evaluates and serves a recommender whose router chooses a small or a large slice of the network for each user
#[derive(Debug, Parser)]
#[command(name = "canet", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "a process has one value of it")]
enum Command {
    Bench(bench::BenchArgs),
    Data(data::CheckDataArgs),
    Eval(eval::EvalArgs),
    Import(import::ImportArgs),
    Inspect(inspect::InspectArgs),
    Publish(publish::PublishArgs),
    Rank(rank::RankArgs),
    Recommend(recommend::RecommendArgs),
    Report(report::ReportArgs),
    Serve(serve::ServeArgs),
    Train(train::TrainArgs),
}

/// Parses the command line and the environment.
fn parse() -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let matches = command.clone().try_get_matches()?;
    if let Some(conflict) = matches.subcommand_matches("eval").and_then(eval::conflict) {
        return Err(command.error(ErrorKind::ArgumentConflict, conflict));
    }
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Parses the command line, runs the command and turns its result into the exit code.
fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let report = match &cli.command {
        Command::Serve(args) if args.logs_json() => exit::report_as_json,
        _ => exit::report,
    };
    let result: Result<(), Failure> = match cli.command {
        Command::Bench(args) => bench::run(args),
        Command::Data(args) => data::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Import(args) => import::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Publish(args) => publish::run(args),
        Command::Rank(args) => rank::run(args),
        Command::Recommend(args) => recommend::run(args),
        Command::Report(args) => report::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Train(args) => train::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
