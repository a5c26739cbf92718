//! A check's connection: the socket alone, or TLS on it. Nothing here waits.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::ClientConnection;

use super::check::{Check, CheckResult};
use balancer_pool::backend_state::Failed;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 4096;

/// What a check is sent and answered on.
pub(super) struct Wire {
    socket: OwnedFd,
    session: Option<Box<ClientConnection>>,
}

impl Wire {
    /// Of a socket that does not block, with the session that is to be spoken on it.
    pub fn new(socket: OwnedFd, session: Option<ClientConnection>) -> Self {
        Self { socket, session: session.map(Box::new) }
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends what is left of a check's request and reads of its answer what is there. `Some`: that was all that is needed.
    /// Errors are the connection's; [`ErrorKind::WouldBlock`] says that there is no more for now.
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
        // The session keeps it until there are keys.
        let taken = session.writer().write(check.unsent())?;
        check.sent(taken);
        loop {
            while session.wants_write() {
                session.write_tls(&mut socket)?;
            }
            let read = session.read_tls(&mut socket)?;
            if let Err(error) = session.process_new_packets() {
                // What is wrong is told to the backend, too, if it still listens.
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

/// What the session has decrypted.
fn plaintext(session: &mut ClientConnection, check: &mut Check) -> io::Result<Option<CheckResult>> {
    let mut piece = [0; PIECE_BYTES];
    loop {
        let read = match session.reader().read(&mut piece) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            // The connection ended without a word, which says as much as one that did not.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error),
        };
        let result = check.received(&piece[..read]);
        if result.is_some() {
            return Ok(result);
        }
    }
}

/// A socket as the library wants one. No signal comes of a peer that is gone.
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

/// Until no signal comes in between.
fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}
