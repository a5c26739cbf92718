//! Who may call the API.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::secret::{Secret, SecretHash};

/// The name in the audit of calls with `admin.token`.
pub const ADMIN_TOKEN: &str = "admin";

/// `admin`.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The API's own address; `None`: the API is on the public port.
    pub listen: Option<SocketAddr>,
    /// TCP peers that may call.
    pub allow: Vec<IpNet>,
    /// Host names that a call without a token may be addressed to, besides `localhost` and IP addresses.
    pub hosts: Vec<String>,
    /// The bearer token that may do everything.
    pub token: Option<Secret>,
    /// Further tokens, each with a name of its own.
    pub tokens: Vec<ApiToken>,
    /// Whether `/metrics` of `listen` is shown without a token, to every peer that `allow` lets in.
    pub metrics_without_token: bool,
    /// Allow more than loopback without a token.
    pub insecure: bool,
}

/// One of `admin.tokens`. Of its text only a hash is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// The name of its holder in the audit.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// The hash of its text.
    pub hash: SecretHash,
}

/// What a token permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Looking at everything.
    Read,
    /// Changing things, too.
    Write,
}
