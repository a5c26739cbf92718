//! What a request is hashed on.

use std::net::IpAddr;

use super::ForwardRequest;
use balancer_pool::strategy::{HashOn, cookie, key_of};

/// The hash of the part that `on` names; of the client's address where the request lacks that header or cookie. It is
/// the same in every instance.
pub(super) fn key(on: &HashOn, asked: &ForwardRequest<'_>) -> u64 {
    let of_address = || match asked.client {
        IpAddr::V4(address) => key_of(&address.octets()),
        IpAddr::V6(address) => key_of(&address.octets()),
    };
    let fields = &asked.head.fields;
    match on {
        HashOn::Ip => of_address(),
        HashOn::Client => key_of(&asked.counted_as.to_bytes()),
        HashOn::Uri => key_of(asked.head.target.as_bytes()),
        HashOn::Header(name) => fields.get(name).map_or_else(of_address, key_of),
        HashOn::Cookie(name) => {
            fields.all("Cookie").find_map(|field| cookie(field, name)).map_or_else(of_address, key_of)
        }
    }
}
