//! Sockets to listen on, and how many files may be open.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::StartFailure;
use crate::config::Config;

/// Connections that the kernel keeps ready for us; it caps this at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Descriptors beside client connections: backends' connections, the database's, logs, epoll.
const SPARE_FILES: u64 = 1024;

/// Sockets that listen, before anything is accepted.
pub(super) struct Bound {
    /// The public port.
    pub public: Vec<TcpListener>,
    /// Whether the public sockets came from the service manager (LISTEN_FDS).
    pub inherited: bool,
    /// `admin.listen`.
    pub private: Option<TcpListener>,
}

impl Bound {
    /// Opens every address. With `LISTEN_FDS` the first inherited socket replaces `listen`.
    pub fn open(config: &Config) -> Result<Self, StartFailure> {
        let inherited = listenfd::ListenFd::from_env().take_tcp_listener(0).map_err(|error| {
            StartFailure::new(format!("the socket of LISTEN_FDS is no TCP listener: {error}"))
        })?;
        let is_inherited = inherited.is_some();
        let public = match inherited {
            Some(listener) => vec![listener],
            None => config.listen.iter().map(|address| bind(*address)).collect::<Result<_, _>>()?,
        };
        let private = config.admin.listen.map(bind).transpose()?;
        Ok(Self { public, inherited: is_inherited, private })
    }

    /// Where we listen, with real ports.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.public.iter().chain(&self.private).map(TcpListener::local_addr).collect()
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartFailure> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the last run's connections to leave TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|error| StartFailure::new(format!("can't listen on {address}: {error}")))
}

/// Raises the soft limit of open files to the hard one. How many client connections there may be under it: as many as
/// are wanted, or fewer, so that descriptors are left for backends, the database and logs.
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

/// How many of so many descriptors may be clients': what is left beside the spare ones, and half where that is less, since
/// each request needs one for its backend.
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
