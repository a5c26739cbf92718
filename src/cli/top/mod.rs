//! `balancer top`: shows the clients with the most requests, those with the most refusals, and the backends, again and
//! again.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::Env;
use super::api::Api;
use super::failure::CommandFailure;
use super::session::{ApiSession, Common};
use balancer_http::path::encoded;
use balancer_limiter::limit::parse_per;

mod screen;
mod terminal;

use screen::{BackendNumbers, Picture, RankedClient};
use terminal::{Terminal, Woken};

const EXAMPLES: &str = "\
Examples:
  balancer top
  balancer top --window 15m --every 10s
  balancer top --once --json | jq .limited

Counts are of the one instance that is asked, and of its last --window. They come from a sketch of bounded size: the clients
at its top are right, those far below may be missing. Piped, it prints once and ends.";

/// Watch the clients that ask most, those that are refused most, and the backends. q or Ctrl-C ends it.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub struct TopCommand {
    #[command(flatten)]
    common: Common,
    /// How far back is counted: 15s to 1h.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = span)]
    window: Span,
    /// How often it is asked again: 1s to 1h.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = span)]
    every: Span,
    /// Most clients in each table [default: as many as fit; 20 when piped].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rows: Option<u16>,
    /// Print once and end.
    #[arg(long)]
    once: bool,
}

/// A time as it was written, and in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    text: String,
    secs: u32,
}

/// Rows of a table where no terminal says how many fit.
const ROWS: u16 = 20;

fn span(text: &str) -> Result<Span, String> {
    match parse_per(text) {
        Some(secs) if secs <= 3_600 => Ok(Span { text: text.to_owned(), secs }),
        _ => Err("must be a time from 1s to 1h, such as 5m".to_owned()),
    }
}

#[derive(Deserialize)]
struct Asking<'a> {
    #[serde(borrow)]
    clients: Vec<RankedClient<'a>>,
    instance: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct Limited<'a> {
    #[serde(borrow)]
    limited: Vec<RankedClient<'a>>,
}

/// The members of an overview that are shown here.
#[derive(Deserialize)]
struct Glance {
    text: String,
    backends: Vec<BackendNumbers>,
}

/// The answers of one round. Tables are read from the texts when they are drawn.
struct Answers {
    clients: String,
    limited: String,
    glance: Glance,
    /// Most backends that are shown.
    rows: u16,
}

impl Answers {
    fn ask(api: &Api, window: &str, rows: u16) -> Result<Self, CommandFailure> {
        let ask = |what: &str| api.get(&format!("/-/v1/{what}?window={}&top={rows}", encoded(window)));
        let glance = api.read(&api.get("/-/v1/overview")?)?;
        Ok(Self { clients: ask("clients")?, limited: ask("limited")?, glance, rows })
    }

    fn picture<'a>(&'a self, api: &'a Api, top: &'a TopCommand) -> Result<Picture<'a>, CommandFailure> {
        let asking: Asking<'a> = api.read(&self.clients)?;
        let limited: Limited<'a> = api.read(&self.limited)?;
        Ok(Picture {
            place: api.base(),
            instance: asking.instance,
            window: &top.window.text,
            window_secs: top.window.secs,
            clients: asking.clients,
            limited: limited.limited,
            glance: &self.glance.text,
            backends: &self.glance.backends[..self.glance.backends.len().min(self.rows.into())],
            fault: None,
        })
    }

    /// All answers in one object.
    fn json(&self, api: &Api) -> Result<String, CommandFailure> {
        let clients: serde_json::Map<String, serde_json::Value> = api.read(&self.clients)?;
        let mut limited: serde_json::Map<String, serde_json::Value> = api.read(&self.limited)?;
        limited.extend(clients);
        limited.insert("backends".into(), serde_json::to_value(&self.glance.backends).unwrap_or_default());
        Ok(serde_json::Value::Object(limited).to_string())
    }
}

/// Runs the command.
pub(super) fn run(top: &TopCommand, env: Env<'_>) -> Result<(), CommandFailure> {
    let mut session = ApiSession::open(&top.common, env)?;
    let live = session.out.is_terminal() && !top.once && !session.out.is_json();
    if live { watch(top, &session.api) } else { print(top, &mut session) }
}

/// Prints one round.
fn print(top: &TopCommand, session: &mut ApiSession) -> Result<(), CommandFailure> {
    let ApiSession { api, out } = session;
    let answers = Answers::ask(api, &top.window.text, top.rows.unwrap_or(ROWS))?;
    if out.is_json() {
        out.line(&answers.json(api)?)?;
    } else {
        let picture = answers.picture(api, top)?;
        out.table(&screen::ASKING, &picture.asking_rows())?;
        out.line("")?;
        out.table(&screen::REFUSED, &picture.refused_rows())?;
        out.line("")?;
        out.table(&screen::BACKENDS, &picture.backend_rows())?;
    }
    out.flush()
}

/// Draws round after round, until the user types q or a signal comes.
fn watch(top: &TopCommand, api: &Api) -> Result<(), CommandFailure> {
    // The first round comes before the screen is taken, so that a wrong address is reported as by every other command.
    let mut answers = Answers::ask(api, &top.window.text, top.rows.unwrap_or(ROWS))?;
    let mut fault = None;
    let terminal = Terminal::take()?;
    loop {
        let (columns, lines) = terminal.size();
        let mut picture = answers.picture(api, top)?;
        picture.fault = fault.as_deref();
        terminal.draw(&picture.lines(columns, lines))?;
        match terminal.wait(Duration::from_secs(top.every.secs.into())) {
            Woken::Quit => return Ok(()),
            // The screen has another size: the last answers are drawn again.
            Woken::Resized => continue,
            Woken::Elapsed => {}
        }
        let rows = top.rows.unwrap_or(screen::most_rows(terminal.size().1));
        // When the balancer does not answer, the last counts stay on the screen.
        fault = match Answers::ask(api, &top.window.text, rows) {
            Ok(new) => {
                answers = new;
                None
            }
            Err(failure) => Some(failure.to_string()),
        };
    }
}
