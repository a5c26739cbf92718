//! Who may call the API.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::secret::{Secret, SecretHash};

/// `admin`.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its own address; `None`: the API is on the public port.
    pub listen: Option<SocketAddr>,
    /// TCP peers that may call.
    pub allow: Vec<IpNet>,
    /// Host names that a call without a token may be addressed to, besides `localhost` and IP addresses.
    pub hosts: Vec<String>,
    /// The bearer token that may do everything.
    pub token: Option<Secret>,
    /// Further ones, each with a name of its own.
    pub tokens: Vec<ApiToken>,
    /// Whether `/metrics` of `listen` is shown without a token, to whoever `allow` lets in.
    pub metrics_without_token: bool,
    /// Allow more than loopback without a token.
    pub insecure: bool,
}

/// One of `admin.tokens`. Its text is forgotten as soon as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// What the audit calls whoever has it.
    pub name: String,
    /// What it opens.
    pub role: Role,
    /// What it is known by.
    pub hash: SecretHash,
}

/// What a token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Looking at everything.
    Read,
    /// Changing things, too.
    Write,
}
