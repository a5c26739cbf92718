//! TLS on a connection: a session of rustls between the socket and what is read and written. No event tells of
//! plaintext that is left inside the session, or of ciphertext that the kernel did not take: both have to be asked for.

use std::io::{self, BufRead, IoSlice, Read, Write};

use rustix::io::Errno;
use rustls::Connection;

use super::wire::{Got, Socket};

/// Most ciphertext that a session keeps for a socket that takes nothing.
const MOST_UNSENT: usize = 256 * 1024;

/// What a peer may send before the handshake is over. A hello is some 500 bytes, a long certificate chain 10 KiB.
pub(super) const MOST_HANDSHAKE_BYTES: usize = 64 * 1024;

/// A TLS session, of either side.
pub(super) struct Secure {
    session: Connection,
    /// Ciphertext that came when there was no room for its plaintext.
    pending: Vec<u8>,
    /// Why the session failed.
    fault: Option<rustls::Error>,
    /// We have said that nothing more comes (close_notify).
    has_ended: bool,
    /// What came after the handshake was not TLS, or not of this session.
    pub is_spoilt: bool,
    /// Bytes that the kernel took since the last [`Self::take_moved`].
    moved: usize,
}

impl Secure {
    pub fn new(mut session: Connection) -> Box<Self> {
        session.set_buffer_limit(Some(MOST_UNSENT));
        Box::new(Self {
            session,
            pending: Vec::new(),
            fault: None,
            has_ended: false,
            is_spoilt: false,
            moved: 0,
        })
    }

    /// Whether the handshake is still under way.
    pub fn is_shaking_hands(&self) -> bool {
        self.session.is_handshaking()
    }

    pub fn session(&self) -> &Connection {
        &self.session
    }

    /// Whether the kernel has taken all ciphertext.
    pub fn is_flushed(&self) -> bool {
        !self.session.wants_write()
    }

    /// Whether there is something here that was not read.
    pub fn has_more(&mut self) -> bool {
        // `Ok` means that there is plaintext, or its end.
        !self.pending.is_empty() || self.session.reader().fill_buf().is_ok()
    }

    /// Bytes that the kernel took since this was last called.
    pub fn take_moved(&mut self) -> usize {
        std::mem::take(&mut self.moved)
    }

    /// Reads plaintext. Returns what came, and whether there may be more of which no event will tell. `has_ended`: an
    /// event has told of the connection's end. `cipher` is lent memory for what the socket has.
    pub fn receive(
        &mut self,
        socket: &Socket,
        has_ended: bool,
        buffer: &mut [u8],
        cipher: &mut [u8],
    ) -> (Got, bool) {
        if buffer.is_empty() {
            return (Got::Nothing, true);
        }
        let mut at = self.read_plaintext(buffer);
        let mut drained = false;
        while at == 0 {
            if !self.pending.is_empty() {
                let pending = std::mem::take(&mut self.pending);
                match self.take_in(&pending, buffer) {
                    Ok(read) => at = read,
                    Err(error) => return (Got::Broken(self.refuse(socket, error)), false),
                }
                continue;
            }
            if self.is_ended() {
                return (Got::End, false);
            }
            if drained {
                // What came was less than a record.
                return (Got::Nothing, false);
            }
            match socket.receive(cipher) {
                Got::Bytes(bytes) => {
                    // If its end was told already, reading goes on until the socket says so.
                    drained = bytes < cipher.len() && !has_ended;
                    match self.take_in(&cipher[..bytes], buffer) {
                        Ok(read) => at = read,
                        Err(error) => return (Got::Broken(self.refuse(socket, error)), false),
                    }
                }
                // Without a close_notify an attacker may have cut the data off (RFC 8446 §6.1).
                Got::End => return (Got::Broken(Errno::CONNRESET), false),
                other => return (other, false),
            }
        }
        // Sends what the session itself has to say: tickets, updated keys.
        let _ = self.push(socket);
        (Got::Bytes(at), !drained || self.has_more())
    }

    /// Takes ciphertext in, and reads as much plaintext as there is room for. Keeps the rest of the ciphertext.
    fn take_in(&mut self, mut cipher: &[u8], buffer: &mut [u8]) -> Result<usize, rustls::Error> {
        let mut at = 0;
        while !cipher.is_empty() {
            match self.session.read_tls(&mut cipher) {
                // The session wants nothing behind its end.
                Ok(0) => break,
                Ok(_) => {}
                // The session holds as much plaintext as it may.
                Err(_) if matches!(self.session.reader().fill_buf(), Ok(left) if !left.is_empty()) => {
                    self.pending.extend_from_slice(cipher);
                    break;
                }
                // A message that never ends, which would be fed for ever.
                Err(error) => return Err(rustls::Error::General(error.to_string())),
            }
            self.session.process_new_packets()?;
            at += self.read_plaintext(&mut buffer[at..]);
        }
        Ok(at)
    }

    /// Takes ciphertext in while the handshake is under way, and sends our own messages.
    pub fn shake_hands(&mut self, socket: &Socket, cipher: &[u8]) -> Result<(), rustls::Error> {
        let taken = self.take_in(cipher, &mut []).map(drop);
        // Also sends the alert that says what was wrong.
        let _ = self.push(socket);
        taken
    }

    fn read_plaintext(&mut self, buffer: &mut [u8]) -> usize {
        let mut at = 0;
        let mut reader = self.session.reader();
        while at < buffer.len() {
            match reader.read(&mut buffer[at..]) {
                Ok(0) | Err(_) => break,
                Ok(bytes) => at += bytes,
            }
        }
        at
    }

    /// Whether the other end has said that nothing more comes, and all that came before was read.
    fn is_ended(&mut self) -> bool {
        matches!(self.session.reader().fill_buf(), Ok(left) if left.is_empty())
    }

    fn refuse(&mut self, socket: &Socket, error: rustls::Error) -> Errno {
        // If the other side has sent an alert, what it sent was proper TLS.
        self.is_spoilt = !matches!(error, rustls::Error::AlertReceived(_));
        let _ = self.push(socket);
        self.fault = Some(error);
        Errno::PROTO
    }

    /// Why the session failed, for the log.
    pub fn fault(&self) -> Option<&rustls::Error> {
        self.fault.as_ref()
    }

    /// Sends ciphertext that is left over; true when none is left.
    pub fn push(&mut self, socket: &Socket) -> Result<bool, Errno> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Writing(socket)) {
                Ok(sent) => self.moved += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            }
        }
        Ok(true)
    }

    /// Encrypts and sends. Returns how many bytes of plaintext were taken; 0 when the kernel's buffer is full. The
    /// kernel may not have taken all of their ciphertext yet ([`Self::is_flushed`]).
    pub fn send_pieces(&mut self, socket: &Socket, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
        if !self.push(socket)? {
            return Ok(0);
        }
        let taken = self.session.writer().write_vectored(pieces).map_err(|_| Errno::PROTO)?;
        self.push(socket)?;
        Ok(taken)
    }

    /// Says that nothing more comes from us (close_notify).
    pub fn end(&mut self, socket: &Socket) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.session.send_close_notify();
            let _ = self.push(socket);
        }
    }
}

/// A socket that the session can write to.
struct Writing<'a>(&'a Socket);

impl Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let sent = match pieces {
            [one] => self.0.send(one)?,
            several => self.0.send_pieces(several)?,
        };
        if sent == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(sent) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
