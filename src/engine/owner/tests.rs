use std::net::{Shutdown, TcpListener, TcpStream};

use super::*;

fn own() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A connection to that address: our end, and the client's.
fn pair(listens: &str, to: &str) -> Option<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(listens).ok()?;
    let client = TcpStream::connect((to, listener.local_addr().unwrap().port())).ok()?;
    Some((listener.accept().unwrap().0, client))
}

#[test]
fn the_owner_of_a_local_peer_is_told_in_both_families_and_across_them() {
    for (listens, to) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("0.0.0.0:0", "127.0.0.1"),
        ("0.0.0.0:0", "127.3.2.1"),
        ("[::1]:0", "::1"),
        ("[::]:0", "::1"),
        ("[::]:0", "127.0.0.1"),
        ("[::]:0", "::ffff:127.0.0.1"),
        ("127.0.0.1:0", "::ffff:127.0.0.1"),
    ] {
        // A machine may have no IPv6.
        let Some((server, client)) = pair(listens, to) else { continue };
        assert_eq!(of_peer(&server), Ok(own()), "{listens} {to}");
        let (ours, peer) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        assert_eq!(of_peer_at(ours, peer), Ok(own()), "{listens} {to}");
        drop(client);
    }
}

#[test]
fn a_socket_that_its_process_closed_has_no_owner_and_a_half_that_it_ended_has_one() {
    let (server, client) = pair("127.0.0.1:0", "127.0.0.1").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(of_peer(&server), Ok(own()));
    drop(client);
    assert!(of_peer(&server).is_err());
    server.shutdown(Shutdown::Both).unwrap();
    assert!(of_peer(&server).is_err());
}

#[test]
fn both_ends_have_to_match() {
    let (server, client) = pair("127.0.0.1:0", "127.0.0.1").unwrap();
    let (ours, peer) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
    assert_eq!(of_peer_at(ours, peer), Ok(own()));
    let other = |end: SocketAddr| SocketAddr::new("127.0.0.2".parse().unwrap(), end.port());
    assert!(of_peer_at(other(ours), peer).is_err());
    assert!(of_peer_at(ours, other(peer)).is_err());
    // Only a listener is at that address.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(of_peer_at(ours, listener.local_addr().unwrap()).is_err());
    assert!(Ends { ours: None, peer }.peer_owner().is_err());
    assert_eq!(Ends { ours: Some(ours), peer }.peer_owner(), Ok(own()));
    drop(client);
}

#[test]
fn an_answer_counts_only_for_an_open_socket_with_an_owner_and_these_two_ends() {
    let (local, remote): (SocketAddr, SocketAddr) =
        ("127.0.0.1:5".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
    let answer = |state: u8, inode: u32| {
        // The question has the ends where the answer has them.
        let mut bytes = question(local, remote);
        let ends: Vec<u8> = bytes[HEADER_BYTES + 8..].to_vec();
        bytes.truncate(HEADER_BYTES);
        bytes.extend_from_slice(&[V4, state, 0, 0]);
        bytes.extend_from_slice(&ends);
        bytes.extend_from_slice(&[0; 12]);
        bytes.extend_from_slice(&77_u32.to_ne_bytes());
        bytes.extend_from_slice(&inode.to_ne_bytes());
        bytes
    };
    assert_eq!(owner(&answer(1, 9), local, remote), Ok(77));
    assert!(owner(&answer(1, 9), remote, local).is_err());
    assert!(owner(&answer(1, 0), local, remote).is_err(), "closed");
    for state in [0, 2, 3, 6, 7, 9, 10, 11, 12] {
        assert!(owner(&answer(state, 9), local, remote).is_err(), "state {state}");
    }
    let whole = answer(1, 9);
    for end in 0..whole.len() {
        assert!(owner(&whole[..end], local, remote).is_err(), "{end} bytes");
    }
}
