//! Turns arguments into an exit code. This is the only place that ends the process.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use balancer::clock::Clock;
use balancer::config::{self, Options};
use balancer::{app, cli};

/// Wrong usage or configuration.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    let env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    match cli::parse(std::env::args_os()) {
        Ok(cli::Command::Run(options)) => run(&options, &env),
        Ok(cli::Command::Check(options)) => check(&options, &env),
        Ok(cli::Command::Healthcheck(options)) => healthcheck(&options, &env),
        Ok(cli::Command::Print(what)) => match cli::print(&what) {
            Ok(text) => {
                // Fails only if stdout is closed.
                let _ = std::io::stdout().write_all(&text);
                ExitCode::SUCCESS
            }
            Err(failure) => fail(failure.exit_code(), &failure),
        },
        Ok(cli::Command::Call(call)) => match cli::call(&call, &env) {
            Ok(()) | Err(cli::CommandFailure::Closed) => ExitCode::SUCCESS,
            Err(failure) => fail(failure.exit_code(), &failure),
        },
        Err(error) => {
            // Fails only if stdout is closed.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(WRONG))
        }
    }
}

fn run(options: &Options, env: &[(OsString, OsString)]) -> ExitCode {
    let loaded = match config::load(options, env) {
        Ok(loaded) => loaded,
        Err(faults) => return fail(WRONG, &faults),
    };
    if loaded.file.is_none() {
        let text = cli::summary(&loaded.config);
        let _ = write!(std::io::stderr(), "no configuration file is read; assumed:\n{text}");
    }
    let source = app::ConfigSource { options: options.clone(), env: env.to_vec() };
    match app::run(loaded.config, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(1, &failure),
    }
}

fn check(options: &Options, env: &[(OsString, OsString)]) -> ExitCode {
    match config::load(options, env) {
        Ok(loaded) => {
            let name = loaded.file.unwrap_or_default();
            let text = cli::summary(&loaded.config);
            if let Some(exposed) = &loaded.config.exposed {
                let _ = writeln!(std::io::stderr(), "warning: {exposed}");
            }
            for text in loaded.config.idle_keys() {
                let _ = writeln!(std::io::stderr(), "note: {text}");
            }
            let _ = write!(std::io::stdout(), "{}: OK\n{text}", name.display());
            ExitCode::SUCCESS
        }
        Err(faults) => fail(WRONG, &faults),
    }
}

/// Ends with 0 or 1, never with 2, which is reserved in container health checks. With `--listen` it reads no
/// configuration.
fn healthcheck(options: &Options, env: &[(OsString, OsString)]) -> ExitCode {
    let listen = match &options.listen {
        Some(text) => config::address(text)
            .map(cli::LivezPort::plain)
            .map_err(|fault| format!("--listen: {text:?} {fault}")),
        None => config::load(options, env)
            .map_err(|faults| faults.to_string())
            .and_then(|loaded| cli::LivezPort::of(&loaded.config).ok_or_else(|| "listen is empty".into())),
    };
    match listen.and_then(|asked| cli::healthcheck(asked, &Clock::real())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => fail(1, &text),
    }
}

fn fail(code: u8, text: &dyn std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(code)
}
