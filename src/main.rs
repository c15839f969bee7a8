//! The `canet` binary.

fn main() -> std::process::ExitCode {
    canet::app::main()
}
