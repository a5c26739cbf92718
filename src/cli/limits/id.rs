//! `balancer limits id`: makes a client's id from its secret.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};

use clap::Args;
use serde_json::json;

use crate::cli::failure::CommandFailure;
use crate::cli::session::CommandOutput;
use balancer_limiter::identity::{MAX_KEY_BYTES, secret_id};

const EXAMPLES: &str = "\
Examples:
  balancer limits id < key.txt
  printf %s \"$API_KEY\" | balancer limits id
  balancer limits set \"$(balancer limits id < key.txt)\" --plan pro

The key is what the client sends: a header's or a cookie's value, a bearer token without the word Bearer. One line end
behind it is taken off.";

/// Make the id of a client from the secret that it sends, read from stdin: sha256: and 32 hex digits.
///
/// Nothing is asked of a balancer, and the secret is never an argument, which others could see.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = EXAMPLES)]
pub struct Id {
    // Read only to be refused with a reason: an argument would put the secret into the shell's history.
    #[arg(hide = true)]
    key: Option<OsString>,
}

/// Runs the command.
pub fn run(id: &Id, out: &mut CommandOutput) -> Result<(), CommandFailure> {
    if id.key.is_some() {
        let text = "the key is read from stdin, never from an argument, which others can see: balancer limits id < key.txt";
        return Err(CommandFailure::Usage(text.into()));
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let _ = writeln!(std::io::stderr(), "the key, then Enter and Ctrl-D (it is shown as you type):");
    }
    let mut key = Vec::new();
    // A key of the greatest length and a line end of two bytes; one more byte shows that a key is too long.
    stdin
        .take(MAX_KEY_BYTES as u64 + 3)
        .read_to_end(&mut key)
        .map_err(|error| CommandFailure::Usage(format!("stdin cannot be read: {error}")))?;
    let client_id = id_of(&key)?;
    if key.get(..7).is_some_and(|word| word.eq_ignore_ascii_case(b"bearer ")) {
        let _ = writeln!(
            std::io::stderr(),
            "the key begins with the word Bearer, which is no part of a bearer token"
        );
    }
    out.ended(&json!({ "client_id": client_id }), &client_id)
}

fn id_of(input: &[u8]) -> Result<String, CommandFailure> {
    let key = input.strip_suffix(b"\n").unwrap_or(input);
    let key = key.strip_suffix(b"\r").unwrap_or(key);
    secret_id(key).ok_or_else(|| {
        let fault = match key.len() {
            0 => "is empty".to_owned(),
            length if length > MAX_KEY_BYTES => format!("is longer than {MAX_KEY_BYTES} bytes"),
            _ => "holds a control character, perhaps a second line".to_owned(),
        };
        CommandFailure::Usage(format!("the key on stdin {fault}; no request is known by such a key"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_no_part_of_a_key() {
        // FIPS 180-2, appendix B.1: SHA-256("abc").
        for input in ["abc", "abc\n", "abc\r\n"] {
            assert_eq!(id_of(input.as_bytes()).unwrap(), "sha256:ba7816bf8f01cfea414140de5dae2223");
        }
        assert_ne!(id_of(b" abc").unwrap(), id_of(b"abc").unwrap());
        let longest = vec![b'x'; MAX_KEY_BYTES];
        assert!(id_of(&[&longest[..], b"\r\n"].concat()).is_ok());
        for input in [&b""[..], b"\n", b"a\nb", b"abc\n\n", &[&longest[..], b"x"].concat()] {
            assert_eq!(id_of(input).unwrap_err().exit_code(), 2);
        }
    }
}
