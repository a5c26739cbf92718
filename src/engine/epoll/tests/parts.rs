//! What the tests' services answer with.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::PATIENCE;
use crate::proxy::exchange::{Awaitable, Delivery, Pull, Registration, Stream, Ticket, Wait};
use balancer_time::Nanos;

/// A body that comes from a socket whose other end the test holds.
pub(super) struct Socket {
    pub stream: TcpStream,
    pub silence: Duration,
    /// What its end is: a complete body or a broken one.
    pub breaks: bool,
    pub registration: Registration,
}

impl Stream for Socket {
    fn pull(&mut self, buffer: &mut [u8], wait: Wait) -> Pull {
        assert_eq!(wait, Wait::Poll, "this engine never blocks in a pull");
        match self.stream.read(buffer) {
            Ok(0) if self.breaks => Pull::Broken("cut".into()),
            Ok(0) => Pull::End,
            Ok(bytes) => Pull::Bytes(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Pull::Pending,
            Err(error) => Pull::Broken(error.to_string()),
        }
    }

    fn socket(&self) -> Option<Awaitable<'_>> {
        Some(Awaitable { socket: self.stream.as_fd(), registration: &self.registration })
    }

    fn silence_limit(&self) -> Duration {
        self.silence
    }
}

/// A body of that many bytes, all there at once.
pub(super) struct Bytes(pub usize);

impl Stream for Bytes {
    fn pull(&mut self, buffer: &mut [u8], _wait: Wait) -> Pull {
        let count = self.0.min(buffer.len());
        buffer[..count].fill(b'x');
        self.0 -= count;
        if count == 0 { Pull::End } else { Pull::Bytes(count) }
    }

    fn socket(&self) -> Option<Awaitable<'_>> {
        None
    }

    fn silence_limit(&self) -> Duration {
        PATIENCE
    }
}

/// The same, with a moment when all must be over.
pub(super) struct Until(pub Bytes, pub Nanos);

impl Stream for Until {
    fn pull(&mut self, buffer: &mut [u8], wait: Wait) -> Pull {
        self.0.pull(buffer, wait)
    }

    fn socket(&self) -> Option<Awaitable<'_>> {
        None
    }

    fn silence_limit(&self) -> Duration {
        PATIENCE
    }

    fn deadline(&self) -> Option<Nanos> {
        Some(self.1)
    }

    fn too_late(&self) -> String {
        "not over in time".into()
    }
}

pub(super) type Outcomes = Arc<Mutex<Vec<(u64, Delivery)>>>;

pub(super) struct Told(pub Outcomes);

impl Ticket for Told {
    fn settle(self: Box<Self>, body_bytes: u64, delivery: Delivery) {
        self.0.lock().push((body_bytes, delivery));
    }
}

/// A connected pair; the second one does not block.
pub(super) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let ours = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    let (theirs, _) = listener.accept().expect("accepted");
    theirs.set_nonblocking(true).expect("set");
    ours.set_nodelay(true).expect("set");
    ours.set_read_timeout(Some(PATIENCE)).expect("set");
    (ours, theirs)
}

/// Reads up to the empty line.
pub(super) fn read_head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a whole head");
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
