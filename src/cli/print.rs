//! `balancer config …`, `completions` and `man`: what the program knows about itself. The texts are made from the
//! declarations by which it reads its arguments and its configuration.

use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Arguments, CommandFailure};
use crate::config;

/// What to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Print {
    /// The JSON Schema of the configuration file.
    Schema,
    /// All keys of the configuration file, as Markdown.
    Reference,
    /// Completions for a shell.
    Completions(Shell),
    /// The manual page.
    Man,
    /// The manual pages of the program and of all its commands, written into a folder.
    Pages(PathBuf),
}

/// The text to print; empty for pages that are written into a folder.
///
/// # Errors
/// When the folder cannot be written.
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

/// The commands that have a page. `help` has none, since it only shows the pages of others.
fn with_pages() -> clap::Command {
    Arguments::command().disable_help_subcommand(true)
}
