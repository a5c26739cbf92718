//! The error log: what the `log` macros say, as lines on stderr, written by `simplelog`. They go through a queue and a
//! thread of their own (see [`super::lines`]): a worker that has something to say never waits for the reader of stderr.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::{Config, ConfigBuilder, LevelPadding, WriteLogger};

use super::lines::{LogLines, LogReport, Output, push_entry, push_time};
use crate::clock::Clock;
use crate::config::{LogConfig, LogFormat};

/// How long the last lines may take at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Keeps the error log alive; dropping it writes what is queued, at most for a second. `main` drops it before it
/// exits.
#[derive(Debug)]
pub struct ErrorLog(Option<Arc<LogLines>>);

/// Starts the error log at the level of the configuration. A second call in one process changes only the level.
///
/// # Errors
/// When stderr can't be duplicated, or the system gives no thread.
pub fn start(config: &LogConfig, clock: Clock) -> io::Result<ErrorLog> {
    let report = match config.format {
        LogFormat::Text => LogReport::InBand,
        LogFormat::Json => LogReport::InBandJson,
    };
    let lines = Arc::new(LogLines::start("error log", Output::of(io::stderr())?, report, clock.clone())?);
    let queue = Arc::clone(&lines);
    let push = move |line| queue.push(line);
    let logger: Box<dyn Log> = match config.format {
        LogFormat::Text => Box::new(logger(LineWriter { clock, line: Vec::new(), push })),
        LogFormat::Json => Box::new(Objects { clock, push }),
    };
    let first = log::set_boxed_logger(logger).is_ok();
    set_level(config.level);
    Ok(ErrorLog(first.then_some(lines)))
}

/// Changes the level, for a reload.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

impl Drop for ErrorLog {
    fn drop(&mut self) {
        if let Some(lines) = &self.0 {
            lines.stop(FLUSH_TIMEOUT);
        }
    }
}

fn logger<W: Write + Send + 'static>(to: W) -> Plain<WriteLogger<W>> {
    // `log::max_level` decides, so that a reload can change it.
    Plain(*WriteLogger::new(LevelFilter::Trace, format(), to))
}

/// `[WARN] text`, before which [`LineWriter`] puts the time. Thread and module are named only at `debug` and below,
/// which is for finding a place in the code.
fn format() -> Config {
    ConfigBuilder::new().set_level_padding(LevelPadding::Off).set_time_level(LevelFilter::Off).build()
}

/// Escapes control characters, so that a record stays on one line.
struct Plain<L>(L);

/// Whether a record is written. Those of packages that we use are written at `warn` and above only: at `debug` they
/// repeat what clients and databases say, secrets among it.
fn is_heard(metadata: &Metadata<'_>) -> bool {
    let package = metadata.target().split("::").next();
    let ours = package == Some(env!("CARGO_CRATE_NAME"));
    // `tiny_http` logs one error, about accepting, also when we stop accepting ourselves. We report that error where it
    // is one.
    let repeats = package == Some("tiny_http");
    ours || (metadata.level() <= Level::Warn && !repeats)
}

/// Writes each record as a JSON object, for machines that read stderr (`log.format` is `json`).
struct Objects<P> {
    clock: Clock,
    push: P,
}

impl<P: Fn(Vec<u8>) + Send + Sync> Log for Objects<P> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_heard(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut line = Vec::new();
            push_entry(&mut line, self.clock.wall(), record.level(), &record.args().to_string(), true);
            (self.push)(line);
        }
    }

    fn flush(&self) {}
}

impl<L: Log> Log for Plain<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_heard(metadata) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Formatted before the writer's lock is taken: an argument that panics must not poison it.
        let text = record.args().to_string();
        let escaped = if text.chars().any(char::is_control) { escape(&text) } else { text };
        let mut line = Record::builder();
        line.level(record.level()).target(record.target()).file(record.file()).line(record.line());
        self.0.log(&line.args(format_args!("{escaped}")).build());
    }

    fn flush(&self) {
        self.0.flush();
    }
}

fn escape(text: &str) -> String {
    let piece =
        |char: char| if char.is_control() { char.escape_default().to_string() } else { char.to_string() };
    text.chars().map(piece).collect()
}

/// Gathers what `simplelog` writes in pieces into lines, and puts the time before each.
struct LineWriter<P> {
    clock: Clock,
    line: Vec<u8>,
    push: P,
}

impl<P: Fn(Vec<u8>)> Write for LineWriter<P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.line.is_empty() {
            push_time(&mut self.line, self.clock.wall());
            self.line.push(b' ');
        }
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            (self.push)(std::mem::take(&mut self.line));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    fn said(level: Level, target: &str, text: &str) -> String {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&kept);
        let push = move |line: Vec<u8>| to.lock().extend(line);
        let logger = logger(LineWriter { clock: Clock::manual(), line: Vec::new(), push });
        logger.log(&Record::builder().level(level).target(target).args(format_args!("{text}")).build());
        let bytes = kept.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_has_time_in_utc_level_and_text() {
        let line = said(Level::Warn, "balancer::proxy", "backend a is down");
        assert_eq!(line, "1970-01-01T01:00:00.000Z [WARN] backend a is down\n");
    }

    #[test]
    fn as_an_object_it_has_the_same_and_stays_on_its_line() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&kept);
        let logger = Objects { clock: Clock::manual(), push: move |line: Vec<u8>| to.lock().extend(line) };
        let text = "id \"a\nb\x1b[31m\"";
        for target in ["balancer::proxy", "ureq"] {
            logger.log(
                &Record::builder().level(Level::Info).target(target).args(format_args!("{text}")).build(),
            );
        }
        let line = String::from_utf8(kept.lock().clone()).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        let time = "1970-01-01T01:00:00.000Z";
        assert_eq!(object, serde_json::json!({ "time": time, "level": "info", "message": text }));
    }

    #[test]
    fn text_of_strangers_stays_on_its_line() {
        let line = said(Level::Info, "balancer", "id \"a\nb\x1b[31m\u{9b}\"");
        assert!(line.ends_with(" [INFO] id \"a\\nb\\u{1b}[31m\\u{9b}\"\n"), "{line:?}");
    }

    #[test]
    fn other_packages_are_heard_from_warn_on() {
        for (level, target, heard) in [
            (Level::Debug, "ureq::unversioned", false),
            (Level::Info, "balancerx", false),
            (Level::Warn, "ureq", true),
            (Level::Error, "tiny_http", false),
            (Level::Debug, "balancer::store", true),
        ] {
            assert_eq!(!said(level, target, "x").is_empty(), heard, "{target} at {level}");
        }
    }
}
