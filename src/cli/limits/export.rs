//! `balancer limits export`: writes all limits to stdout.

use clap::{Args, ValueEnum};

use super::csv;
use crate::cli::failure::CommandFailure;
use crate::cli::pages::{for_each_page, query};
use crate::cli::session::ApiSession;

const EXAMPLES: &str = "\
Examples:
  balancer limits export > limits.jsonl
  balancer limits export --format csv --plan pro > pro.csv
  balancer limits export --url http://old:8080 | balancer limits import --url http://new:8080";

/// Write all limits to stdout, as import reads them. Plans are not among them: balancer plans ls --json.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub struct Export {
    /// A JSON object a line, or comma-separated values below a line with the columns' names.
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// Only clients whose id begins with this.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only clients on this plan.
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
}

/// How limits are written to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A JSON object a line.
    Jsonl,
    /// Comma-separated values (RFC 4180).
    Csv,
}

/// Runs the command, with one page in memory at a time. A limit that changes meanwhile may be written in its old or its
/// new form.
pub fn run(export: &Export, session: &mut ApiSession) -> Result<(), CommandFailure> {
    let filter = query(&[("prefix", export.prefix.as_deref()), ("plan", export.plan.as_deref())]);
    let ApiSession { api, out } = session;
    let csv = export.format == Format::Csv && !out.is_json();
    if csv {
        out.raw(&csv::head())?;
    }
    for_each_page(api, &format!("/-/v1/limits{filter}"), |items| {
        for item in items {
            let line = if csv { csv::line(&api.read(item)?) } else { format!("{item}\n") };
            out.raw(&line)?;
        }
        Ok(())
    })?;
    out.flush()
}
