//! Which user's process is at the other end of a connection on this machine. The kernel (`sock_diag`(7)) is asked for
//! the one socket whose two ends are those of our own, swapped. It finds that in a hash table, however many connections
//! there are; `/proc/net/tcp` would have to be read from its start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::LazyLock;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use socket2::SockRef;

use balancer_http::message::ClientConnection;

/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h): the type of the question and of its answer.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR` and `NLM_F_REQUEST` (linux/netlink.h).
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
/// Bytes of `struct nlmsghdr`, `struct inet_diag_req_v2` and `struct inet_diag_msg` (linux/inet_diag.h).
const HEADER_BYTES: usize = 16;
const QUESTION_BYTES: usize = 56;
const ANSWER_BYTES: usize = 72;
/// `IPPROTO_TCP`, `AF_INET` and `AF_INET6`, as the kernel's headers number them.
const TCP: u8 = 6;
const V4: u8 = 2;
const V6: u8 = 10;
/// States in which a peer's socket may still have an owner: established, two that have sent a FIN, one that has got
/// ours (include/net/tcp_states.h).
const OPEN: [u8; 4] = [1, 4, 5, 8];

/// The id of the user whose process has the peer's socket of this connection. An error says why that can't be told.
#[cfg_attr(not(feature = "epoll"), allow(dead_code, reason = "the portable engine knows the ends alone"))]
pub(super) fn of_peer(socket: &impl AsFd) -> Result<u32, String> {
    let ends = || {
        let socket = SockRef::from(socket);
        let ours = socket.local_addr().ok()?.as_socket()?;
        Some((ours, socket.peer_addr().ok()?.as_socket()?))
    };
    let (ours, peer) = ends().ok_or("its connection has ended")?;
    let owner = of_peer_at(ours, peer)?;
    // While our end is open, no other connection can have the same two ends: the owner belongs to this one.
    (ends() == Some((ours, peer))).then_some(owner).ok_or_else(|| "its connection has ended".into())
}

/// The same for the connection between two addresses.
pub(super) fn of_peer_at(ours: SocketAddr, peer: SocketAddr) -> Result<u32, String> {
    let (ours, peer) = (canonical(ours), canonical(peer));
    let mut buffer = [0; 512];
    let bytes = ask(&question(peer, ours), &mut buffer)
        .map_err(|error| format!("the kernel does not say whose socket it is (sock_diag: {error})"))?;
    let uid = owner(&buffer[..bytes], peer, ours)?;
    if *NAMES_SEVERAL == Some(uid) {
        return Err(format!("users of other namespaces are seen as {uid}, too"));
    }
    Ok(uid)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Sends the question and takes the answer, which the kernel has ready once the question is sent.
fn ask(question: &[u8], answer: &mut [u8]) -> Result<usize, Errno> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&socket, question, SendFlags::empty())?;
    recv(&socket, answer, RecvFlags::DONTWAIT).map(|(bytes, _)| bytes)
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` for the socket with these two ends.
fn question(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + QUESTION_BYTES);
    bytes.extend_from_slice(&((HEADER_BYTES + QUESTION_BYTES) as u32).to_ne_bytes());
    bytes.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&REQUEST.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[if local.is_ipv4() { V4 } else { V6 }, TCP, 0, 0]);
    bytes.extend_from_slice(&u32::MAX.to_ne_bytes());
    for end in [local, remote] {
        bytes.extend_from_slice(&end.port().to_be_bytes());
    }
    for end in [local, remote] {
        let mut address = [0; 16];
        match end.ip() {
            IpAddr::V4(v4) => address[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => address = v6.octets(),
        }
        bytes.extend_from_slice(&address);
    }
    // Any interface, any cookie.
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&[0xff; 8]);
    bytes
}

/// The owner in an answer, if the answer is about the socket with these two ends and that socket has an owner.
fn owner(answer: &[u8], local: SocketAddr, remote: SocketAddr) -> Result<u32, String> {
    let broken = || "the kernel's answer is not understood".to_owned();
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]])).ok_or_else(broken)?;
    let body = answer.get(HEADER_BYTES..).ok_or_else(broken)?;
    let number = |at: usize| {
        body.get(at..at + 4).map(|bytes| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    if kind == ERROR {
        let errno = number(0).map_or(0, |code| i32::from_ne_bytes(code.to_ne_bytes()));
        let errno = Errno::from_raw_os_error(errno.saturating_neg());
        return Err(format!("the kernel knows no such socket here (sock_diag: {errno})"));
    }
    if kind != BY_FAMILY || body.len() < ANSWER_BYTES {
        return Err(broken());
    }
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let address = |at: usize| -> Option<IpAddr> {
        match body[0] {
            V4 => Some(Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]).into()),
            // A socket of IPv6 may be connected to an address of IPv4.
            V6 => <[u8; 16]>::try_from(&body[at..at + 16])
                .ok()
                .map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()),
            _ => None,
        }
    };
    let ends = (address(8), port(4), address(24), port(6));
    // The kernel may answer with a listener at the peer's address, which is not the peer.
    if ends != (Some(local.ip()), local.port(), Some(remote.ip()), remote.port()) || !OPEN.contains(&body[1])
    {
        return Err("the kernel knows no such connection here".into());
    }
    match (number(64), number(68)) {
        (Some(uid), Some(inode)) if inode != 0 => Ok(uid),
        // Its process has closed it: the kernel then names user 0 as the owner.
        _ => Err("its process has closed the socket already".into()),
    }
}

/// The id that the kernel gives for every user that this user namespace does not know, if there are such users
/// (user_namespaces(7), "Unmapped user and group IDs"). It says nothing about who the user is.
static NAMES_SEVERAL: LazyLock<Option<u32>> = LazyLock::new(|| {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let known: Vec<&str> = map.split_whitespace().collect();
    if known == ["0", "0", "4294967295"] {
        return None;
    }
    let overflow = std::fs::read_to_string("/proc/sys/kernel/overflowuid");
    Some(overflow.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65_534))
});

/// A connection of which only the two ends are known.
#[derive(Debug)]
pub(super) struct Ends {
    /// `None` when the listener is on every address.
    pub ours: Option<SocketAddr>,
    pub peer: SocketAddr,
}

impl ClientConnection for Ends {
    fn peer_owner(&self) -> Result<u32, String> {
        let ours = self.ours.ok_or("this engine does not say to which of our addresses it came")?;
        of_peer_at(ours, self.peer)
    }
}

#[cfg(test)]
mod tests;
