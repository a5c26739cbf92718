//! Sticky sessions: a cookie that names the endpoint which answered, and brings its client there again.

use crate::rules::fields::Fields;
use crate::rules::strategy::cookie;
use crate::state::backends::Endpoint;

/// The cookie.
#[derive(Clone, Debug)]
pub struct Sticky {
    /// Its name.
    pub cookie: String,
    /// Whether browsers may send it over TLS alone.
    pub secure: bool,
}

impl Sticky {
    /// What the client sent, genuine or not.
    pub(super) fn sent<'f>(&self, fields: &'f Fields) -> Option<&'f [u8]> {
        fields.all("Cookie").find_map(|field| cookie(field, &self.cookie))
    }

    /// The `Set-Cookie` (RFC 6265 §4.1) of an answer, for a client that did not come with this endpoint's token already.
    /// It lasts as long as the browser's session, is no script's business, and comes with no other site's requests but
    /// when its user follows a link.
    pub(crate) fn set_cookie(&self, asked: &Fields, answered_by: &Endpoint) -> Option<String> {
        let token = answered_by.token.as_ref()?;
        if self.sent(asked).is_some_and(|sent| token.is(sent)) {
            return None;
        }
        let (name, token) = (&self.cookie, token.as_str());
        let secure = if self.secure { "; Secure" } else { "" };
        Some(format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax{secure}"))
    }
}
