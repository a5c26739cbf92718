//! `docs/configuration.md`, made of the keys as the code declares them.

use std::fmt::Write;

use super::given::is_live;
use super::load;
use crate::declare::{Key, Shape};

const HEAD: &str = include_str!("reference.md");

/// The page.
pub fn reference() -> String {
    let keys = load::keys();
    let mut page = String::from(HEAD);
    let groups = keys.iter().filter(|key| is_group(key, &keys));
    let top = keys.iter().filter(|key| !key.path.contains('.') && !is_group(key, &keys));
    page.push_str("\n## At the top\n\n");
    table(&mut page, top);
    for group in groups {
        let prefix = if is_section(group) || has_below(&group.path, &keys) {
            format!("{}.", group.path)
        } else {
            format!("{}[].", group.path)
        };
        let below = keys.iter().filter(|key| {
            key.path.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('.')) && !is_group(key, &keys)
        });
        // Writing to a String cannot fail, here and below.
        let _ = write!(page, "\n## `{}`\n\n{}", group.path, group.about);
        if !is_section(group) {
            let _ = write!(page, " Takes {}{}.", text(&group.shape.to_string()), or_null(group));
        }
        match group.default {
            "" => page.push_str(" Has no default."),
            "{}" => {}
            default => drop(write!(page, " Default: `{default}`.")),
        }
        page.push_str("\n\n");
        table(&mut page, below);
    }
    page
}

fn is_section(key: &Key) -> bool {
    matches!(key.shape, Shape::Section | Shape::Named(_))
}

/// Whether there are keys below it.
fn is_group(key: &Key, keys: &[Key]) -> bool {
    is_section(key) || has_below(&key.path, keys) || has_below(&format!("{}[]", key.path), keys)
}

fn has_below(path: &str, keys: &[Key]) -> bool {
    keys.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

fn or_null(key: &Key) -> &'static str {
    if key.nullable { ", or null" } else { "" }
}

fn table<'a>(page: &mut String, keys: impl Iterator<Item = &'a Key>) {
    page.push_str("| key | takes | default | what it is for | |\n|---|---|---|---|---|\n");
    for key in keys {
        let takes = match &key.shape {
            Shape::Duration { min, max } => format!("a duration from `{min}` to `{max}`"),
            shape => text(&shape.to_string()),
        };
        let default =
            if key.default.is_empty() { "must be given".to_owned() } else { format!("`{}`", key.default) };
        let live = if is_live(&key.path) { "reload" } else { "" };
        let (path, about) = (&key.path, text(key.about));
        let _ = writeln!(page, "| `{path}` | {takes}{} | {default} | {about} | {live} |", or_null(key));
    }
}

/// Escapes what Markdown would take for markup.
fn text(words: &str) -> String {
    words.replace('|', "\\|").replace('<', "&lt;").replace("[[", "\\[\\[").replace("_ -", "\\_ -")
}
