//! A request's body on this engine: a small one is read whole before the service sees the request, a larger one
//! streams.

use std::io::{self, Read};

use tiny_http::Request;

use super::{Unread, fits};
use crate::error::Reject;
use crate::proxy::exchange::{BodyFault, RequestBody};
use balancer_http::message::{BodyLength, RequestHead};

pub(super) struct Body<'a> {
    request: &'a mut Request,
    length: BodyLength,
    taken: u64,
    max_bytes: u64,
    /// The whole body, if it was read ahead. `taken` is then a position in it.
    ahead: Option<Vec<u8>>,
    fault: Option<BodyFault>,
    ended: bool,
}

impl<'a> Body<'a> {
    /// Reads a small body ahead, unless its client waits for a `100 Continue`.
    pub fn new(request: &'a mut Request, head: &RequestHead, max_bytes: u64, buffer_bytes: usize) -> Self {
        let mut body = Self {
            request,
            length: head.length,
            taken: 0,
            max_bytes,
            ahead: None,
            fault: None,
            ended: head.length == BodyLength::Empty,
        };
        if matches!(head.length, BodyLength::Known(bytes) if bytes > max_bytes) {
            body.fault = Some(BodyFault::TooLarge);
        } else if let (Some(bytes), false) = (fits(head.length, buffer_bytes), head.expects_continue) {
            body.read_ahead(bytes);
        }
        body
    }

    fn read_ahead(&mut self, bytes: usize) {
        let mut whole = vec![0; bytes];
        let mut filled = 0;
        while filled < bytes {
            match self.read_on(&mut whole[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                // `fault` says why.
                Err(_) => return,
            }
        }
        self.taken = 0;
        self.ended = true;
        self.ahead = Some(whole);
    }

    /// The refusal of a request whose body is at fault already, before the service is asked.
    pub fn refusal(&self) -> Option<Reject> {
        let fault = self.fault?;
        Some(Reject::new(fault.reason(), fault.to_string()))
    }

    /// How many bytes of it came.
    pub fn came(&self) -> u64 {
        self.ahead.as_ref().map_or(self.taken, |whole| whole.len() as u64)
    }

    /// Whether all of it is in memory.
    pub fn in_memory(&self) -> bool {
        self.ahead.is_some() || self.length == BodyLength::Empty
    }

    /// Whether all of it can be sent again, or was not read yet.
    pub fn is_replayable(&self) -> bool {
        self.ahead.is_some() || self.taken == 0
    }

    /// Lowers the bound for the rest of the body.
    pub fn bound(&mut self, max_bytes: Option<u64>) {
        self.max_bytes = max_bytes.unwrap_or(self.max_bytes).min(self.max_bytes);
    }

    /// Why it could not be read.
    pub fn fault(&self) -> Option<BodyFault> {
        self.fault
    }

    /// Begins to read it anew, if it is in memory.
    pub fn rewind(&mut self) {
        if self.ahead.is_some() {
            self.taken = 0;
        }
    }

    pub fn unread(&self) -> Unread {
        if self.ended { Unread::Nothing } else { Unread::Something }
    }

    fn read_on(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(fault) = self.fault {
            return Err(io::Error::other(fault));
        }
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        // If the request asks for an upgrade, the crate's reader does not end with the body.
        let most = match self.length {
            BodyLength::Known(bytes) => usize::try_from(bytes - self.taken).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        let most = most.min(buffer.len());
        let result = match self.request.as_reader().read(&mut buffer[..most]) {
            Ok(0) => match self.length {
                BodyLength::Known(bytes) if self.taken < bytes => Err(BodyFault::ClientGone),
                _ => {
                    self.ended = true;
                    return Ok(0);
                }
            },
            Ok(read) => {
                self.taken += read as u64;
                self.ended = self.length == BodyLength::Known(self.taken);
                if self.taken > self.max_bytes { Err(BodyFault::TooLarge) } else { Ok(read) }
            }
            Err(error) => Err(match error.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => BodyFault::Malformed,
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => BodyFault::TimedOut,
                _ => BodyFault::ClientGone,
            }),
        };
        result.map_err(|fault| {
            self.fault = Some(fault);
            // From a broken or ended stream nothing more can come.
            self.ended = matches!(fault, BodyFault::ClientGone | BodyFault::Malformed);
            io::Error::other(fault)
        })
    }
}

/// As ureq reads it.
impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        RequestBody::read(self, buffer)
    }
}

impl RequestBody for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(whole) = &self.ahead else { return self.read_on(buffer) };
        let rest = &whole[usize::try_from(self.taken).unwrap_or(whole.len()).min(whole.len())..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count as u64;
        Ok(count)
    }
}
