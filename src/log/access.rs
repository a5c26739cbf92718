//! The access log: one line for each request, to stdout or to a file, written by a thread of its own (see
//! [`super::lines`]). stdout also carries the lines that say where we listen. They go through
//! [`AccessLogWriter::announce`], so that nothing is written into the middle of another line.

use std::io::{self, Write};
use std::time::Duration;

use super::lines::{LogLines, LogReport, Output};
use crate::clock::Clock;
use crate::config::{self, AccessFormat, LogConfig};
use crate::log::record::{AccessRecord, Journal};

mod combined;
mod line;

/// The access log, or its absence.
#[derive(Debug)]
pub struct AccessLogWriter {
    lines: Option<LogLines>,
    owns_stdout: bool,
    format: AccessFormat,
    query: bool,
}

impl AccessLogWriter {
    /// Opens what `log.access` names and starts the thread. A file is made with its folders.
    ///
    /// # Errors
    /// When the file can't be opened, or the system gives no thread.
    pub fn start(config: &LogConfig, clock: Clock) -> io::Result<Self> {
        let output = match &config.access {
            config::AccessLog::Off => None,
            config::AccessLog::Stdout => Some(Output::of(io::stdout())?),
            config::AccessLog::File(path) => Some(Output::append(path)?),
        };
        Ok(Self {
            lines: output
                .map(|output| LogLines::start("access log", output, LogReport::ErrorLog, clock))
                .transpose()?,
            owns_stdout: config.access == config::AccessLog::Stdout,
            format: config.access_format,
            query: config.query.unwrap_or(config.access_format == AccessFormat::Combined),
        })
    }

    /// Writes a line of the program itself, such as `listening on …`, to stdout, whole and in its turn.
    pub fn announce(&self, line: &str) {
        match &self.lines {
            Some(lines) if self.owns_stdout => lines.push(format!("{line}\n").into_bytes()),
            _ => {
                let mut stdout = io::stdout().lock();
                // This fails when nothing reads stdout; then nothing would read a report of it either.
                let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
            }
        }
    }

    /// Opens the file again under its name (SIGUSR1, for log rotation). When that fails the old one stays in use and
    /// the error log says why.
    pub fn reopen(&self) {
        if let Some(lines) = &self.lines {
            lines.reopen();
        }
    }

    /// Writes what is queued and ends the thread; waits at most `within`.
    pub fn stop(&self, within: Duration) {
        if let Some(lines) = &self.lines {
            lines.stop(within);
        }
    }

    /// How many lines were dropped so far, because the queue was full or because they could not be written.
    pub fn dropped(&self) -> u64 {
        self.lines.as_ref().map_or(0, LogLines::dropped)
    }
}

impl Journal for AccessLogWriter {
    fn wanted(&self) -> bool {
        self.lines.is_some()
    }

    fn wants_agent(&self) -> bool {
        self.format == AccessFormat::Combined
    }

    fn wants_query(&self) -> bool {
        self.query
    }

    fn record(&self, record: AccessRecord) {
        if let Some(lines) = &self.lines {
            lines.push(match self.format {
                AccessFormat::Json => line::line(&record),
                AccessFormat::Combined => combined::line(&record),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AccessLog as To;

    fn record(path: &str) -> AccessRecord {
        AccessRecord {
            time: std::time::UNIX_EPOCH,
            request_id: "r".into(),
            trace_id: String::new(),
            client_addr: [127, 0, 0, 1].into(),
            client_id: None,
            method: "GET".into(),
            path: path.into(),
            protocol: Some(balancer_http::message::Version::Http11),
            secure: None,
            status: 200,
            body_bytes: 0,
            duration: Duration::ZERO,
            upstream_duration: None,
            pool: None,
            backend: None,
            retries: 0,
            cause: None,
            limit: None,
            agent: None,
        }
    }

    fn to(access: To) -> LogConfig {
        let (level, format) = (log::LevelFilter::Info, config::LogFormat::Text);
        LogConfig { level, format, access, access_format: AccessFormat::Json, query: None }
    }

    #[test]
    fn records_go_to_the_file_with_its_folders_and_follow_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/deep/access.log");
        let log = AccessLogWriter::start(&to(To::File(path.clone())), Clock::real()).unwrap();
        assert!(log.wanted());
        log.record(record("/one"));
        // A line that comes after the reopen has to be in the new file.
        let rotated = path.with_extension("log.1");
        std::fs::rename(&path, &rotated).unwrap();
        log.reopen();
        while !path.exists() {
            std::thread::yield_now();
        }
        log.record(record("/two"));
        log.stop(Duration::from_secs(5));
        let paths = |file| -> Vec<String> {
            let text = std::fs::read_to_string(file).unwrap();
            let path = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].clone();
            text.lines().map(|line| path(line).as_str().unwrap().to_owned()).collect()
        };
        assert_eq!((paths(&rotated), paths(&path)), (vec!["/one".to_owned()], vec!["/two".to_owned()]));
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_log_that_is_off_records_nothing_and_a_folder_is_no_file() {
        let log = AccessLogWriter::start(&to(To::Off), Clock::real()).unwrap();
        assert!(!log.wanted());
        log.record(record("/"));
        log.reopen();
        log.stop(Duration::from_secs(1));
        let folder = tempfile::tempdir().unwrap();
        assert!(AccessLogWriter::start(&to(To::File(folder.path().to_owned())), Clock::real()).is_err());
    }
}
