//! TLS to PostgreSQL in libpq's modes, with a server whose certificate the test makes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::super::StartError;
use super::postgres::Postgres;
use super::{Setup, aloud, id, limit, tester};

fn openssl(folder: &Path, args: &str) {
    let output = Command::new("openssl").args(args.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes an authority, a certificate that it signed for `localhost` only, and another authority that signed nothing.
fn certificates(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let authority = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
    for name in ["ca", "other"] {
        openssl(
            folder,
            &format!("req -x509 {key} {authority} -keyout {name}.key -out {name}.pem -subj /CN={name}"),
        );
    }
    openssl(folder, &format!("req {key} -keyout server.key -out server.csr -subj /CN=db"));
    std::fs::write(folder.join("ext"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.pem",
    );
}

fn with_tls(folder: &Path) -> Option<Postgres> {
    let settings = ["ssl=on", "ssl_cert_file=server.pem", "ssl_key_file=server.key"];
    Postgres::start_with(&settings, |data| {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
        let owner = std::fs::metadata(data).unwrap();
        for name in ["server.pem", "server.key"] {
            let to = data.join(name);
            std::fs::copy(folder.join(name), &to).unwrap();
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
            chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    })
}

/// `None` when the store does not work with that URL, else whether the server says that its connections are encrypted.
fn works(server: &Postgres, host: &str, query: &str) -> Option<bool> {
    let url = format!("postgres://postgres@{host}:{}/postgres?{query}&application_name=probe", server.port);
    let limits = Setup { pool_size: 1, ..Setup::postgres(&url) }.start();
    let limits = limits.unwrap();
    limits.create(&id("1.2.3.4"), limit(1), &tester()).ok()?;
    limits.delete(&id("1.2.3.4"), &tester()).unwrap();
    let mut client = ::postgres::Client::connect(&server.url(), ::postgres::NoTls).unwrap();
    let sql = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE application_name = 'probe'";
    client.query_one(sql, &[]).unwrap().get(0)
}

#[test]
fn each_mode_encrypts_and_checks_as_much_as_it_says() {
    if Command::new("openssl").arg("version").output().is_err() {
        return aloud("openssl is not installed: the TLS test was skipped");
    }
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let root = |name: &str| format!("sslrootcert={}", folder.path().join(name).display());
    let Some(server) = with_tls(folder.path()) else { return };
    let (encrypted, plain, refused) = (Some(true), Some(false), None);
    for (host, query, outcome) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), plain),
        ("127.0.0.1", "sslmode=prefer".to_owned(), encrypted),
        ("127.0.0.1", "sslmode=require".to_owned(), encrypted),
        // A root makes `require` check the chain, as in libpq.
        ("127.0.0.1", format!("sslmode=require&{}", root("other.pem")), refused),
        ("127.0.0.1", format!("sslmode=verify-ca&{}", root("ca.pem")), encrypted),
        ("127.0.0.1", format!("sslmode=verify-ca&{}", root("other.pem")), refused),
        ("localhost", format!("sslmode=verify-full&{}", root("ca.pem")), encrypted),
        // The certificate has another name.
        ("127.0.0.1", format!("sslmode=verify-full&{}", root("ca.pem")), refused),
        ("localhost", format!("sslmode=verify-full&{}", root("other.pem")), refused),
        // The machine does not know the authority.
        ("localhost", "sslmode=verify-full&sslrootcert=system".to_owned(), refused),
    ] {
        assert_eq!(works(&server, host, &query), outcome, "{host} {query}");
    }
    let missing = format!("postgres://u@h/d?sslmode=verify-full&{}", root("missing.pem"));
    assert!(matches!(Setup::postgres(&missing).start(), Err(StartError::Url(_))));

    // A paused server is given up as without TLS, since the deadline is below TLS.
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=require", server.port);
    let setup = Setup { timeout: Duration::from_secs(1), ..Setup::postgres(&url) };
    let limits = setup.start().unwrap();
    server.pause();
    assert!(limits.get(&id("1.2.3.4")).is_err());
    limits.stop();
    server.resume();
}

#[test]
fn a_server_without_tls_serves_prefer_and_refuses_require() {
    let Some(server) = Postgres::start() else { return };
    assert_eq!(works(&server, "127.0.0.1", "sslmode=prefer"), Some(false));
    assert_eq!(works(&server, "127.0.0.1", "sslmode=require"), None);
    let limits = Setup::postgres(&format!("{}?sslmode=require", server.url())).start().unwrap();
    let fault = limits.get(&id("1.2.3.4")).unwrap_err().to_string();
    assert!(fault.contains("the server does not speak TLS"), "{fault}");
}
