//! `set_request_headers` and `set_response_headers`.

use crate::config::routes::SetField;
use crate::config::{forms, words};
use crate::declare::{Section, Spec, Value};
use balancer_http::headers;
use balancer_http::template::Template;

/// Most fields of one route, each way.
const MAX_FIELDS: usize = 64;
/// Longest value, as it is written.
const MAX_VALUE_BYTES: usize = 4_096;

/// Which way the fields go.
#[derive(Clone, Copy)]
pub(super) enum Side {
    /// To the backend.
    Request,
    /// To the client.
    Response,
}

pub(super) fn fields(
    s: &mut Section<'_>,
    name: &'static str,
    about: &'static str,
    side: Side,
) -> Vec<SetField> {
    let members = s.entries(&Spec::of(name, words::FIELDS, "{}", about), MAX_FIELDS);
    let mut fields: Vec<SetField> = Vec::with_capacity(members.len());
    for member in members {
        let read = if fields.iter().any(|other| other.name.eq_ignore_ascii_case(&member.name)) {
            Err("doubled field: it was given before".to_owned())
        } else {
            check_name(&member.name, side).and_then(|()| match &member.node.value {
                Value::Null => Ok(None),
                Value::Text(text) => value(text).map(Some),
                _ => Err(format!("must be a text or null; found {}", member.node.describe(true))),
            })
        };
        match read {
            Ok(value) => fields.push(SetField { name: member.name, value }),
            Err(text) => s.fault_of(name, &member, text),
        }
    }
    fields
}

fn check_name(name: &str, side: Side) -> Result<(), String> {
    if forms::token_name(name).is_none() {
        return Err("must be the name of a field: 1 to 128 letters, digits and other characters of a token (RFC 9110 §5.6.2)".into());
    }
    let is_ours = match side {
        Side::Request => headers::is_own_in_requests(name),
        Side::Response => headers::is_own_in_answers(name),
    };
    if headers::is_of_connection(name) {
        Err("can't be set: it says how one connection works, and is written by whoever sends on it".into())
    } else if is_ours {
        Err("can't be set: Balancer writes it itself".into())
    } else {
        Ok(())
    }
}

fn value(text: &str) -> Result<Template, String> {
    if text.len() > MAX_VALUE_BYTES {
        return Err(format!("must have at most {MAX_VALUE_BYTES} bytes"));
    }
    // RFC 9110 §5.5. A line's end would begin another field.
    if text.chars().any(|one| one.is_control() && one != '\t') {
        return Err("must hold no line's end (CR, LF) and no other control character".into());
    }
    if text.trim_matches([' ', '\t']) != text {
        return Err("must not begin or end with a blank, which no field's value does".into());
    }
    Template::parse(text).map_err(|name| unknown_variable(&name))
}

/// The message for a `$` that begins no variable; `name` is what follows it.
pub(super) fn unknown_variable(name: &str) -> String {
    let known = ["client_ip", "request_id", "host"];
    let hint = crate::declare::did_you_mean(name, known);
    format!(
        "has a $ that begins no variable: there are $client_ip, $request_id and $host, and $$ is a dollar; found \"${name}\"{hint}"
    )
}
