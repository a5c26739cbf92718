//! The types of a look-up: what is looked up, and what is found.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use balancer_limiter::answer::EntryKind;
use balancer_limiter::identity::{ClientId, ClientKey, IdForm, group};
use balancer_limiter::limiter::{Granted, Room};
use balancer_limiter::terms::ClientLimit;

/// Which client a request counts as, and what that client may do.
#[derive(Clone, Debug)]
pub struct Found {
    /// The client whose buckets are used.
    pub client: ClientKey,
    /// Its limits.
    pub granted: Granted,
    /// Which kind of entry decided.
    pub source: EntryKind,
    /// The id that is stored for the deciding entry, for the log; `None` for the default.
    pub entry: Option<Arc<str>>,
    /// Where the request counts when the limiter's table is full.
    pub room: Room,
}

/// The address of an entry that has none.
pub(super) const NOWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// One stored limit: of an address, of an `ip:port`, or of an opaque id.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    address: IpAddr,
    port: Option<u16>,
    hit: Hit,
}

/// The entry that names a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The client whose buckets are used.
    pub client: ClientKey,
    /// The limit that is stored for it.
    pub limit: Arc<ClientLimit>,
    /// The stored id.
    pub id: Arc<str>,
}

impl Entry {
    /// An entry by its id; `None` for a range, which concerns no address by itself.
    pub fn new(id: &ClientId, limit: Arc<ClientLimit>) -> Option<Self> {
        let (address, port) = match id.form() {
            IdForm::Address(address) => (address, None),
            IdForm::AddressPort(peer) => (peer.ip(), Some(peer.port())),
            // It is the only entry of its group, so any address will do.
            IdForm::Opaque => (NOWHERE, None),
            IdForm::Range(_) => return None,
        };
        Some(Self { address, port, hit: Hit { client: ClientKey::of_id(id), limit, id: id.text().into() } })
    }

    /// What is stored.
    pub(super) fn hit(&self) -> &Hit {
        &self.hit
    }

    fn place(&self) -> (IpAddr, Option<u16>) {
        (self.address, self.port)
    }
}

/// What is looked up and held together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CacheGroup {
    /// Every address and `ip:port` in a client group.
    Group(IpNet),
    /// One opaque id.
    Id(Arc<str>),
}

impl CacheGroup {
    /// The group in which an id is looked up; `None` for a range, since all ranges are in memory.
    pub fn of(id: &ClientId, ipv6_prefix: u8) -> Option<Self> {
        match id.form() {
            IdForm::Address(address) => Some(Self::Group(group(address, ipv6_prefix))),
            IdForm::AddressPort(peer) => Some(Self::Group(group(peer.ip(), ipv6_prefix))),
            IdForm::Opaque => Some(Self::Id(id.text().into())),
            IdForm::Range(_) => None,
        }
    }
}

impl From<IpNet> for CacheGroup {
    fn from(network: IpNet) -> Self {
        Self::Group(network)
    }
}

/// What the cache says about a client.
#[derive(Clone, Debug)]
pub enum Known {
    /// An entry names it.
    Entry(Hit),
    /// No entry names it.
    Absent,
    /// It is not known whether one does, and could not be found out in time.
    Unknown,
}

/// The entries of a group, sorted by [`Entry::place`]; `None` when there are none.
pub(super) type Entries = Option<Arc<[Entry]>>;

pub(super) fn sorted(mut entries: Vec<Entry>) -> Entries {
    entries.sort_unstable_by_key(Entry::place);
    (!entries.is_empty()).then(|| entries.into())
}

pub(super) fn pick(entries: &Entries, address: IpAddr, port: Option<u16>) -> Known {
    let Some(entries) = entries else { return Known::Absent };
    let at = |port| entries.binary_search_by_key(&(address, port), Entry::place).ok();
    let found = port.and_then(|port| at(Some(port))).or_else(|| at(None));
    found.and_then(|i| entries.get(i)).map_or(Known::Absent, |entry| Known::Entry(entry.hit.clone()))
}
