//! What all commands that talk to a running balancer share: the address, the token, and what an answer's status means.
//! It speaks HTTP and knows nothing about the single calls.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::header::{self, HeaderValue};
use http::{Method, Request, Uri};

use super::failure::CommandFailure;
use crate::config::{self, Options, Secret};

/// How long making a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long a call may take in all. An import of 10,000 limits waits for the database in that time.
const CALL_PATIENCE: Duration = Duration::from_secs(120);

/// Largest answer. A page of 1,000 limits with four buckets each is below 2 MiB.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Largest token file.
const MAX_TOKEN_BYTES: u64 = 4_096;

/// Which balancer a command talks to: options that every such command has.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiTarget {
    /// The balancer to talk to: http://HOST:PORT, HOST:PORT or :PORT
    /// [default: BALANCER_URL, else what the configuration says].
    #[arg(long, global = true, value_name = "URL", help_heading = "Which balancer")]
    pub url: Option<String>,
    /// A file with the API's token [default: BALANCER_ADMIN_TOKEN, else the configuration's].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Which balancer")]
    pub token_file: Option<PathBuf>,
    /// Configuration file of the balancer to talk to [default: BALANCER_CONFIG, else ./config.json].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Which balancer")]
    pub config: Option<PathBuf>,
}

/// A balancer's API.
#[derive(Debug)]
pub struct Api {
    agent: ureq::Agent,
    /// `http://HOST:PORT` and perhaps a path, without a slash at its end.
    base: String,
    authorization: Option<HeaderValue>,
}

/// An answer with a status below 300, or 304.
#[derive(Debug)]
pub struct ApiAnswer {
    /// Its status.
    pub status: u16,
    /// Its body; empty for 204.
    pub body: String,
    /// Its `ETag`, with the quotes.
    pub etag: Option<String>,
}

impl Api {
    /// The balancer that options, environment or configuration name. Nothing is sent yet.
    ///
    /// # Errors
    /// [`CommandFailure::Usage`] when none is named, or the token cannot be read.
    pub fn open(target: &ApiTarget, env: &[(OsString, OsString)]) -> Result<Self, CommandFailure> {
        let (base, configured) = place(target, env)?;
        let token = match &target.token_file {
            Some(file) => Some(token_of(file)?),
            None => match configured {
                Some(token) => Some(token),
                None => token_of_env(env)?,
            },
        };
        let authorization = token.as_ref().map(bearer).transpose()?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("balancer/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_PATIENCE))
            .timeout_per_call(Some(CALL_PATIENCE))
            .build();
        Ok(Self { agent: config.new_agent(), base, authorization })
    }

    /// Sends one request. `path` begins with a slash and is below the base: `/-/v1/limits`. `fields` are further header
    /// fields.
    ///
    /// # Errors
    /// [`CommandFailure::Refused`] for every status that is not 2xx or 304, [`CommandFailure::Unreachable`] without an
    /// answer.
    pub fn send(
        &self,
        method: Method,
        path: &str,
        fields: &[(&'static str, &str)],
        body: Option<&str>,
    ) -> Result<ApiAnswer, CommandFailure> {
        let uri = format!("{}{path}", self.base);
        let mut request =
            Request::builder().method(method).uri(&uri).header(header::ACCEPT, "application/json");
        if let Some(value) = &self.authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let unsendable = |error: http::Error| CommandFailure::Usage(format!("this cannot be asked: {error}"));
        let answered = match body {
            Some(body) => self.agent.run(
                request.header(header::CONTENT_TYPE, "application/json").body(body).map_err(unsendable)?,
            ),
            None => self.agent.run(request.body(()).map_err(unsendable)?),
        };
        let unreachable = |error: &ureq::Error| CommandFailure::unreachable(&self.base, error);
        let response = answered.map_err(|error| unreachable(&error))?;
        let status = response.status().as_u16();
        let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let json = field(header::CONTENT_TYPE).is_some_and(|value| value.contains("json"));
        let etag = field(header::ETAG).map(str::to_owned);
        let body = response
            .into_body()
            .into_with_config()
            .limit(MAX_ANSWER_BYTES)
            .read_to_string()
            .map_err(|error| unreachable(&error))?;
        match status {
            200..=299 | 304 => Ok(ApiAnswer { status, body, etag }),
            _ => Err(CommandFailure::refused(&self.base, status, json.then_some(body.as_str()))),
        }
    }

    /// Sends a GET request. Returns the body of the answer.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub fn get(&self, path: &str) -> Result<String, CommandFailure> {
        self.send(Method::GET, path, &[], None).map(|answer| answer.body)
    }

    /// The URL of the balancer, such as `http://127.0.0.1:8080`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Reads the JSON of an answer.
    ///
    /// # Errors
    /// [`CommandFailure::Unreachable`] when it can't be read: what answered is not a balancer, or one of another
    /// version.
    pub fn read<'a, T: serde::Deserialize<'a>>(&self, body: &'a str) -> Result<T, CommandFailure> {
        serde_json::from_str(body).map_err(|error| {
            CommandFailure::Unreachable(format!("{}: its answer is not understood: {error}", self.base))
        })
    }
}

/// The base, and the token of the configuration. The token of a configuration is sent only to the balancer that this
/// configuration names, or to the URL that was given together with `--config`.
fn place(
    target: &ApiTarget,
    env: &[(OsString, OsString)],
) -> Result<(String, Option<Secret>), CommandFailure> {
    let given = match &target.url {
        Some(url) => Some((url.clone(), "--url")),
        None => variable(env, "BALANCER_URL")?.map(|url| (url, "BALANCER_URL")),
    };
    if let Some((url, name)) = given {
        let base = base_of(&url).map_err(|text| CommandFailure::Usage(format!("{name}: {text}")))?;
        let token = match &target.config {
            Some(_) => configuration(target, env)?.admin.token,
            None => None,
        };
        return Ok((base, token));
    }
    let config = configuration(target, env)?;
    let listen = match config.admin.listen {
        Some(address) => Some(("admin.listen", address)),
        None => config.listen.first().map(|address| ("listen", *address)),
    };
    match listen {
        Some((key, address)) if address.port() == 0 => Err(CommandFailure::Usage(format!(
            "{key} has port 0, so only the running balancer knows the real one: name it with --url or BALANCER_URL"
        ))),
        Some((_, address)) => {
            Ok((format!("http://{}", super::healthcheck::reachable(address)), config.admin.token))
        }
        None => Err(CommandFailure::Usage(
            "the configuration has a TLS port alone, and this command speaks none: set admin.listen, or listen, or name \
             the balancer with --url"
                .into(),
        )),
    }
}

fn configuration(target: &ApiTarget, env: &[(OsString, OsString)]) -> Result<config::Config, CommandFailure> {
    let options = Options { file: target.config.clone(), ..Options::default() };
    config::load(&options, env).map(|loaded| loaded.config).map_err(|faults| {
        CommandFailure::Usage(format!(
            "{faults}\n(the configuration was read to find the balancer; --url or BALANCER_URL name it instead)"
        ))
    })
}

/// `http://HOST[:PORT][/PATH]`, `HOST:PORT` or `:PORT` as a base.
fn base_of(text: &str) -> Result<String, String> {
    let url = match text {
        _ if text.contains("://") => text.to_owned(),
        _ if text.starts_with(':') => format!("http://127.0.0.1{text}"),
        _ => format!("http://{text}"),
    };
    let wrong = || format!("{text:?} is no URL like http://127.0.0.1:8080");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?.as_str();
    if authority.contains('@') {
        // The text is not repeated, since it may contain a password.
        return Err(
            "must hold no user or password: the token comes from --token-file or BALANCER_ADMIN_TOKEN".into(),
        );
    }
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err("https is not built in: go through a tunnel, or run this beside the balancer".into());
        }
        _ => return Err(wrong()),
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(format!("{text:?} must have no query and no fragment"));
    }
    Ok(format!("http://{authority}{}", uri.path().trim_end_matches('/')))
}

/// A variable that is set and not empty.
fn variable(env: &[(OsString, OsString)], name: &str) -> Result<Option<String>, CommandFailure> {
    match env.iter().find(|(key, value)| key == name && !value.is_empty()) {
        None => Ok(None),
        Some((_, value)) => match value.to_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(CommandFailure::Usage(format!("{name}: is not UTF-8"))),
        },
    }
}

fn token_of_env(env: &[(OsString, OsString)]) -> Result<Option<Secret>, CommandFailure> {
    match (variable(env, "BALANCER_ADMIN_TOKEN")?, variable(env, "BALANCER_ADMIN_TOKEN_FILE")?) {
        (Some(token), _) => Ok(Some(Secret::new(token))),
        (None, Some(file)) => token_of(Path::new(&file)).map(Some),
        (None, None) => Ok(None),
    }
}

/// The text of a file, without line ends at its end.
fn token_of(file: &Path) -> Result<Secret, CommandFailure> {
    let wrong = |text: &str| CommandFailure::Usage(format!("{}: {text}", file.display()));
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| wrong(&format!("the token cannot be read: {error}")))?;
    let token = text.trim_end_matches(['\r', '\n']);
    match token.len() {
        0 => Err(wrong("holds no token")),
        length if length as u64 > MAX_TOKEN_BYTES => Err(wrong("is too long for a token")),
        _ => Ok(Secret::new(token)),
    }
}

fn bearer(token: &Secret) -> Result<HeaderValue, CommandFailure> {
    if !token.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CommandFailure::Usage(
            "the token must be visible ASCII characters without spaces".into(),
        ));
    }
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
        .map_err(|_| CommandFailure::Usage("the token does not fit into a header field".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
