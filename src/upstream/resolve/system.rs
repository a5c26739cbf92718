//! The system's resolver. It knows no SRV records: for those, the system's name servers are asked.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use super::NameLookup;
use super::server::{PATIENCE, services_of_first};
use super::targets::SrvRecord;

/// The file with the system's name servers (resolv.conf(5)). It is read for each question, since it changes with the
/// network.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The port of name servers (RFC 1035 §4.2).
const PORT: u16 = 53;
/// Most name servers that are asked: `MAXNS` of resolv.conf(5).
const MAX_SERVERS: usize = 3;

/// See the module.
pub(super) struct System;

impl NameLookup for System {
    fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }

    fn services(&self, name: &str) -> io::Result<Vec<SrvRecord>> {
        let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        services_of_first(&name_servers(&text), PATIENCE, name)
    }
}

/// The name servers in the text of a resolv.conf(5). If there are none, the one on this machine, as that page says.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let is_one = line.starts_with("nameserver") && words.next() == Some("nameserver");
        is_one.then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    };
    let mut all: Vec<IpAddr> = text.lines().filter_map(address).take(MAX_SERVERS).collect();
    if all.is_empty() {
        all.push(Ipv4Addr::LOCALHOST.into());
    }
    all.into_iter().map(|ip| SocketAddr::new(ip, PORT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_system_reads_them() {
        for (text, expected) in [
            ("nameserver 10.0.0.2\n", "10.0.0.2:53"),
            (
                "# nameserver 10.0.0.9\n;nameserver 10.0.0.8\nsearch a.test\nnameserver\t10.0.0.2 # x\r\n",
                "10.0.0.2:53",
            ),
            ("nameserver ::1\noptions ndots:5\nnameserver 10.0.0.2", "[::1]:53 10.0.0.2:53"),
            (
                "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4",
                "1.1.1.1:53 1.1.1.2:53 1.1.1.3:53",
            ),
            (" nameserver 10.0.0.2\nnameservers 10.0.0.3\nnameserver\nnameserver x", "127.0.0.1:53"),
            ("", "127.0.0.1:53"),
        ] {
            let found: Vec<String> = name_servers(text).iter().map(SocketAddr::to_string).collect();
            assert_eq!(found.join(" "), expected, "{text:?}");
        }
    }
}
