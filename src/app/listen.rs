//! The sockets to listen on, and the limit of open files.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::StartFailure;
use crate::config::Config;
use crate::engine::Sockets;

/// Connections that the kernel keeps until they are accepted. Its own bound is `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Descriptors beside client connections: backends' connections, the database's, logs, epoll.
const SPARE_FILES: u64 = 1024;

/// Sockets that listen. Nothing is accepted yet.
pub(super) struct Bound {
    /// The public port, and the one for TLS.
    pub public: Sockets,
    /// Whether the public sockets came from the service manager (LISTEN_FDS).
    pub inherited: bool,
    /// `admin.listen`.
    pub private: Option<TcpListener>,
}

impl Bound {
    /// Opens every address. With `LISTEN_FDS` the first inherited socket replaces `listen`, and the second one
    /// `tls.listen`. If `listen` is empty, the first one replaces `tls.listen`.
    pub fn open(config: &Config) -> Result<Self, StartFailure> {
        let mut given = listenfd::ListenFd::from_env();
        let mut inherited = |place: usize| {
            given.take_tcp_listener(place).map_err(|error| {
                StartFailure::new(format!("a socket of LISTEN_FDS is no TCP listener: {error}"))
            })
        };
        let plain = if config.listen.is_empty() { None } else { inherited(0)? };
        let place = usize::from(!config.listen.is_empty());
        let tls = if config.tls.is_some() { inherited(place)? } else { None };
        let is_inherited = plain.is_some() || tls.is_some();
        let or_bound = |inherited: Option<TcpListener>, addresses: &[SocketAddr]| match inherited {
            Some(listener) => Ok(vec![listener]),
            None => addresses.iter().map(|address| bind(*address)).collect::<Result<Vec<_>, _>>(),
        };
        let public = Sockets {
            plain: or_bound(plain, &config.listen)?,
            tls: or_bound(tls, config.tls.as_ref().map_or(&[], |tls| &tls.listen))?,
        };
        let private = config.admin.listen.map(bind).transpose()?;
        Ok(Self { public, inherited: is_inherited, private })
    }

    /// Where we listen, with real ports.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.public
            .plain
            .iter()
            .chain(&self.public.tls)
            .chain(&self.private)
            .map(TcpListener::local_addr)
            .collect()
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartFailure> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // So that a restart does not wait until the last run's connections have left TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|error| StartFailure::new(format!("can't listen on {address}: {error}")))
}

/// Raises the soft limit of open files to the hard one. Returns how many client connections fit: as many as are wanted,
/// or fewer, so that descriptors are left for backends, the database and logs.
pub(super) fn raise_open_files(max_connections: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        log::warn!("the limit of open files can't be raised: {error}");
    }
    // `None` is no limit.
    let Some(files) = getrlimit(Resource::Nofile).current else { return max_connections };
    let needed = max_connections as u64 + SPARE_FILES;
    if files >= needed {
        return max_connections;
    }
    let fitted = fitted(files);
    log::warn!(
        "{files} open files are allowed, {needed} are needed for frontend.max_connections ({max_connections}): \
         {fitted} connections are taken at most; raise the limit (ulimit -n) or lower max_connections"
    );
    fitted.min(max_connections)
}

/// How many of so many descriptors clients may have: all but [`SPARE_FILES`], or half of them where that is more.
fn fitted(files: u64) -> usize {
    let most = files.saturating_sub(SPARE_FILES).max(files / 2);
    usize::try_from(most).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_left_for_backends() {
        for (files, clients) in [(20_000, 18_976), (2_048, 1_024), (1_024, 512), (120, 60), (0, 0)] {
            assert_eq!(fitted(files), clients, "{files}");
        }
    }
}
