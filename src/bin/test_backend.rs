//! `test_backend`: an echo server for trying a load balancer out. It answers every request with what was asked, as
//! JSON. Options make its answers slow, failing, chunked or large.
//!
//! Each connection has a thread. The thread pool of `tiny_http` leaves kept connections unserved in a burst, which
//! would look like a backend that hangs.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

#[path = "test_backend/answer.rs"]
mod answer;
#[path = "test_backend/server.rs"]
mod server;

use answer::Behaviour;
use server::Server;

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4096;

/// An echo server for trying a load balancer out: answers JSON with the method, the target and the body of each
/// request.
///
/// Prints `listening on http://ADDR` when it is ready. SIGUSR1 makes the health path fail, or pass again; SIGTERM and
/// SIGINT end it.
#[derive(Debug, Parser)]
#[command(name = "test_backend", version)]
struct Arguments {
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 9001)]
    port: u16,
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// What `X-Backend` says
    #[arg(long, default_value = "test_backend", value_parser = name)]
    name: String,
    /// Wait before each answer, those on the health path excepted: 250ms, 2s, 1m
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = duration)]
    delay: Duration,
    /// The path that SIGUSR1 makes fail
    #[arg(long, value_name = "PATH", default_value = "/health", value_parser = path)]
    health_path: String,
    /// Begin with a failing health path: it answers 503. With PATH, that is the health path
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "", value_parser = path_or_nothing)]
    fail_health: Option<String>,
    /// Status of every other answer, 200 to 599
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
    /// Answer in chunks instead of with a Content-Length
    #[arg(long)]
    chunked: bool,
    /// Answer with that many bytes of text instead of JSON
    #[arg(long, value_name = "BYTES")]
    size: Option<u64>,
    /// End the connection after each answer
    #[arg(long)]
    close: bool,
}

/// Text for a header field.
fn name(text: &str) -> Result<String, String> {
    let fits = (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned()).ok_or_else(|| "1 to 256 visible ASCII characters, no spaces".to_owned())
}

fn path(text: &str) -> Result<String, String> {
    text.starts_with('/').then(|| text.to_owned()).ok_or_else(|| "a path starts with `/`".to_owned())
}

fn path_or_nothing(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { path(text) }
}

/// A whole number with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err("a whole number with a unit: 250ms, 2s, 1m".to_owned()),
    };
    let number: u32 = number.parse().map_err(|_| "the number is missing or too large".to_owned())?;
    Ok(Duration::from_millis(u64::from(number) * unit_ms))
}

impl Arguments {
    fn behaviour(&self) -> Behaviour {
        let given = self.fail_health.as_ref().filter(|path| !path.is_empty());
        Behaviour {
            name: self.name.clone(),
            delay: self.delay,
            health_path: given.unwrap_or(&self.health_path).clone(),
            status: self.status,
            chunked: self.chunked,
            size: self.size,
            close: self.close,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("test_backend: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal ends it. Connections are not waited for: they end with the process.
fn run(arguments: &Arguments) -> io::Result<()> {
    // Before the listening line: a program that has read that line may send signals at once.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1])?;
    let address = SocketAddr::new(arguments.listen, arguments.port);
    let listener = TcpListener::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
    // The standard library's queue of 128 is short for a burst of a thousand connections.
    rustix::net::listen(&listener, BACKLOG)?;
    let server = Arc::new(Server::new(arguments.behaviour(), arguments.fail_health.is_some()));
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on http://{}", listener.local_addr()?)?;
    stdout.flush()?;
    {
        let server = Arc::clone(&server);
        thread::Builder::new().name("accept".to_owned()).spawn(move || server.accept(&listener))?;
    }
    for signal in signals.forever() {
        if signal != SIGUSR1 {
            break;
        }
        let failing = !server.failing.fetch_xor(true, Ordering::Relaxed);
        eprintln!("the health path {}", if failing { "fails" } else { "passes" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, String> {
        let all = std::iter::once("test_backend").chain(arguments.iter().copied());
        Arguments::try_parse_from(all).map_err(|error| error.to_string())
    }

    #[test]
    fn a_failing_health_path_can_be_named_or_not() {
        for (arguments, path, failing) in [
            (&[][..], "/health", false),
            (&["--health-path", "/up"], "/up", false),
            (&["--fail-health"], "/health", true),
            (&["--health-path", "/up", "--fail-health"], "/up", true),
            (&["--fail-health", "/"], "/", true),
        ] {
            let parsed = parse(arguments).unwrap();
            assert_eq!(parsed.behaviour().health_path, path, "{arguments:?}");
            assert_eq!(parsed.fail_health.is_some(), failing, "{arguments:?}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in [("0ms", 0), ("250ms", 250), ("2s", 2_000), ("1m", 60_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)));
        }
        for text in ["", "5", "ms", "1.5s", "-1s", "1 s", "99999999999s", "1h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for arguments in [
            ["--port", "65536"],
            ["--status", "199"],
            ["--status", "600"],
            ["--name", "a b"],
            ["--name", "a\r\nX: y"],
            ["--health-path", "up"],
            ["--fail-health", "up"],
            ["--size", "-1"],
        ] {
            assert!(parse(&arguments).is_err(), "{arguments:?}");
        }
    }
}
