//! Ports for programs that can't choose one and tell it.

use std::net::SocketAddr;

/// An address that no other program gets while the tests run, because a socket of this process stays bound to it. That socket
/// does not listen, so connections are refused until the program listens for which it is. As servers do, the program has to
/// set SO_REUSEADDR.
pub fn reserved() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let address = socket.local_addr().expect("bound").as_socket().expect("an address");
    std::mem::forget(socket);
    address
}
