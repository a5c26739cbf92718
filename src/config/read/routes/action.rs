//! `pool`, `redirect` and `respond`: of which a route has one.

use crate::config::routes::{FixedAnswer, Redirect, RouteAction};
use crate::config::words;
use crate::declare::{self, Section, Spec, did_you_mean, whole_of};
use balancer_http::template::Template;

/// Longest body of `respond`.
const MAX_RESPOND_BYTES: usize = 65_536;

/// `None` after a fault.
pub(super) fn action(s: &mut Section<'_>, pools: &[&str]) -> Option<RouteAction> {
    const KEYS: [&str; 3] = ["pool", "redirect", "respond"];
    let given = KEYS.into_iter().rfind(|name| s.has(name)).unwrap_or("pool");
    let pool = pool(s, pools);
    let about = "Send clients elsewhere; null: no.";
    let redirect = s.section_of("redirect", about, redirect);
    let about = "Answer by ourselves; null: no.";
    let respond = s.section_of("respond", about, respond);
    let is_faulty = s.faulty("pool") || matches!(redirect, Some(None)) || matches!(respond, Some(None));
    let all = [
        pool.map(RouteAction::Pool),
        redirect.flatten().map(RouteAction::Redirect),
        respond.flatten().map(RouteAction::Respond),
    ];
    let count = all.iter().flatten().count();
    if count == 0 && !is_faulty {
        let hint = if pools.is_empty() { String::new() } else { format!("; pools are {}", shown(pools)) };
        s.fault("pool", format!("is missing: a route has one of pool, redirect and respond{hint}"));
    } else if count > 1 {
        s.fault(given, "must stand alone: a route has one of pool, redirect and respond");
    }
    all.into_iter().flatten().next().filter(|_| count == 1)
}

fn shown(pools: &[&str]) -> String {
    /// A message is one line.
    const SHOWN: usize = 8;
    let names: Vec<String> = pools.iter().take(SHOWN).map(|name| format!("{name:?}")).collect();
    let more = if pools.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}

fn pool(s: &mut Section<'_>, pools: &[&str]) -> Option<String> {
    let about = "The pool that its requests go to.";
    let spec = Spec::of("pool", words::POOL, "null", about).or_null();
    s.text(&spec, |text| {
        if pools.contains(&text) {
            return Ok(text.to_owned());
        }
        let hint = did_you_mean(text, pools.iter().copied());
        let known =
            if pools.is_empty() { "there is none".into() } else { format!("there are {}", shown(pools)) };
        Err(Some(format!("names no pool: {known}; found {}{hint}", declare::shown(text))))
    })
}

/// `None` after a fault.
fn redirect(mut s: Section<'_>) -> Option<Redirect> {
    let about = "Where to. Behind a URL without a path come the request's path and query; a URL with a path, or a path, is taken as it is.";
    let to = s.text(&Spec::of("to", words::REDIRECT, "", about), target);
    let about = "301, 302, 303, 307 or 308; 307 and 308 keep method and body, 301 and 308 are remembered by browsers.";
    let status = Spec::of("status", words::REDIRECT_STATUS, "308", about);
    let status = s.some(&status, |node| match whole_of(node, &(301..=308))? {
        status @ (301 | 302 | 303 | 307 | 308) => Ok(status),
        _ => Err(None),
    });
    s.end();
    let (to, keeps_path) = to?;
    Some(Redirect { to, keeps_path, status: status? })
}

/// A URL or a path, and whether the request's path comes behind it.
fn target(text: &str) -> Result<(Template, bool), Option<String>> {
    let lower = text.to_ascii_lowercase();
    let behind = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://"));
    let keeps_path = match behind {
        Some(behind) => {
            let end = behind.find(['/', '?', '#']).unwrap_or(behind.len());
            if end == 0 || behind[..end].contains('@') {
                return Err(None);
            }
            end == behind.len()
        }
        None if text.starts_with('/') && !text.starts_with("//") => false,
        None => return Err(None),
    };
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    if text.len() > 2_048 || !text.bytes().all(is_plain) {
        return Err(None);
    }
    let template = Template::parse(text).map_err(|name| Some(super::fields::unknown_variable(&name)))?;
    Ok((template, keeps_path))
}

/// `None` after a fault.
fn respond(mut s: Section<'_>) -> Option<FixedAnswer> {
    let status = s.whole("status", 200..=599, "200", "The answer's status.");
    let body = Spec::of(
        "body",
        words::BODY,
        "\"\"",
        "The answer's body, plain text unless set_response_headers gives another Content-Type.",
    );
    let body = s.text(&body, |text| (text.len() <= MAX_RESPOND_BYTES).then(|| text.into()).ok_or(None));
    if matches!(status, 204 | 205 | 304)
        && body.as_ref().is_some_and(|body: &std::sync::Arc<str>| !body.is_empty())
    {
        s.fault("body", format!("must be empty: an answer with status {status} has none"));
    }
    s.end();
    Some(FixedAnswer { status, body: body? })
}
