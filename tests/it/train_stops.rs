//! `canet train` stopped and killed on its way, then resumed: what comes of it is what an unbroken run makes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use canet_model::checkpoint::ModelDirectory;
use tempfile::TempDir;

use super::chaos::compile;
use super::server::{Killed, retry};
use super::train_command::{curve, finish, ring, train};

/// Begins a run that stops itself once it has said a line that begins so. Then no signal comes too late, however long
/// the machine holds the test up. `library` is that of [`stop_at`].
fn held(mut run: Command, library: &Path, words: &str) -> Killed {
    let mut run = Killed(run.env("LD_PRELOAD", library).env("STOP_AT", words).spawn().unwrap());
    let mut said = BufReader::new(run.0.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().starts_with(words)), "it ended and did not say {words:?}");
    retry(|| {
        let about = fs::read_to_string(format!("/proc/{}/stat", run.0.id())).unwrap();
        // The state stands behind the program's name in parentheses. T is stopped.
        about.rsplit_once(") ").unwrap().1.starts_with('T').then_some(())
    });
    run
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

/// Asks a held run to stop, and waits until it has.
fn interrupt(Killed(child): &mut Killed) {
    signal(child, "INT");
    signal(child, "CONT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// Makes the library that stops a run at its own words.
fn stop_at(directory: &Path) -> PathBuf {
    let library = directory.join("stop_at.so");
    compile("stop_at.c", &library);
    library
}

#[test]
fn a_run_that_was_stopped_and_killed_comes_to_the_same_curve_and_weights() {
    // The stage in which each preset is killed: its own first one, and the last one, behind the router.
    stopped_and_killed(&["--preset", "paper"], ["joint, epoch 1/", "joint, epoch 3/"], 6);
    let flags = ["--preset", "utility", "--settle-epochs", "2", "--newest-epochs", "12"];
    stopped_and_killed(&flags, ["supernet, epoch 1/", "newest, epoch 1/"], 6 + 2 + 12);
}

#[test]
fn a_router_stopped_during_distillation_starts_it_again() {
    // Here the router gains, so it is distilled.
    let flags = ["--epochs", "1", "--settle-epochs", "1", "--max-len", "20"];
    let scratch = TempDir::new().unwrap();
    let (data, library) = (ring(scratch.path()), stop_at(scratch.path()));
    let (straight, broken) = (scratch.path().join("straight"), scratch.path().join("broken"));
    finish(train(&data, &straight, &flags));

    interrupt(&mut held(train(&data, &broken, &flags), &library, "router: it explains"));
    let log = fs::read_to_string(broken.join(".training/log.jsonl")).unwrap();
    assert!(!log.contains("\"event\":\"router\"") && !log.contains("\"event\":\"taught\""), "{log}");

    finish(train(&data, &broken, &flags));
    let log = fs::read_to_string(broken.join("1.train.jsonl")).unwrap();
    for event in ["router", "taught"] {
        assert_eq!(log.matches(&format!("\"event\":\"{event}\"")).count(), 1, "{event}: {log}");
    }
    assert_eq!(curve(&broken), curve(&straight));
    let weights = |out: &Path| ModelDirectory::open(out).unwrap().load(None).unwrap().weights;
    assert_eq!(weights(&broken), weights(&straight));
}

/// `stopped` and `killed`: what the run has said when it is.
fn stopped_and_killed(flags: &[&str], [stopped, killed]: [&str; 2], epochs: usize) {
    let scratch = TempDir::new().unwrap();
    let (data, library) = (ring(scratch.path()), stop_at(scratch.path()));
    let (straight, broken) = (scratch.path().join("straight"), scratch.path().join("broken"));
    finish(train(&data, &straight, flags));

    interrupt(&mut held(train(&data, &broken, flags), &library, stopped));
    assert!(!broken.join("1").exists());

    let run = held(train(&data, &broken, flags), &library, killed);
    assert!(!broken.join("1").exists());
    let second = train(&data, &broken, flags).output().unwrap();
    assert_eq!(second.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another process"));
    // It is killed as it stands.
    drop(run);

    let other = train(&data, &broken, &[flags, &["--seed", "2"]].concat()).output().unwrap();
    assert_eq!(other.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&other.stderr).contains("--restart"));

    finish(train(&data, &broken, flags));
    assert_eq!(curve(&broken), curve(&straight));
    assert_eq!(curve(&straight).len(), epochs);
    let weights = |out: &Path| ModelDirectory::open(out).unwrap().load(None).unwrap().weights;
    assert_eq!(weights(&broken), weights(&straight));
    assert!(!broken.join(".training").exists());
}

/// The data come from a pipe that stays open, so the process is still reading when the signal comes.
#[test]
fn a_signal_ends_a_run_that_reads_data() {
    let scratch = TempDir::new().unwrap();
    let (data, out) = (scratch.path().join("data.txt"), scratch.path().join("out"));
    for name in ["TERM", "INT"] {
        let _ = fs::remove_file(&data);
        assert!(Command::new("mkfifo").arg(&data).status().unwrap().success());
        let mut child = train(&data, &out, &[]).spawn().unwrap();
        // Opening it waits for the reader.
        let mut pipe = fs::File::options().write(true).open(&data).unwrap();
        pipe.write_all(b"u1 i1\nu1 i2\n").unwrap();
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{name}");
        assert!(!out.exists(), "{name}");
    }
}

/// The limit on a file's size stands for a full disk: a write fails, and the process goes on.
#[test]
fn a_state_that_cannot_be_written_has_its_own_exit_code() {
    let scratch = TempDir::new().unwrap();
    let (data, out) = (ring(scratch.path()), scratch.path().join("out"));
    let plain = train(&data, &out, &[]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""]).arg(plain.get_program());
    limited.args(plain.get_args()).envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = limited.stdin(Stdio::null()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{message}");
    for words in ["state.safetensors cannot be saved: File too large", "make room, and run the same command again"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(!out.join("1").exists() && !out.join(".training/state.partial").exists());
    // With room again the same command goes on.
    finish(plain);
    assert!(out.join("1").is_dir());
}
