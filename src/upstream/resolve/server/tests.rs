use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;

mod srv;

/// What a server says to a question of that type: response code, truncated, addresses.
type Says = fn(u16) -> Option<(u8, bool, Vec<IpAddr>)>;

const TYPE_A: u16 = 1;

/// A name server on UDP and TCP; counts what it was asked on each. Its threads end with the process.
struct Server {
    address: SocketAddr,
    asked: Arc<[AtomicUsize; 2]>,
}

impl Server {
    fn start(says: Says) -> Self {
        Self::answering(move |question, may_truncate| answer(question, says, may_truncate))
    }

    /// One that makes whole messages of questions; it is told whether they came over UDP.
    fn answering(answer: impl Fn(&[u8], bool) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        let by_tcp = Arc::clone(&answer);
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            // Both on one port, if that one is free.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let asked: Arc<[AtomicUsize; 2]> = Arc::default();
        let counts = Arc::clone(&asked);
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((count, from)) = udp.recv_from(&mut buffer) {
                counts[0].fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = answer(&buffer[..count], true) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let counts = Arc::clone(&asked);
        thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                counts[1].fetch_add(1, Ordering::SeqCst);
                let mut length = [0; 2];
                let mut question = vec![0; 512];
                if stream.read_exact(&mut length).is_err() {
                    continue;
                }
                question.truncate(u16::from_be_bytes(length).into());
                let _ = stream.read_exact(&mut question);
                if let Some(answer) = by_tcp(&question, false) {
                    let _ = stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes());
                    let _ = stream.write_all(&answer);
                }
            }
        });
        Self { address, asked }
    }

    fn look_up(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        self.within(Duration::from_secs(20)).addresses(host, 80)
    }

    fn within(&self, patience: Duration) -> NameServer {
        NameServer { address: self.address, patience }
    }

    fn asked(&self) -> [usize; 2] {
        [&self.asked[0], &self.asked[1]].map(|count| count.load(Ordering::SeqCst))
    }
}

/// A message (RFC 1035 §4.1) with the question's id and name, then the records, whose names point at the question's.
fn answer(question: &[u8], says: Says, may_truncate: bool) -> Option<Vec<u8>> {
    let name_end = 12 + question[12..].iter().position(|byte| *byte == 0)? + 1;
    let kind = u16::from_be_bytes([question[name_end], question[name_end + 1]]);
    let (code, truncated, addresses) = says(kind)?;
    let truncated = truncated && may_truncate;
    let records: Vec<_> = if truncated { Vec::new() } else { addresses };
    let mut answer = question[..2].to_vec();
    answer.extend([0x81 | u8::from(truncated) << 1, 0x80 | code]);
    for count in [1, u16::try_from(records.len()).unwrap(), 0, 0] {
        answer.extend(count.to_be_bytes());
    }
    answer.extend(&question[12..name_end + 4]);
    for address in records {
        let data: Vec<u8> = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        answer.extend([0xC0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 60]);
        answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}

fn of(kind: u16, v4: &[&str], v6: &[&str]) -> Vec<IpAddr> {
    let list = if kind == TYPE_A { v4 } else { v6 };
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn shown(answer: io::Result<Vec<SocketAddr>>) -> Vec<String> {
    let mut addresses: Vec<String> = answer.unwrap().iter().map(SocketAddr::to_string).collect();
    addresses.sort();
    addresses
}

#[test]
fn both_families_are_asked_for() {
    let server = Server::start(|kind| Some((0, false, of(kind, &["10.0.0.2", "10.0.0.1"], &["fd00::1"]))));
    assert_eq!(shown(server.look_up("a.test")), ["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"]);
    assert_eq!(shown(server.look_up("A.Test.")).len(), 3, "whatever the case, and with the dot at its end");
    assert_eq!(server.asked(), [4, 0]);
}

#[test]
fn what_does_not_fit_is_asked_for_over_tcp() {
    let server = Server::start(|kind| {
        let many = if kind == TYPE_A {
            (0..200).map(|last| IpAddr::from([10, 0, 0, last])).collect()
        } else {
            vec![]
        };
        Some((0, true, many))
    });
    assert_eq!(server.look_up("a.test").unwrap().len(), 200);
    assert_eq!(server.asked(), [2, 2]);
}

#[test]
fn half_of_an_answer_is_an_answer_and_none_is_a_failure() {
    const SERVFAIL: u8 = 2;
    const NXDOMAIN: u8 = 3;
    let half: Says = |kind| {
        Some(if kind == TYPE_A {
            (0, false, of(kind, &["10.0.0.1"], &[]))
        } else {
            (SERVFAIL, false, vec![])
        })
    };
    assert_eq!(shown(Server::start(half).look_up("a.test")), ["10.0.0.1:80"]);
    let other: Says = |kind| (kind != TYPE_A).then(|| (0, false, of(kind, &[], &["fd00::1"])));
    let silent = Duration::from_millis(300);
    let answer = Server::start(other).within(silent).addresses("a.test", 80);
    assert_eq!(shown(answer), ["[fd00::1]:80"], "the other is silent");
    let empty = Server::start(|_| Some((0, false, vec![])));
    assert!(empty.look_up("a.test").unwrap().is_empty());
    for fails in
        [(|_| Some((SERVFAIL, false, vec![]))) as Says, |_| Some((NXDOMAIN, false, vec![])), |_| None]
    {
        let server = Server::start(fails);
        let error = server.within(silent).addresses("a.test", 80).unwrap_err();
        assert!(error.to_string().contains(&server.address.to_string()), "{error}");
    }
}

#[test]
fn localhost_is_not_asked_for() {
    let server = Server::start(|_| Some((0, false, vec![])));
    for host in ["localhost", "LOCALHOST", "localhost."] {
        assert!(server.look_up(host).unwrap().iter().all(|address| address.ip().is_loopback()), "{host}");
    }
    assert_eq!(server.asked(), [0, 0]);
    assert!(is_local("a.localhost") && !is_local("localhost.test") && !is_local("a"));
}
