//! `discovery.resolver`: one name server, asked for A and AAAA records over UDP, and over TCP when the answer does not fit
//! (RFC 1035 §4.2, RFC 7766).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rsdns::Error;
use rsdns::clients::ClientConfig;
use rsdns::clients::std::Client;
use rsdns::records::Class;
use rsdns::records::data::{A, Aaaa, RData};

use super::{Lookup, system};

/// A question is sent again after this.
const TRY: Duration = Duration::from_secs(1);
/// And given up after this.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks that server, whatever the system's resolver is set up to. `localhost` is this machine (RFC 6761 §6.3): the system
/// says how.
pub(super) fn asking(server: SocketAddr) -> Lookup {
    asking_within(server, PATIENCE)
}

fn asking_within(server: SocketAddr, patience: Duration) -> Lookup {
    let local = system();
    Arc::new(move |host, port| {
        if is_local(host) {
            return local("localhost", port);
        }
        // Both at a time, so that a server which is silent about one family costs its time once.
        let (v4, v6) = std::thread::scope(|scope| {
            let v6 = scope.spawn(|| ask(server, patience, host, |aaaa: Aaaa| aaaa.address.into()));
            let v4 = ask(server, patience, host, |a: A| a.address.into());
            (v4, v6.join().unwrap_or_else(|_| Err(io::Error::other("the question ended in a panic"))))
        });
        let addresses = match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.extend(v6);
                v4
            }
            // As the system's resolvers do: half of an answer is an answer.
            (Ok(some), Err(_)) | (Err(_), Ok(some)) if !some.is_empty() => some,
            (Err(error), _) | (_, Err(error)) => {
                return Err(io::Error::new(error.kind(), format!("name server {server}: {error}")));
            }
        };
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    })
}

/// No record is an answer, too: an empty one.
fn ask<D: RData>(
    server: SocketAddr,
    patience: Duration,
    host: &str,
    address: fn(D) -> IpAddr,
) -> io::Result<Vec<IpAddr>> {
    let config =
        ClientConfig::with_nameserver(server).set_query_timeout(Some(TRY)).set_query_lifetime(patience);
    let answer = Client::new(config).and_then(|mut client| client.query_rrset::<D>(host, Class::IN));
    match answer {
        Ok(records) => Ok(records.rdata.into_iter().map(address).collect()),
        Err(Error::NoAnswer) => Ok(Vec::new()),
        Err(Error::IoError(error)) => Err(error),
        Err(Error::Timeout) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(io::Error::other(error.to_string())),
    }
}

fn is_local(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests;
