//! A TLS session on a socket, against a client that sends records that no library would send.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore, ServerConfig};
use rustls::{ServerConnection, version};

use super::{PATIENCE, until};
use crate::engine::loops::secure::Secure;
use crate::engine::loops::wire::{Got, Socket};

/// The kinds of records (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// A client whose handshake is over.
struct Client {
    stream: TcpStream,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Client {
    /// A record as it goes over the wire (RFC 8446 §5.2).
    fn sealed(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut inner = [content, &[kind]].concat();
        let length = (inner.len() + AES_128_GCM.tag_len()) as u16;
        let header = [DATA, 3, 3, length.to_be_bytes()[0], length.to_be_bytes()[1]];
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, of)| *byte ^= of);
        self.sequence += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(header), &mut inner).expect("sealed");
        [&header[..], &inner].concat()
    }

    fn send(&mut self, kind: u8, content: &[u8]) {
        let record = self.sealed(kind, content);
        self.stream.write_all(&record).expect("sent");
    }
}

/// Both ends after a handshake.
fn met() -> (Box<Secure>, Socket, Client) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..default_provider()
    });
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).expect("a root");
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let socket = Socket(listener.accept().expect("accepted").0);
    socket.0.set_nonblocking(true).expect("set");
    let mut secure = Secure::new(ServerConnection::new(Arc::new(server)).expect("a session").into());
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(Arc::new(client), name).expect("a session");
    let mut buffer = vec![0; 64 * 1024];
    while session.is_handshaking() || secure.is_shaking_hands() {
        while session.wants_write() {
            session.write_tls(&mut stream).expect("sent");
        }
        until("the client has spoken", || match socket.receive(&mut buffer) {
            Got::Bytes(bytes) => {
                secure.shake_hands(&socket, &buffer[..bytes]).expect("shaken");
                true
            }
            _ => false,
        });
        if session.is_handshaking() {
            session.read_tls(&mut stream).expect("read");
            session.process_new_packets().expect("processed");
        }
    }
    let (sequence, secrets) = session.dangerous_extract_secrets().expect("secrets").tx;
    let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else { panic!("another suite") };
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).expect("a key"));
    let iv = iv.as_ref().try_into().expect("twelve bytes");
    (secure, socket, Client { stream, key, iv, sequence })
}

/// What the session reads in the end, without further events.
fn read(secure: &mut Secure, socket: &Socket, has_ended: bool) -> Got {
    let (mut buffer, mut cipher) = (vec![0; 4096], vec![0; 64 * 1024]);
    let mut got = Got::Nothing;
    until("something is read", || {
        got = secure.receive(socket, has_ended, &mut buffer, &mut cipher).0;
        got != Got::Nothing
    });
    got
}

#[test]
fn data_is_read_and_a_message_without_end_breaks_the_session() {
    let (mut secure, socket, mut client) = met();
    client.send(DATA, b"hello");
    assert_eq!(read(&mut secure, &socket, false), Got::Bytes(5));
    // A handshake message that claims the greatest length and never ends.
    let mut begins = vec![24, 0, 0xff, 0xff];
    begins.resize(16_384, 0);
    client.send(HANDSHAKE, &begins);
    for _ in 0..3 {
        client.send(HANDSHAKE, &[0; 16_384]);
    }
    assert!(matches!(read(&mut secure, &socket, false), Got::Broken(_)));
    assert!(secure.fault().is_some());
}

#[test]
fn an_end_is_read_that_was_told_together_with_half_a_record() {
    let (mut secure, socket, mut client) = met();
    let record = client.sealed(DATA, &[b'x'; 100]);
    client.stream.write_all(&record[..50]).expect("sent");
    client.stream.shutdown(Shutdown::Write).expect("shut down");
    until("both are here", || !socket.is_quiet());
    assert!(matches!(read(&mut secure, &socket, true), Got::Broken(_)));
}

#[test]
fn a_buffer_without_room_reads_nothing_and_loses_nothing() {
    let (mut secure, socket, mut client) = met();
    client.send(DATA, &[b'x'; 9_000]);
    client.send(DATA, &[b'y'; 9_000]);
    let mut cipher = vec![0; 64 * 1024];
    until("it came", || !socket.is_quiet());
    assert_eq!(secure.receive(&socket, false, &mut [], &mut cipher), (Got::Nothing, true));
    let (mut came, mut buffer) = (0, [0; 700]);
    until("all is read", || {
        if let (Got::Bytes(bytes), more) = secure.receive(&socket, false, &mut buffer, &mut cipher) {
            came += bytes;
            assert!(more || came == 18_000 || came == 9_000, "{came}");
        }
        came == 18_000
    });
}
