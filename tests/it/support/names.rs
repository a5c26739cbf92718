//! A name server that answers questions for A and SRV records over UDP as a test wants, and all other questions with no
//! records.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

/// The answer for a name.
#[derive(Clone)]
pub enum Says {
    /// These addresses; there may be none.
    Addresses(Vec<Ipv4Addr>),
    /// These SRV records (RFC 2782): priority, weight, port, target.
    Services(Vec<(u16, u16, u16, &'static str)>),
    /// SERVFAIL.
    Fails,
    /// No answer at all.
    Silent,
}

type Zone = Arc<Mutex<(HashMap<String, Says>, usize)>>;

/// A running name server. Its thread ends with the test process.
pub struct NameServer {
    /// Where it listens.
    pub address: SocketAddr,
    zone: Zone,
}

impl NameServer {
    /// Starts one that knows no name and answers every question with SERVFAIL.
    pub fn start() -> Self {
        Self::on(UdpSocket::bind("127.0.0.1:0").expect("a port"))
    }

    /// The same on a socket of the caller.
    pub fn on(socket: UdpSocket) -> Self {
        let address = socket.local_addr().expect("bound");
        let zone = Zone::default();
        let own = Arc::clone(&zone);
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((count, from)) = socket.recv_from(&mut buffer) {
                let says = |name: &str| {
                    let mut zone = own.lock().unwrap_or_else(PoisonError::into_inner);
                    zone.1 += 1;
                    zone.0.get(name).cloned().unwrap_or(Says::Fails)
                };
                if let Some(answer) = answer(&buffer[..count], says) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, zone }
    }

    /// Sets the answer for a name from now on.
    pub fn says(&self, name: &str, says: Says) {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).0.insert(name.to_owned(), says);
    }

    /// How many questions came.
    pub fn asked(&self) -> usize {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// Types of records (RFC 1035 §3.2.2, RFC 2782).
const A: u8 = 1;
const SRV: u8 = 33;

/// An answer (RFC 1035 §4.1): the id and the question again, then records whose names point to the name in the question.
fn answer(question: &[u8], says: impl Fn(&str) -> Says) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    while *question.get(at)? != 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(question.get(at + 1..end)?).to_lowercase());
        at = end;
    }
    let end = at + 5;
    let kind = *question.get(at + 2)?;
    let (code, records) = match says(&labels.join(".")) {
        Says::Addresses(list) if kind == A => (0, list.iter().map(|one| one.octets().to_vec()).collect()),
        Says::Services(list) if kind == SRV => (0, list.iter().map(srv).collect()),
        Says::Addresses(_) | Says::Services(_) => (0, Vec::new()),
        Says::Fails => (2, Vec::new()),
        Says::Silent => return None,
    };
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(records.len()).ok()?, 0, 0, 0, 0]);
    answer.extend(question.get(12..end)?);
    for data in records {
        answer.extend([0xC0, 12, 0, kind, 0, 1, 0, 0, 0, 1, 0, u8::try_from(data.len()).ok()?]);
        answer.extend(data);
    }
    Some(answer)
}

/// The data of an SRV record.
fn srv((priority, weight, port, target): &(u16, u16, u16, &'static str)) -> Vec<u8> {
    let mut data: Vec<u8> = [priority, weight, port].iter().flat_map(|number| number.to_be_bytes()).collect();
    for label in target.split('.').filter(|label| !label.is_empty()) {
        data.push(u8::try_from(label.len()).expect("at most 63"));
        data.extend(label.bytes());
    }
    data.push(0);
    data
}
