//! Keys of `admin`.

use std::ffi::OsString;
use std::path::Path;

use ipnet::IpNet;

use super::MAX_LIST;
use crate::config::{ADMIN_TOKEN, Admin, ApiToken, Role, Secret, SecretHash, environment, forms, words};
use crate::declare::{Section, Shape, Spec};

/// Most further tokens.
const MAX_TOKENS: usize = 64;

/// Where the texts of tokens are looked for.
pub(super) struct Outside<'a> {
    /// The folder that relative paths count from.
    pub base: &'a Path,
    /// The process's environment.
    pub env: &'a [(OsString, OsString)],
}

pub(super) fn admin(mut s: Section<'_>, outside: &Outside<'_>) -> Admin {
    let listen = Spec::of(
        "listen",
        words::ADDRESS,
        "null",
        "An address of the API's own; null: the API is on the public port.",
    )
    .or_null();
    let allow = Spec::new(
        "allow",
        Shape::List { of: words::NETWORK, max: MAX_LIST, single: false },
        "[\"127.0.0.0/8\", \"::1/128\"]",
        "TCP peers that may call the API.",
    );
    let hosts = Spec::new(
        "hosts",
        Shape::List { of: words::HOST_NAME, max: MAX_LIST, single: false },
        "[]",
        "Names that a call without a token may be addressed to, besides localhost and IP addresses.",
    );
    let token =
        Spec::of("token", words::SECRET, "null", "The bearer token that every call must carry; null: none.")
            .or_null()
            .secret();
    let mut admin = Admin {
        listen: s.text(&listen, forms::address),
        allow: s.list(&allow, forms::network),
        hosts: s.list(&hosts, |text| forms::host_name(text).ok_or(None)),
        token: s.text(&token, forms::token),
        tokens: Vec::new(),
        metrics_without_token: s.bool(
            "metrics_without_token",
            "false",
            "Show /metrics of admin.listen to whoever allow lets in, without a token: Prometheus then needs none.",
        ),
        insecure: s.bool("insecure", "false", "Let more than loopback in without a token."),
    };
    let (tokens, wanted) = tokens(&mut s, admin.token.as_ref(), outside);
    admin.tokens = tokens;
    // A faulty token has a fault of its own, and no second one here.
    let has_token = admin.token.is_some() || s.faulty("token");
    let open = !has_token && wanted == 0 && !s.faulty("tokens");
    if open && !admin.insecure && !admin.allow.iter().all(is_loopback) {
        let text = "lets more than loopback in without a token: set admin.token (BALANCER_ADMIN_TOKEN), keep to \
                    127.0.0.0/8 and ::1/128, or set admin.insecure to true";
        s.fault("allow", text);
    }
    s.end();
    admin
}

/// The tokens that have no fault, and how many are listed. Their names must differ, and so must the tokens: one token
/// with two roles would not say which holds.
fn tokens(s: &mut Section<'_>, first: Option<&Secret>, outside: &Outside<'_>) -> (Vec<ApiToken>, usize) {
    let shape = Shape::objects(
        "a list of at most 64 tokens: [{\"name\": \"ops\", \"role\": \"read\", \"token_file\": \"ops.token\"}]",
        0,
        MAX_TOKENS,
    );
    let spec = Spec::new("tokens", shape, "[]", "Further tokens, each with a name for the audit and a role.");
    let nodes = s.object_nodes(&spec);
    let first = first.map(|token| SecretHash::of(token.reveal().as_bytes()));
    let wanted = nodes.len();
    let mut tokens: Vec<ApiToken> = Vec::with_capacity(wanted);
    for (index, node) in nodes.into_iter().enumerate() {
        let element = format!("tokens[{index}]");
        let section = s.open_element("tokens", index, node);
        let Some(token) = token(section, outside) else { continue };
        if tokens.iter().any(|other| other.name == token.name) {
            let text = format!("{:?} names another token already; names must differ", token.name);
            s.fault(&format!("{element}.name"), text);
        }
        if token.name == ADMIN_TOKEN && first.is_some() {
            let text = "is what the audit calls admin.token; take another name";
            s.fault(&format!("{element}.name"), text);
        }
        let known = tokens.iter().map(|other| &other.hash).chain(&first);
        if known.into_iter().any(|other| bool::from(other.same(&token.hash))) {
            s.fault(&element, "is the same token as another; each must be a token of its own");
        }
        tokens.push(token);
    }
    (tokens, wanted)
}

/// `None`: there is a fault.
fn token(mut s: Section<'_>, outside: &Outside<'_>) -> Option<ApiToken> {
    let name = Spec::of("name", words::NAME, "", "What the audit calls whoever has it.");
    let name = s.text(&name, |text| forms::backend_name(text).ok_or(None));
    let roles = [("read", Role::Read), ("write", Role::Write)];
    let role =
        s.choice("role", &roles, "", "Whether it may look alone (read) or change things, too (write).");
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned()).ok_or(None);
    let file = Spec::of("token_file", words::PATH, "null", "The file that holds it.").or_null();
    let variable = Spec::of("token_env", words::VARIABLE, "null", "The variable that holds it.").or_null();
    let (file, variable) = (s.text(&file, some), s.text(&variable, some));
    let (key, text) = match (file, variable) {
        (Some(file), None) => ("token_file", environment::read_secret(&outside.base.join(file))),
        (None, Some(variable)) => ("token_env", outside.variable(&variable)),
        (both, _) => {
            if !s.faulty("token_file") && !s.faulty("token_env") {
                let text = if both.is_some() {
                    "stands beside token_env; one of them"
                } else {
                    "is missing; this or token_env"
                };
                s.fault("token_file", format!("{text} must say where the token is"));
            }
            s.end();
            return None;
        }
    };
    let secret = text.and_then(|text| {
        forms::token(&text)
            .map_err(|fault| fault.unwrap_or_else(|| format!("holds no token: {}", forms::TOKEN)))
    });
    let hash = match secret {
        Ok(secret) => Some(SecretHash::of(secret.reveal().as_bytes())),
        Err(text) => {
            s.fault(key, text);
            None
        }
    };
    s.end();
    Some(ApiToken { name: name?, role: role?, hash: hash? })
}

impl Outside<'_> {
    fn variable(&self, name: &str) -> Result<String, String> {
        let found = self.env.iter().find(|(other, _)| other.to_str() == Some(name));
        let (_, value) = found.ok_or_else(|| format!("names the variable {name}, which is not set"))?;
        value
            .to_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("names the variable {name}, which is not UTF-8"))
    }
}

fn is_loopback(net: &IpNet) -> bool {
    match net {
        IpNet::V4(v4) => v4.addr().is_loopback() && v4.prefix_len() >= 8,
        IpNet::V6(v6) => v6.addr().is_loopback() && v6.prefix_len() == 128,
    }
}
