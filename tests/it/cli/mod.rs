//! The commands that use the API: the real program asks a real balancer.

mod files;
mod limits;
mod place;
mod status;
mod top;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::balancer::PROGRAM;
use crate::support::{Backend, Balancer, Database, Setup, watchdog};

/// Stdout of `balancer backends` with these arguments, which asks that balancer and has to end well.
#[track_caller]
pub fn backends(balancer: &Balancer, args: &[&str]) -> String {
    let url = format!("http://{}", balancer.admin);
    Cli::new(&[&["backends", "--url", &url][..], args].concat()).run().good()
}

/// A balancer with one backend, and commands that talk to it.
struct Ground {
    balancer: Balancer,
    _backend: Backend,
}

/// What a command did.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// Stdout of a command that ended well.
    #[track_caller]
    fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.err, "", "{self:?}");
        self.out
    }

    /// Stderr of one that did not.
    #[track_caller]
    fn bad(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.err.trim().is_empty(), "it says why: {self:?}");
        self.err
    }
}

/// A command to be: arguments, environment, stdin. Its folder holds no configuration.
struct Cli {
    args: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Vec<u8>,
    folder: PathBuf,
}

impl Cli {
    fn new(args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Self { args, env: Vec::new(), stdin: Vec::new(), folder: "/".into() }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    fn stdin(self, text: impl Into<Vec<u8>>) -> Self {
        Self { stdin: text.into(), ..self }
    }

    fn folder(self, folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), ..self }
    }

    #[track_caller]
    fn run(self) -> Ran {
        let mut child = Command::new(PROGRAM)
            .args(&self.args)
            .current_dir(&self.folder)
            .env_clear()
            .envs(self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let pid = child.id();
        watchdog::kill(pid);
        let mut stdin = child.stdin.take().expect("piped");
        let text = self.stdin;
        // It may end without reading all of it.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&text)));
        let output = child.wait_with_output().expect("it ends");
        watchdog::gone(pid);
        writer.join().expect("no panic");
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

impl Ground {
    fn new(database: &Database) -> Self {
        let backend = Backend::named("a");
        let setup = Setup::auto().backend(backend.address()).store(database);
        // A busy machine's database may take long.
        let balancer = setup.set("database.timeout", json!("20s")).start();
        Self { balancer, _backend: backend }
    }

    fn cli(&self, args: &[&str]) -> Cli {
        Cli::new(args).env("BALANCER_URL", &format!("http://{}", self.balancer.admin))
    }

    /// A command without stdin that has to end well; its stdout.
    #[track_caller]
    fn good(&self, args: &[&str]) -> String {
        self.cli(args).run().good()
    }

    /// The same with `--json`: one value.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let out = self.good(&[args, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error} in {out}"))
    }
}
