//! What bytes travel over. One enum, so that TLS can stand beside the plain socket without another owner of it.

use std::io::IoSlice;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

use balancer_time::Nanos;

/// A client's connection; never blocks.
pub(super) enum Wire {
    /// TCP as it is.
    Plain(TcpStream),
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// That many bytes, at least 1.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The client sends no more; it may still read.
    End,
    /// The connection is broken.
    Broken,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// That many bytes went to the kernel; fewer than offered when its buffer is full.
    Bytes(usize),
    /// The connection is broken.
    Broken,
}

/// How a wait for one socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    Ready,
    TimedOut,
}

impl Wire {
    /// Reads what is there.
    pub fn recv(&self, buffer: &mut [u8]) -> Received {
        loop {
            match recv(self, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return Received::End,
                Ok((bytes, _)) => return Received::Bytes(bytes),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Received::Nothing,
                Err(_) => return Received::Broken,
            }
        }
    }

    /// Writes what the kernel takes now.
    pub fn send(&self, bytes: &[u8]) -> Sent {
        loop {
            match send(self, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => return Sent::Bytes(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Sent::Bytes(0),
                Err(_) => return Sent::Broken,
            }
        }
    }

    /// Writes what the kernel takes now of several pieces, as if they were one.
    pub fn send_pieces(&self, pieces: &[IoSlice<'_>]) -> Sent {
        if let [one] = pieces {
            return self.send(one);
        }
        loop {
            match sendmsg(self, pieces, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL) {
                Ok(sent) => return Sent::Bytes(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Sent::Bytes(0),
                Err(_) => return Sent::Broken,
            }
        }
    }

    /// Waits on this thread until the socket can be read (or written). A hang-up counts as ready: the read says so.
    pub fn wait(&self, flags: PollFlags, timeout_ns: Nanos) -> Waited {
        wait(self.as_fd(), flags, timeout_ns)
    }

    /// Ends our direction; the client reads to the end of what was sent.
    pub fn shutdown_write(&self) {
        let Self::Plain(stream) = self;
        // Fails when the client is gone already; the next read says so.
        let _ = stream.shutdown(Shutdown::Write);
    }

    /// Makes the coming close a reset: what was sent must not look complete.
    pub fn reset_on_close(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }

    /// The descriptor's number, which is the index of the connection's slot.
    pub fn index(&self) -> u32 {
        descriptor(self.as_fd())
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let Self::Plain(stream) = self;
        stream.as_fd()
    }
}

/// A socket's number.
pub(super) fn descriptor(socket: BorrowedFd<'_>) -> u32 {
    // Descriptors are never negative.
    socket.as_raw_fd().unsigned_abs()
}

/// Waits on this thread for one socket.
pub(super) fn wait(fd: BorrowedFd<'_>, flags: PollFlags, timeout_ns: Nanos) -> Waited {
    let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
    match poll(&mut fds, Some(&timespec(timeout_ns))) {
        Ok(0) => Waited::TimedOut,
        // An interrupted wait is looked at again by whoever asked.
        _ => Waited::Ready,
    }
}

/// A span as the kernel takes it.
pub(super) fn timespec(ns: Nanos) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: (ns % 1_000_000_000) as _,
    }
}
