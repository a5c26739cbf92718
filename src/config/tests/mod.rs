//! Tests of the loader as a whole; single forms have theirs beside them.

mod admin;
mod backends;
mod balancing;
mod environment;
mod faults;
mod given;
mod identity;
mod limits;
mod mutation;
mod pools;
mod routes;
mod schema;
mod shipped;
mod text;
mod tls;

use std::ffi::OsString;
use std::path::PathBuf;

use super::*;

const ONE: &str = r#"{"name": "a", "url": "http://127.0.0.1:9001"}"#;

/// A file that exists while the value lives.
struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("balancer.json");
    std::fs::write(&path, text).unwrap();
    File { _folder: folder, path }
}

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

/// Loads a text as a file with an environment.
fn load_with(text: &str, pairs: &[(&str, &str)]) -> Result<Config, String> {
    let file = file(text);
    let options = Options { file: Some(file.path.clone()), ..Options::default() };
    load(&options, &env(pairs)).map(|loaded| loaded.config).map_err(|faults| {
        let name = file.path.display().to_string();
        faults.to_string().replace(&name, "FILE")
    })
}
