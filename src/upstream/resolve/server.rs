//! Asks a name server for A, AAAA and SRV records over UDP, and over TCP when the answer does not fit (RFC 1035 §4.2,
//! RFC 7766). The library that reads answers bounds the chains and pointers in them.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use rsdns::Error;
use rsdns::clients::ClientConfig;
use rsdns::clients::std::Client;
use rsdns::records::Class;
use rsdns::records::data::{A, Aaaa, RData, Srv};

use super::NameLookup;
use super::targets::SrvRecord;

/// A question without an answer is sent again after this.
const TRY: Duration = Duration::from_secs(1);
/// A question is given up after this.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// A name server that is asked instead of the system's resolver. For `localhost`, which is this machine
/// (RFC 6761 §6.3), the system is asked all the same.
pub(super) struct NameServer {
    pub address: SocketAddr,
    /// How long an answer is awaited.
    pub patience: Duration,
}

impl NameLookup for NameServer {
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if is_local(host) {
            return Ok(("localhost", port).to_socket_addrs()?.collect());
        }
        // Both families are asked at the same time, so that a server that is silent costs its time-out only once.
        let (v4, v6) = std::thread::scope(|scope| {
            let v6 = scope.spawn(|| self.ask(host, |aaaa: Aaaa| aaaa.address.into()));
            let v4 = self.ask(host, |a: A| a.address.into());
            (v4, v6.join().unwrap_or_else(|_| Err(io::Error::other("the question ended in a panic"))))
        });
        let addresses = match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.extend(v6);
                v4
            }
            // Addresses of one family are enough, as for the system's resolvers.
            (Ok(some), Err(_)) | (Err(_), Ok(some)) if !some.is_empty() => some,
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    fn services(&self, name: &str) -> io::Result<Vec<SrvRecord>> {
        self.ask(name, |Srv { priority, weight, port, target }| SrvRecord {
            priority,
            weight,
            port,
            target: target.as_str().to_owned(),
        })
    }
}

impl NameServer {
    /// Asks for records of one type. If the name has none, the answer is empty and no error.
    fn ask<D: RData, T>(&self, name: &str, read: fn(D) -> T) -> io::Result<Vec<T>> {
        let config = ClientConfig::with_nameserver(self.address)
            .set_query_timeout(Some(TRY))
            .set_query_lifetime(self.patience);
        let answer = Client::new(config).and_then(|mut client| client.query_rrset::<D>(name, Class::IN));
        let error = match answer {
            Ok(records) => return Ok(records.rdata.into_iter().map(read).collect()),
            Err(Error::NoAnswer) => return Ok(Vec::new()),
            Err(Error::IoError(error)) => error,
            Err(Error::Timeout) => io::ErrorKind::TimedOut.into(),
            Err(error) => io::Error::other(error.to_string()),
        };
        Err(io::Error::new(error.kind(), format!("name server {}: {error}", self.address)))
    }
}

/// The SRV records by the first of these servers that answers. Each has so much time.
pub(super) fn services_of_first(
    servers: &[SocketAddr],
    patience: Duration,
    name: &str,
) -> io::Result<Vec<SrvRecord>> {
    let mut causes = Vec::new();
    for address in servers {
        match (NameServer { address: *address, patience }).services(name) {
            Ok(records) => return Ok(records),
            Err(error) => causes.push(error.to_string()),
        }
    }
    Err(io::Error::other(causes.join("; ")))
}

fn is_local(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests;
