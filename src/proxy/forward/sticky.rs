//! Sticky sessions: a cookie that names the endpoint which answered, and brings its client there again.

use crate::rules::fields::Fields;
use crate::rules::strategy::cookie;
use crate::state::backends::Endpoint;
use crate::state::policy::StickyCookie;

/// What the client sent, genuine or not.
pub(super) fn sent<'f>(sticky: &StickyCookie, fields: &'f Fields) -> Option<&'f [u8]> {
    fields.all("Cookie").find_map(|field| cookie(field, &sticky.name))
}

/// The `Set-Cookie` (RFC 6265 §4.1) of an answer, for a client that did not come with this endpoint's token already. It
/// lasts as long as the browser's session, is no script's business, and comes with no other site's requests but when its
/// user follows a link.
pub(crate) fn set_cookie(sticky: &StickyCookie, asked: &Fields, answered_by: &Endpoint) -> Option<String> {
    let token = answered_by.token()?;
    if sent(sticky, asked).is_some_and(|sent| token.is(sent)) {
        return None;
    }
    let (name, token) = (&sticky.name, token.as_str());
    let secure = if sticky.secure { "; Secure" } else { "" };
    Some(format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax{secure}"))
}
