//! The balancer under test: a configuration in a temporary folder, the real binary, and the calls of its API.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Conn, Database, Engine, Proc, Response, request, watchdog};

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_balancer");
/// The echo server.
pub const TEST_BACKEND: &str = env!("CARGO_BIN_EXE_test_backend");

/// A configuration in the making. By default: port 0, no health checks, no limit for unknown clients, SQLite in the
/// temporary folder, no access log.
#[derive(Clone)]
pub struct Setup {
    config: Value,
    env: Vec<(String, String)>,
    engine: Option<Engine>,
    open_files: Option<usize>,
    /// A process, and which of its namespaces the balancer enters.
    within: Option<(u32, &'static str)>,
    user: Option<u32>,
    folder: Arc<TempDir>,
}

impl Setup {
    /// A setup on the engine that `auto` chooses.
    pub fn auto() -> Self {
        let folder = tempfile::Builder::new().prefix("balancer-it-").tempdir().expect("a folder");
        watchdog::dir(folder.path());
        Self {
            config: json!({
                "listen": "127.0.0.1:0",
                "backends": [],
                "health_check": null,
                "rate_limit": { "default": null },
                "database": { "url": "sqlite:balancer.db" },
                "log": { "access": false },
            }),
            env: Vec::new(),
            engine: None,
            open_files: None,
            within: None,
            user: None,
            folder: Arc::new(folder),
        }
    }

    /// A setup on that engine.
    pub fn on(engine: Engine) -> Self {
        let setup = Self::auto().env("BALANCER__FRONTEND__ENGINE", engine.name());
        Self { engine: Some(engine), ..setup }
    }

    /// With that database.
    pub fn store(self, database: &Database) -> Self {
        self.set("database.url", json!(database.url))
    }

    /// With that many workers on the portable engine. A loop of the other engine serves any number of requests.
    pub fn workers(self, count: u32) -> Self {
        if self.engine == Some(Engine::TinyHttp) { self.set("frontend.workers", json!(count)) } else { self }
    }

    /// With only one loop where the engine has loops. Each loop keeps backend connections of its own.
    pub fn one_loop(self) -> Self {
        if self.engine == Some(Engine::TinyHttp) { self } else { self.set("frontend.workers", json!(1)) }
    }

    /// With one more backend, named by its place: `a`, `b`, …
    pub fn backend(self, address: SocketAddr) -> Self {
        self.backend_with(json!({ "url": format!("http://{address}") }))
    }

    /// With one more backend; a missing name is given by its place.
    pub fn backend_with(mut self, mut backend: Value) -> Self {
        let list = self.config["backends"].as_array_mut().expect("a list");
        if backend["name"].is_null() {
            let letter = char::from(b'a' + u8::try_from(list.len()).expect("few"));
            backend["name"] = json!(letter.to_string());
        }
        list.push(backend);
        self
    }

    /// With another value at a dotted path.
    pub fn set(mut self, path: &str, value: Value) -> Self {
        let mut place = &mut self.config;
        for key in path.split('.') {
            if place.is_null() {
                *place = json!({});
            }
            place = &mut place[key];
        }
        *place = value;
        self
    }

    /// With a variable in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// With a hard limit of open files.
    pub fn open_files(self, most: usize) -> Self {
        Self { open_files: Some(most), ..self }
    }

    /// With the file systems that the process with that number sees.
    pub fn with_mounts_of(self, pid: u32) -> Self {
        Self { within: Some((pid, "-m")), ..self }
    }

    /// In the network of the process with that number.
    pub fn with_network_of(self, pid: u32) -> Self {
        Self { within: Some((pid, "-n")), ..self }
    }

    /// As a process of another user, to whom its folder is given. Needs root.
    pub fn run_by(self, user: u32) -> Self {
        Self { user: Some(user), ..self }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the configuration file. Returns its path.
    pub fn write(&self) -> PathBuf {
        let path = self.folder().join("config.json");
        // Renamed, because another instance may be reading the file.
        let new = tempfile::NamedTempFile::new_in(self.folder()).expect("a file");
        std::fs::write(new.path(), serde_json::to_string_pretty(&self.config).expect("JSON"))
            .expect("written");
        new.persist(&path).expect("renamed");
        path
    }

    /// Starts the program and doesn't wait for anything.
    pub fn launch(&self) -> Proc {
        let path = self.write();
        let run = ["run", "--config", path.to_str().expect("UTF-8")];
        if let Some((pid, namespace)) = self.within {
            let enter = ["-t", &pid.to_string(), namespace, PROGRAM];
            return Proc::start("nsenter", &[&enter[..], &run].concat(), self.folder(), &self.env);
        }
        if let Some(user) = self.user {
            for path in [self.folder(), &path] {
                std::os::unix::fs::chown(path, Some(user), Some(user)).expect("given away");
            }
            let user = user.to_string();
            let become_user = ["--reuid", &user, "--regid", &user, "--clear-groups", PROGRAM];
            return Proc::start("setpriv", &[&become_user[..], &run].concat(), self.folder(), &self.env);
        }
        let Some(most) = self.open_files else {
            return Proc::start(PROGRAM, &run, self.folder(), &self.env);
        };
        let script = format!("ulimit -n {most} && exec \"$0\" \"$@\"");
        Proc::start("sh", &[&["-c", &script, PROGRAM][..], &run].concat(), self.folder(), &self.env)
    }

    /// Starts the program on a socket of the test, by systemd's protocol: descriptor 3, `LISTEN_PID` and `LISTEN_FDS`.
    pub fn launch_on(&self, socket: &TcpListener) -> Proc {
        let path = self.write();
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).expect("an open socket");
        // `exec` keeps the shell's process number.
        let fd = socket.as_raw_fd();
        let script = format!(r#"exec 3<&{fd}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" run --config "$1""#);
        let run = ["-c", &script, PROGRAM, path.to_str().expect("UTF-8")];
        Proc::start("bash", &run, self.folder(), &self.env)
    }

    /// Starts the program and waits until it listens. May be called again after the first one has ended; the folder with
    /// the SQLite file stays.
    #[track_caller]
    pub fn start(&self) -> Balancer {
        self.started(self.launch())
    }

    /// Waits until a process listens that was launched in another way.
    #[track_caller]
    pub fn started(&self, proc: Proc) -> Balancer {
        let address = listening(&proc.wait_out("listening on http://"));
        let separate = self.config["admin"]["listen"].is_string();
        let admin = if separate { listening(&proc.wait_out("admin on http://")) } else { address };
        Balancer { proc, address, admin, engine: self.engine, folder: Arc::clone(&self.folder) }
    }
}

/// The address in `listening on http://ADDR`.
#[track_caller]
pub fn listening(line: &str) -> SocketAddr {
    let text = line.rsplit("http://").next().unwrap_or_default().trim();
    text.parse().unwrap_or_else(|error| panic!("{error} in {line:?}"))
}

/// A balancer that listens.
pub struct Balancer {
    /// The process.
    pub proc: Proc,
    /// Its public port.
    pub address: SocketAddr,
    /// The address of its API.
    pub admin: SocketAddr,
    /// The engine that the test asked for.
    pub engine: Option<Engine>,
    folder: Arc<TempDir>,
}

impl Balancer {
    /// The folder of its configuration, and of its SQLite file.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        request(self.address, "GET", target, &[], b"")
    }

    /// One GET from another address of this machine.
    #[track_caller]
    pub fn get_from(&self, source: &str, target: &str) -> Response {
        Conn::from(source.parse::<IpAddr>().expect("an address"), self.address).get(target)
    }

    /// One call of the API.
    #[track_caller]
    pub fn api(&self, method: &str, target: &str, body: &Value) -> Response {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        request(self.admin, method, target, &[], body.as_bytes())
    }

    /// The sum of all series whose lines begin with that text, which holds the whole name of a metric that is there; 0 when
    /// there are none.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let text = request(self.admin, "GET", "/-/metrics", &[], b"").expect(200).text();
        let name = series.split(['{', ' ']).next().unwrap_or_default();
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
        let is_there = |family: &str| text.contains(&format!("\n# TYPE {family} "));
        assert!(is_there(name) || is_there(family), "there is no metric {name}");
        let lines = text.lines().filter(|line| line.starts_with(series));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// The value of one series, which has to be there.
    #[track_caller]
    pub fn series(&self, name: &str) -> f64 {
        let text = request(self.admin, "GET", "/-/metrics", &[], b"").expect(200).text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Creates a limit.
    #[track_caller]
    pub fn limit(&self, client: &str, capacity: u64, rate: impl Into<Value>) {
        let body = json!({ "client_id": client, "capacity": capacity, "rate_per_sec": rate.into() });
        self.api("POST", "/limits/create", &body).expect(201);
    }
}

/// A running `test_backend`.
pub struct Echo {
    /// The process.
    pub proc: Proc,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Echo {
    /// Starts one with these arguments, and a port.
    #[track_caller]
    pub fn start(args: &[&str]) -> Self {
        let mut all = vec!["--port", "0"];
        all.extend(args);
        let proc = Proc::start(TEST_BACKEND, &all, Path::new("/"), &[]);
        let address = listening(&proc.wait_out("listening on http://"));
        Self { proc, address }
    }
}
