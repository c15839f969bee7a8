//! `canet train` stopped and killed on its way, then resumed: what comes of it is what an unbroken run makes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use canet_model::checkpoint::ModelDirectory;
use tempfile::TempDir;

use super::train_command::{curve, finish, ring, train};

/// Runs that may be past the point before a signal reaches them, where the machine is fast or holds the test up.
const TRIES: usize = 20;

/// Begins anew until a run was caught where it should be.
fn catch(out: &Path, mut caught: impl FnMut() -> bool) {
    let caught = (0..TRIES).any(|_| {
        // What the try before left, if there was one.
        let _ = fs::remove_dir_all(out);
        caught()
    });
    assert!(caught, "{TRIES} runs were past the point before the signal came");
}

/// Waits until the run says something that begins so: whether it did before its end.
fn says(child: &mut Child, words: &str) -> bool {
    let stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.lines().any(|line| line.unwrap().starts_with(words))
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

/// Asks a run to stop: whether it did, and was not done before.
fn interrupted(child: &mut Child) -> bool {
    signal(child, "INT");
    match child.wait().unwrap().code() {
        Some(130) => true,
        Some(0) => false,
        code => panic!("it ended with {code:?}"),
    }
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
    // Here the router gains, so it is distilled, and from histories so long that there is time to stop it.
    let flags = ["--epochs", "1", "--settle-epochs", "1", "--max-len", "20"];
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let (straight, broken) = (scratch.path().join("straight"), scratch.path().join("broken"));
    finish(train(&data, &straight, &flags));

    catch(&broken, || {
        let mut child = train(&data, &broken, &flags).spawn().unwrap();
        assert!(says(&mut child, "router: "));
        if !interrupted(&mut child) {
            return false;
        }
        let log = fs::read_to_string(broken.join(".training/log.jsonl")).unwrap();
        assert!(log.contains("\"event\":\"router\""), "{log}");
        !log.contains("\"event\":\"taught\"")
    });

    finish(train(&data, &broken, &flags));
    assert_eq!(curve(&broken), curve(&straight));
    let weights = |out: &Path| ModelDirectory::open(out).unwrap().load(None).unwrap().weights;
    assert_eq!(weights(&broken), weights(&straight));
}

/// `stopped` and `killed`: what the run has said when it is.
fn stopped_and_killed(flags: &[&str], [stopped, killed]: [&str; 2], epochs: usize) {
    let scratch = TempDir::new().unwrap();
    let data = ring(scratch.path());
    let (straight, broken) = (scratch.path().join("straight"), scratch.path().join("broken"));
    finish(train(&data, &straight, flags));

    catch(&broken, || {
        let mut child = train(&data, &broken, flags).spawn().unwrap();
        assert!(says(&mut child, stopped));
        if !interrupted(&mut child) {
            return false;
        }
        assert!(!broken.join("1").exists());

        let mut child = train(&data, &broken, flags).spawn().unwrap();
        let caught = says(&mut child, killed) && {
            // Held, so that it is still there while a second process tries.
            signal(&child, "STOP");
            !broken.join("1").exists()
        };
        if caught {
            let second = train(&data, &broken, flags).output().unwrap();
            assert_eq!(second.status.code(), Some(69));
            assert!(String::from_utf8_lossy(&second.stderr).contains("another process"));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        caught
    });

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
    assert!(message.contains("state.safetensors") && message.contains("File too large"), "{message}");
    assert!(!out.join("1").exists());
    // With room again the same command goes on.
    finish(plain);
    assert!(out.join("1").is_dir());
}
