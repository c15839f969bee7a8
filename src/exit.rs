use std::fmt::Display;
use std::io::{self, ErrorKind, Write, stderr};
use std::process::ExitCode;

use canet_model::checkpoint::{CheckpointError, Fault};
use canet_model::{ForwardError, OpenError, TensorFileError};

use crate::printable::printable_lines;

/// Why a command failed. The message says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A flag, an argument or a configuration is invalid.
    #[error("{0}")]
    Usage(String),
    /// A data file or a checkpoint is invalid.
    #[error("{0}")]
    Data(String),
    /// A port, a device or a server is unavailable.
    #[error("{0}")]
    Unavailable(String),
    /// A file cannot be written, for example because the disk is full. The same command succeeds once it can be.
    #[error("{0}")]
    Io(String),
    /// The user stopped the command.
    #[cfg_attr(not(feature = "libtorch"), expect(dead_code, reason = "only `train` saves its state and stops"))]
    #[error("{0}")]
    Interrupted(String),
    /// The reader of standard output closed it, as `head` does after its last line.
    #[error("standard output was closed")]
    OutputClosed,
}

impl Failure {
    /// Exit code of a command that the user interrupted: 128 + SIGINT, as in shells.
    pub(crate) const INTERRUPTED: i32 = 130;

    /// Exit code of a command whose output was closed: 128 + SIGPIPE, as in shells.
    const OUTPUT_CLOSED: u8 = 141;

    /// An invalid flag or configuration, from any error.
    pub(crate) fn usage(error: impl ToString) -> Failure {
        Failure::Usage(error.to_string())
    }

    /// The system refuses a thread or a descriptor that the server needs to start.
    pub(crate) fn resources(error: impl Display) -> Failure {
        Failure::Unavailable(format!(
            "the server cannot start its threads: {error}: raise the limits on memory, threads and open files (`ulimit -d`, \
             `ulimit -v`, `ulimit -u`, `ulimit -n`, or those of the container)"
        ))
    }

    /// Standard output cannot be written.
    pub(crate) fn output(error: impl Into<io::Error>) -> Failure {
        let error = error.into();
        match error.kind() {
            ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Io(format!("standard output: {error}")),
        }
    }

    /// A file that cannot be written: its path cannot be that of a file, so the flag is wrong, or the file system is at
    /// fault.
    pub(crate) fn unwritable(error: &io::Error, message: String) -> Failure {
        use ErrorKind::{AlreadyExists, InvalidFilename, IsADirectory, NotADirectory, NotFound};
        match error.kind() {
            AlreadyExists | InvalidFilename | IsADirectory | NotADirectory | NotFound => Failure::Usage(message),
            _ => Failure::Io(message),
        }
    }

    /// A checkpoint that cannot be written: invalid content is bad data, and a path that cannot be a model's is a wrong
    /// flag.
    pub(crate) fn writing(error: &CheckpointError) -> Failure {
        match error {
            CheckpointError::Io { source, .. } => Failure::unwritable(source, error.to_string()),
            CheckpointError::Tensors { source: TensorFileError::Read(_) | TensorFileError::Write(_), .. } => {
                Failure::Io(error.to_string())
            }
            _ => Failure::data(error),
        }
    }

    /// A checkpoint that cannot be read: the store is at fault, or the files are.
    pub(crate) fn checkpoint(error: &CheckpointError) -> Failure {
        Failure::unusable(error.fault(), error)
    }

    /// A model that cannot be opened.
    pub(crate) fn opening(error: &OpenError) -> Failure {
        Failure::unusable(error.fault(), error)
    }

    /// A version that a command cannot use. One whose weights the device refuses is bad data for that device.
    fn unusable(fault: Fault, error: impl ToString) -> Failure {
        match fault {
            Fault::StoreUnavailable => Failure::unavailable(error),
            Fault::Missing | Fault::Incomplete | Fault::Rejected | Fault::Server => Failure::data(error),
        }
    }

    /// A forward pass failed: the checkpoint is at fault if it computes NaN, else the device is.
    pub(crate) fn forward(error: ForwardError) -> Failure {
        match error {
            ForwardError::NotFinite(_) => Failure::data(error),
            ForwardError::Device(_) | ForwardError::Shape { .. } => Failure::unavailable(error),
        }
    }

    /// Invalid data or an invalid checkpoint, from any error.
    pub(crate) fn data(error: impl ToString) -> Failure {
        Failure::Data(error.to_string())
    }

    /// An unavailable port, device or server, from any error.
    pub(crate) fn unavailable(error: impl ToString) -> Failure {
        Failure::Unavailable(error.to_string())
    }

    /// The exit code, as in BSD's sysexits.h: 64 usage, 65 data, 69 unavailable, 74 input or output.
    fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 64,
            Failure::Data(_) => 65,
            Failure::Unavailable(_) => 69,
            Failure::Io(_) => 74,
            Failure::Interrupted(_) => Failure::INTERRUPTED as u8,
            Failure::OutputClosed => Failure::OUTPUT_CLOSED,
        }
    }
}

/// Prints a line on standard error. If standard error is closed, the command goes on.
pub(crate) fn say(line: impl Display) {
    drop(writeln!(stderr(), "canet: {}", printable_lines(&line.to_string())));
}

/// Prints the failure on standard error and returns its exit code. A closed output is no error to print.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    if !matches!(failure, Failure::OutputClosed) {
        say(failure);
    }
    ExitCode::from(failure.code())
}

/// Like [`report`], but prints the failure as a log line of `--log-format json`. Control characters are escaped in JSON.
pub(crate) fn report_as_json(failure: &Failure) -> ExitCode {
    let code = failure.code();
    // The server's own log may have been closed already, or was never opened.
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_writer(stderr).finish();
    tracing::subscriber::with_default(lines, || tracing::error!(exit_code = code, "{failure}"));
    ExitCode::from(code)
}

/// Prints clap's message. The exit code is 0 for `--help` and `--version`, else 64.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let asked_for = !error.use_stderr();
    // If standard error is closed, there is nowhere left to report it.
    let _ = error.print();
    if asked_for { ExitCode::SUCCESS } else { ExitCode::from(64) }
}

#[cfg(test)]
mod tests {
    use canet_model::LoadError;

    use super::*;

    #[test]
    fn a_path_of_no_file_is_a_wrong_flag_and_a_full_disk_is_not() {
        let code = |kind: ErrorKind| Failure::unwritable(&io::Error::from(kind), String::new()).code();
        for kind in [ErrorKind::NotFound, ErrorKind::NotADirectory, ErrorKind::IsADirectory, ErrorKind::AlreadyExists] {
            assert_eq!(code(kind), 64, "{kind}");
        }
        for kind in [ErrorKind::StorageFull, ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            assert_eq!(code(kind), 74, "{kind}");
        }
        let create = |source| CheckpointError::Io { path: "m".into(), action: "create", source };
        assert_eq!(Failure::writing(&create(ErrorKind::NotADirectory.into())).code(), 64);
        assert_eq!(Failure::writing(&create(ErrorKind::StorageFull.into())).code(), 74);
        let tensors = |source| CheckpointError::Tensors { path: "m".into(), source };
        assert_eq!(Failure::writing(&tensors(TensorFileError::Write(ErrorKind::StorageFull.into()))).code(), 74);
        assert_eq!(Failure::writing(&tensors(TensorFileError::Missing("w".to_owned()))).code(), 65);
    }

    #[test]
    fn only_a_store_that_fails_makes_a_version_unavailable() {
        for (error, code) in [
            (CheckpointError::NoModel { path: "m".into() }, 65),
            (CheckpointError::Truncated { path: "m/1/items.tsv".into() }, 65),
            (CheckpointError::NotADirectory { path: "m".into() }, 65),
            (CheckpointError::Origin { address: "s3://shop/m".to_owned(), reason: "403".to_owned() }, 69),
        ] {
            assert_eq!(Failure::checkpoint(&error).code(), code, "{error}");
            assert_eq!(Failure::opening(&OpenError::from(error)).code(), code);
        }
        let unfit = OpenError::Load(LoadError::Unfit("a width of 7".into()));
        assert_eq!(Failure::opening(&unfit).code(), 65);
    }
}
