//! `balancer config …`, `completions` and `man`: what the program knows of itself, made of the same declarations that it
//! reads its arguments and its file with.

use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Arguments, CommandFailure};
use crate::config;

/// What to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Print {
    /// The configuration file's JSON Schema.
    Schema,
    /// All of its keys, as Markdown.
    Reference,
    /// Completions for a shell.
    Completions(Shell),
    /// The manual page.
    Man,
    /// That page and those of all commands, into a folder.
    Pages(PathBuf),
}

/// The text; of pages that go into a folder, nothing.
///
/// # Errors
/// The folder cannot be written.
pub fn print(what: &Print) -> Result<Vec<u8>, CommandFailure> {
    let mut text = Vec::new();
    match what {
        Print::Schema => {
            text = format!("{:#}\n", config::schema()).into_bytes();
        }
        Print::Reference => text = config::reference().into_bytes(),
        Print::Completions(shell) => {
            clap_complete::generate(*shell, &mut Arguments::command(), "balancer", &mut text);
        }
        Print::Man => {
            // Writing into a vector cannot fail.
            let _ = clap_mangen::Man::new(with_pages()).render(&mut text);
        }
        Print::Pages(folder) => write_pages(folder).map_err(|error| {
            CommandFailure::Incomplete(format!("can't write into {}: {error}", folder.display()))
        })?,
    }
    Ok(text)
}

fn write_pages(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(with_pages(), folder)
}

/// The commands that have a page. `help` has none: it shows the others'.
fn with_pages() -> clap::Command {
    Arguments::command().disable_help_subcommand(true)
}
