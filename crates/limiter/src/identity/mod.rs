//! Who sends a request: ids as operators write them, keys by which the limiter counts, and the walk over forwarding
//! fields that finds a client's address behind trusted proxies.
//!
//! The most specific entry decides about a client: that of its `ip:port`, of its address, of the longest range that
//! holds it, or the default. IPv6 clients are counted by prefix, see [`group`].

mod id;
mod key;
mod secret;
mod source;
mod values;
mod walk;

pub use id::{ClientId, IdFault, IdForm, canonical_range};
pub use key::{ClientKey, Crowds, group};
pub use secret::{MAX_KEY_BYTES, secret_id};
pub use source::{CERTIFICATE_NAME, KeySource, MAX_SOURCES, ShownKey, Source, UnknownKeys, drop_lookalikes};
pub use walk::{ClientAddress, client_address, is_in};
