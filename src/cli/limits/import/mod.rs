//! `balancer limits import`: sets many limits from a file.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::entry::{self, EntryColumns};
use super::export::Format;
use crate::cli::failure::CommandFailure;
use crate::cli::session::{ApiSession, shown};
use crate::clock::Clock;

mod lines;
mod progress;
mod send;

use lines::{ImportLines, Line};
use progress::Progress;
use send::{ImportTally, Sender};

const EXAMPLES: &str = "\
Examples:
  balancer limits import limits.jsonl
  balancer limits import --dry-run customers.csv
  balancer limits export --url http://old:8080 | balancer limits import --url http://new:8080

JSON lines: what export writes, or {\"client_id\":\"10.0.0.7\",\"rate\":\"2/s\"}, or the fixed calls' capacity and rate_per_sec.
CSV: the first line names the columns: client_id, and of plan, buckets, rate, capacity, rate_per_sec, max_in_flight, mode,
shared, per_instance, weight, priority those that are needed:
  client_id,rate,plan
  10.0.0.7,600/m burst 50,
  tenant=acme,,pro

A limit that is there already is replaced, so an import can be repeated. Lines that are wrong are named by number and left
out; the others are imported, and the exit code is 1.";

/// Set many limits from a file, or from stdin.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub struct Import {
    /// The file; - is stdin.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// How it is written [default: by its beginning].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Only judge the lines; nothing is asked or changed.
    #[arg(long)]
    dry_run: bool,
    /// Stop at this many wrong lines.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    max_errors: u64,
}

/// Lines that could not be imported.
struct Faults {
    name: String,
    most: u64,
    found: Vec<(u64, String)>,
}

impl Faults {
    /// Adds a fault and prints it to stderr at once. Fails when there are too many.
    fn add(&mut self, line: u64, detail: String) -> Result<(), CommandFailure> {
        // When stderr is closed, there is no place to report that.
        let _ = writeln!(std::io::stderr(), "{}:{line}: {}", self.name, shown(&detail));
        self.found.push((line, detail));
        if self.found.len() as u64 >= self.most {
            return Err(CommandFailure::Incomplete(format!("{} wrong lines: given up", self.found.len())));
        }
        Ok(())
    }
}

/// Runs the command. `open` is not called for a dry run.
pub fn run(
    import: &Import,
    json: bool,
    open: impl FnOnce() -> Result<ApiSession, CommandFailure>,
) -> Result<(), CommandFailure> {
    let clock = Clock::real();
    let stdin = import.file.as_os_str() == "-";
    let name = if stdin { "stdin".to_owned() } else { import.file.display().to_string() };
    let unreadable = |error: std::io::Error| CommandFailure::Usage(format!("{name}: {error}"));
    let (source, size): (Box<dyn BufRead>, Option<u64>) = if stdin {
        (Box::new(BufReader::new(std::io::stdin())), None)
    } else {
        let file = File::open(&import.file).map_err(unreadable)?;
        let size = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        (Box::new(BufReader::with_capacity(1 << 17, file)), size)
    };
    let mut faults = Faults { name: name.clone(), most: import.max_errors, found: Vec::new() };
    let mut out = crate::cli::session::CommandOutput::stdout(json);
    let api = if import.dry_run { None } else { Some(open()?.api) };
    let started_ns = clock.now();
    let mut progress = Progress::new(size, &clock);
    let mut sender = Sender::new(api.as_ref(), &clock);
    let ended = feed(ImportLines::new(source), import.format, &mut sender, &mut faults, &mut progress);
    progress.clear();
    let seconds = Duration::from_nanos(clock.now().saturating_sub(started_ns)).as_secs_f64();
    let count = sender.imported();
    report(&mut out, import.dry_run, &sender, seconds, &faults)?;
    match ended {
        Ok(()) if faults.found.is_empty() => Ok(()),
        Ok(()) => {
            Err(CommandFailure::Incomplete(format!("{} wrong lines were left out", faults.found.len())))
        }
        Err(failure) if import.dry_run => Err(failure),
        Err(failure) => Err(CommandFailure::Incomplete(format!(
            "{failure}\n{count} limits were imported; when that is mended, the same import can be repeated"
        ))),
    }
}

/// Reads, checks and sends all lines.
fn feed(
    mut lines: ImportLines<Box<dyn BufRead>>,
    format: Option<Format>,
    sender: &mut Sender<'_>,
    faults: &mut Faults,
    progress: &mut Progress<'_>,
) -> Result<(), CommandFailure> {
    let mut format = format;
    let mut columns = None;
    while let Some(Line { number, text, end }) = lines.next().map_err(|error| {
        CommandFailure::Incomplete(format!("{}: cannot be read to its end: {error}", faults.name))
    })? {
        let judged = match text {
            Err(fault) => Err(fault),
            Ok(text) => match *format.get_or_insert_with(|| guessed(text)) {
                Format::Jsonl => entry::of_json(text),
                Format::Csv => match &columns {
                    Some(columns) => EntryColumns::read(columns, text),
                    None => {
                        let head = EntryColumns::of_head(text).map_err(|fault| {
                            CommandFailure::Incomplete(format!("{}:{number}: {fault}", faults.name))
                        })?;
                        columns = Some(head);
                        continue;
                    }
                },
            },
        };
        match judged {
            Ok(terms) => sender.add(number, &terms, faults)?,
            Err(fault) => {
                progress.clear();
                faults.add(number, fault)?;
            }
        }
        progress.show(end, sender.imported(), faults.found.len());
    }
    sender.finish(faults)
}

/// The format of a source, by its first line: a JSON object begins with a brace, which no name of a column does.
fn guessed(first: &str) -> Format {
    if first.trim_start().starts_with('{') { Format::Jsonl } else { Format::Csv }
}

fn report(
    out: &mut crate::cli::session::CommandOutput,
    dry_run: bool,
    sender: &Sender<'_>,
    seconds: f64,
    faults: &Faults,
) -> Result<(), CommandFailure> {
    let (count, stored) = (sender.imported(), sender.stored());
    let per_second = (count as f64 / seconds.max(0.001)).round() as u64;
    if out.is_json() {
        let bad: Vec<_> =
            faults.found.iter().map(|(line, detail)| json!({ "line": line, "detail": detail })).collect();
        out.line(
            &json!({ "imported": if dry_run { 0 } else { count }, "good": count, "bad": bad,
                "created": stored.created, "replaced": stored.replaced, "unchanged": stored.unchanged,
                "seconds": seconds, "per_second": per_second })
            .to_string(),
        )?;
    } else if dry_run {
        out.line(&format!("{count} lines are good; nothing was changed"))?;
    } else {
        let ImportTally { created, replaced, unchanged } = stored;
        out.line(&format!(
            "imported {count} limits in {seconds:.2} s, {per_second} a second: {created} new, {replaced} changed, \
             {unchanged} as they were"
        ))?;
    }
    out.flush()
}
