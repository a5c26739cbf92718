//! Which balancer a command asks and with which token, and what it says when none answers there.

use serde_json::json;

use super::Cli;
use crate::support::backend::refusing;
use crate::support::{Backend, Setup};

const LS: &[&str] = &["limits", "ls"];

#[test]
fn a_balancer_is_found_by_its_configuration_and_with_admin_listen_there_alone() {
    let backend = Backend::named("a");
    for separate in [false, true] {
        let mut setup =
            Setup::auto().backend(backend.address()).set("admin.token", json!("t0p-secret-of-the-api"));
        if separate {
            setup = setup.set("admin.listen", json!("127.0.0.1:0"));
        }
        let balancer = setup.start();
        // The real ports are known only now.
        let mut known = setup.clone().set("listen", json!(balancer.address.to_string()));
        if separate {
            known = known.set("admin.listen", json!(balancer.admin.to_string()));
        }
        let path = known.write();
        let path = path.to_str().expect("UTF-8");
        Cli::new(LS).folder(setup.folder()).run().good();
        Cli::new(LS).env("BALANCER_CONFIG", path).run().good();
        Cli::new(&["limits", "ls", "--config", path]).run().good();
        Cli::new(&["limits", "--config", path, "ls"]).run().good();

        // A URL alone brings no token of a file that nobody named.
        let url = balancer.admin.to_string();
        let err = Cli::new(&["limits", "ls", "--url", &url]).folder(setup.folder()).run().bad(1);
        assert!(err.starts_with("401 ") && err.contains("--token-file"), "{err}");
        Cli::new(&["limits", "ls", "--url", &url])
            .env("BALANCER_ADMIN_TOKEN", "t0p-secret-of-the-api")
            .run()
            .good();
        let token = setup.folder().join("token");
        std::fs::write(&token, "t0p-secret-of-the-api\n").expect("written");
        let token = token.to_str().expect("UTF-8");
        Cli::new(&["limits", "ls", "--url", &url, "--token-file", token]).run().good();
        Cli::new(&["limits", "ls", "--url", &url]).env("BALANCER_ADMIN_TOKEN_FILE", token).run().good();
        let err = Cli::new(LS).env("BALANCER_URL", &url).env("BALANCER_ADMIN_TOKEN", "other").run().bad(1);
        assert!(err.starts_with("401 ") && !err.contains("other"), "{err}");

        if separate {
            // On the public port that path goes to a backend.
            let public = balancer.address.to_string();
            let err = Cli::new(LS)
                .env("BALANCER_URL", &public)
                .env("BALANCER_ADMIN_TOKEN", "t0p-secret-of-the-api")
                .run()
                .bad(1);
            assert!(err.contains("its answer is not understood"), "{err}");
        }
    }
}

#[test]
fn what_names_no_balancer_is_usage_and_one_that_is_away_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let err = Cli::new(LS).folder(folder.path()).run().bad(2);
    assert!(err.contains("config.json") && err.contains("--url"), "{err}");
    for url in ["https://127.0.0.1:1", "ftp://h", "http://user:hunter2@h"] {
        let err = Cli::new(LS).env("BALANCER_URL", url).run().bad(2);
        assert!(err.starts_with("BALANCER_URL: ") && !err.contains("hunter2"), "{err}");
    }
    Cli::new(&["limits", "ls", "--url", ":1", "--token-file", "/nowhere"]).run().bad(2);

    let setup = Setup::auto().backend("127.0.0.1:9".parse().expect("an address"));
    setup.write();
    let err = Cli::new(LS).folder(setup.folder()).run().bad(2);
    assert!(err.contains("port 0"), "{err}");

    let url = refusing().to_string();
    let err = Cli::new(LS).env("BALANCER_URL", &url).run().bad(1);
    assert!(err.starts_with(&format!("http://{url}: nothing listens there")), "{err}");
}

#[test]
fn every_command_has_help_with_examples() {
    for args in [
        &["limits", "ls"][..],
        &["limits", "get"],
        &["limits", "set"],
        &["limits", "rm"],
        &["limits", "reset"],
        &["limits", "explain"],
        &["limits", "id"],
        &["limits", "import"],
        &["limits", "export"],
        &["plans"],
        &["plans", "set"],
        &["top"],
    ] {
        let help = Cli::new(&[args, &["--help"]].concat()).run().good();
        let example = format!("  balancer {}", args.join(" "));
        assert!(help.contains("Examples:") && help.contains(&example), "{args:?}\n{help}");
    }
}
