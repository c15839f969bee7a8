//! Servers and publishers on a disk that hangs, is slow, or cannot be written.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use serde_json::json;

use super::chaos::{compile, publish, request, rounds};
use super::server::{Client, HANGS, Process, canet, run};

/// A disk that holds one directory and does as it is told.
struct Disk {
    state: File,
    /// The same as a path.
    state_file: PathBuf,
    library: PathBuf,
    directory: PathBuf,
}

impl Disk {
    /// `directory` must exist. The disk's own files go into `scratch`.
    fn of(directory: &Path, scratch: &Path) -> Disk {
        let [library, state_file] = ["slow_disk.so", "slow_disk_state"].map(|name| scratch.join(name));
        compile("slow_disk.c", &library);
        let state = File::options().create_new(true).read(true).write(true).open(&state_file).unwrap();
        state.write_all_at(&[0; 16], 0).unwrap();
        Disk { state, state_file, library, directory: directory.canonicalize().unwrap() }
    }

    /// The binary, whose files are on the disk.
    fn canet(&self) -> Command {
        let mut binary = canet(&[]);
        binary.env("LD_PRELOAD", &self.library);
        binary.env("SLOW_DISK", &self.directory).env("SLOW_DISK_STATE", &self.state_file);
        binary
    }

    /// From now on each read waits so long.
    fn slow(&self, microseconds: i64) {
        self.state.write_all_at(&microseconds.to_ne_bytes(), 0).unwrap();
    }

    fn hang(&self) {
        self.slow(-1);
    }

    /// Waits until a read hangs.
    fn wait_for_a_read(&self) {
        let began = Instant::now();
        let mut hanging = [0; 8];
        while i64::from_ne_bytes(hanging) == 0 {
            assert!(began.elapsed() < HANGS, "nothing is read");
            self.state.read_exact_at(&mut hanging, 8).unwrap();
            thread::yield_now();
        }
    }
}

#[test]
fn a_disk_that_hangs_while_a_server_starts_shows_in_its_readiness() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    publish(&root, 1);
    let disk = Disk::of(&root, directory.path());
    disk.hang();
    let server = Process::launch_by(disk.canet(), &root, &[]);
    disk.wait_for_a_read();
    let client = &server.client;
    assert_eq!((client.get("/healthz").status, client.get("/readyz").status), (200, 503));
    let refused = client.recommend(&request());
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("unavailable")));
    disk.slow(0);
    server.log_line("ready");
    assert_eq!(client.get("/readyz").status, 200);
    assert_eq!(client.recommend(&request()).status, 200);
}

#[test]
fn a_disk_that_hangs_or_is_slow_during_a_reload_delays_no_request() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    publish(&root, 1);
    publish(&root, 2);
    let disk = Disk::of(&root, directory.path());
    let server = Process::serve_by(disk.canet(), &root, &["--version", "1"]);
    let client = &server.client;
    let reload = |version: u64| Client::new(client.address).post("/admin/reload", &json!({"version": version}));
    let mut answers = vec![client.recommend(&request()).items()];
    assert_eq!(reload(2).status, 200);
    answers.push(client.recommend(&request()).items());
    assert_ne!(answers[0], answers[1]);
    for round in 0..2 * rounds(1) as usize {
        let (version, before) = (round % 2 + 1, &answers[1 - round % 2]);
        disk.hang();
        thread::scope(|scope| {
            let reloaded = scope.spawn(|| reload(version as u64));
            disk.wait_for_a_read();
            for _ in 0..50 {
                let reply = client.recommend(&request());
                assert_eq!((reply.status, &reply.items()), (200, before));
            }
            assert_eq!(client.get("/readyz").status, 200);
            assert_eq!(client.get("/metrics").status, 200);
            assert_eq!(reload(version as u64).status, 409);
            // Some ten reads of this length load the model.
            disk.slow(20_000);
            while !reloaded.is_finished() {
                let reply = client.recommend(&request());
                assert!(reply.status == 200 && answers.contains(&reply.items()), "{reply:?}");
            }
            assert_eq!(reloaded.join().unwrap().status, 200);
        });
        disk.slow(0);
        assert_eq!(client.recommend(&request()).items(), answers[version - 1]);
    }
}

#[test]
fn a_disk_that_hangs_does_not_keep_a_server_from_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    publish(&root, 1);
    let disk = Disk::of(&root, directory.path());
    let mut server = Process::serve_by(disk.canet(), &root, &["--drain-delay", "0", "--drain-timeout", "1"]);
    disk.hang();
    server.signal("HUP");
    disk.wait_for_a_read();
    assert_eq!(server.client.recommend(&request()).status, 200);
    server.signal("TERM");
    let ended = server.wait_for(HANGS).expect("the server ends");
    assert_eq!((ended.code(), ended.signal()), (Some(0), None));
}

/// A way to make a directory read-only, for root too.
#[derive(Clone, Copy, Debug)]
enum ReadOnly {
    /// Permissions. Root runs without the capability that overrides them.
    Permissions,
    /// A mount of the whole file system, where the machine lets this user mount.
    Mount,
}

impl ReadOnly {
    fn all() -> Vec<ReadOnly> {
        let can_mount = Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success());
        println!("read-only mounts: {can_mount}");
        if can_mount { vec![ReadOnly::Permissions, ReadOnly::Mount] } else { vec![ReadOnly::Permissions] }
    }

    /// Runs a program that cannot write `root`. No process below it writes a byte to any file.
    fn run(self, program: &Path, root: &Path) -> Command {
        let mount =
            "mount --bind \"$ROOT\" \"$ROOT\" && mount -o remount,bind,ro \"$ROOT\" && mount -o remount,bind,ro / && ";
        let (prepare, launcher): (_, &[&str]) = match self {
            ReadOnly::Mount => (mount, &["unshare", "-rm"]),
            ReadOnly::Permissions if is_root() => {
                let without = "-dac_override,-dac_read_search";
                ("", &["setpriv", "--bounding-set", without, "--inh-caps", without])
            }
            ReadOnly::Permissions => ("", &[]),
        };
        let script = format!("{prepare} trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"");
        let shell = ["sh", "-c", &script];
        let words: Vec<&str> = launcher.iter().copied().chain(shell).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(program).env("ROOT", root);
        command
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout == b"0\n"
}

/// Files and directories whose permissions to write are gone until this drops.
struct Frozen(Vec<(PathBuf, Permissions)>);

impl Frozen {
    fn all_below(root: &Path) -> Frozen {
        let mut frozen = Vec::new();
        let mut left = vec![root.to_owned()];
        while let Some(path) = left.pop() {
            let permissions = fs::metadata(&path).unwrap().permissions();
            if permissions.mode() & 0o111 != 0 {
                left.extend(fs::read_dir(&path).into_iter().flatten().map(|entry| entry.unwrap().path()));
            }
            fs::set_permissions(&path, Permissions::from_mode(permissions.mode() & !0o222)).unwrap();
            frozen.push((path, permissions));
        }
        Frozen(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // From the root down.
        for (path, permissions) in self.0.drain(..) {
            let _ = fs::set_permissions(path, permissions);
        }
    }
}

#[test]
fn a_server_needs_no_file_that_it_can_write() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("small");
    publish(&root, 1);
    publish(&root, 2);
    let _frozen = Frozen::all_below(&root);
    let binary = Path::new(env!("CARGO_BIN_EXE_canet"));
    for way in ReadOnly::all() {
        let probe = way.run(Path::new("touch"), &root).arg(root.join("new")).output().unwrap();
        assert!(!probe.status.success(), "{way:?}: the directory can be written");
        let server = Process::serve_by(way.run(binary, &root), &root, &["--version", "1", "--watch"]);
        let client = &server.client;
        let first = client.recommend(&request());
        assert_eq!((first.status, first.json()["model"]["version"].as_u64()), (200, Some(1)), "{way:?}");
        assert_eq!(client.post("/admin/reload", &json!({"version": 2})).status, 200, "{way:?}");
        let second = client.recommend(&request());
        assert_eq!((second.status, second.json()["model"]["version"].as_u64()), (200, Some(2)), "{way:?}");
        assert_eq!(client.get("/metrics").status, 200);
        drop(server);

        // What must write says where it cannot.
        let log = root.join("log");
        let mut logging = way.run(binary, &root);
        logging.args(["serve", "--listen", "127.0.0.1:0", "--grpc", "off", "--model"]).arg(&root);
        let (code, message) = run(logging.arg("--answer-log").arg(&log));
        assert!(code == Some(74) && message.contains(log.to_str().unwrap()), "{way:?}: {code:?}, {message}");
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden");
        let mut importing = way.run(binary, &root);
        importing.args(["import", "--state-dict"]).arg(golden.join("state_dict.pt"));
        importing.arg("--args").arg(golden.join("args.json")).arg("--out").arg(&root);
        let (code, message) = run(&mut importing);
        assert!(code == Some(74) && message.contains(root.to_str().unwrap()), "{way:?}: {code:?}, {message}");
    }
}
