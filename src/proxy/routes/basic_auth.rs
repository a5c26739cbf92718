//! Routes that ask for a name and a password (RFC 7617).

use super::passwords::{PasswordLane, PasswordTicket, PasswordVerdict};
use super::{ActiveRoute, ActiveRoutes};
use balancer_http::credentials;
use balancer_http::fields::Fields;
use balancer_http::routes::MetRoutes;
use balancer_time::Nanos;

/// How many of the routes that ask for a password have let a request in so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct CheckedUsers(usize);

/// Why a request is not let in now.
pub(in crate::proxy) enum NotIn<'a> {
    /// It shows no password, or a wrong one, where this route asks for one.
    Wrong(&'a ActiveRoute),
    /// Its password is being checked.
    Soon(PasswordTicket, CheckedUsers),
    /// Too many are being checked.
    Busy,
}

impl ActiveRoutes {
    /// Whether each of the met routes that asks for a password lets a request in. `passed`: the routes that did before
    /// it waited.
    pub(in crate::proxy) fn check_users<'a>(
        &'a self,
        met: &'a MetRoutes,
        fields: &Fields,
        lane: &PasswordLane,
        passed: CheckedUsers,
        now: Nanos,
    ) -> Result<(), NotIn<'a>> {
        let asking = self.all_met(met).filter_map(|route| Some((route, route.config.users.as_deref()?)));
        for (number, (route, users)) in asking.enumerate().skip(passed.0) {
            // If there are several, a backend may read another one than we do.
            let mut shown = fields.all("Authorization");
            let (Some(one), None) = (shown.next(), shown.next()) else { return Err(NotIn::Wrong(route)) };
            let Some((name, password)) = credentials::basic(one) else { return Err(NotIn::Wrong(route)) };
            match lane.ask(users, &name, &password, now) {
                PasswordVerdict::Is(true) => {}
                PasswordVerdict::Is(false) => return Err(NotIn::Wrong(route)),
                PasswordVerdict::Soon(ticket) => return Err(NotIn::Soon(ticket, CheckedUsers(number))),
                PasswordVerdict::Busy => return Err(NotIn::Busy),
            }
        }
        Ok(())
    }
}

impl ActiveRoute {
    /// The `WWW-Authenticate` for a client without a right password (RFC 7617 §2, §2.1). Characters of the route's name
    /// that a quoted string can't hold become `_`.
    pub(in crate::proxy) fn challenge(&self) -> String {
        let plain = |one: char| (one == ' ' || one.is_ascii_graphic()) && !matches!(one, '"' | '\\');
        let realm: String = self.config.name.chars().map(|one| if plain(one) { one } else { '_' }).collect();
        format!("Basic realm=\"{realm}\", charset=\"UTF-8\"")
    }
}
