//! One connection to a backend: how it is opened, judged, read and written. Blocking reads wait by SO_RCVTIMEO, which is
//! set only when its value changes; writes never block, so that whoever sends can see an answer come.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, SockRef, Socket, Type};

use crate::proxy::exchange::{Abort, Awaitable, Registration, Wait};

/// A socket with what was set on it. Dropping it closes it, as soon as no [`Abort`] watches it any more.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Arc<TcpStream>,
    /// What SO_RCVTIMEO stands at.
    recv_timeout: Option<Duration>,
    /// Whether it has carried an exchange before.
    pub kept: bool,
    registration: Registration,
}

/// What a look at a kept connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Open, and nothing came that nobody asked for.
    Quiet,
    /// Closed, broken, or with bytes that belong to no request: of no use any more.
    Spoiled,
}

/// What a wait for room in the socket's buffer brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    /// Something can be read; or the connection broke, and a read will say how.
    pub readable: bool,
    /// Something can be written; or the connection broke, and a write will say how.
    pub writable: bool,
}

impl Connection {
    /// Opens a connection, in at most `timeout`. `abort` can end the attempt and goes on watching the connection.
    pub fn open(address: SocketAddr, timeout: Duration, abort: &Abort) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        let socket = Arc::new(TcpStream::from(socket));
        abort.watch(&socket);
        SockRef::from(&*socket).connect_timeout(&address.into(), timeout)?;
        if is_connected_to_itself(&socket)? {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "connected to itself: nobody listens",
            ));
        }
        socket.set_nodelay(true)?;
        Ok(Self { socket, recv_timeout: None, kept: false, registration: Registration::default() })
    }

    /// The socket, to be watched and waited on.
    pub fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }

    /// The socket as others wait on it.
    pub fn awaitable(&self) -> Awaitable<'_> {
        Awaitable { socket: self.socket.as_fd(), registration: &self.registration }
    }

    /// Looks at a kept connection without waiting. One system call, and there is no way around it: bytes that a backend
    /// sent behind its last answer would be taken for the answer to the next request, whoever sends that.
    pub fn look(&self) -> Look {
        let mut byte = [0];
        match self.receive_flags(&mut byte, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Look::Quiet,
            _ => Look::Spoiled,
        }
    }

    /// Reads into the spare capacity of `buffer`, which it extends; 0 is the end of the stream.
    pub fn receive_more(&self, buffer: &mut Vec<u8>, wait: Wait) -> Result<usize, Errno> {
        let flags = recv_flags(wait);
        loop {
            match recv(&self.socket, rustix::buffer::spare_capacity(buffer), flags) {
                Err(Errno::INTR) => {}
                result => return result.map(|(read, _)| read),
            }
        }
    }

    /// Reads into `buffer`; 0 is the end of the stream, [`Errno::AGAIN`] that nothing came in time.
    pub fn receive(&self, buffer: &mut [u8], wait: Wait) -> Result<usize, Errno> {
        self.receive_flags(buffer, recv_flags(wait))
    }

    fn receive_flags(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
        loop {
            match recv(&self.socket, &mut *buffer, flags) {
                Err(Errno::INTR) => {}
                result => return result.map(|(read, _)| read),
            }
        }
    }

    /// Hands bytes to the kernel without waiting; [`Errno::AGAIN`] when it takes none for now.
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        loop {
            match send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Waits until bytes can be sent or, when `or_readable`, until some can be read; `None` after `timeout`.
    pub fn wait_writable(&self, or_readable: bool, timeout: Duration) -> Result<Option<Ready>, Errno> {
        let interest = if or_readable { PollFlags::IN | PollFlags::OUT } else { PollFlags::OUT };
        let mut polled = [PollFd::new(&self.socket, interest)];
        let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => Ok(None),
            Ok(_) => {
                let broken = polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP);
                let has = |flag| broken || polled[0].revents().contains(flag);
                Ok(Some(Ready { readable: has(PollFlags::IN), writable: has(PollFlags::OUT) }))
            }
            Err(Errno::INTR) => Ok(Some(Ready { readable: false, writable: false })),
            Err(error) => Err(error),
        }
    }

    /// How long a blocking read waits. A system call only when it changes.
    pub fn set_recv_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        if self.recv_timeout != Some(timeout) {
            // Zero would mean for ever.
            self.socket.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
            self.recv_timeout = Some(timeout);
        }
        Ok(())
    }

    /// The bare socket, without time-outs.
    pub fn into_stream(self) -> io::Result<TcpStream> {
        self.socket.set_read_timeout(None)?;
        Arc::try_unwrap(self.socket).or_else(|shared| shared.try_clone())
    }
}

/// A port of the ephemeral range on this very machine that nobody listens on can be given to us as our own end: TCP's
/// simultaneous open then connects the socket to itself (RFC 9293 §3.5).
fn is_connected_to_itself(socket: &TcpStream) -> io::Result<bool> {
    Ok(socket.local_addr()? == socket.peer_addr()?)
}

fn recv_flags(wait: Wait) -> RecvFlags {
    match wait {
        Wait::Block => RecvFlags::empty(),
        Wait::Poll => RecvFlags::DONTWAIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_met_itself_is_told_from_others() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
        let own = socket.local_addr().expect("an address");
        socket.connect(&own).expect("TCP allows it");
        assert!(is_connected_to_itself(&TcpStream::from(socket)).expect("connected"));

        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let other = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        assert!(!is_connected_to_itself(&other).expect("connected"));
    }
}
