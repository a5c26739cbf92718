//! Names and passwords (RFC 7617).

use std::io::ErrorKind;

use serde_json::json;

use super::{setup, users};
use crate::support::client::head;
use crate::support::engine::each_engine;
use crate::support::{Backend, Conn, Engine, Response, request, until};

each_engine! {
    who_shows_no_right_password_is_asked_for_one,
    no_spelling_of_a_path_gets_around_a_password,
    the_backend_sees_the_password_unless_it_is_taken_out,
    a_page_of_many_pictures_is_let_in_at_once,
    a_reload_takes_the_files_anew,
}

/// `alice:wonderland`.
const ALICE: &str = "Basic YWxpY2U6d29uZGVybGFuZA==";
/// `bob:builder`.
const BOB: &str = "Basic Ym9iOmJ1aWxkZXI=";
/// `alice:builder`.
const WRONG: &str = "Basic YWxpY2U6YnVpbGRlcg==";

fn who_shows_no_right_password_is_asked_for_one(engine: Engine) {
    let backend = Backend::named("a");
    let routes =
        json!([{ "name": "the \"house\"", "path": "/in", "pool": "default", "basic_auth": "users" }]);
    let setup = setup(engine, &backend, routes);
    users(setup.folder(), "users", &[("alice", "wonderland"), ("bob", "builder")]);
    let balancer = setup.start();
    let ask = |fields: &[(&str, &str)]| request(balancer.address, "GET", "/in/x", fields, b"");
    let refused = |fields: &[(&str, &str)]| {
        let answer = ask(fields);
        let problem = answer.problem(401);
        assert_eq!(problem["detail"], "a right name and password are needed here");
        assert_eq!(answer.all("www-authenticate"), [r#"Basic realm="the _house_", charset="UTF-8""#]);
    };
    refused(&[]);
    for value in
        [WRONG, "Basic bWFsbG9yeTpidWlsZGVy", "Basic !", "Basic YWxpY2U=", "Bearer YWxpY2U6d29uZGVybGFuZA=="]
    {
        refused(&[("Authorization", value)]);
        // This time the verdict is remembered.
        refused(&[("Authorization", value)]);
    }
    // Of two fields, a backend might take the other one than we do.
    refused(&[("Authorization", ALICE), ("Authorization", WRONG)]);
    assert!(backend.seen().is_empty());
    for value in [ALICE, BOB, "basic YWxpY2U6d29uZGVybGFuZA=="] {
        ask(&[("Authorization", value)]).expect(200);
    }
    balancer.get("/").expect(200);
}

fn no_spelling_of_a_path_gets_around_a_password(engine: Engine) {
    let backend = Backend::named("a");
    let routes = json!([
        { "path": "/one", "pool": "default", "basic_auth": "one" },
        { "path": "/two", "pool": "default", "basic_auth": "two" },
    ]);
    let setup = setup(engine, &backend, routes);
    users(setup.folder(), "one", &[("alice", "wonderland")]);
    users(setup.folder(), "two", &[("alice", "wonderland"), ("bob", "builder")]);
    let balancer = setup.start();
    let ask = |target: &str, shown: &str| {
        request(balancer.address, "GET", target, &[("Authorization", shown)], b"").status
    };
    let rows = [
        ("/one", 401),
        ("/two", 200),
        ("/x/..%2fone", 401),
        ("/ONE", 401),
        ("/two/..%2fone", 401),
        ("/x", 200),
    ];
    for (target, status) in rows {
        assert_eq!((ask(target, BOB), ask(target, ALICE)), (status, 200), "{target}");
    }
}

fn the_backend_sees_the_password_unless_it_is_taken_out(engine: Engine) {
    let backend = Backend::named("a");
    let routes = json!([
        { "path": "/seen", "pool": "default", "basic_auth": "users" },
        { "path": "/hidden", "pool": "default", "basic_auth": "users", "set_request_headers": { "Authorization": null } },
    ]);
    let setup = setup(engine, &backend, routes);
    users(setup.folder(), "users", &[("alice", "wonderland")]);
    let balancer = setup.start();
    for target in ["/seen", "/hidden"] {
        request(balancer.address, "GET", target, &[("Authorization", ALICE)], b"").expect(200);
    }
    let shown: Vec<_> = backend.seen().iter().map(|seen| seen.field("authorization")).collect();
    assert_eq!(shown, [Some(ALICE.to_owned()), None]);
}

/// All of them ask before there is a verdict, and a body waits with its request.
fn a_page_of_many_pictures_is_let_in_at_once(engine: Engine) {
    let backend = Backend::named("a");
    let routes = json!([{ "pool": "default", "basic_auth": "users" }]);
    let setup = setup(engine, &backend, routes);
    users(setup.folder(), "users", &[("alice", "wonderland")]);
    let balancer = setup.start();
    let body = vec![b'x'; 200_000];
    let mut posting = Conn::open(balancer.address);
    let fields = [("Authorization", ALICE)];
    posting.send(head("POST", "/", &fields, Some(body.len())));
    let mut conns: Vec<Conn> = (0..20).map(|_| Conn::open(balancer.address)).collect();
    for conn in &mut conns {
        let fields = [("Connection", "close"), ("Authorization", ALICE)];
        conn.send(head("GET", "/picture", &fields, None));
    }
    posting.send(&body);
    for conn in conns.iter_mut().chain([&mut posting]) {
        assert_eq!(conn.read("GET").expect("an answer").status, 200);
    }
    let posted = backend.seen().into_iter().find(|seen| seen.request_line().starts_with("POST"));
    assert_eq!(posted.expect("it was sent").body.len(), body.len());
    assert_eq!(backend.seen().len(), 21);
}

fn a_reload_takes_the_files_anew(engine: Engine) {
    let backend = Backend::named("a");
    let routes = json!([{ "pool": "default", "basic_auth": "users", "errors": { "401": "who.html" } }]);
    let setup = setup(engine, &backend, routes);
    users(setup.folder(), "users", &[("alice", "wonderland")]);
    std::fs::write(setup.folder().join("who.html"), "Who?").expect("written");
    let balancer = setup.start();
    let ask = |shown: &str| -> Response {
        request(balancer.address, "GET", "/", &[("Authorization", shown), ("Accept", "text/html")], b"")
    };
    ask(ALICE).expect(200);
    assert_eq!(ask(WRONG).expect(401).text(), "Who?");
    // The file of the configuration stays as it is.
    users(setup.folder(), "users", &[("alice", "builder")]);
    std::fs::write(setup.folder().join("who.html"), "You?").expect("written");
    balancer.proc.signal(rustix::process::Signal::HUP);
    until("the new password is right", || (ask(WRONG).status == 200).then_some(()));
    assert_eq!(ask(ALICE).expect(401).text(), "You?");
}

/// Each of these takes a tenth of a second of a processor at least, and the loop is the only one.
#[test]
fn a_loop_goes_on_while_passwords_are_checked() {
    let backend = Backend::named("a");
    let routes = json!([{ "path": "/in", "pool": "default", "basic_auth": "users" }]);
    let setup = setup(Engine::Epoll, &backend, routes).one_loop();
    // No password has this hash.
    let (salt, hash) = ("u".repeat(22), "u".repeat(31));
    std::fs::write(setup.folder().join("users"), format!("alice:$2y$11${salt}{hash}\n")).expect("written");
    let balancer = setup.start();
    let goes_on = |letters: &str| {
        // `alice:aa` and one more character.
        let guess = |letter| {
            let shown = format!("Basic YWxpY2U6YWF{letter}");
            let mut conn = Conn::open(balancer.address);
            conn.send(head("GET", "/in", &[("Authorization", &shown)], None));
            conn
        };
        let mut guessing: Vec<Conn> = letters.chars().map(guess).collect();
        balancer.get("/").expect(200);
        let last = &guessing.last().expect("four").stream;
        last.set_nonblocking(true).expect("a socket");
        let waits = last.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        last.set_nonblocking(false).expect("a socket");
        for conn in &mut guessing {
            // Or 503, where the machine is too busy to check it within ten seconds.
            let status = conn.read("GET").expect("an answer").status;
            assert!(matches!(status, 401 | 503), "{status}");
        }
        waits
    };
    // On a busy machine all four may be answered before the other request, but not every time.
    assert!(
        ["abcd", "efgh", "ijkl", "mnop", "qrst"].into_iter().any(goes_on),
        "the loop waited for passwords"
    );
}
