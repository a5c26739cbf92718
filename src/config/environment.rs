//! Environment variables, which override the file: four short names such as `BALANCER_LISTEN`, and `BALANCER__A__B` for
//! any key `a.b`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::declare::{Fault, FaultOrigin, Member, Node, Value};

/// Short names for the keys that containers set most, each with the path of its key.
const SHORT: [(&str, &[&str]); 4] = [
    ("BALANCER_LISTEN", &["listen"]),
    ("BALANCER_DATABASE_URL", &["database", "url"]),
    ("BALANCER_ADMIN_TOKEN", &["admin", "token"]),
    ("BALANCER_LOG_LEVEL", &["log", "level"]),
];

/// Keys whose value may be in a file that `…_FILE` names.
const SECRETS: [&[&str]; 4] = [
    &["database", "url"],
    &["database", "listen_url"],
    &["admin", "token"],
    &["balancing", "sticky", "secret"],
];

/// Deepest key that a variable can name. The deepest that there is has 6 levels: `rate_limit.rules[0].match.method[0]`.
const MAX_DEPTH: usize = 8;

/// Largest file behind a `…_FILE`.
const MAX_SECRET_BYTES: u64 = 65_536;

/// One value that replaces what the file says.
pub(super) struct Override {
    /// The key, one segment for each level; a number picks an element of a list.
    path: Vec<String>,
    node: Node,
}

impl Override {
    pub fn new(path: &[&str], node: Node) -> Self {
        Self { path: path.iter().map(|segment| (*segment).to_owned()).collect(), node }
    }
}

/// What the environment says, parents before their children, so that `BALANCER__A` and `BALANCER__A__B` add up.
pub(super) fn overrides(env: &[(OsString, OsString)], faults: &mut Vec<Fault>) -> Vec<Override> {
    let mut found: Vec<Override> = Vec::new();
    let mut variables: Vec<_> = env.iter().collect();
    variables.sort();
    for (name, value) in variables {
        let Some(Target { path, from_file, exact }) = target_of(name) else { continue };
        let name = name.to_string_lossy().into_owned();
        let origin = FaultOrigin::Variable(name.clone());
        let mut fail = |text: String| faults.push(Fault { origin: origin.clone(), path: shown(&path), text });
        if let Some(Override { node: Node { origin: FaultOrigin::Variable(other), .. }, .. }) =
            found.iter().find(|other| other.path == path)
        {
            fail(format!("is set by {other} too; keep one of them"));
            continue;
        }
        let value = match value_of(value, from_file) {
            Ok(text) if exact => Value::Text(text),
            Ok(text) => Value::Raw(text),
            Err(text) => {
                fail(text);
                continue;
            }
        };
        let node = Node::new(origin.clone(), value);
        found.push(Override { path, node });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// What a variable sets.
struct Target {
    path: Vec<String>,
    /// The value is in a file that the variable names.
    from_file: bool,
    /// The value is the text as it is, never JSON.
    exact: bool,
}

/// What a variable sets; `None`: not ours.
fn target_of(name: &OsStr) -> Option<Target> {
    let name = name.to_string_lossy();
    let owned = |path: &[&str]| path.iter().map(|segment| (*segment).to_owned()).collect::<Vec<_>>();
    if let Some(rest) = name.strip_prefix("BALANCER__") {
        let path: Vec<String> = rest.split("__").take(MAX_DEPTH).map(str::to_ascii_lowercase).collect();
        // A pool has the same secrets as the top.
        let (pool, key) = match path.as_slice() {
            [pools, _, key @ ..] if pools == "pools" => path.split_at(path.len() - key.len()),
            key => (&[][..], key),
        };
        let secret = SECRETS.iter().find(|secret| key.join(".") == format!("{}_file", secret.join(".")));
        return Some(match secret {
            Some(secret) => Target { path: [pool, &owned(secret)].concat(), from_file: true, exact: true },
            None => Target { path, from_file: false, exact: false },
        });
    }
    SHORT.iter().find_map(|(short, path)| {
        let secret = SECRETS.contains(path);
        let from_file = secret && name.strip_suffix("_FILE") == Some(short);
        (from_file || name == *short).then(|| Target { path: owned(path), from_file, exact: secret })
    })
}

fn value_of(value: &OsStr, from_file: bool) -> Result<String, String> {
    if from_file {
        return read_secret(Path::new(value));
    }
    value.to_str().map(str::to_owned).ok_or_else(|| "is not UTF-8".into())
}

/// The text of a file without the line ends behind it. The file has at most [`MAX_SECRET_BYTES`].
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| {
        // One byte more than allowed tells a full file from a longer one.
        file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text)
    });
    match read {
        Ok(length) if length as u64 > MAX_SECRET_BYTES => {
            Err(format!("{} is longer than {MAX_SECRET_BYTES} bytes", path.display()))
        }
        Ok(_) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// Puts a value into the tree. Objects on the way are made when they are missing.
pub(super) fn apply(root: &mut Node, change: Override, faults: &mut Vec<Fault>) {
    let Override { path, node } = change;
    if let Err(text) = place(root, &path, &node) {
        faults.push(Fault { origin: node.origin, path: shown(&path), text });
    }
}

/// The key as messages write it: `backends[0].weight`.
fn shown(path: &[String]) -> String {
    path.iter().fold(String::new(), |mut text, segment| {
        if segment.parse::<usize>().is_ok() {
            text.push_str(&format!("[{segment}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(segment);
        }
        text
    })
}

fn place(at: &mut Node, path: &[String], node: &Node) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        *at = node.clone();
        return Ok(());
    };
    if let Some(json) = at.raw_as_json() {
        *at = json;
    }
    match &mut at.value {
        Value::List(elements) => {
            let count = elements.len();
            match first.parse::<usize>().ok().and_then(|index| elements.get_mut(index)) {
                Some(element) => place(element, rest, node),
                None => Err(format!("names no element of a list of {count}; elements count from 0")),
            }
        }
        Value::Object(members) => match members.iter_mut().find(|member| member.name == *first) {
            Some(member) => place(&mut member.node, rest, node),
            None => {
                let mut child = Node::new(node.origin.clone(), Value::Null);
                place(&mut child, rest, node)?;
                members.push(Member { name: first.clone(), origin: node.origin.clone(), node: child });
                Ok(())
            }
        },
        // A key below a value that is no object replaces that value, so a path can be set where the file has null for
        // `health_check`.
        _ => {
            *at = Node::new(node.origin.clone(), Value::Object(Vec::new()));
            place(at, path, node)
        }
    }
}
