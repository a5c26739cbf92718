//! A blocking socket that nothing holds up beyond a moment: however slowly the other side takes or gives, byte by byte
//! too.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::clock::Clock;
use balancer_time::Nanos;

/// A connection whose reads and writes fail with [`io::ErrorKind::TimedOut`] once that moment has come.
#[derive(Debug)]
pub struct TimedStream {
    /// The connection.
    pub stream: TcpStream,
    /// Tells when it has.
    pub clock: Clock,
    /// On that clock.
    pub deadline: Nanos,
}

/// What is left until then.
///
/// # Errors
/// Nothing is.
pub fn left_until(deadline: Nanos, clock: &Clock) -> io::Result<Duration> {
    match deadline.saturating_sub(clock.now()) {
        0 => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(Duration::from_nanos(left)),
    }
}

/// Systems report a passed time-out as one or the other of two errors; ours is always the same.
fn told(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

impl TimedStream {
    fn left(&self) -> io::Result<Duration> {
        left_until(self.deadline, &self.clock)
    }
}

impl Read for TimedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer).map_err(told)
    }
}

impl Write for TimedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes).map_err(told)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
