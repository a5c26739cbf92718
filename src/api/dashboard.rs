//! The dashboard: one page, its script, its style and its icon, all in the binary. It calls the API as any other client
//! does, with the token that the user gives it, so the files themselves need none.
//!
//! URLs in the page are relative, so that it works at `/`, `/dashboard` and `/-/dashboard` alike.

use super::AdminApi;
use super::route::{ApiCall, Handler, Operation, PAGE, Permission, Resource, Route, get, no_schemas, text};
use crate::error::Reject;
use crate::proxy::exchange::Answer;

/// Script and style come from us alone and are files of their own, so nothing inline is ever run: what a client's id
/// holds stays text. No other page may frame this one, and it sends no form anywhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// Its scripts, in the order in which they need each other; together they are one file to a browser.
const SCRIPTS: &str = concat!(
    include_str!("dashboard/base.js"),
    include_str!("dashboard/calls.js"),
    include_str!("dashboard/plots.js"),
    include_str!("dashboard/backends.js"),
    include_str!("dashboard/clients.js"),
    include_str!("dashboard/limits.js"),
    include_str!("dashboard/audit.js"),
    include_str!("dashboard/main.js"),
);

pub(super) const RESOURCE: Resource = Resource {
    title: "Dashboard",
    routes: &[
        Route::ours(
            PAGE,
            &[file("dashboard", "The dashboard", page).answers(&[text(
                200,
                "The page.",
                HTML,
                "<!doctype html>\n<title>Balancer</title>\n",
            )])],
        ),
        Route::ours(
            "/dashboard.js",
            &[file("dashboardJs", "Its script", script).answers(&[text(
                200,
                "The script.",
                SCRIPT,
                "\"use strict\";\n",
            )])],
        ),
        Route::ours(
            "/dashboard.css",
            &[file("dashboardCss", "Its style", style).answers(&[text(
                200,
                "The style.",
                STYLE,
                "body { margin: 0 }\n",
            )])],
        ),
        Route::ours(
            "/dashboard.svg",
            &[file("dashboardSvg", "Its icon", icon).answers(&[text(
                200,
                "The icon.",
                ICON,
                "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n",
            )])],
        ),
    ],
    schemas: no_schemas,
};

const fn file(id: &'static str, summary: &'static str, handle: Handler) -> Operation {
    get(id, summary, handle).never_waits().access(Permission::Allowed)
}

/// The page says whether calls need a token, so that the script asks for one before its first call.
fn page(api: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    let html = include_str!("dashboard/dashboard.html");
    let html = if api.access.load().needs_token() {
        html.replacen("<html", "<html data-token=\"needed\"", 1)
    } else {
        html.to_owned()
    };
    answer(call, HTML, html)
}

fn script(_: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    answer(call, SCRIPT, SCRIPTS)
}

fn style(_: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    answer(call, STYLE, include_str!("dashboard/dashboard.css"))
}

fn icon(_: &AdminApi, call: &mut ApiCall<'_, '_>) -> Result<Answer, Reject> {
    answer(call, ICON, include_str!("dashboard/dashboard.svg"))
}

fn answer(call: &mut ApiCall<'_, '_>, kind: &str, body: impl Into<String>) -> Result<Answer, Reject> {
    call.no_body()?;
    Ok(Answer::new(200, body.into().into_bytes())
        .with("Content-Type", kind)
        .with("Content-Security-Policy", POLICY)
        .with("X-Content-Type-Options", "nosniff")
        .with("X-Frame-Options", "DENY")
        .with("Referrer-Policy", "no-referrer")
        .with("Cross-Origin-Opener-Policy", "same-origin")
        .with("Cross-Origin-Resource-Policy", "same-origin"))
}

#[cfg(test)]
mod tests;
