//! A program under test. Its output is kept, and shown when the test fails; it is killed when the test ends.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, watchdog};

/// The lines that a program has written to one of its outputs, and whether the output has ended.
#[derive(Default)]
struct Output {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

impl Output {
    fn follow(source: impl Read + Send + 'static) -> Arc<Self> {
        let output = Arc::new(Self::default());
        let writer = Arc::clone(&output);
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                writer.lock().0.push(text);
                writer.grown.notify_all();
                line.clear();
            }
            writer.lock().1 = true;
            writer.grown.notify_all();
        });
        output
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        self.lock().0.join("\n")
    }

    /// The first line from the index `from` on for which `wanted` holds, with its index. `None` at the end of the output or
    /// the deadline.
    fn find(&self, from: usize, wanted: impl Fn(&str) -> bool, deadline: Instant) -> Option<(usize, String)> {
        let mut state = self.lock();
        let mut next = from;
        loop {
            while next < state.0.len() {
                if wanted(&state.0[next]) {
                    return Some((next, state.0[next].clone()));
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                return None;
            }
            state = self.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the output has ended, for which it waits up to [`PATIENCE`].
    fn wait_end(&self) -> bool {
        let state = self.lock();
        let ended = self.grown.wait_timeout_while(state, PATIENCE, |state| !state.1);
        ended.unwrap_or_else(PoisonError::into_inner).0.1
    }
}

/// A running program.
pub struct Proc {
    child: Child,
    command: String,
    dir: PathBuf,
    stdout: Arc<Output>,
    stderr: Arc<Output>,
    ended: Option<ExitStatus>,
}

impl Proc {
    /// Starts `program` in `dir`. Only a few variables of the environment, such as `PATH` and `HOME`, and those of `env`
    /// are passed on, so that a developer's `BALANCER_…` can't change a test.
    pub fn start(program: &str, args: &[impl AsRef<OsStr>], dir: &Path, env: &[(String, String)]) -> Self {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(dir)
            .env_clear()
            .envs(
                ["PATH", "HOME", "LD_LIBRARY_PATH", "LLVM_PROFILE_FILE"]
                    .iter()
                    .filter_map(|name| std::env::var_os(name).map(|value| (*name, value))),
            )
            .envs(env.iter().map(|(name, value)| (name, value)));
        Self::run(command)
    }

    /// Starts a command as it is; its working directory must be set.
    pub fn run(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let dir = command.get_current_dir().map(Path::to_path_buf).unwrap_or_default();
        let text = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{text} does not start: {error}"));
        watchdog::kill(child.id());
        let stdout = Output::follow(child.stdout.take().expect("piped"));
        let stderr = Output::follow(child.stderr.take().expect("piped"));
        Self { child, command: text, dir, stdout, stderr, ended: None }
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout.
    pub fn out(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to stderr.
    pub fn err(&self) -> String {
        self.stderr.text()
    }

    /// Everything that is known about it, for the message of a failure.
    pub fn story(&self) -> String {
        format!(
            "--- command: {}\n--- directory: {}\n--- state: {:?}\n--- threads: {:?}\n--- stdout:\n{}\n--- stderr:\n{}\n---",
            self.command,
            self.dir.display(),
            self.ended,
            self.where_threads_wait(),
            self.out(),
            self.err()
        )
    }

    /// How many threads of each kind there are, by the place in the kernel where they wait.
    fn where_threads_wait(&self) -> BTreeMap<String, usize> {
        let mut threads = BTreeMap::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten() {
            let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let (name, place) = (read("comm"), read("wchan"));
            let kind = name.trim_end().trim_end_matches(|char: char| char.is_ascii_digit());
            *threads.entry(format!("{kind} {place}")).or_default() += 1;
        }
        threads
    }

    /// Waits for a line on stdout that contains `text`.
    #[track_caller]
    pub fn wait_out(&self, text: &str) -> String {
        self.wait_out_at_most(text, PATIENCE)
    }

    /// The same with another patience.
    #[track_caller]
    pub fn wait_out_at_most(&self, text: &str, patience: Duration) -> String {
        self.stdout
            .find(0, |line| line.contains(text), Instant::now() + patience)
            .unwrap_or_else(|| panic!("no line with {text:?} on stdout\n{}", self.story()))
            .1
    }

    /// Waits for a line on stderr, after the first `skip` lines, for which `wanted` holds. Returns the number of lines up
    /// to it, and the line.
    #[track_caller]
    pub fn wait_err(&self, skip: usize, what: &str, wanted: impl Fn(&str) -> bool) -> (usize, String) {
        let (index, line) = self
            .stderr
            .find(skip, wanted, Instant::now() + PATIENCE)
            .unwrap_or_else(|| panic!("no line on stderr: {what}\n{}", self.story()));
        (index + 1, line)
    }

    /// How many lines it has written to stderr.
    pub fn err_lines(&self) -> usize {
        self.stderr.lock().0.len()
    }

    /// Waits for its end and for the end of its output.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_at_most(PATIENCE)
    }

    /// The same with another patience.
    #[track_caller]
    pub fn wait_at_most(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.poll() {
                let whole = self.stdout.wait_end() && self.stderr.wait_end();
                assert!(whole, "something that it started holds its output open\n{}", self.story());
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {patience:?}\n{}", self.story());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its exit status if it has ended.
    pub fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("waitpid works");
            if self.ended.is_some() {
                watchdog::gone(self.child.id());
            }
        }
        self.ended
    }

    /// Sends a signal to it, not to its children.
    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "it has ended already\n{}", self.story());
        let pid = Pid::from_raw(self.pid() as i32).expect("a process number");
        kill_process(pid, signal).expect("a process of ours");
    }

    /// Kills it, so that it can't tidy up, and waits for its end.
    pub fn kill(&mut self) {
        if self.poll().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait().map(|status| self.ended = Some(status));
            watchdog::gone(self.child.id());
        }
    }

    /// How many threads it has.
    pub fn threads(&self) -> u64 {
        proc_status(self.pid(), "Threads:")
    }

    /// The processor time that it has used.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("a process of ours");
        let behind_name = stat.rsplit_once(") ").expect("fields").1;
        let ticks =
            behind_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
        Duration::from_secs(1) * u32::try_from(ticks.sum::<u64>()).expect("few")
            / u32::try_from(rustix::param::clock_ticks_per_second()).expect("few")
    }

    /// How many files it has open.
    pub fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a process of ours").count()
    }

    /// Resident size in KiB.
    pub fn rss_kib(&self) -> u64 {
        proc_status(self.pid(), "VmRSS:")
    }
}

/// A number from `/proc/PID/status`.
fn proc_status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a field of /proc/PID/status");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

impl Drop for Proc {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.poll();
            eprintln!("{}", self.story());
        }
        self.kill();
    }
}
