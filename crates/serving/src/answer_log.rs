//! The answer log: lines that a thread of its own writes to files, or to standard output.
//!
//! [`AnswerLog::offer`] copies a line into a buffer of bounded size and returns. If the buffer is full, because the disk is slow
//! or nobody reads, the line is dropped and counted. The thread takes the whole buffer at a time, when it
//! holds a chunk or a few times a second, so that lines do not wake it one by one.

use std::fs::{self, File, OpenOptions};
use std::hash::Hasher;
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use twox_hash::XxHash64;

use super::uniform::uniform;
use crate::metrics::{AnswerLogged, Metrics};
use canet_model::checkpoint::rfc3339;
use parking_lot::{Condvar, Mutex, MutexGuard};

/// Most bytes of lines that wait to be written.
const WAITING: usize = 8 << 20;

/// How long the thread collects lines before it writes them, if they are few.
const COLLECT: Duration = Duration::from_millis(200);

/// Bytes that the thread writes without collecting more: enough for a cheap write, and few enough to be still in the cache.
const CHUNK: usize = 256 << 10;

/// Where the answer log goes.
#[derive(Clone, Debug)]
pub enum AnswerLogTarget {
    /// Standard output.
    Stdout,
    /// Files in a directory, which is created if it does not exist.
    Files {
        /// The directory.
        directory: PathBuf,
        /// When a file ends and the next one begins.
        roll: Roll,
    },
}

/// When a file of the answer log ends: at the first write after it reached a size or an age.
#[derive(Clone, Copy, Debug)]
pub struct Roll {
    /// Bytes.
    pub size: u64,
    /// Time from its beginning.
    pub age: Duration,
}

/// A request of a call.
#[derive(Clone, Copy, Debug)]
pub struct CallRow<'a> {
    /// The call's id.
    pub request_id: &'a str,
    /// The request's place in its call, from 0.
    pub place: usize,
}

/// Writes a share of the answers as lines.
pub struct AnswerLog {
    share: f64,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Tells the thread of the first line, of a full chunk and of the end.
    lines_wait: Condvar,
    /// Tells whoever waits for the end that the thread has ended.
    ended: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    lines: u64,
    is_closed: bool,
    has_ended: bool,
}

impl AnswerLog {
    /// Starts the thread. The first file exists afterwards. `share` of the users, or of the requests without one, are logged.
    ///
    /// # Errors
    /// [`io::Error`] if the directory, the first file or the thread cannot be created.
    pub fn start(target: AnswerLogTarget, share: f64, metrics: Arc<Metrics>) -> io::Result<AnswerLog> {
        let shared =
            Arc::new(Shared { state: Mutex::default(), lines_wait: Condvar::new(), ended: Condvar::new(), metrics });
        let output = Output::open(target)?;
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("answer-log".to_owned()).spawn(move || of_thread.write_all(output))?;
        Ok(AnswerLog { share, shared })
    }

    /// Whether the answers to a user are logged. A request without a user is drawn by its id and its place in its call.
    ///
    /// All answers to a user are in the sample or none, so that the log shows which answer was the last before an item. The hash
    /// is XXH64, which is the same in every replica and every release.
    pub fn samples(&self, user: Option<&str>, row: CallRow<'_>) -> bool {
        let mut hasher = XxHash64::default();
        match user {
            Some(user) => hasher.write(user.as_bytes()),
            None => {
                hasher.write(row.request_id.as_bytes());
                hasher.write(&(row.place as u64).to_le_bytes());
            }
        }
        uniform(hasher.finish()) < self.share
    }

    /// Takes a line with its line break, or drops and counts it if too many wait. It never waits for the disk.
    pub fn offer(&self, line: &[u8]) {
        let mut state = self.shared.state();
        if state.is_closed || state.waiting.len() + line.len() > WAITING {
            drop(state);
            self.shared.metrics.answers_logged(AnswerLogged::Dropped, 1);
            return;
        }
        let before = state.waiting.len();
        state.waiting.extend_from_slice(line);
        state.lines += 1;
        let fills_chunk = before < CHUNK && state.waiting.len() >= CHUNK;
        drop(state);
        if before == 0 || fills_chunk {
            self.shared.lines_wait.notify_one();
        }
    }

    /// Writes the lines that wait, for at most `timeout`. Later lines are dropped.
    pub fn finish(&self, timeout: Duration) {
        let mut state = self.shared.state();
        state.is_closed = true;
        self.shared.lines_wait.notify_all();
        self.shared.ended.wait_while_for(&mut state, |state| !state.has_ended, timeout);
    }
}

impl Drop for AnswerLog {
    /// Tells the thread to end. It does not wait: the disk may be slow.
    fn drop(&mut self) {
        self.finish(Duration::ZERO);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Writes lines until the log is closed and none is left.
    fn write_all(&self, mut output: Output) {
        let mut taken = Vec::new();
        let mut is_failing = false;
        while let Some(lines) = self.take(&mut taken) {
            let outcome = output.write(&taken, SystemTime::now());
            taken.clear();
            match outcome {
                Ok(()) => {
                    self.metrics.answers_logged(AnswerLogged::Written, lines);
                    if mem::take(&mut is_failing) {
                        tracing::info!("the answer log is written again");
                    }
                }
                Err(error) => {
                    self.metrics.answers_logged(AnswerLogged::Failed, lines);
                    if !mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, lines, "the answer log cannot be written: its lines are dropped");
                    }
                }
            }
        }
        self.state().has_ended = true;
        self.ended.notify_all();
    }

    /// Waits for lines and moves them into `taken`, which is empty. Returns their number, or `None` at the end.
    fn take(&self, taken: &mut Vec<u8>) -> Option<u64> {
        let nothing_waits = |state: &mut State| state.waiting.is_empty() && !state.is_closed;
        let mut state = self.state();
        self.lines_wait.wait_while(&mut state, nothing_waits);
        // More lines come: one write for all of them is cheaper.
        let collects = |state: &mut State| !state.is_closed && state.waiting.len() < CHUNK;
        self.lines_wait.wait_while_for(&mut state, collects, COLLECT);
        if state.waiting.is_empty() {
            return None;
        }
        mem::swap(&mut state.waiting, taken);
        Some(mem::take(&mut state.lines))
    }
}

/// What the lines are written to.
enum Output {
    Stdout(UncutLines<io::Stdout>),
    Files(RollingFiles),
}

impl Output {
    fn open(target: AnswerLogTarget) -> io::Result<Output> {
        Ok(match target {
            AnswerLogTarget::Stdout => Output::Stdout(UncutLines { output: io::stdout(), is_cut: false }),
            AnswerLogTarget::Files { directory, roll } => {
                fs::create_dir_all(&directory)?;
                Output::Files(RollingFiles::open(directory, roll, SystemTime::now())?)
            }
        })
    }

    fn write(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        match self {
            Output::Stdout(stdout) => stdout.write(lines),
            Output::Files(files) => files.write(lines, now),
        }
    }
}

/// Lines to an output that takes nothing back. After a write that failed, perhaps within a line, the next one begins a new line.
struct UncutLines<W> {
    output: W,
    is_cut: bool,
}

impl<W: Write> UncutLines<W> {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if mem::replace(&mut self.is_cut, true) {
            self.output.write_all(b"\n")?;
        }
        self.output.write_all(lines)?;
        self.output.flush()?;
        self.is_cut = false;
        Ok(())
    }
}

/// Files that follow each other.
struct RollingFiles {
    directory: PathBuf,
    roll: Roll,
    file: File,
    /// Bytes of the file, in whole lines.
    size: u64,
    /// Whether the file may end within a line. Then nothing more is written to it.
    is_cut: bool,
    began: Instant,
    count: u64,
}

impl RollingFiles {
    fn open(directory: PathBuf, roll: Roll, now: SystemTime) -> io::Result<RollingFiles> {
        let (file, count) = RollingFiles::create(&directory, 0, now)?;
        Ok(RollingFiles { directory, roll, file, size: 0, is_cut: false, began: Instant::now(), count: count + 1 })
    }

    /// Creates the next file, and returns its number. Only its owner may read it, because it names users.
    ///
    /// Servers may share the directory: time, process and number make the name unique. Servers in containers have the same
    /// process id, so a number that is taken gives way to the next.
    fn create(directory: &std::path::Path, first: u64, now: SystemTime) -> io::Result<(File, u64)> {
        let time = rfc3339(now).replace([':', '-'], "");
        let mut count = first;
        loop {
            let name = format!("answers-{time}-{}-{count}.jsonl", std::process::id());
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(name)) {
                Ok(file) => return Ok((file, count)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => count += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        let is_full = self.size >= self.roll.size || self.began.elapsed() >= self.roll.age;
        if (is_full && self.size > 0) || self.is_cut {
            let (file, count) = RollingFiles::create(&self.directory, self.count, now)?;
            self.file = file;
            (self.size, self.is_cut, self.began, self.count) = (0, false, Instant::now(), count + 1);
        }
        let written = self.file.write_all(lines);
        match written {
            Ok(()) => self.size += lines.len() as u64,
            // What a full disk took of the lines may end within one.
            Err(_) => self.is_cut = self.take_back().is_err(),
        }
        written
    }

    /// Ends the file with its last whole line.
    fn take_back(&mut self) -> io::Result<()> {
        use std::io::Seek;
        self.file.set_len(self.size)?;
        self.file.seek(io::SeekFrom::Start(self.size)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::{AnswerLog, AnswerLogTarget, CallRow, Roll, RollingFiles, UncutLines, WAITING};
    use crate::metrics::Metrics;

    const FOR_EVER: Duration = Duration::from_secs(1 << 30);

    fn logged(metrics: &Metrics, outcome: &str) -> f64 {
        let series = format!("canet_answer_log_total{{outcome=\"{outcome}\"}} ");
        metrics.render().unwrap().lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
    }

    fn contents(directory: &std::path::Path) -> Vec<String> {
        let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    #[test]
    fn every_line_is_written_by_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let roll = Roll { size: 1 << 30, age: FOR_EVER };
        let target = AnswerLogTarget::Files { directory: directory.path().join("new"), roll };
        let log = AnswerLog::start(target, 1.0, Arc::clone(&metrics)).unwrap();
        let lines: Vec<String> = (0..1000).map(|number| format!("{number}\n")).collect();
        lines.iter().for_each(|line| log.offer(line.as_bytes()));
        log.finish(FOR_EVER);
        assert_eq!(contents(&directory.path().join("new")), [lines.concat()]);
        assert_eq!((logged(&metrics, "written"), logged(&metrics, "dropped")), (1000.0, 0.0));
        log.offer(b"late\n");
        assert_eq!(logged(&metrics, "dropped"), 1.0);
    }

    #[test]
    fn files_end_by_size_and_by_age() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let write = |roll: Roll| {
            let path = directory.path().join(format!("{}", roll.size));
            fs::create_dir(&path).unwrap();
            let mut files = RollingFiles::open(path.clone(), roll, now).unwrap();
            for line in ["first\n", "second\n", "third\n"] {
                files.write(line.as_bytes(), now).unwrap();
            }
            contents(&path)
        };
        assert_eq!(write(Roll { size: 7, age: FOR_EVER }), ["first\nsecond\n", "third\n"]);
        assert_eq!(write(Roll { size: 1000, age: Duration::ZERO }), ["first\n", "second\n", "third\n"]);
        assert_eq!(write(Roll { size: 1001, age: FOR_EVER }), ["first\nsecond\nthird\n"]);
    }

    /// As servers in containers do that start in the same second.
    #[test]
    fn servers_that_share_a_directory_and_a_name_write_files_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let (roll, now) = (Roll { size: 1, age: FOR_EVER }, SystemTime::now());
        let mut servers = [0, 1, 2].map(|_| RollingFiles::open(directory.path().to_owned(), roll, now).unwrap());
        for files in &mut servers {
            files.write(b"first\n", now).unwrap();
            files.write(b"second\n", now).unwrap();
        }
        let mut contents = contents(directory.path());
        contents.sort();
        let modes =
            fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().mode() & 0o777);
        assert!(modes.into_iter().all(|mode| mode == 0o600));
        assert_eq!(contents, [["first\n"; 3], ["second\n"; 3]].concat());
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_leaves_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let roll = Roll { size: 1 << 30, age: FOR_EVER };
        let mut files = RollingFiles::open(directory.path().to_owned(), roll, SystemTime::now()).unwrap();
        files.write(b"whole\n", SystemTime::now()).unwrap();
        // As a full disk does, in the middle of a line.
        io::Write::write_all(&mut files.file, b"cut off").unwrap();
        files.take_back().unwrap();
        files.write(b"again\n", SystemTime::now()).unwrap();
        assert_eq!(contents(directory.path()), ["whole\nagain\n"]);
        files.file = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(files.write(b"lost\n", SystemTime::now()).is_err());
        // This file cannot be cut back, so the next line begins another one.
        files.write(b"next\n", SystemTime::now()).unwrap();
        assert_eq!(contents(directory.path()), ["whole\nagain\n", "next\n"]);
    }

    /// Takes `room` bytes, then fails.
    struct Full {
        taken: Vec<u8>,
        room: usize,
    }

    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_cut_off_on_standard_output_spoils_no_other() {
        let mut output = UncutLines { output: Full { taken: Vec::new(), room: 9 }, is_cut: false };
        output.write(b"first\n").unwrap();
        assert!(output.write(b"second\n").is_err());
        assert!(output.write(b"lost\n").is_err());
        output.output.room = 1000;
        output.write(b"third\n").unwrap();
        output.write(b"fourth\n").unwrap();
        assert_eq!(String::from_utf8(output.output.taken).unwrap(), "first\nsec\nthird\nfourth\n");
    }

    #[test]
    fn a_line_that_does_not_fit_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let roll = Roll { size: 1 << 30, age: FOR_EVER };
        let target = AnswerLogTarget::Files { directory: directory.path().to_owned(), roll };
        let log = AnswerLog::start(target, 1.0, Arc::clone(&metrics)).unwrap();
        log.offer(&vec![b'x'; WAITING + 1]);
        assert_eq!(logged(&metrics, "dropped"), 1.0);
        log.offer(b"fits\n");
        log.finish(FOR_EVER);
        assert_eq!((logged(&metrics, "written"), logged(&metrics, "dropped")), (1.0, 1.0));
    }

    #[test]
    fn users_are_sampled_by_their_hash() {
        let directory = tempfile::tempdir().unwrap();
        let roll = Roll { size: 1, age: FOR_EVER };
        let target = AnswerLogTarget::Files { directory: directory.path().to_owned(), roll };
        let log = AnswerLog::start(target, 0.5, Arc::new(Metrics::new().unwrap())).unwrap();
        let users: Vec<String> = (0..1000).map(|user| format!("user {user}")).collect();
        let row = |request_id: &'static str, place: usize| CallRow { request_id, place };
        let logged = |user: &String| log.samples(Some(user), row("", 0));
        let count = users.iter().filter(|user| logged(user)).count();
        // Within four standard deviations of half.
        assert!((437..563).contains(&count), "{count}");
        assert!(users.iter().all(|user| logged(user) == log.samples(Some(user), row("another", 7))));
        let rows = (0..1000).filter(|place| log.samples(None, row("request", *place))).count();
        assert!((437..563).contains(&rows), "{rows}");
    }
}
