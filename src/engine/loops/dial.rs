//! Gets a connection to a backend: takes a kept one, or makes one.

use std::net::SocketAddr;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use slotmap::Key;

use super::back::{Back, Coding};
use super::keys::{BackSlot, ClientSlot};
use super::secure::Secure;
use super::turn::{BACK, Loop};
use super::wire::Socket;
use crate::proxy::story::Call;
use crate::proxy::{Phase, Reuse, UpstreamError};

impl Loop {
    /// A kept connection for that call, the client's own one if it has one, or a new one that is still connecting.
    pub(super) fn dial(
        &mut self,
        client: ClientSlot,
        pinned: Option<BackSlot>,
        call: &Call,
        reuse: Reuse,
    ) -> Result<BackSlot, UpstreamError> {
        let generation = self.shared.backend_tls.generation();
        let fits = |back: &mut Back| back.endpoint == call.endpoint.id && back.is_of(generation);
        let own = pinned.filter(|key| self.backs.get(*key).is_some_and(fits));
        let own = own.filter(|_| reuse != Reuse::Never);
        let taken = own.or_else(|| self.backs.take(call, reuse, generation, self.now));
        if let Some(key) = taken
            && let Some(back) = self.backs.get(key)
        {
            back.kept = true;
            back.idle = call.policy.idle;
            back.client = Some(client);
            back.answered = false;
            back.may_keep = false;
            back.head.clear();
            return Ok(key);
        }
        self.connect(client, call)
    }

    fn connect(&mut self, client: ClientSlot, call: &Call) -> Result<BackSlot, UpstreamError> {
        let group = &call.endpoint.group;
        let generation = self.shared.backend_tls.generation();
        let secure = match group.is_tls.then(|| self.shared.backend_tls.session(&group.pool, &group.host)) {
            None => None,
            Some(Ok(session)) => Some(Secure::new(session.into())),
            Some(Err(cause)) => return Err(UpstreamError { phase: Phase::Connect, cause }),
        };
        let socket = open(call.endpoint.address)?;
        let key = self.backs.by_key.insert(Box::new(Back {
            socket,
            secure,
            shaken: 0,
            tls_generation: generation,
            endpoint: call.endpoint.id,
            idle: call.policy.idle,
            client: Some(client),
            is_connecting: true,
            readable: false,
            ended: false,
            kept: false,
            answered: false,
            out: Vec::new(),
            out_at: 0,
            head: Vec::new(),
            coding: Coding::Done,
            may_keep: false,
            is_pinned: false,
        }));
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let data = EventData::new_u64(data_of(key));
        let watched =
            self.backs.by_key.get(key).map(|back| epoll::add(&self.epoll, &back.socket, data, flags));
        if let Some(Err(error)) = watched {
            self.backs.close(key);
            return Err(shortage(error));
        }
        Ok(key)
    }
}

/// The event data of a backend connection.
fn data_of(key: BackSlot) -> u64 {
    key.data().as_ffi() | BACK
}

/// The error for what this process lacks, which is no failure of the backend.
fn shortage(error: Errno) -> UpstreamError {
    UpstreamError {
        phase: Phase::Shortage,
        cause: format!("no connection to a backend could be opened: {error}"),
    }
}

fn is_shortage(error: Errno) -> bool {
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
}

/// Begins to connect.
fn open(address: SocketAddr) -> Result<Socket, UpstreamError> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None).map_err(shortage)?;
    let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(Socket(socket.into())),
        // ADDRNOTAVAIL: no local port is left for that address.
        Err(error) if is_shortage(error) || error == Errno::ADDRNOTAVAIL => Err(shortage(error)),
        Err(error) => Err(refused(error)),
    }
}

/// The error for a connection that could not be made.
pub(super) fn refused(error: Errno) -> UpstreamError {
    let phase = if error == Errno::TIMEDOUT { Phase::ConnectTimedOut } else { Phase::Connect };
    UpstreamError { phase, cause: std::io::Error::from(error).to_string() }
}

/// The error for a connection that is missing among those of the loop, which is a bug of ours.
pub(super) fn lost() -> UpstreamError {
    UpstreamError { phase: Phase::Reset, cause: "the connection is gone".to_owned() }
}
