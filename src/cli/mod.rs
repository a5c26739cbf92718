//! The command line: reads the arguments into a [`Command`], on which `main` acts, and runs the commands that ask a
//! running balancer.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Options;

mod api;
mod backends;
mod failure;
mod healthcheck;
mod limits;
mod pages;
mod plans;
mod print;
mod reload;
mod session;
mod status;
mod summary;
mod top;

pub use failure::CommandFailure;
pub use healthcheck::{LivezPort, healthcheck};
pub use print::{Print, print};
pub use summary::summary;

/// The environment variables of the process.
pub type Env<'a> = &'a [(OsString, OsString)];

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Balance until a signal comes.
    Run(Options),
    /// Check the configuration and start nothing.
    Check(Options),
    /// Ask the running balancer whether it is alive.
    Healthcheck(Options),
    /// Ask the API of a running balancer, with [`call`].
    Call(ApiCommand),
    /// Print what the program knows about itself, which [`print()`] makes.
    Print(Print),
}

/// A command that asks a running balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiCommand {
    /// `limits …`
    Limits(limits::LimitsCommand),
    /// `reload`
    Reload(reload::Reload),
    /// `plans …`
    Plans(plans::PlansCommand),
    /// `backends …`
    Backends(backends::BackendsCommand),
    /// `top`
    Top(top::TopCommand),
    /// `status`
    Status(status::StatusCommand),
}

/// Asks a running balancer, and prints its answer to stdout.
///
/// # Errors
/// What went wrong, with its exit code.
pub fn call(call: &ApiCommand, env: Env<'_>) -> Result<(), CommandFailure> {
    match call {
        ApiCommand::Limits(limits) => limits::run(limits, env),
        ApiCommand::Reload(reload) => reload::run(reload, env),
        ApiCommand::Plans(plans) => plans::run(plans, env),
        ApiCommand::Backends(backends) => backends::run(backends, env),
        ApiCommand::Top(top) => top::run(top, env),
        ApiCommand::Status(status) => status::run(status, env),
    }
}

/// Reads the arguments, of which the first is the name of the program.
///
/// # Errors
/// For wrong usage, with exit code 2; and for `--help` and `--version`, with exit code 0. The error can print itself.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let arguments = Arguments::try_parse_from(arguments)?;
    Ok(match arguments.command {
        None => Command::Run(arguments.run.into()),
        Some(Asked::Run(run)) => Command::Run(run.into()),
        Some(Asked::Check(source)) => Command::Check(source.into()),
        Some(Asked::Healthcheck(source)) => Command::Healthcheck(source.into()),
        Some(Asked::Limits(limits)) => Command::Call(ApiCommand::Limits(limits)),
        Some(Asked::Config { what: ConfigText::Schema }) => Command::Print(Print::Schema),
        Some(Asked::Config { what: ConfigText::Reference }) => Command::Print(Print::Reference),
        Some(Asked::Completions { shell }) => Command::Print(Print::Completions(shell)),
        Some(Asked::Man { all: None }) => Command::Print(Print::Man),
        Some(Asked::Man { all: Some(folder) }) => Command::Print(Print::Pages(folder)),
        Some(Asked::Reload(reload)) => Command::Call(ApiCommand::Reload(reload)),
        Some(Asked::Plans(plans)) => Command::Call(ApiCommand::Plans(plans)),
        Some(Asked::Backends(backends)) => Command::Call(ApiCommand::Backends(backends)),
        Some(Asked::Top(top)) => Command::Call(ApiCommand::Top(top)),
        Some(Asked::Status(status)) => Command::Call(ApiCommand::Status(status)),
    })
}

const EXAMPLES: &str = "\
Examples:
  balancer run --to :9001 --to :9002 --limit 10/s
      Balance over two local ports, each client 10 requests a second; no file is read, and none written: --data DIR
      keeps what is set.
  balancer --config /etc/balancer/config.json
      Balance as that file says.
  balancer check
      Judge ./config.json: every fault with its line, or a summary.
  BALANCER__FRONTEND__WORKERS=64 balancer
      Replace one value of the file.

Configuration: the file of --config, else of BALANCER_CONFIG, else ./config.json.
Environment, over the file:
  BALANCER_LISTEN         listen: 127.0.0.1:8080
  BALANCER_DATABASE_URL   database.url: sqlite:PATH or postgres://...
  BALANCER_ADMIN_TOKEN    admin.token: the bearer token of the API
  BALANCER_LOG_LEVEL      log.level: off, error, warn, info, debug, trace
  BALANCER__A__B          any key a.b, as JSON or text
  BALANCER_DATABASE_URL_FILE, BALANCER_ADMIN_TOKEN_FILE
                          the same secrets, read from a file

Limits are set while it runs, here or over HTTP:
  balancer limits set 127.0.0.1 2/s
  curl -X POST localhost:8080/limits/create -d '{\"client_id\":\"127.0.0.1\",\"capacity\":10,\"rate_per_sec\":1}'
  BALANCER_URL            which balancer limits, plans and top talk to, if not the configured one

Exit code: 0 after a drained SIGTERM or SIGINT, 2 for wrong usage or configuration, 1 otherwise.";

/// Spreads HTTP requests over a pool of backends and holds every client to its own token bucket.
///
/// Limits are set over HTTP while it runs, are kept in SQLite or PostgreSQL, and take effect on the client's next
/// request. Without a command it runs, like `balancer run`.
#[derive(Parser)]
#[command(name = "balancer", version, after_long_help = EXAMPLES, after_help = "More, with examples: balancer --help")]
#[command(args_conflicts_with_subcommands = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Asked>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Asked {
    /// Balance until SIGTERM or SIGINT [default].
    #[command(after_long_help = EXAMPLES)]
    Run(Run),
    /// Judge the configuration: a summary and exit code 0, or every fault and 2.
    Check(Source),
    /// Ask /-/livez of the configured listener: exit code 0 when it answers 200, else 1.
    Healthcheck(Source),
    /// What single clients may do: list, show, set and remove limits of a running balancer.
    Limits(limits::LimitsCommand),
    /// Make the running balancer read its configuration again; a wrong one changes nothing, and every fault is told.
    Reload(reload::Reload),
    /// What several clients may do alike: list, show, set and remove plans of a running balancer.
    Plans(plans::PlansCommand),
    /// Where requests go: list, add, change, drain and remove backends of a running balancer.
    Backends(backends::BackendsCommand),
    Top(top::TopCommand),
    Status(status::StatusCommand),
    /// What the configuration file may hold, for editors and for people.
    #[command(arg_required_else_help = true)]
    Config {
        #[command(subcommand)]
        what: ConfigText,
    },
    /// A script that completes this program's arguments: balancer completions bash
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// The manual page, as roff: balancer man | man -l -
    Man {
        /// Write this page and those of all commands into that folder: /usr/local/share/man/man1.
        #[arg(long, value_name = "DIR")]
        all: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum ConfigText {
    /// Its JSON Schema; name it in the file as "$schema".
    Schema,
    /// Every key with what it takes, its default and what it is for, as Markdown.
    Reference,
}

#[derive(Args)]
struct Source {
    /// Configuration file [default: BALANCER_CONFIG, else ./config.json].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The listener's address, whatever the configuration says: 127.0.0.1:8080, [::]:8080.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    source: Source,
    /// A backend: http://HOST:PORT, HOST:PORT or :PORT. May be repeated; no file is read then.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    to: Vec<String>,
    /// With --to: what every client without a limit of its own gets: 100/s, "600/m burst 50", 10000/d.
    #[arg(long, value_name = "RATE", requires = "to")]
    limit: Option<String>,
    /// With --to: speak TLS, too, with this certificate and its key, both in PEM form.
    #[arg(long, value_name = "CERT,KEY", requires = "to")]
    tls: Option<String>,
    /// With --tls: where [default: 127.0.0.1:8443].
    #[arg(long, value_name = "ADDR", requires = "tls")]
    tls_listen: Option<String>,
    /// With --to: the folder in which limits are kept [default: in memory, gone with the process].
    #[arg(long, value_name = "DIR", requires = "to")]
    data: Option<PathBuf>,
}

impl From<Source> for Options {
    fn from(source: Source) -> Self {
        Self { file: source.config, listen: source.listen, ..Self::default() }
    }
}

impl From<Run> for Options {
    fn from(run: Run) -> Self {
        Self {
            to: run.to,
            limit: run.limit,
            tls: run.tls,
            tls_listen: run.tls_listen,
            data: run.data,
            ..run.source.into()
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The arguments of one command, read as clap reads a command line.
    pub(crate) fn command<A: Args>(line: &str) -> Result<A, clap::Error> {
        let command = A::augment_args(clap::Command::new("test").no_binary_name(true));
        A::from_arg_matches(&command.try_get_matches_from(line.split_whitespace())?)
    }

    #[test]
    fn the_tree_of_commands_is_sound() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    fn read(line: &str) -> Result<Command, clap::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn arguments_become_commands() {
        let file = |name: &str| Options { file: Some(name.into()), ..Options::default() };
        let to = Options {
            to: vec![":1".into(), "http://h".into()],
            limit: Some("10/s".into()),
            listen: Some("[::]:80".into()),
            ..Options::default()
        };
        let secure =
            Options { tls: Some("a.pem,a.key".into()), tls_listen: Some("[::]:443".into()), ..to.clone() };
        let kept = Options { data: Some("d".into()), ..to.clone() };
        for (line, expected) in [
            ("balancer", Command::Run(Options::default())),
            ("balancer run", Command::Run(Options::default())),
            ("balancer --config x.json", Command::Run(file("x.json"))),
            ("balancer run --config x.json", Command::Run(file("x.json"))),
            ("balancer check --config x.json", Command::Check(file("x.json"))),
            ("balancer healthcheck", Command::Healthcheck(Options::default())),
            ("balancer reload", Command::Call(ApiCommand::Reload(reload::Reload::default()))),
            ("balancer run --to :1 --to http://h --limit 10/s --listen [::]:80", Command::Run(to.clone())),
            ("balancer --to :1 --to http://h --limit 10/s --listen [::]:80", Command::Run(to)),
            ("balancer run --to :1 --to http://h --limit 10/s --listen [::]:80 --data d", Command::Run(kept)),
            (
                "balancer run --to :1 --to http://h --limit 10/s --listen [::]:80 --tls a.pem,a.key --tls-listen [::]:443",
                Command::Run(secure),
            ),
        ] {
            assert_eq!(read(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_2_and_help_is_0() {
        for (line, code) in [
            ("balancer dance", 2),
            ("balancer --nope", 2),
            ("balancer run --limit 10/s", 2),
            ("balancer run --data d", 2),
            ("balancer run --tls a,b", 2),
            ("balancer run --to :1 --tls-listen :1", 2),
            ("balancer run --to :1 --config x", 2),
            ("balancer --config x check", 2),
            ("balancer check --to :1", 2),
            ("balancer limits", 2),
            ("balancer run --to", 2),
            ("balancer --help", 0),
            ("balancer run --help", 0),
            ("balancer --version", 0),
        ] {
            let error = read(line).unwrap_err();
            assert_eq!(error.exit_code(), code, "{line}");
            assert_eq!(error.use_stderr(), code == 2, "{line}");
        }
    }

    #[test]
    fn help_names_every_command_option_and_variable() {
        let help = read("balancer --help").unwrap_err().to_string();
        for word in [
            "run",
            "check",
            "healthcheck",
            "reload",
            "--config",
            "--to",
            "--limit",
            "--data",
            "--tls",
            "--tls-listen",
            "--listen",
            "--version",
            "BALANCER_CONFIG",
            "BALANCER_LISTEN",
            "BALANCER_DATABASE_URL",
            "BALANCER_ADMIN_TOKEN",
            "BALANCER_LOG_LEVEL",
            "BALANCER__A__B",
            "_FILE",
            "balancer run --to :9001",
        ] {
            assert!(help.contains(word), "{word}\n{help}");
        }
    }
}
