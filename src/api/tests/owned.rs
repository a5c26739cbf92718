//! Connections whose peer belongs to a user that the test names, and heads that came over one.

use std::sync::{Arc, LazyLock, Weak};

use super::bench::Call;
use balancer_http::fields::Fields;
use balancer_http::message::{BodyLength, ClientConnection, RequestHead};

/// A connection whose peer has that owner.
pub(in crate::api) struct Owned(pub Result<u32, String>);

impl ClientConnection for Owned {
    fn peer_owner(&self) -> Result<u32, String> {
        self.0.clone()
    }
}

/// Our own user.
pub(in crate::api) fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A connection from a process of our own user.
pub(in crate::api) fn own() -> Weak<dyn ClientConnection> {
    static OWN: LazyLock<Arc<dyn ClientConnection>> = LazyLock::new(|| Arc::new(Owned(Ok(own_user()))));
    Arc::downgrade(&*OWN)
}

/// The head of a request of our own user.
pub(in crate::api) fn head(call: &Call<'_>, length: BodyLength) -> RequestHead {
    let mut fields = Fields::new();
    for (name, value) in call.fields {
        fields.push(name, value.as_bytes());
    }
    let host = fields.get("Host").map(|host| String::from_utf8_lossy(host).into_owned());
    let peer = if call.peer.is_empty() { "127.0.0.1:5555" } else { call.peer };
    RequestHead {
        method: call.method.into(),
        target: call.target.into(),
        host,
        fields,
        length,
        connection: Some(own()),
        ..RequestHead::blank(peer.parse().unwrap())
    }
}
