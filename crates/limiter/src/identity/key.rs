//! What the limiter counts by: a small value that is the same in every process.

use std::hash::Hasher;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::id::{ClientId, IdForm};

/// Names a bucket's owner: an IPv4 address or an IPv6 prefix as itself, anything else by the first 16 bytes of its
/// SHA-256. Tagged, so that kinds never meet, and a single IPv6 address never meets a prefix that holds it (unless
/// that prefix is 128 bits, which is the address). 17 bytes, the same in every process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey {
    /// 0 to 128: bits of an IPv6 prefix; [`TAG_V4`]; [`TAG_DIGEST`]; [`TAG_CROWD`].
    tag: u8,
    /// The prefix with its host bits 0, the IPv4 address and 12 zeros, or the digest.
    value: [u8; 16],
}

const TAG_V4: u8 = 129;
const TAG_DIGEST: u8 = 130;
const TAG_CROWD: u8 = 131;

/// Clients that share overflow buckets when there is no room for rows of their own: those of one range, or those of the
/// default. Each counts with one of at most [`Crowds::MOST`] crowds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Crowds {
    /// Its last bits are 0: a crowd has its number there.
    owner: [u8; 16],
    /// A power of two.
    count: u16,
}

impl Crowds {
    /// Most crowds that clients of one kind are spread over.
    pub const MOST: u16 = 1024;

    /// Of clients that nothing names.
    pub const OF_DEFAULT: Self = Self { owner: [0; 16], count: Self::MOST };

    /// Of a range's members, by its canonical form. The same in every process and version.
    pub fn of_range(net: IpNet) -> Self {
        // Only the operator chooses ranges, so the hash needs no secret; a digest would cost more for each.
        let mut hasher = SipHasher13::new();
        match net {
            IpNet::V4(net) => hasher.write(&net.addr().octets()),
            IpNet::V6(net) => hasher.write(&net.addr().octets()),
        }
        hasher.write(&[net.prefix_len()]);
        let mut owner = hasher.finish128().as_u128().to_be_bytes();
        owner[14..].fill(0);
        Self { owner, count: Self::MOST }
    }

    /// The same clients in at most so many crowds.
    pub fn at_most(self, count: usize) -> Self {
        let most = count.clamp(1, Self::MOST.into());
        Self { count: 1 << most.ilog2(), ..self }
    }

    /// The crowd of a client with that hash.
    pub fn key(self, hash: u64) -> ClientKey {
        let number = (hash as u16) & (self.count - 1);
        let mut value = self.owner;
        value[14..].copy_from_slice(&number.to_be_bytes());
        ClientKey { tag: TAG_CROWD, value }
    }
}

impl ClientKey {
    /// How long [`ClientKey::to_bytes`] is.
    pub const BYTES: usize = 17;

    /// The client group of an address: what counts when no entry names the address itself. `ipv6_prefix` is 1 to 128.
    pub fn group(address: IpAddr, ipv6_prefix: u8) -> Self {
        match group(address, ipv6_prefix) {
            IpNet::V4(v4) => {
                let mut value = [0; 16];
                value[..4].copy_from_slice(&v4.addr().octets());
                Self { tag: TAG_V4, value }
            }
            IpNet::V6(v6) => Self { tag: v6.prefix_len(), value: v6.addr().octets() },
        }
    }

    /// One address: what counts when an entry names it.
    pub fn address(address: IpAddr) -> Self {
        Self::group(address, 128)
    }

    /// An address that a range decides about. Such a range that is longer than `ipv6_prefix` is a group of its own:
    /// if its addresses were counted with the rest of their prefix, one bucket would swing between two limits.
    pub fn in_range(address: IpAddr, ipv6_prefix: u8, range: IpNet) -> Self {
        Self::group(address, ipv6_prefix.max(range.prefix_len()))
    }

    /// The owner of an id's own bucket. A range's is one bucket for all of it.
    pub fn of_id(id: &ClientId) -> Self {
        match id.form() {
            IdForm::Address(address) => Self::address(address),
            IdForm::AddressPort(_) | IdForm::Range(_) | IdForm::Opaque => {
                Self::digest(id.canonical().as_bytes())
            }
        }
    }

    /// An opaque identity, or a canonical text.
    pub fn digest(text: &[u8]) -> Self {
        let mut value = [0; 16];
        value.copy_from_slice(&Sha256::digest(text)[..16]);
        Self { tag: TAG_DIGEST, value }
    }

    /// Whether it is a crowd's key, not a client's.
    pub fn is_crowd(self) -> bool {
        self.tag == TAG_CROWD
    }

    /// Whether it is an IPv4 address.
    pub fn is_ipv4(self) -> bool {
        Self::tags_ipv4(self.tag)
    }

    /// Whether [`ClientKey::to_bytes`] of an IPv4 address begins with that byte; the last twelve of them are then 0.
    pub fn tags_ipv4(first: u8) -> bool {
        first == TAG_V4
    }

    /// What all crowds of one kind have in common; `None` for a client.
    pub fn crowd_owner(self) -> Option<Crowds> {
        let mut owner = self.value;
        owner[14..].fill(0);
        self.is_crowd().then_some(Crowds { owner, count: Crowds::MOST })
    }

    /// Tag and value; the same in every process and version.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [self.tag; Self::BYTES];
        bytes[1..].copy_from_slice(&self.value);
        bytes
    }

    /// The other way; `None` for bytes that no key gives.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let [tag, value @ ..] = bytes;
        (tag <= TAG_CROWD).then_some(Self { tag, value })
    }

    /// The same as numbers, for a hash: reading bytes that were just put together would stall on store forwarding.
    pub fn words(self) -> (u128, u8) {
        (u128::from_ne_bytes(self.value), self.tag)
    }

    /// The address or prefix, where the key is one.
    pub fn network(self) -> Option<IpNet> {
        let [a, b, c, d, ..] = self.value;
        match self.tag {
            TAG_V4 => Ipv4Net::new([a, b, c, d].into(), 32).ok().map(IpNet::V4),
            TAG_DIGEST | TAG_CROWD => None,
            prefix => Ipv6Net::new(Ipv6Addr::from(self.value), prefix).ok().map(IpNet::V6),
        }
    }
}

/// One address alone, or the prefix that is counted together, or a digest.
impl std::fmt::Display for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.network() {
            Some(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            _ => write!(f, "{self:?}"),
        }
    }
}

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.network() {
            Some(network) => write!(f, "{network}"),
            None => write!(f, "sha256:{:032x}", u128::from_be_bytes(self.value)),
        }
    }
}

/// The client group of an address: an IPv4 address alone, an IPv6 address with its whole prefix of `ipv6_prefix` bits
/// (1 to 128; more counts as 128). A v4-mapped address counts as its IPv4 one.
pub fn group(address: IpAddr, ipv6_prefix: u8) -> IpNet {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpNet::V4(v4.into()),
        IpAddr::V6(v6) => {
            let whole = Ipv6Net::from(v6);
            IpNet::V6(Ipv6Net::new(v6, ipv6_prefix).map_or(whole, |net| net.trunc()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_share_a_group_exactly_within_their_prefix() {
        let rows = [
            ("1.2.3.4", "1.2.3.4", 64, true),
            ("1.2.3.4", "::ffff:1.2.3.4", 64, true),
            ("1.2.3.4", "1.2.3.5", 1, false),
            ("2001:db8::1", "2001:db8::ffff:0:0:1", 64, true),
            ("2001:db8::1", "2001:db8:0:1::1", 64, false),
            ("2001:db8::1", "2001:db8::2", 128, false),
            ("2001:db8::1", "2001:db8::2", 127, false),
            ("2001:db8::2", "2001:db8::3", 127, true),
            // An IPv6 text that ends like an IPv4 address is not that address.
            ("1.2.3.4", "::1.2.3.4", 64, false),
        ];
        for (one, two, prefix, same) in rows {
            let equal = ClientKey::group(ip(one), prefix) == ClientKey::group(ip(two), prefix);
            assert_eq!(equal, same, "{one} {two} /{prefix}");
            assert_eq!(group(ip(one), prefix) == group(ip(two), prefix), same, "{one} {two} /{prefix}");
        }
    }

    #[test]
    fn a_single_address_never_meets_its_prefix_and_kinds_never_meet() {
        let v6 = ip("2001:db8::");
        let range = "2001:db8::/96".parse().unwrap();
        let keys = [
            ClientKey::address(v6),
            ClientKey::group(v6, 64),
            ClientKey::group(v6, 63),
            ClientKey::in_range(v6, 64, range),
            ClientKey::address(ip("32.1.13.184")),
            ClientKey::of_id(&ClientId::parse("2001:db8::/64").unwrap()),
            ClientKey::of_id(&ClientId::parse("[2001:db8::]:80").unwrap()),
            ClientKey::of_id(&ClientId::parse("[2001:db8::]").unwrap()),
        ];
        for (i, one) in keys.iter().enumerate() {
            for two in &keys[i + 1..] {
                assert_ne!(one, two);
                assert_ne!(one.to_bytes(), two.to_bytes());
                assert_eq!(ClientKey::from_bytes(one.to_bytes()), Some(*one));
            }
        }
        assert_eq!(ClientKey::in_range(v6, 64, "2001:db8::/32".parse().unwrap()), ClientKey::group(v6, 64));
        assert_eq!(ClientKey::of_id(&ClientId::parse("2001:DB8::").unwrap()), ClientKey::address(v6));
    }

    #[test]
    fn a_digest_is_the_beginning_of_the_sha_256_of_the_canonical_text() {
        // FIPS 180-2, appendix B.1: SHA-256("abc").
        let key = ClientKey::of_id(&ClientId::parse("abc").unwrap());
        assert_eq!(format!("{key:?}"), "sha256:ba7816bf8f01cfea414140de5dae2223");
        let [one, two] = ["[::ffff:1.2.3.4]:80", "1.2.3.4:80"].map(|text| ClientId::parse(text).unwrap());
        assert_eq!(ClientKey::of_id(&one), ClientKey::of_id(&two));
    }
}
