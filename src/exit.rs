use std::fmt::Display;
use std::io::{self, ErrorKind, Write, stderr};
use std::process::ExitCode;

/// Why a command ended without doing its work: the message says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A flag, an argument or a configuration that cannot be used.
    #[error("{0}")]
    Usage(String),
    /// A data file or checkpoint that cannot be used.
    #[error("{0}")]
    Data(String),
    /// A port or a device that cannot be had.
    #[error("{0}")]
    Unavailable(String),
    /// The user stopped it.
    #[error("{0}")]
    Interrupted(String),
    /// Nobody reads standard output any more, as `head` does not once it has enough.
    #[error("nobody reads standard output any more")]
    Unread,
}

impl Failure {
    /// Exit code of a command that a signal stopped: 128 + SIGINT, as shells have it.
    pub(crate) const INTERRUPTED: i32 = 130;

    /// Exit code of a command that nobody listens to any more: 128 + SIGPIPE.
    const UNREAD: u8 = 141;

    /// A bad flag or configuration, from any error.
    pub(crate) fn usage(error: impl ToString) -> Failure {
        Failure::Usage(error.to_string())
    }

    /// Standard output that cannot be written.
    pub(crate) fn output(error: impl Into<io::Error>) -> Failure {
        let error = error.into();
        match error.kind() {
            ErrorKind::BrokenPipe => Failure::Unread,
            _ => Failure::Unavailable(format!("standard output: {error}")),
        }
    }

    /// Bad data or a bad checkpoint, from any error.
    pub(crate) fn data(error: impl ToString) -> Failure {
        Failure::Data(error.to_string())
    }

    /// A port or device that is not to be had, from any error.
    pub(crate) fn unavailable(error: impl ToString) -> Failure {
        Failure::Unavailable(error.to_string())
    }

    /// The exit code, after BSD's sysexits: 64 usage, 65 data, 69 unavailable.
    fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 64,
            Failure::Data(_) => 65,
            Failure::Unavailable(_) => 69,
            Failure::Interrupted(_) => Failure::INTERRUPTED as u8,
            Failure::Unread => Failure::UNREAD,
        }
    }
}

/// A line for the person at the terminal. Where nobody reads standard error any more, the command goes on.
pub(crate) fn say(line: impl Display) {
    drop(writeln!(stderr(), "canet: {line}"));
}

/// Prints the failure on standard error, unless it is none to whoever stopped reading; its code is the process's.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    if !matches!(failure, Failure::Unread) {
        say(failure);
    }
    ExitCode::from(failure.code())
}

/// Prints clap's message; `--help` and `--version` end with 0, everything else with 64.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let asked_for = !error.use_stderr();
    // Nothing can be done where the terminal is gone.
    let _ = error.print();
    if asked_for { ExitCode::SUCCESS } else { ExitCode::from(64) }
}
