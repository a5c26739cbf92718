//! Sockets that never block, and the call that wakes a loop.

use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

use crate::engine::owner;
use balancer_http::message::ClientConnection;
use balancer_time::Nanos;

/// One end of a TCP connection.
pub(super) struct Socket(pub TcpStream);

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// That many bytes, at least 1.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The other end sends no more; it may still read.
    End,
    /// The connection is broken.
    Broken(Errno),
}

impl Socket {
    /// Reads what is there.
    pub fn receive(&self, buffer: &mut [u8]) -> Got {
        self.read(buffer, RecvFlags::empty())
    }

    /// The same, and whether there may be more. If it brings less than was asked for, the socket is empty, and an event
    /// tells of what comes next.
    pub fn receive_or_drain(&self, buffer: &mut [u8]) -> (Got, bool) {
        let got = self.receive(buffer);
        (got, got == Got::Bytes(buffer.len()))
    }

    /// Whether there is nothing to read, not even an end.
    pub fn is_quiet(&self) -> bool {
        self.read(&mut [0; 1], RecvFlags::PEEK) == Got::Nothing
    }

    fn read(&self, buffer: &mut [u8], flags: RecvFlags) -> Got {
        loop {
            match recv(&self.0, &mut *buffer, flags) {
                Ok((0, _)) => return Got::End,
                Ok((bytes, _)) => return Got::Bytes(bytes),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Got::Nothing,
                Err(error) => return Got::Broken(error),
            }
        }
    }

    /// Writes what the kernel takes now. Returns how many bytes; 0 when its buffer is full.
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        loop {
            match send(&self.0, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Err(error) => return Err(error),
            }
        }
    }

    /// The same for several pieces, as if they were one.
    pub fn send_pieces(&self, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
        loop {
            match sendmsg(&self.0, pieces, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends our direction. The other end still reads all that was sent.
    pub fn shutdown_write(&self) {
        // Fails if the other end is gone already, which the next read says.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Makes the close that follows a reset, so that what was sent does not look complete.
    pub fn reset_on_close(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(&self.0, Some(Duration::ZERO));
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ClientConnection for Socket {
    fn peer_owner(&self) -> Result<u32, String> {
        owner::of_peer(self)
    }
}

/// Wakes a thread that waits in epoll, which watches it edge-triggered and never reads it.
pub(super) struct Wake(OwnedFd);

impl Wake {
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Never blocks.
    pub fn wake(&self) {
        if rustix::io::write(&self.0, &1u64.to_ne_bytes()) == Err(Errno::AGAIN) {
            // The counter is full, after 2^64 wake-ups: empties it and tries again.
            let _ = rustix::io::read(&self.0, &mut [0; 8]);
            let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A span in nanoseconds, in the kernel's form.
pub(super) fn timespec(ns: Nanos) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: (ns % 1_000_000_000) as _,
    }
}
