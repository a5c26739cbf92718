//! A PostgreSQL server that is started once for the test process, with a database for each test that asks for one. Tests
//! that stop or pause the server start one of their own. The unit tests of the store use this file, too.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use super::ports::reserved;
use super::{aloud, until, watchdog};

/// Which kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Sqlite,
    Postgres,
}

/// An empty database for one test.
pub struct Database {
    /// Which kind it is.
    pub store: Store,
    /// Its URL, as `database.url` takes it.
    pub url: String,
}

impl Database {
    /// A file in the balancer's own folder.
    pub fn sqlite() -> Self {
        Self { store: Store::Sqlite, url: "sqlite:balancer.db".into() }
    }

    /// A new database in the shared server; `None` where PostgreSQL is not installed, which is said.
    pub fn postgres() -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let server = shared()?;
        let name = format!("it_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        Some(Self { store: Store::Postgres, url: create(server, &name) })
    }
}

fn create(server_url: &str, name: &str) -> String {
    let mut client = postgres::Client::connect(server_url, postgres::NoTls).expect("PostgreSQL answers");
    client.batch_execute(&format!("CREATE DATABASE {name}")).expect("a new database");
    let (before, after) = server_url.split_once('?').map_or((server_url, ""), |(url, query)| (url, query));
    let base = before.rsplit_once('/').expect("a URL with a database").0;
    if after.is_empty() { format!("{base}/{name}") } else { format!("{base}/{name}?{after}") }
}

/// The URL of the server that tests share: `BALANCER_TEST_POSTGRES_URL`, or one that is started here and ended by the
/// watchdog when this process is gone.
fn shared() -> Option<&'static str> {
    static SERVER: OnceLock<Option<(String, Option<Mutex<Postgres>>)>> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        if let Ok(url) = std::env::var("BALANCER_TEST_POSTGRES_URL") {
            return Some((url, None));
        }
        let server = Postgres::start()?;
        Some((server.url(), Some(Mutex::new(server))))
    });
    server.as_ref().map(|(url, _)| url.as_str())
}

/// A PostgreSQL server in a temporary folder.
pub struct Postgres {
    folder: PathBuf,
    /// Its port on 127.0.0.1.
    pub port: u16,
    child: Option<Child>,
    settings: Vec<String>,
}

impl Postgres {
    /// A new, empty server; `None` where PostgreSQL is not installed, which is said.
    pub fn start() -> Option<Self> {
        Self::start_with(&[], |_| {})
    }

    /// The same with settings (`name=value`). `prepare` is called with its data folder before it starts.
    pub fn start_with(settings: &[&str], prepare: impl FnOnce(&Path)) -> Option<Self> {
        let Some(programs) = programs() else {
            let required = std::env::var("BALANCER_TEST_REQUIRE_POSTGRES").is_ok_and(|value| value == "1");
            assert!(!required, "BALANCER_TEST_REQUIRE_POSTGRES=1, and no PostgreSQL is installed");
            aloud("PostgreSQL is not installed: this test's PostgreSQL half was skipped");
            return None;
        };
        let folder = template(&programs);
        prepare(&folder.join("data"));
        let mut server = Self {
            port: reserved().port(),
            folder,
            child: None,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
        };
        server.run();
        Some(server)
    }

    /// The URL of its database `postgres`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// A new database in it.
    pub fn database(&self, name: &str) -> Database {
        Database { store: Store::Postgres, url: create(&self.url(), name) }
    }

    /// Starts it (again) on its port and waits until it answers.
    pub fn run(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let programs = programs().expect("installed");
        let mut command = as_postgres(&programs.join("postgres"));
        let data = self.folder.join("data");
        command.arg("-D").arg(&data).args(["-p", &self.port.to_string()]);
        let sockets = format!("unix_socket_directories={}", self.folder.display());
        let own = [&sockets, "listen_addresses=127.0.0.1", "fsync=off", "max_connections=200"];
        for setting in own.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(self.folder.join("log")).expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("postgres starts");
        watchdog::quit(child.id());
        self.child = Some(child);
        until("PostgreSQL answers", || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                panic!("PostgreSQL ended: {status}\n{log}");
            }
            postgres::Client::connect(&self.url(), postgres::NoTls).ok()
        });
    }

    /// Stops all its processes by SIGSTOP: everything stays connected, and nothing answers.
    pub fn pause(&self) {
        // The postmaster first: then it starts no process that would be missed.
        stop(&[Pid::from_child(self.child.as_ref().expect("running"))]);
        stop(&self.family());
    }

    /// Goes on after [`Postgres::pause`], by SIGCONT.
    pub fn resume(&self) {
        for pid in self.family() {
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    /// Kills it by SIGKILL, so that it can't tidy up. [`Postgres::run`] starts it again.
    pub fn kill(&mut self) {
        // The children first, because they would end properly when they see the postmaster die.
        for pid in self.family().into_iter().rev() {
            let _ = kill_process(pid, Signal::KILL);
        }
        let Some(mut child) = self.child.take() else { return };
        let _ = child.wait();
        watchdog::gone(child.id());
        let _ = std::fs::remove_file(self.folder.join("data/postmaster.pid"));
    }

    /// Ends it at once and closes all of its connections. [`Postgres::run`] starts it again.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_child(&child);
        // SIGQUIT is an immediate shutdown, with which its children end, too.
        let _ = kill_process(pid, Signal::QUIT);
        let _ = child.wait();
        watchdog::gone(child.id());
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// The postmaster and its children.
    fn family(&self) -> Vec<Pid> {
        let pid = self.pid();
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let numbers = children.split_whitespace().filter_map(|number| number.parse::<i32>().ok());
        std::iter::once(pid as i32).chain(numbers).filter_map(Pid::from_raw).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.resume();
        }
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
        watchdog::dir_gone(&self.folder);
    }
}

/// Stops processes by SIGSTOP, and waits until each is stopped or has ended.
fn stop(processes: &[Pid]) {
    for pid in processes {
        let _ = kill_process(*pid, Signal::STOP);
    }
    until("PostgreSQL is stopped", || {
        let still = |pid: &Pid| {
            let stat =
                std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['T', 'Z', 'X']))
        };
        processes.iter().all(still).then_some(())
    });
}

/// The folder with `initdb` and `postgres`.
fn programs() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
            let mut debian: Vec<PathBuf> = debian.map(|entry| entry.path().join("bin")).collect();
            debian.sort();
            debian
                .into_iter()
                .rev()
                .chain(std::env::split_paths(&path))
                .find(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
        })
        .clone()
}

/// A command that runs a program of PostgreSQL, as the user `postgres` if this process is root, since it refuses to run as
/// root.
fn as_postgres(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

/// A copy of an initialised data folder. `initdb` takes a second and a copy far less, so `initdb` runs only once in a process.
fn template(programs: &Path) -> PathBuf {
    static TEMPLATE: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut template = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
    if template.is_none() {
        let folder = new_folder();
        let initdb = as_postgres(&programs.join("initdb"))
            .arg("-D")
            .arg(folder.join("data"))
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("initdb starts");
        let pid = initdb.id();
        watchdog::kill(pid);
        let output = initdb.wait_with_output().expect("initdb ends");
        watchdog::gone(pid);
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        *template = Some(folder);
    }
    let folder = new_folder();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(template.as_ref().expect("made above").join("data"))
        .arg(&folder)
        .status()
        .expect("cp starts");
    assert!(copied.success(), "cp of the data folder");
    folder
}

/// A new folder that belongs to the user who runs PostgreSQL.
fn new_folder() -> PathBuf {
    let folder = tempfile::Builder::new().prefix("balancer-it-pg-").tempdir().expect("a folder").keep();
    watchdog::dir(&folder);
    if rustix::process::geteuid().is_root() {
        let owned =
            Command::new("chown").arg("postgres:postgres").arg(&folder).status().expect("chown starts");
        assert!(owned.success(), "chown of {}", folder.display());
    }
    folder
}
