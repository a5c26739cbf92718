//! From the command line, the environment and the file to one checked [`Config`], or to every fault at once.

use std::ffi::OsString;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::environment::{self, Override};
use super::fault::Faults;
use super::{Config, DatabaseUrl, Given, Key, forms, read};
use crate::declare::{self, Fault, FaultOrigin, Lines, Member, Node, Report, Section, Value, tell_places};

/// Largest configuration file. 1,024 backends need about 100 KiB.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The permission bit by which users outside of the file's group may read it.
const OTHERS_READ: u32 = 0o004;

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--to`: backends without a file; when there are any, no file is read.
    pub to: Vec<String>,
    /// `--limit`, with `--to`: what every client gets.
    pub limit: Option<String>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--tls`, with `--to`: a certificate and its key, as `CERT,KEY`.
    pub tls: Option<String>,
    /// `--tls-listen`, with `--tls`.
    pub tls_listen: Option<String>,
    /// `--data`, with `--to`: the folder in which limits, and what clients have left, are kept.
    pub data: Option<PathBuf>,
}

impl Options {
    /// Where limits are kept unless `database.url` says it: in `--data`, else beside the file, and without a file in
    /// memory, so that trying the program out leaves nothing behind.
    fn store(&self, base: &Path) -> DatabaseUrl {
        match &self.data {
            Some(folder) => DatabaseUrl::Sqlite(folder.join("balancer.db")),
            None if self.to.is_empty() => DatabaseUrl::Sqlite(base.join("data/balancer.db")),
            None => DatabaseUrl::Memory,
        }
    }
}

/// A checked configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that was read, as the user named it; `None` with `--to`.
    pub file: Option<PathBuf>,
    /// Every key that exists, as the code declares it.
    pub keys: Vec<Key>,
}

/// Reads and checks the configuration: the file of `--config`, else of `BALANCER_CONFIG`, else `config.json`, or with
/// `--to` none; the environment over it; the command line over both.
///
/// # Errors
/// Every fault of them at once.
pub fn load(options: &Options, env: &[(OsString, OsString)]) -> Result<Loaded, Faults> {
    if !options.to.is_empty() {
        let root = Node::new(FaultOrigin::Flag("--to"), Value::Object(Vec::new()));
        return build("", root, options, env, Path::new("."), None);
    }
    let file = file_of(options, env);
    let name = file.display().to_string();
    let text = read_file(&file).map_err(|text| Faults::of_file(&name, text))?;
    let root = parse_file(&text).map_err(|fault| Faults::new(&name, vec![fault]))?;
    let base = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    build(&name, root, options, env, &base, Some(file))
}

/// Checks a text as if it stood in `config.json` of that folder, without environment and command line.
pub fn from_text(text: &str, base: &Path) -> Result<Config, Faults> {
    let name = "config.json";
    let root = parse_file(text).map_err(|fault| Faults::new(name, vec![fault]))?;
    build(name, root, &Options::default(), &[], base, None).map(|loaded| loaded.config)
}

/// Every key that exists, in the order in which the code reads them.
pub fn keys() -> Vec<Key> {
    // Some objects are read only when they are there: these two have all of them.
    const EVERY: [&str; 2] = [
        r#"{"backends": [{"name": "a", "url": "http://127.0.0.1:9001"}],
            "balancing": {"sticky": {"secret": "0123456789abcdef"}},
            "admin": {"tokens": [{"name": "a", "role": "read", "token_env": "A"}]},
            "rate_limit": {"default": {"capacity": 1, "rate_per_sec": 1}, "cors": {"origins": ["*"]}}}"#,
        r#"{"backends": [{"name": "a", "url": "http://127.0.0.1:9001"}],
            "rate_limit": {"default": {"buckets": [{"name": "day", "amount": 1, "per": "1d"}]}}}"#,
    ];
    let env = [("A".into(), "a-token-of-some-length".into())];
    let mut keys: Vec<Key> = Vec::new();
    for text in EVERY {
        let built = parse_file(text)
            .map_err(|fault| Faults::new("", vec![fault]))
            .and_then(|root| build("", root, &Options::default(), &env, Path::new("."), None));
        // Tests check that both are valid and that no key is left out.
        for key in built.map(|loaded| loaded.keys).unwrap_or_default() {
            if keys.iter().all(|known| known.path != key.path) {
                keys.push(key);
            }
        }
    }
    keys
}

/// An address to listen on, as `listen` takes it: `127.0.0.1:8080`, `[::]:8080`, `localhost:8080`.
///
/// # Errors
/// What is wrong with the text, to be put behind it.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    forms::address(text).map_err(|fault| fault.unwrap_or_else(|| "is not an address with a port".into()))
}

fn build(
    name: &str,
    mut root: Node,
    options: &Options,
    env: &[(OsString, OsString)],
    base: &Path,
    file: Option<PathBuf>,
) -> Result<Loaded, Faults> {
    let mut report = Report::of_configuration();
    if !matches!(root.value, Value::Object(_)) {
        let text = format!("must be an object; found {}", root.describe(false));
        return Err(Faults::new(name, vec![Fault { origin: root.origin, path: String::new(), text }]));
    }
    let mut changes = environment::overrides(env, &mut report.faults);
    changes.extend(flags(options));
    for change in changes {
        environment::apply(&mut root, change, &mut report.faults);
    }
    let section = Section::root(&mut report, root);
    let mut config = read::config(section, base, env, options.store(base));
    config.exposed = exposed(file.as_deref(), &report.secrets);
    config.changed = std::mem::take(&mut report.changed);
    config.given = Given::of(std::mem::take(&mut report.given));
    let (mut faults, keys) = (report.faults, report.keys.unwrap_or_default());
    tell_places(&mut faults, &keys);
    if faults.is_empty() { Ok(Loaded { config, file, keys }) } else { Err(Faults::new(name, faults)) }
}

/// A sentence for the operator when others than the file's owner and group can read secrets in it.
fn exposed(file: Option<&Path>, secrets: &[String]) -> Option<String> {
    let file = file.filter(|_| !secrets.is_empty())?;
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    (mode & OTHERS_READ != 0).then(|| {
        let name = file.display();
        format!(
            "{name} holds {} and everybody on this machine can read it: chmod o-r {name}, or name a file that only \
             balancer reads (BALANCER_ADMIN_TOKEN_FILE, BALANCER_DATABASE_URL_FILE)",
            secrets.join(", ")
        )
    })
}

fn parse_file(text: &str) -> Result<Node, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::of(text);
    declare::parse(text, &|offset| lines.at(offset))
}

fn file_of(options: &Options, env: &[(OsString, OsString)]) -> PathBuf {
    let variable = || env.iter().find(|(name, value)| name == "BALANCER_CONFIG" && !value.is_empty());
    match &options.file {
        Some(file) => file.clone(),
        None => variable().map_or_else(|| PathBuf::from("config.json"), |(_, value)| PathBuf::from(value)),
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(
            "there is no such file: name one with --config FILE or BALANCER_CONFIG, write one (only \"backends\" is \
             needed: {\"backends\": [{\"name\": \"a\", \"url\": \"http://127.0.0.1:9001\"}]}), or run without one: \
             balancer run --to http://127.0.0.1:9001"
                .into(),
        ),
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(length) if length as u64 > MAX_FILE_BYTES => Err(format!("is longer than {MAX_FILE_BYTES} bytes")),
        Ok(_) => String::from_utf8(bytes).map_err(|_| "is not UTF-8".into()),
    }
}

/// What the command line puts over everything else.
fn flags(options: &Options) -> Vec<Override> {
    let text = |flag, text: &str| Node::new(FaultOrigin::Flag(flag), Value::Text(text.to_owned()));
    let mut changes = Vec::new();
    if !options.to.is_empty() {
        let backends = options.to.iter().map(|to| backend(to)).collect();
        changes
            .push(Override::new(&["backends"], Node::new(FaultOrigin::Flag("--to"), Value::List(backends))));
    }
    if let Some(limit) = &options.limit {
        changes.push(Override::new(&["rate_limit", "default"], text("--limit", limit)));
    }
    if let Some(pair) = &options.tls {
        // Without a comma there is no key, which is a fault that says so.
        let (cert, key) = pair.split_once(',').unwrap_or((pair, ""));
        let pair = object("--tls", &[("cert", cert), ("key", key)]);
        let pairs = Node::new(FaultOrigin::Flag("--tls"), Value::List(vec![pair]));
        changes.push(Override::new(&["tls", "certificates"], pairs));
    }
    if let Some(listen) = &options.tls_listen {
        changes.push(Override::new(&["tls", "listen"], text("--tls-listen", listen)));
    }
    if let Some(listen) = &options.listen {
        changes.push(Override::new(&["listen"], text("--listen", listen)));
    }
    changes
}

/// A backend of `--to`: `:9001`, `9001`, `host:9001` or a whole URL; named by its host and port.
fn backend(to: &str) -> Node {
    let url = if to.contains("://") {
        to.to_owned()
    } else if to.starts_with(':') {
        format!("http://127.0.0.1{to}")
    } else if !to.is_empty() && to.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("http://127.0.0.1:{to}")
    } else {
        format!("http://{to}")
    };
    read::backend_by_address(&FaultOrigin::Flag("--to"), &url)
}

/// An object of texts that an option gave.
fn object(flag: &'static str, members: &[(&str, &str)]) -> Node {
    let origin = FaultOrigin::Flag(flag);
    let member = |(name, value): &(&str, &str)| Member {
        name: (*name).to_owned(),
        origin: origin.clone(),
        node: Node::new(origin.clone(), Value::Text((*value).to_owned())),
    };
    Node::new(origin.clone(), Value::Object(members.iter().map(member).collect()))
}
