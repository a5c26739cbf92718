//! TLS with both ends in the test: sessions of which the test sends every record, and backends of the same kind.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};
use serde_json::json;

use super::secure::{chain, key, tls_port};
use super::{Balancer, Conn, Engine, PATIENCE, Setup};

/// A client's end of a TLS connection.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Both versions that Balancer speaks.
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// Writes `server.pem`, which is self-signed for `localhost`, `a.example` and 127.0.0.1, and `server.key`.
pub fn certify(folder: &Path) {
    let names = ["localhost", "a.example", "127.0.0.1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(folder.join("server.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("server.key"), made.signing_key.serialize_pem()).unwrap();
}

/// The configuration of a server that has that pair.
fn server(folder: &Path, pair: &str) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&VERSIONS).unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(chain(folder, pair), key(folder, pair)).unwrap())
}

/// A setup with a TLS port, to which the plain port does not redirect.
pub fn setup() -> Setup {
    let setup = Setup::on(Engine::Epoll);
    certify(setup.folder());
    setup
        .set("tls.listen", json!("127.0.0.1:0"))
        .set("tls.certificates", json!([{ "cert": "server.pem", "key": "server.key" }]))
        .set("tls.redirect", json!(false))
}

/// A client that trusts `server.pem` in that folder, and speaks these versions.
pub fn client(folder: &Path, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(chain(folder, "server").remove(0)).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A session on a connected socket whose handshake has not begun.
pub fn begin(to: SocketAddr, config: &Arc<ClientConfig>) -> Tls {
    let name = ServerName::try_from("a.example").unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let socket = TcpStream::connect(to).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(session, socket)
}

/// Does the handshake, and reads nothing after it.
#[track_caller]
pub fn shake_hands(mut tls: Tls) -> Tls {
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock).expect("a handshake");
    }
    tls
}

/// A connection for HTTP/1.1 to a balancer, with that version of TLS.
#[track_caller]
pub fn open(balancer: &Balancer, version: &'static SupportedProtocolVersion) -> Conn<Tls> {
    let config = Arc::new(client(balancer.folder(), &[version], &["http/1.1"]));
    Conn::over(shake_hands(begin(tls_port(balancer), &config)))
}

/// A backend's end of a TLS connection.
pub type Served = StreamOwned<ServerConnection, TcpStream>;

/// A backend that speaks TLS. Its listener ends when it is dropped.
pub struct SecureBackend {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    echoed: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SecureBackend {
    /// Uses the pair `server` of that folder, and calls `script` for every connection. When the script returns, the
    /// connection ends without a close_notify, unless the script has sent one.
    pub fn start(folder: &Path, script: impl Fn(&mut Served) + Send + Sync + 'static) -> Self {
        Self::with(server(folder, "server"), script)
    }

    fn with(config: Arc<ServerConfig>, script: impl Fn(&mut Served) + Send + Sync + 'static) -> Self {
        let script = Arc::new(script);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, stopped) = <(Arc<AtomicUsize>, Arc<AtomicBool>)>::default();
        let (own, ends) = (Arc::clone(&connections), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                own.fetch_add(1, Ordering::SeqCst);
                let _ = socket.set_nodelay(true);
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(&mut StreamOwned::new(session, socket)));
            }
        });
        Self { address, connections, echoed: Arc::default(), stopped, thread: Some(thread) }
    }

    /// Answers every request with those bytes.
    pub fn answering(folder: &Path, bytes: &'static [u8]) -> Self {
        Self::start(folder, move |tls| while request(tls).is_some() && tls.write_all(bytes).is_ok() {})
    }

    /// Uses that pair of the folder, and answers every request with its own head.
    pub fn echoing(folder: &Path, pair: &str) -> Self {
        let echoed = Arc::<AtomicUsize>::default();
        let own = Arc::clone(&echoed);
        let mut backend = Self::with(server(folder, pair), move |tls| {
            while let Some(head) = request(tls) {
                own.fetch_add(1, Ordering::SeqCst);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
                if tls.write_all(answer.as_bytes()).and_then(|()| tls.flush()).is_err() {
                    return;
                }
            }
        });
        backend.echoed = echoed;
        backend
    }

    pub fn url(&self) -> serde_json::Value {
        json!({ "url": format!("https://{}", self.address) })
    }

    /// How many connections it accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many requests were echoed, health checks among them.
    pub fn echoed(&self) -> usize {
        self.echoed.load(Ordering::SeqCst)
    }
}

impl Drop for SecureBackend {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads the head of a request without a body; `None` when the connection has ended.
pub fn request(tls: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        tls.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// Sends close_notify.
pub fn say_end(tls: &mut Served) {
    tls.conn.send_close_notify();
    let _ = tls.flush();
}
