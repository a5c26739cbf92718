//! `balancer config …`, `completions` and `man`: what the program knows of itself, made of the same declarations that it
//! reads its arguments and its file with.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Arguments;
use crate::config;

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Print {
    /// The configuration file's JSON Schema.
    Schema,
    /// All of its keys, as Markdown.
    Reference,
    /// Completions for a shell.
    Completions(Shell),
    /// The manual page.
    Man,
}

/// The text.
pub fn print(what: Print) -> Vec<u8> {
    let mut text = Vec::new();
    match what {
        Print::Schema => {
            text = format!("{:#}\n", config::schema()).into_bytes();
        }
        Print::Reference => text = config::reference().into_bytes(),
        Print::Completions(shell) => {
            clap_complete::generate(shell, &mut Arguments::command(), "balancer", &mut text);
        }
        Print::Man => {
            // Writing into a vector cannot fail.
            let _ = clap_mangen::Man::new(Arguments::command()).render(&mut text);
        }
    }
    text
}
