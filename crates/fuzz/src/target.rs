use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestError, TestRng, TestRunner};

use super::Mutant;

/// A case that takes longer hangs.
const HANGS: Duration = Duration::from_secs(120);

/// Cases between two looks at the clock.
const ROUND: u32 = 200;

/// How many cases to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// This many, always the same ones.
    Cases(u32),
    /// New ones, until this time is over.
    Time(Duration),
}

/// What a parser said about an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The input is valid.
    Accepted,
    /// The input is invalid, for this reason, and the parser said so as it should.
    Refused(String),
}

/// An input of a corpus.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The name of its file, whose extension may tell its format.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A parser and its corpus.
#[derive(Clone, Debug)]
pub struct Target {
    name: &'static str,
    seeds: Vec<Seed>,
    tokens: Vec<&'static [u8]>,
}

/// What a run of a target did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of mutants that were checked.
    pub cases: u64,
    /// Number of those that were accepted.
    pub accepted: u64,
    /// The longest time that one mutant took.
    pub slowest: Duration,
}

impl Target {
    /// Prefix of the inputs that once revealed a fault. They may be refused.
    pub const FOUND: &'static str = "found-";

    /// A target without a corpus.
    pub fn new(name: &'static str) -> Target {
        Target { name, seeds: Vec::new(), tokens: Vec::new() }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Adds a valid input.
    #[must_use]
    pub fn seed(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Target {
        self.seeds.push(Seed { name: name.to_owned(), bytes: bytes.into() });
        self
    }

    /// Adds the files of a directory whose names `accepts` takes, in the order of their names. A directory that is missing
    /// adds none.
    ///
    /// # Errors
    /// [`io::Error`] if the directory or a file cannot be read.
    pub fn directory(mut self, path: &Path, accepts: impl Fn(&str) -> bool) -> io::Result<Target> {
        let mut paths: Vec<PathBuf> = match fs::read_dir(path) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if accepts(&name) {
                self.seeds.push(Seed { name, bytes: fs::read(path)? });
            }
        }
        Ok(self)
    }

    /// Adds texts that edits insert.
    #[must_use]
    pub fn tokens(mut self, tokens: &[&'static str]) -> Target {
        self.tokens.extend(tokens.iter().map(|token| token.as_bytes()));
        self
    }

    /// Checks the corpus as it is, and then mutants of it. `check` panics if an answer is wrong. Before each case, its bytes
    /// are written to a file in `directory`. The file stays there if the process dies or hangs.
    ///
    /// # Errors
    /// A message with the smallest input that failed, or with the valid input that was refused.
    pub fn run(&self, budget: Budget, directory: &Path, check: impl Fn(&Seed) -> Outcome) -> Result<Report, String> {
        let current = directory.join(format!("fuzz-{}.input", self.name));
        let watchdog = Watchdog::start(HANGS, {
            let (name, input) = (self.name, current.clone());
            move || {
                eprintln!("{name}: an input takes longer than {HANGS:?}: {}", input.display());
                process::abort();
            }
        });
        let report = Cell::new(Report::default());
        let run = |seed: &Seed| {
            // What cannot be written is lost only if the process dies.
            let _ = fs::write(&current, &seed.bytes);
            let running = watchdog.began();
            let began = Instant::now();
            let outcome = check(seed);
            let took = began.elapsed();
            drop(running);
            report.update(|mut report| {
                report.cases += 1;
                report.accepted += u64::from(outcome == Outcome::Accepted);
                report.slowest = report.slowest.max(took);
                report
            });
            outcome
        };
        for seed in &self.seeds {
            if let Outcome::Refused(reason) = run(seed)
                && !seed.name.starts_with(Target::FOUND)
            {
                return Err(format!("{}: the valid input {} was refused: {reason}", self.name, seed.name));
            }
        }
        report.set(Report::default());
        let corpus: Vec<&[u8]> = self.seeds.iter().map(|seed| seed.bytes.as_slice()).collect();
        let mutate = |mutant: &Mutant| Seed {
            name: mutant.seed.get(&self.seeds).name.clone(),
            bytes: mutant.bytes(&corpus, &self.tokens),
        };
        let began = Instant::now();
        for round in 0.. {
            let (cases, seed) = match budget {
                Budget::Cases(cases) if round == 0 => (cases, 0),
                Budget::Time(time) if began.elapsed() < time => (ROUND, fresh(round)),
                _ => break,
            };
            let config = Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
            let mut runner = TestRunner::new_with_rng(config, generator(seed));
            let result = runner.run(&Mutant::any(), |mutant| -> TestCaseResult {
                run(&mutate(&mutant));
                Ok(())
            });
            match result {
                Ok(()) => {}
                Err(TestError::Fail(reason, mutant)) => {
                    let Seed { name, bytes } = mutate(&mutant);
                    let _ = fs::write(&current, &bytes);
                    return Err(format!(
                        "{}: {reason}\nof {name}, by {mutant:?}\nin {}:\n{}",
                        self.name,
                        current.display(),
                        bytes.escape_ascii()
                    ));
                }
                Err(error) => return Err(format!("{}: {error}", self.name)),
            }
        }
        let _ = fs::remove_file(&current);
        Ok(report.get())
    }
}

/// A seed that no run before had.
fn fresh(round: u64) -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    now.as_nanos() as u64 ^ round
}

fn generator(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// Notices a case that hangs.
struct Watchdog(Mutex<Sender<bool>>);

impl Watchdog {
    /// Calls `hangs` if a case runs longer than `limit`. In a run it ends the process, because nothing else can end the case.
    fn start(limit: Duration, hangs: impl Fn() + Send + 'static) -> Watchdog {
        let (sender, receiver) = channel();
        // Ends when the sender drops.
        thread::spawn(move || {
            while let Ok(runs) = receiver.recv() {
                if runs && receiver.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    hangs();
                }
            }
        });
        Watchdog(Mutex::new(sender))
    }

    /// A case begins. It ends when the result drops.
    fn began(&self) -> Running<'_> {
        self.tell(true);
        Running(self)
    }

    fn tell(&self, runs: bool) {
        if let Ok(sender) = self.0.lock() {
            // The thread lives as long as the sender.
            let _ = sender.send(runs);
        }
    }
}

/// A case. One that panics ends as well, so that the watchdog does not take the next one's beginning for its end.
struct Running<'a>(&'a Watchdog);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.tell(false);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    use super::*;

    fn target() -> Target {
        Target::new("own").seed("a.txt", b"good 12345".to_vec()).tokens(&["evil"])
    }

    #[test]
    fn a_fault_is_found_and_shrunk_to_one_edit() {
        let directory = tempfile::tempdir().unwrap();
        let check = |seed: &Seed| {
            assert!(!seed.bytes.windows(4).any(|four| four == b"evil"), "it is evil");
            if seed.bytes == b"good 12345" { Outcome::Accepted } else { Outcome::Refused(String::new()) }
        };
        let message = target().run(Budget::Cases(2000), directory.path(), check).unwrap_err();
        assert!(message.contains("it is evil") && message.contains("a.txt"), "{message}");
        // Every other edit was removed.
        assert_eq!(message.matches("Index").count(), 3, "{message}");
        let kept = fs::read(directory.path().join("fuzz-own.input")).unwrap();
        assert!(kept.windows(4).any(|four| four == b"evil"));
    }

    #[test]
    fn fixed_cases_are_the_same_each_time_and_those_of_a_time_end() {
        let directory = tempfile::tempdir().unwrap();
        let check =
            |seed: &Seed| if seed.bytes.len() > 5 { Outcome::Accepted } else { Outcome::Refused(String::new()) };
        let [first, second] = [0, 1].map(|_| target().run(Budget::Cases(300), directory.path(), check).unwrap());
        assert_eq!((first.cases, first.accepted), (second.cases, second.accepted));
        assert_eq!(first.cases, 300);
        let timed = target().run(Budget::Time(Duration::from_millis(1)), directory.path(), check).unwrap();
        assert!(timed.cases >= u64::from(ROUND));
    }

    #[test]
    fn a_valid_input_that_is_refused_fails() {
        let directory = tempfile::tempdir().unwrap();
        let message =
            target().run(Budget::Cases(1), directory.path(), |_| Outcome::Refused("why".to_owned())).unwrap_err();
        assert!(message.contains("the valid input a.txt was refused: why"), "{message}");
    }

    #[test]
    fn a_case_that_hangs_after_one_that_panicked_is_noticed() {
        let (hung, hangs) = channel();
        let watchdog = Watchdog::start(Duration::from_millis(100), move || hung.send(()).unwrap());
        let panicked: thread::Result<()> = catch_unwind(AssertUnwindSafe(|| {
            let _running = watchdog.began();
            resume_unwind(Box::new("a fault"));
        }));
        assert!(panicked.is_err());
        let _running = watchdog.began();
        hangs.recv_timeout(HANGS).unwrap();
    }
}
