//! Environment variables that look like those of flags.

use std::ffi::OsString;

use clap::Command;

const PREFIX: &str = "CANET_";

/// Warns of every variable of the process that begins with `CANET_` and belongs to no flag: a mistyped name has no effect.
pub(crate) fn warn_of_unknown(command: &Command) {
    #[expect(clippy::disallowed_methods, reason = "this is the command line")]
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in unknown(command, names) {
        tracing::warn!(name, "no flag has this variable, so it has no effect: see canet serve --help");
    }
}

/// The names that begin with `CANET_` and belong to no flag of any subcommand.
fn unknown(command: &Command, names: impl Iterator<Item = OsString>) -> Vec<String> {
    let flags = command.get_subcommands().flat_map(Command::get_arguments).filter_map(|flag| flag.get_env());
    let known: Vec<_> = flags.collect();
    let names = names.filter(|name| !known.contains(&name.as_os_str())).filter_map(|name| name.into_string().ok());
    names.filter(|name| name.starts_with(PREFIX) && !is_set_by_others(name)).collect()
}

/// Whether this project's scripts or Kubernetes set a variable: the latter describes a service `canet` to every pod beside it.
fn is_set_by_others(name: &str) -> bool {
    name == "CANET_CACHE" || name.contains("_SERVICE_") || name.ends_with("_PORT") || name.contains("_PORT_")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn mistyped_variables_are_found() {
        let names =
            ["CANET_QUEUE_LIMIT_MS", "CANET_QUEUE_LIMITMS", "CANET_PORT", "CANET_PORT_8080_TCP", "CANET_SERVICE_HOST"];
        let more = ["CANET_CACHE", "CANET_MODEL", "PATH"];
        let names = names.iter().chain(&more).map(Into::into);
        assert_eq!(super::unknown(&crate::Cli::command(), names), ["CANET_QUEUE_LIMITMS"]);
    }
}
