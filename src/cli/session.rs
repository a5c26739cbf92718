//! What a command needs: a balancer to ask, and an output that knows whether a person or a program reads it.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};

use clap::Args;
use serde_json::Value;

use super::api::{Api, ApiTarget};
use super::failure::CommandFailure;

/// Options of every command that talks to a balancer.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: ApiTarget,
    /// Print JSON, as the API answers it.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What a command uses while it runs.
pub struct ApiSession {
    /// The balancer that it asks.
    pub api: Api,
    /// The output to which it prints.
    pub out: CommandOutput,
}

impl ApiSession {
    /// A session that prints to stdout.
    ///
    /// # Errors
    /// As [`Api::open`].
    pub fn open(common: &Common, env: &[(OsString, OsString)]) -> Result<Self, CommandFailure> {
        Ok(Self { api: Api::open(&common.target, env)?, out: CommandOutput::stdout(common.json) })
    }
}

/// Where results are printed. Tables are aligned for a terminal; for anything else they are tab-separated and have no
/// head.
pub struct CommandOutput {
    sink: Box<dyn Write>,
    terminal: bool,
    json: bool,
}

/// Widest column of an aligned table, in characters. A longer cell pushes the rest of its line to the right.
const MAX_COLUMN: usize = 48;

impl CommandOutput {
    /// The stdout of the process.
    pub fn stdout(json: bool) -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        // Stdout by itself writes line by line, which is slow for a million lines.
        Self { sink: Box::new(std::io::BufWriter::new(stdout)), terminal, json }
    }

    /// Whether results are printed as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether it is a terminal, so that a person reads it.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes one line, without its control characters.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub fn line(&mut self, text: &str) -> Result<(), CommandFailure> {
        Ok(writeln!(self.sink, "{}", shown(text))?)
    }

    /// Writes text as it is, line ends included.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub fn raw(&mut self, text: &str) -> Result<(), CommandFailure> {
        Ok(self.sink.write_all(text.as_bytes())?)
    }

    /// Writes a table.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> Result<(), CommandFailure> {
        let text = if self.terminal { aligned(head, rows) } else { separated(rows) };
        self.raw(&text)
    }

    /// Writes how the command ended, as JSON or in words, and flushes.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub fn ended(&mut self, json: &Value, words: &str) -> Result<(), CommandFailure> {
        if self.json {
            self.line(&json.to_string())?
        } else {
            self.line(words)?
        }
        self.flush()
    }

    /// Hands everything that was written to the system.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub fn flush(&mut self) -> Result<(), CommandFailure> {
        Ok(self.sink.flush()?)
    }
}

/// The text with U+FFFD in place of control characters, so that names from elsewhere cannot control the terminal.
pub fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A table with columns two spaces apart. An empty head is left out.
pub fn aligned(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let lines = std::iter::once(&head).filter(|head| !head.is_empty()).chain(rows);
    let lines: Vec<Vec<String>> = lines.map(|row| row.iter().map(|cell| shown(cell)).collect()).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        let cells = lines.iter().filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).filter(|width| *width <= MAX_COLUMN).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &lines {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let pad = width.saturating_sub(cell.chars().count()) + 2;
            line.extend(std::iter::repeat_n(' ', pad));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn separated(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| shown(cell)).collect();
        text.push_str(&cells.join("\t"));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[[&str; 2]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect()
    }

    #[test]
    fn a_table_is_aligned_for_people_and_separated_for_programs() {
        let long = "x".repeat(60);
        let rows = rows(&[["127.0.0.1", "2/s"], ["é🦀", "a\u{1b}[2J"], [&long, "z"]]);
        assert_eq!(
            aligned(&["CLIENT", "LIMIT"], &rows),
            format!("CLIENT     LIMIT\n127.0.0.1  2/s\né🦀         a\u{fffd}[2J\n{long}  z\n")
        );
        assert_eq!(aligned(&[], &rows[..1]), "127.0.0.1  2/s\n");
        assert_eq!(aligned(&[], &[]), "");
        assert_eq!(separated(&rows[..2]), "127.0.0.1\t2/s\né🦀\ta\u{fffd}[2J\n");
    }
}
