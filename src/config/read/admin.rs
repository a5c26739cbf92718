//! Keys of `admin`.

use ipnet::IpNet;

use super::{ADDRESS, MAX_LIST, NETWORK};
use crate::config::json::Value;
use crate::config::keys::{Shape, Spec};
use crate::config::section::Section;
use crate::config::{Admin, forms};

pub(super) fn admin(mut s: Section<'_>) -> Admin {
    let listen = Spec::new(
        "listen",
        Shape::Text(ADDRESS),
        "null",
        "An address of the API's own; null: the API is on the public port.",
    )
    .or_null();
    let allow = Spec::new(
        "allow",
        Shape::List { of: NETWORK, max: MAX_LIST },
        "[\"127.0.0.0/8\", \"::1/128\"]",
        "TCP peers that may call the API.",
    );
    let hosts = Spec::new(
        "hosts",
        Shape::List { of: "a host name without a port", max: MAX_LIST },
        "[]",
        "Names that a call without a token may be addressed to, besides localhost and IP addresses.",
    );
    let token = Spec::new(
        "token",
        Shape::Text("1 to 512 visible ASCII characters without spaces"),
        "null",
        "The bearer token that every call must carry; null: none.",
    )
    .or_null()
    .secret();
    let allow_origin = s.origin_of("allow").unwrap_or_else(|| s.origin());
    let admin = Admin {
        listen: s.value(&listen, |node| match &node.value {
            Value::Null => Ok(None),
            Value::Text(text) => forms::address(text).map(Some),
            _ => Err(None),
        }),
        allow: s.list(&allow, false, forms::network),
        hosts: s.list(&hosts, false, |text| forms::host_name(text).ok_or(None)),
        token: s.value(&token, |node| match &node.value {
            Value::Null => Ok(None),
            Value::Text(text) => forms::token(text).map(Some),
            _ => Err(None),
        }),
        insecure: s.bool("insecure", "false", "Let more than loopback in without a token."),
    };
    // A token that is there and faulty has its own fault.
    let open = admin.token.is_none() && !s.faulty("token");
    if open && !admin.insecure && !admin.allow.iter().all(is_loopback) {
        let text = "lets more than loopback in without a token: set admin.token (BALANCER_ADMIN_TOKEN), keep to \
                    127.0.0.0/8 and ::1/128, or set admin.insecure to true";
        s.fault(allow_origin, "allow", text);
    }
    s.later(&["tokens"]);
    s.end();
    admin
}

fn is_loopback(net: &IpNet) -> bool {
    match net {
        IpNet::V4(v4) => v4.addr().is_loopback() && v4.prefix_len() >= 8,
        IpNet::V6(v6) => v6.addr().is_loopback() && v6.prefix_len() == 128,
    }
}
