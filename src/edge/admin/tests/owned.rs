//! Connections whose other end has an owner by decree.

use std::sync::{Arc, LazyLock, Weak};

use crate::rules::message::Connection;

/// A connection whose peer has that owner.
pub(in crate::edge::admin) struct Owned(pub Result<u32, String>);

impl Connection for Owned {
    fn peer_owner(&self) -> Result<u32, String> {
        self.0.clone()
    }
}

/// Our own user.
pub(in crate::edge::admin) fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A connection from a process of our own user.
pub(in crate::edge::admin) fn own() -> Weak<dyn Connection> {
    static OWN: LazyLock<Arc<dyn Connection>> = LazyLock::new(|| Arc::new(Owned(Ok(own_user()))));
    Arc::downgrade(&*OWN)
}
