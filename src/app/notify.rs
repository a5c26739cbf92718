//! Tells the service manager of each state (sd_notify(3)): one datagram to the socket that `NOTIFY_SOCKET` names, by
//! path or abstract name. Does nothing when NOTIFY_SOCKET is not set.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service manager's socket, if there is one.
#[derive(Debug)]
pub(super) struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// To the socket of that name, the value of `NOTIFY_SOCKET`.
    pub fn to(name: Option<&OsStr>) -> Self {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Self(None) };
        match address(name).and_then(|address| Ok((UnixDatagram::unbound()?, address))) {
            Ok(way) => Self(Some(way)),
            Err(error) => {
                log::warn!("NOTIFY_SOCKET can't be used, the service manager is told nothing: {error}");
                Self(None)
            }
        }
    }

    /// We listen, or a reload is over.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=serving");
    }

    /// A reload begins.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_us = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=reloading"));
    }

    /// The process is about to end.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=draining");
    }

    fn say(&self, state: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            log::warn!("the service manager was not told {state:?}: {error}");
        }
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', rest @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(rest)
        }
        [b'/', ..] => SocketAddr::from_pathname(name),
        // Other families, such as `vsock:`.
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
    }
}
