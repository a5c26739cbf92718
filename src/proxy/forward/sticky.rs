//! Sticky sessions: a cookie that names the endpoint which answered, and brings its client there again.

use smallvec::SmallVec;

use balancer_http::fields::Fields;
use balancer_http::message::RequestHead;
use balancer_pool::backends::Endpoint;
use balancer_pool::policy::StickyCookie;
use balancer_pool::sticky::Token;
use balancer_pool::strategy::cookies;

/// The tokens that a client sent, genuine or not: nearly always none or one.
pub(super) type Sent<'f> = SmallVec<[&'f [u8]; 2]>;

/// The cookies that could be tokens, in order. A browser sends one for each path and domain that it was set for,
/// perhaps with an old one among them, and does not say which is which.
pub(super) fn sent<'f>(sticky: &'f StickyCookie, fields: &'f Fields) -> Sent<'f> {
    let values = fields.all("Cookie").flat_map(|field| cookies(field, &sticky.name));
    values.filter(|value| value.len() == Token::LENGTH).collect()
}

/// The `Set-Cookie` (RFC 6265 §4.1) of an answer, for a client that did not send this endpoint's token already. The
/// cookie ends with the browser's session and is hidden from scripts. Requests that other sites cause carry it only
/// when the user follows a link. Given over TLS, it is sent over TLS alone.
pub(crate) fn set_cookie(
    sticky: &StickyCookie,
    asked: &RequestHead,
    answered_by: &Endpoint,
) -> Option<String> {
    let token = answered_by.token()?;
    if sent(sticky, &asked.fields).iter().any(|sent| token.is(sent)) {
        return None;
    }
    let (name, token) = (&sticky.name, token.as_str());
    let secure = if sticky.secure || asked.secure.is_some() { "; Secure" } else { "" };
    Some(format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax{secure}"))
}
