//! Where a command finds its balancer, and how it takes answers. A listener of the test plays the balancer.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn at(url: &str) -> ApiTarget {
    ApiTarget { url: Some(url.into()), ..ApiTarget::default() }
}

/// Answers one connection with these bytes. The thread returns the request.
fn serve(answer: String) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        while !asked.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).unwrap();
            asked.extend_from_slice(&buffer[..count]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(asked).unwrap()
    });
    (address, server)
}

fn answer(status: &str, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_url_is_read_in_every_form_and_nothing_secret_is_repeated() {
    for (text, base) in [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://h/", "http://h"),
        ("http://h:1/balancer/", "http://h:1/balancer"),
        ("localhost:8080", "http://localhost:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
    ] {
        assert_eq!(base_of(text).as_deref(), Ok(base), "{text}");
    }
    for text in ["", "/", "ftp://h", "https://h", "http://", "http://h?x", "http://h#x", "http://h h"] {
        assert!(base_of(text).is_err(), "{text}");
    }
    let fault = base_of("http://me:hunter2@h").unwrap_err();
    assert!(!fault.contains("hunter2"), "{fault}");
}

#[test]
fn a_balancer_is_found_by_option_then_variable_then_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let backends = r#""backends": [{"name": "a", "url": "http://127.0.0.1:9001"}]"#;
    let rows = [
        (r#""listen": "0.0.0.0:81", "admin": {"token": "sixteen-letters-x"}"#, Some("http://127.0.0.1:81")),
        (r#""listen": "[::]:81", "admin": {"token": "sixteen-letters-x"}"#, Some("http://[::1]:81")),
        (r#""listen": "127.0.0.1:81", "admin": {"listen": "10.0.0.1:82"}"#, Some("http://10.0.0.1:82")),
        (r#""listen": "127.0.0.1:0""#, None),
        (r#""listen": "127.0.0.1:81", "admin": {"listen": "127.0.0.1:0"}"#, None),
        (r#""nonsense": 1"#, None),
    ];
    for (keys, base) in rows {
        std::fs::write(&file, format!("{{ {backends}, {keys} }}")).unwrap();
        let target = ApiTarget { config: Some(file.clone()), ..ApiTarget::default() };
        let found = Api::open(&target, &[]).map(|api| api.base);
        match base {
            Some(base) => assert_eq!(found.unwrap(), base),
            None => assert_eq!(found.unwrap_err().exit_code(), 2, "{keys}"),
        }
        // A URL wins over the file, and the option wins over the variable.
        let variables = env(&[("BALANCER_URL", ":1"), ("BALANCER_CONFIG", file.to_str().unwrap())]);
        assert_eq!(Api::open(&ApiTarget::default(), &variables).unwrap().base, "http://127.0.0.1:1");
        assert_eq!(Api::open(&at(":2"), &variables).unwrap().base, "http://127.0.0.1:2");
    }
    let missing = ApiTarget { config: Some(folder.path().join("nowhere.json")), ..ApiTarget::default() };
    let failure = Api::open(&missing, &[]).unwrap_err();
    assert_eq!(failure.exit_code(), 2);
    assert!(failure.to_string().contains("--url"), "{failure}");
}

#[test]
fn a_token_is_read_from_its_file_the_variable_or_the_configuration_that_named_the_balancer() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let token_file = path("token", "of-file\n");
    let config = path(
        "config.json",
        r#"{ "backends": [{"name": "a", "url": "http://127.0.0.1:9001"}], "admin": {"token": "of-the-configuration"} }"#,
    );
    let sent = |target: &ApiTarget, pairs: &[(&str, &str)]| {
        let api = Api::open(target, &env(pairs)).unwrap();
        api.authorization.map(|value| value.to_str().unwrap().to_owned())
    };
    let configured = ApiTarget { config: Some(config.clone()), ..ApiTarget::default() };
    let variable = [("BALANCER_ADMIN_TOKEN", "of-the-variable-alone")];
    let file_variable = [("BALANCER_ADMIN_TOKEN_FILE", token_file.to_str().unwrap())];
    let of = |text: &str| Some(format!("Bearer {text}"));

    assert_eq!(
        sent(&ApiTarget { token_file: Some(token_file.clone()), ..at(":1") }, &variable),
        of("of-file")
    );
    assert_eq!(sent(&at(":1"), &variable), of("of-the-variable-alone"));
    assert_eq!(sent(&at(":1"), &file_variable), of("of-file"));
    assert_eq!(sent(&at(":1"), &[]), None);
    assert_eq!(sent(&configured, &[]), of("of-the-configuration"));
    assert_eq!(
        sent(&configured, &variable),
        of("of-the-variable-alone"),
        "the environment wins over the file"
    );
    assert_eq!(sent(&ApiTarget { url: Some(":1".into()), ..configured }, &[]), of("of-the-configuration"));
    // The token of a configuration is not sent to a URL when --config was not given with it.
    assert_eq!(sent(&at(":1"), &[("BALANCER_CONFIG", config.to_str().unwrap())]), None);

    for (name, text) in [("empty", "\n"), ("two", "a\nb"), ("space", "a b"), ("long", &"x".repeat(5_000))] {
        let target = ApiTarget { token_file: Some(path(name, text)), ..at(":1") };
        let failure = Api::open(&target, &[]).unwrap_err();
        assert_eq!(failure.exit_code(), 2, "{name}");
        assert!(!failure.to_string().contains("a b"), "{failure}");
    }
    let absent = ApiTarget { token_file: Some(folder.path().join("absent")), ..at(":1") };
    assert_eq!(Api::open(&absent, &[]).unwrap_err().exit_code(), 2);
}

#[test]
fn a_call_carries_token_fields_and_body_and_gives_the_answer() {
    let (address, server) = serve(answer("201 Created", "application/json", "{\"a\":1}"));
    let api = Api::open(&at(&address.to_string()), &env(&[("BALANCER_ADMIN_TOKEN", "t")])).unwrap();
    let got = api.send(Method::PUT, "/-/v1/limit?client_id=x", &[("if-match", "\"7\"")], Some("{}")).unwrap();
    assert_eq!((got.status, got.body.as_str()), (201, "{\"a\":1}"));
    let asked = server.join().unwrap().to_ascii_lowercase();
    assert!(asked.starts_with("put /-/v1/limit?client_id=x http/1.1\r\n"), "{asked}");
    for line in [
        "authorization: bearer t\r\n",
        "if-match: \"7\"\r\n",
        "content-length: 2\r\n",
        "content-type: application/json\r\n",
    ] {
        assert!(asked.contains(line), "{line:?} in\n{asked}");
    }
    #[derive(Debug, serde::Deserialize)]
    struct Body {
        a: u32,
    }
    assert_eq!(api.read::<Body>(&got.body).unwrap().a, 1);
    assert_eq!(api.read::<Body>("[]").unwrap_err().exit_code(), 1);
}

#[test]
fn a_refusal_is_told_with_its_fields_and_a_redirect_is_not_followed() {
    let problem =
        r#"{"title":"Bad Request","status":400,"detail":"wrong","errors":[{"pointer":"/a","detail":"b"}]}"#;
    let (address, server) = serve(answer("400 Bad Request", "application/problem+json", problem));
    match Api::open(&at(&address.to_string()), &[]).unwrap().get("/x").unwrap_err() {
        CommandFailure::Refused { status: 400, text, errors } => {
            assert_eq!(text, "400 Bad Request: wrong\n  /a: b");
            assert_eq!(errors, [("/a".to_owned(), "b".to_owned())]);
        }
        other => panic!("{other:?}"),
    }
    server.join().unwrap();

    let (address, server) = serve(answer("302 Found\r\nLocation: http://127.0.0.1:1/", "text/html", "no"));
    let failure = Api::open(&at(&address.to_string()), &[]).unwrap().get("/x").unwrap_err();
    assert!(matches!(failure, CommandFailure::Refused { status: 302, .. }), "{failure:?}");
    server.join().unwrap();
}

#[test]
fn nobody_there_and_half_an_answer_are_told_by_the_place() {
    // Bound and not listening: no other program gets the port, and connecting is refused.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let failure = Api::open(&at(&address.to_string()), &[]).unwrap().get("/x").unwrap_err();
    assert_eq!(failure.exit_code(), 1);
    let text = failure.to_string();
    assert!(text.starts_with(&format!("http://{address}: nothing listens there")), "{text}");

    for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"] {
        let (address, server) = serve(answer.to_owned());
        let failure = Api::open(&at(&address.to_string()), &[]).unwrap().get("/x").unwrap_err();
        assert!(matches!(failure, CommandFailure::Unreachable(_)), "{failure:?}");
        server.join().unwrap();
    }
}
