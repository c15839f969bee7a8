//! Every parser of untrusted bytes under mutated inputs.
//!
//! `CANET_FUZZ_SECONDS=60 cargo test --release -p canet-fuzz --test targets -- --nocapture` runs new cases of each target for a
//! minute and prints their numbers.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says by a panic what is wrong")]
#![allow(clippy::disallowed_methods, reason = "an environment variable sets how long the tests run")]

mod catalogue_file;
mod checkpoint;
mod interactions;
mod messages;
mod requests;
mod server;
mod state_dict;

use std::cell::Cell;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use canet_fuzz::{Budget, Outcome, Seed, Target};

/// Address space of the process. What allocates on an input's word meets it.
const ADDRESS_SPACE: u64 = 6 << 30;

/// A target with the corpus of its name.
fn target(name: &'static str) -> Target {
    Target::new(name).directory(&corpus(name), |_| true).unwrap()
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

thread_local! {
    /// Whether a panic of this thread is the failure of a case, which is shrunk before it is shown.
    static CHECKING: Cell<bool> = const { Cell::new(false) };
}

/// Prints no panic of a check. Shrinking makes hundreds of them.
fn quieten() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !CHECKING.get() {
                print(panic);
            }
        }));
    });
}

/// Runs a target: `cases` of it, or for the time that `CANET_FUZZ_SECONDS` says.
fn fuzz(target: &Target, cases: u32, check: impl Fn(&Seed) -> Outcome) {
    let (_, hard) = rlimit::getrlimit(rlimit::Resource::AS).unwrap();
    rlimit::setrlimit(rlimit::Resource::AS, ADDRESS_SPACE.min(hard), hard).unwrap();
    let budget = match std::env::var("CANET_FUZZ_SECONDS") {
        Ok(seconds) => Budget::Time(Duration::from_secs(seconds.parse().expect("CANET_FUZZ_SECONDS is a number"))),
        Err(_) => Budget::Cases(cases),
    };
    quieten();
    let quiet = |seed: &Seed| {
        CHECKING.set(true);
        let outcome = check(seed);
        CHECKING.set(false);
        outcome
    };
    let report = target.run(budget, Path::new(env!("CARGO_TARGET_TMPDIR")), quiet);
    CHECKING.set(false);
    let report = report.unwrap_or_else(|fault| panic!("{fault}"));
    println!(
        "{}: {} executions, {} accepted, the slowest took {:?}",
        target.name(),
        report.cases,
        report.accepted,
        report.slowest
    );
}
