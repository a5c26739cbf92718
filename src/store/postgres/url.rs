//! `database.url` for PostgreSQL, with libpq's parameters. The `postgres` crate reads most of them. Those about TLS are
//! read here, because the crate does not know `verify-ca`, `verify-full` and `sslrootcert`.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use balancer_http::framing::host::percent_encoding_is_whole;
use percent_encoding::percent_decode_str;
use postgres::Config;
use postgres::config::{Host, SslMode as CrateMode, SslNegotiation};

/// libpq's `sslmode`, without `allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server speaks it, unverified. As in libpq, this is the default.
    Prefer,
    /// TLS, unverified unless a root is named.
    Require,
    /// TLS, with a certificate that a known root signed.
    VerifyCa,
    /// TLS, with a certificate that a known root signed for the name of the host.
    VerifyFull,
}

/// Who may sign the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SslRoot {
    /// The roots of the system.
    System,
    /// The roots in a file: `sslrootcert=PATH`, in PEM form.
    File(PathBuf),
}

/// A parsed URL.
#[derive(Clone, Debug)]
pub struct Target {
    /// Everything but TLS. Its `Debug` hides the password.
    pub config: Config,
    /// How connections are secured.
    pub mode: SslMode,
    /// Who may sign the server's certificate.
    pub root: SslRoot,
}

/// Time-outs of the kernel, which free sockets whose host is gone. Calls end earlier, by our own deadlines ([`super::timed`]).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_RETRIES: u32 = 3;

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong and what is allowed. The text quotes nothing that may be a part of the password.
    pub fn parse(url: &str, timeout: Duration) -> Result<Self, String> {
        let (front, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut root, mut rest) = (SslMode::Prefer, SslRoot::System, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("sslmode", value) => mode = parse_mode(value)?,
                ("sslrootcert", "system") => root = SslRoot::System,
                ("sslrootcert", value) => root = SslRoot::File(decode(value)?.into()),
                _ => rest.push(pair),
            }
        }
        let text = if rest.is_empty() { front.to_owned() } else { format!("{front}?{}", rest.join("&")) };
        let mut config: Config = text.parse().map_err(|_| WRONG_URL.to_owned())?;
        let mode = settle_hosts(&mut config, mode)?;
        if config.get_user().is_none() {
            return Err("names no user: postgres://USER:PASSWORD@HOST/DATABASE".into());
        }
        config
            .connect_timeout(timeout)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(timeout.max(KEEPALIVE_IDLE));
        if config.get_application_name().is_none() {
            config.application_name("balancer");
        }
        Ok(Self { config, mode, root })
    }
}

const WRONG_URL: &str = "is not a PostgreSQL URL (postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=MODE; \
    @ : / ? # & and % in a password are written %40 %3A %2F %3F %23 %26 %25)";

/// Makes every connection over TCP use our connector. The crate asks a connector only for hosts that have a name, so hosts
/// that are given by address get one. As in libpq, a Unix socket has no TLS.
fn settle_hosts(config: &mut Config, mode: SslMode) -> Result<SslMode, String> {
    let unix = config.get_hosts().iter().filter(|host| matches!(host, Host::Unix(_))).count();
    if unix > 0 && unix == config.get_hosts().len() {
        config.ssl_mode(CrateMode::Disable);
        return Ok(SslMode::Disable);
    }
    if unix > 0 {
        return Err("names Unix sockets beside hosts; name one kind".into());
    }
    if config.get_hosts().is_empty() {
        let addresses = config.get_hostaddrs().to_vec();
        if addresses.is_empty() {
            return Err("names no host: postgres://USER:PASSWORD@HOST/DATABASE".into());
        }
        for address in addresses {
            config.host(&address.to_string());
        }
    }
    config.ssl_mode(CrateMode::Require).ssl_negotiation(SslNegotiation::Direct);
    Ok(mode)
}

fn parse_mode(value: &str) -> Result<SslMode, String> {
    match value {
        "disable" => Ok(SslMode::Disable),
        "prefer" => Ok(SslMode::Prefer),
        "require" => Ok(SslMode::Require),
        "verify-ca" => Ok(SslMode::VerifyCa),
        "verify-full" => Ok(SslMode::VerifyFull),
        _ => Err("sslmode is one of disable, prefer, require, verify-ca, verify-full".into()),
    }
}

/// Removes percent-encoding (RFC 3986 §2.1).
fn decode(value: &str) -> Result<String, String> {
    if !percent_encoding_is_whole(value.as_bytes()) {
        return Err("sslrootcert holds a % that two hexadecimal digits do not follow".into());
    }
    let decoded = percent_decode_str(value).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| "sslrootcert is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, String> {
        Target::parse(url, Duration::from_secs(2))
    }

    #[test]
    fn every_mode_of_libpq_is_read_and_the_rest_goes_to_the_crate() {
        for (query, mode) in [
            ("", SslMode::Prefer),
            ("?sslmode=disable", SslMode::Disable),
            ("?sslmode=prefer", SslMode::Prefer),
            ("?sslmode=require&application_name=x", SslMode::Require),
            ("?application_name=x&sslmode=verify-ca", SslMode::VerifyCa),
            ("?sslmode=verify-full", SslMode::VerifyFull),
        ] {
            let target = parse(&format!("postgres://u:p%40w@db.example:5433/limits{query}")).unwrap();
            assert_eq!(target.mode, mode, "{query}");
            assert_eq!(target.config.get_hosts(), [Host::Tcp("db.example".into())]);
            assert_eq!(target.config.get_password(), Some(&b"p@w"[..]));
            assert_eq!(target.config.get_ssl_mode(), CrateMode::Require, "all pass through our connector");
        }
        let target = parse("postgres://u@h/d?sslmode=verify-full&sslrootcert=/etc/my%20ca.pem").unwrap();
        assert_eq!(target.root, SslRoot::File("/etc/my ca.pem".into()));
        let target = parse("postgres://u@h/d?sslrootcert=system&sslnegotiation=postgres").unwrap();
        assert_eq!((target.mode, target.root), (SslMode::Prefer, SslRoot::System));
    }

    #[test]
    fn a_unix_socket_stays_plain_and_an_address_gets_a_name() {
        let target = parse("postgres://u@%2Frun%2Fpostgresql/d?sslmode=require").unwrap();
        assert_eq!((target.mode, target.config.get_ssl_mode()), (SslMode::Disable, CrateMode::Disable));
        let target = parse("postgres://u@/d?hostaddr=127.0.0.1").unwrap();
        assert_eq!(target.config.get_hosts(), [Host::Tcp("127.0.0.1".into())]);
    }

    #[test]
    fn a_wrong_url_is_refused_without_quoting_the_password() {
        for url in [
            "postgres://u:hunter2@h/d?sslmode=maybe",
            "postgres://u:hunter2@h/d?nonsense=1",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@/d",
            "postgres://u:hunter2@h,%2Frun/d",
            "postgres://u:hunter2@h/d?sslrootcert=%zz",
        ] {
            let error = parse(url).expect_err(url);
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(!format!("{:?}", parse("postgres://u:hunter2@h/d").unwrap()).contains("hunter2"));
    }
}
