//! Compares two readings of one stream, and finds the class of the first difference.

use super::cases::{Case, Kind};
use super::reading::{Message, Reading};

/// How another parser differs from us.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// We refuse, with that text, what the other takes.
    Stricter(String),
    /// We take what the other refuses, with that text.
    Laxer(String),
    /// We wait for more where the other has refused already, with that text.
    Later(String),
    /// Both take the message but read that part of it differently.
    Other(&'static str),
}

/// A message without what differs by design: the case of names, framing fields, fields that we drop, and the form of the
/// target.
fn plain(message: &Message, kind: Kind) -> Message {
    let mut message = message.clone();
    for (name, value) in &mut message.fields {
        name.make_ascii_lowercase();
        *value = value.trim_matches([' ', '\t']).to_owned();
    }
    let dropped: &[&str] = match kind {
        Kind::Requests => &["content-length", "transfer-encoding", "trailer", "expect"],
        _ => &["content-length", "transfer-encoding"],
    };
    message.fields.retain(|(name, _)| !dropped.contains(&name.as_str()));
    if kind == Kind::Requests {
        message.fields.retain(|(name, _)| !(name.contains('_') && passes_for_ours(name)));
        absolute_form(&mut message);
    }
    message
}

/// Whether a name is one of ours when underscores are taken for hyphens; only names that occur in `cases.txt`.
fn passes_for_ours(name: &str) -> bool {
    let name = name.replace('_', "-");
    let ours = [
        "content-length",
        "transfer-encoding",
        "x-real-ip",
        "x-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
    ];
    name.starts_with("x-forwarded-") || ours.contains(&name.as_str())
}

/// Rewrites a target in absolute form, whose authority is the host (RFC 9112 §3.2.2), to origin form.
fn absolute_form(message: &mut Message) {
    let target = &message.start.1;
    let lower = target.to_ascii_lowercase();
    let Some(after) = ["http://", "https://"].iter().find_map(|scheme| lower.strip_prefix(scheme)) else {
        return;
    };
    let after = &target[target.len() - after.len()..];
    let end = after.find(['/', '?']).unwrap_or(after.len());
    let (authority, rest) = after.split_at(end);
    let authority = authority.to_owned();
    let rest = match (rest.chars().next(), message.start.0.as_str()) {
        (None, "OPTIONS") => "*".to_owned(),
        (None, _) => "/".to_owned(),
        (Some('?'), _) => format!("/{rest}"),
        (Some(_), _) => rest.to_owned(),
    };
    message.start.1 = rest;
    if !message.fields.iter().any(|(name, _)| name == "host") {
        message.fields.push(("host".to_owned(), String::new()));
    }
    for (name, value) in &mut message.fields {
        if name == "host" {
            value.clone_from(&authority);
        }
    }
}

/// The first difference. Later ones follow from it.
pub fn difference(case: &Case, ours: &Reading, theirs: &Reading) -> Option<Difference> {
    // The other parsers show interim answers, too.
    let finals = |message: &&Message| {
        case.kind == Kind::Requests || !message.start.0.starts_with('1') || message.start.0 == "101"
    };
    let mut their_messages = theirs.messages.iter().filter(finals).map(|message| plain(message, case.kind));
    for our_message in ours.messages.iter().map(|message| plain(message, case.kind)) {
        let Some(their_message) = their_messages.next() else { return not_taken(theirs) };
        let same_head = [
            (our_message.start.0 == their_message.start.0, "method or status"),
            (our_message.start.1 == their_message.start.1, "target or reason"),
            (our_message.version == their_message.version, "version"),
            (our_message.fields == their_message.fields, "fields"),
        ];
        if let Some((_, member)) = same_head.iter().find(|(same, _)| !same) {
            return Some(Difference::Other(member));
        }
        let same_body = our_message.body == their_message.body && our_message.whole == their_message.whole;
        if same_body {
            continue;
        }
        return match (ours.refusal(), theirs.refusal()) {
            _ if our_message.whole && their_message.whole => Some(Difference::Other("body")),
            // Parsers may show different parts of a body that is broken.
            (Some(_), Some(_)) => None,
            (Some(why), None) => Some(Difference::Stricter(why.to_owned())),
            (None, Some(why)) if our_message.whole => Some(Difference::Laxer(why.to_owned())),
            (None, Some(why)) => Some(Difference::Later(why.to_owned())),
            (None, None) => Some(Difference::Other("body")),
        };
    }
    match (ours.refusal(), theirs.refusal(), their_messages.next()) {
        (Some(why), _, Some(_)) | (Some(why), None, None) if theirs.end != "closed" => {
            Some(Difference::Stricter(why.to_owned()))
        }
        (None, _, Some(_)) if ours.end == "open" => Some(Difference::Other("one message more")),
        (None, Some(why), None) if ours.end == "open" => Some(Difference::Later(why.to_owned())),
        _ => None,
    }
}

/// The difference when we have a message that the other does not have.
fn not_taken(theirs: &Reading) -> Option<Difference> {
    match theirs.refusal() {
        Some(why) => Some(Difference::Laxer(why.to_owned())),
        None if theirs.end == "open" => Some(Difference::Other("one message less")),
        None => None,
    }
}
