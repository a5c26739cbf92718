//! A check's connection: a socket, with or without TLS. Nothing here waits.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::ClientConnection;

use super::check::{Check, CheckResult};
use balancer_pool::backend_state::Failed;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 4096;

/// The connection of a check.
pub(super) struct Wire {
    socket: OwnedFd,
    session: Option<Box<ClientConnection>>,
}

impl Wire {
    /// With a socket that does not block, and the TLS session for it, if there is one.
    pub fn new(socket: OwnedFd, session: Option<ClientConnection>) -> Self {
        Self { socket, session: session.map(Box::new) }
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends what is left of a check's request, and reads what came of its answer. `Some`: the check is over. Errors
    /// are those of the connection; [`ErrorKind::WouldBlock`] says that nothing more can be done now.
    pub fn exchange(&mut self, check: &mut Check) -> io::Result<Option<CheckResult>> {
        let mut socket = Socket(&self.socket);
        let Some(session) = &mut self.session else {
            while !check.unsent().is_empty() {
                let sent = socket.write(check.unsent())?;
                check.sent(sent);
            }
            let mut piece = [0; PIECE_BYTES];
            loop {
                let read = socket.read(&mut piece)?;
                let result = check.received(&piece[..read]);
                if result.is_some() {
                    return Ok(result);
                }
            }
        };
        // The session keeps the request until the handshake is over.
        let taken = session.writer().write(check.unsent())?;
        check.sent(taken);
        loop {
            while session.wants_write() {
                session.write_tls(&mut socket)?;
            }
            let read = session.read_tls(&mut socket)?;
            if let Err(error) = session.process_new_packets() {
                // Sends the alert that tells the backend what is wrong.
                let _ = session.write_tls(&mut socket);
                return Ok(Some(Err(Failed::Handshake(error.to_string()).into())));
            }
            if let Some(result) = plaintext(session, check)? {
                return Ok(Some(result));
            }
            if read == 0 {
                return Ok(check.received(b""));
            }
        }
    }
}

/// Hands the check what the session has decrypted.
fn plaintext(session: &mut ClientConnection, check: &mut Check) -> io::Result<Option<CheckResult>> {
    let mut piece = [0; PIECE_BYTES];
    loop {
        let read = match session.reader().read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            // Ended without a close_notify, which makes no difference here.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error),
        };
        let result = check.received(&piece[..read]);
        if result.is_some() {
            return Ok(result);
        }
    }
}

/// A socket for the library's traits. Writing to a peer that is gone raises no SIGPIPE.
struct Socket<'a>(&'a OwnedFd);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        again(|| recv(self.0, &mut buffer[..], RecvFlags::empty()).map(|(read, _)| read))
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        again(|| send(self.0, bytes, SendFlags::NOSIGNAL))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Repeats a call that a signal has interrupted.
fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}
