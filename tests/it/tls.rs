//! TLS to PostgreSQL: `sslmode=require` accepts any certificate, `verify-full` only one of a known root for the right name.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::postgres::Postgres;
use crate::support::{Backend, Setup, aloud, in_ci, installed};

fn openssl(folder: &Path, args: &str) {
    let output =
        Command::new("openssl").args(args.split(' ')).current_dir(folder).output().expect("openssl starts");
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, a certificate of it for `localhost` alone, and another authority that signed nothing.
fn certificates(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let authority = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
    openssl(folder, &format!("req -x509 {key} {authority} -keyout ca.key -out ca.pem -subj /CN=test-ca"));
    openssl(
        folder,
        &format!("req -x509 {key} {authority} -keyout other.key -out other.pem -subj /CN=other-ca"),
    );
    openssl(folder, &format!("req {key} -keyout server.key -out server.csr -subj /CN=db"));
    std::fs::write(folder.join("ext"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.pem",
    );
}

/// A server that takes TLS connections over TCP and no others.
fn server(folder: &Path) -> Option<Postgres> {
    let settings = ["ssl=on", "ssl_cert_file=server.pem", "ssl_key_file=server.key"];
    Postgres::start_with(&settings, |data| {
        for name in ["server.pem", "server.key"] {
            let to = data.join(name);
            std::fs::copy(folder.join(name), &to).unwrap();
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
            let owner = std::fs::metadata(data).unwrap();
            use std::os::unix::fs::MetadataExt;
            std::os::unix::fs::chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    })
}

/// Makes every TCP connection without TLS be refused from now on.
fn require_tls(server: &Postgres) {
    let mut client = postgres::Client::connect(&server.url(), postgres::NoTls).unwrap();
    let file: String = client.query_one("SHOW hba_file", &[]).unwrap().get(0);
    std::fs::write(&file, "hostssl all all 127.0.0.1/32 trust\nhostssl all all ::1/128 trust\n").unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    crate::support::until("plain connections are refused", || {
        postgres::Client::connect(&server.url(), postgres::NoTls).is_err().then_some(())
    });
}

#[test]
fn require_and_verify_full_do_what_they_say() {
    if !installed("openssl") {
        assert!(!in_ci(), "openssl is not there");
        return aloud("openssl is not installed: the TLS test was skipped");
    }
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let Some(server) = server(folder.path()) else { return };
    server.database("tls");
    require_tls(&server);
    let backend = Backend::named("a");
    let root = |name: &str| folder.path().join(name).display().to_string();
    let at = |host: &str, query: &str| format!("postgres://postgres@{host}:{}/tls?{query}", server.port);
    let right = format!("sslmode=verify-full&sslrootcert={}", root("ca.pem"));
    let wrong = format!("sslmode=verify-full&sslrootcert={}", root("other.pem"));
    let cases = [
        (at("127.0.0.1", "sslmode=require"), true),
        (at("localhost", "sslmode=require"), true),
        (at("localhost", &right), true),
        // The name is not in the certificate.
        (at("127.0.0.1", &right), false),
        // Another authority.
        (at("localhost", &wrong), false),
        // No authority of this machine knows it.
        (at("localhost", "sslmode=verify-full"), false),
        (at("localhost", "sslmode=disable"), false),
    ];
    for (url, works) in cases {
        let balancer = Setup::auto()
            .backend(backend.address())
            .set("database.url", json!(url))
            .set("database.timeout", json!("5s"))
            .start();
        let status = balancer.api("GET", "/limits", &Value::Null).status;
        assert_eq!(status, if works { 200 } else { 503 }, "{url}\n{}", balancer.proc.story());
    }
}
