use super::*;

fn plain() -> Behaviour {
    Behaviour {
        name: "one".into(),
        delay: Duration::ZERO,
        health_path: "/health".into(),
        status: 200,
        chunked: false,
        size: None,
        close: false,
    }
}

fn start(behaviour: Behaviour) -> (Arc<Server>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Arc::new(Server::new(behaviour, false));
    let accepting = Arc::clone(&server);
    thread::spawn(move || accepting.accept(&listener));
    (server, address)
}

fn send(address: SocketAddr, request: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.write_all(request).unwrap();
    socket
}

/// Everything that comes back until the server closes.
fn talk(address: SocketAddr, request: &[u8]) -> String {
    let mut answer = String::new();
    send(address, request).read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn requests_are_echoed_one_after_another_on_one_connection() {
    let (_, address) = start(plain());
    let answer = talk(
        address,
        b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"exaple\":123}\
          HEAD / HTTP/1.1\r\nHost: x\r\n\r\n\
          PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n\
          GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    let whole = |more: &str, body: &str, shown: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Backend: one\r\nContent-Length: {length}\r\n\
             {more}\r\n{shown}"
        )
    };
    let post = "{\"http_method\":\"POST\",\"request_uri\":\"/a?b\",\"your_message\":{\"exaple\":123}}";
    let head = "{\"http_method\":\"HEAD\",\"request_uri\":\"/\",\"your_message\":null}";
    let put = "{\"http_method\":\"PUT\",\"request_uri\":\"/c\",\"your_message\":\"hello\"}";
    let last = "{\"http_method\":\"GET\",\"request_uri\":\"/last\",\"your_message\":null}";
    let expected = [
        whole("", post, post),
        whole("", head, ""),
        whole("", put, put),
        whole("Connection: close\r\n", last, last),
    ];
    assert_eq!(answer, expected.concat());
}

#[test]
fn http_1_0_is_closed_unless_it_asks_and_never_gets_chunks() {
    let (_, address) = start(Behaviour { chunked: true, ..plain() });
    let answer = talk(address, b"GET / HTTP/1.0\r\n\r\n");
    assert!(
        answer.contains("Connection: close\r\n") && answer.contains("Content-Length: 59\r\n"),
        "{answer}"
    );
    let answer = talk(address, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n");
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2);
    assert!(answer.contains("Connection: keep-alive\r\n"), "{answer}");
}

#[test]
fn sizes_chunks_statuses_and_closing_are_as_asked() {
    let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let (_, address) = start(Behaviour { size: Some(200_000), close: true, ..plain() });
    let answer = talk(address, get);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Content-Length: 200000") && head.contains("Connection: close"), "{head}");
    assert_eq!(body.len(), 200_000);
    assert!(body.bytes().zip((b'a'..=b'z').cycle()).all(|(one, other)| one == other));

    let (_, address) = start(Behaviour { size: Some(70_000), chunked: true, close: true, ..plain() });
    let answer = talk(address, get);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Transfer-Encoding: chunked") && !head.contains("Content-Length"), "{head}");
    assert!(body.starts_with("fff0\r\nabc") && body.ends_with("\r\n0\r\n\r\n"));

    let (_, address) = start(Behaviour { status: 204, close: true, ..plain() });
    let answer = talk(address, get);
    assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(!answer.contains("Content-Length"));
}

#[test]
fn the_health_path_fails_and_passes_while_others_do_not_notice() {
    let (server, address) = start(Behaviour { status: 404, close: true, ..plain() });
    let status = |path: &str| {
        talk(address, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())[9..12].to_owned()
    };
    for failing in [false, true, false] {
        server.failing.store(failing, Ordering::Relaxed);
        assert_eq!(status("/health?x=1"), if failing { "503" } else { "200" });
        assert_eq!(status("/healthy"), "404");
    }
}

#[test]
fn bad_requests_are_answered_and_end_their_own_connection_only() {
    let (_, address) = start(plain());
    for (request, status) in [
        (&b"nonsense\r\n\r\n"[..], "400"),
        (b"GET / HTTP/1.1\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 107374182400\r\n\r\n", "413"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", "400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "400"),
    ] {
        let answer = talk(address, request);
        let shown = String::from_utf8_lossy(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown} got {answer}");
        assert!(answer.contains("Connection: close\r\n"), "{answer}");
    }
    let answer = talk(address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn a_chunked_body_without_end_is_refused_and_the_client_reads_why() {
    let (_, address) = start(plain());
    let mut socket =
        send(address, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5000000\r\n");
    let block = vec![b'x'; 1024 * 1024];
    // 64 MiB fit, and one more is still read before the connection ends.
    for _ in 0..65 {
        socket.write_all(&block).unwrap();
    }
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let (_, address) = start(plain());
    let mut socket = send(
        address,
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
    );
    let mut interim = [0; 25];
    socket.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"42").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\"your_message\":42}"), "{answer}");
}

/// Kept connections that come all at once are all served: on `tiny_http` most of them starve.
#[test]
fn a_burst_of_kept_connections_is_served() {
    let (server, address) = start(plain());
    let mut sockets: Vec<_> = (0..100).map(|_| send(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    for socket in &mut sockets {
        socket.read_exact(&mut [0; 12]).unwrap();
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 100);
    drop(sockets);
    for _ in 0..10_000 {
        if server.connections.load(Ordering::Relaxed) == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("{} connections stay counted", server.connections.load(Ordering::Relaxed));
}
