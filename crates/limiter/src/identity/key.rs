//! The key by which the limiter counts a client: a small value that is the same in every process.

use std::hash::Hasher;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::id::{ClientId, IdForm};

/// Identifies the owner of buckets: an IPv4 address or an IPv6 prefix by its value, anything else by the first 16 bytes
/// of its SHA-256. A tag keeps the kinds apart, and keeps an IPv6 address apart from a prefix that holds it (a prefix
/// of 128 bits is the address). 17 bytes, the same in every process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKey {
    /// 0 to 128: the length of an IPv6 prefix; else [`TAG_V4`], [`TAG_DIGEST`] or [`TAG_CROWD`].
    tag: u8,
    /// The prefix with its host bits 0, the IPv4 address and 12 zeros, or the digest.
    value: [u8; 16],
}

const TAG_V4: u8 = 129;
const TAG_DIGEST: u8 = 130;
const TAG_CROWD: u8 = 131;

/// The crowds of one range, or of the default. When the table is full, new clients have no row of their own: each
/// counts with one of at most [`Crowds::MOST`] crowds, whose members share buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Crowds {
    /// Identifies the range. The last two bytes are 0; a crowd's key has the crowd's number there.
    owner: [u8; 16],
    /// How many crowds there are, a power of two.
    count: u16,
}

impl Crowds {
    /// Most crowds of one range, and of the default.
    pub const MOST: u16 = 1024;

    /// The crowds of clients for which neither an entry nor a range decides.
    pub const OF_DEFAULT: Self = Self { owner: [0; 16], count: Self::MOST };

    /// The crowds of a range, which has to be in its canonical form. The same in every process and version.
    pub fn of_range(net: IpNet) -> Self {
        // The hash needs no secret, since only the operator chooses ranges; a digest would cost more.
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

    /// The same with at most `count` crowds, rounded down to a power of two.
    pub fn at_most(self, count: usize) -> Self {
        let most = count.clamp(1, Self::MOST.into());
        Self { count: 1 << most.ilog2(), ..self }
    }

    /// The key of the crowd with which a client of that hash counts.
    pub fn key(self, hash: u64) -> ClientKey {
        let number = (hash as u16) & (self.count - 1);
        let mut value = self.owner;
        value[14..].copy_from_slice(&number.to_be_bytes());
        ClientKey { tag: TAG_CROWD, value }
    }
}

impl ClientKey {
    /// The length of [`ClientKey::to_bytes`].
    pub const BYTES: usize = 17;

    /// The key of an address for which no entry of its own decides: IPv6 addresses count with their prefix of
    /// `ipv6_prefix` bits, 1 to 128.
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

    /// The key of an address that has an entry of its own.
    pub fn address(address: IpAddr) -> Self {
        Self::group(address, 128)
    }

    /// The key of an address for which a range decides. A range longer than `ipv6_prefix` counts apart from the rest of
    /// that prefix; together they would be one bucket with two limits.
    pub fn in_range(address: IpAddr, ipv6_prefix: u8, range: IpNet) -> Self {
        Self::group(address, ipv6_prefix.max(range.prefix_len()))
    }

    /// The key of the client that an id names. For a range it is the key of the one bucket that all of it shares.
    pub fn of_id(id: &ClientId) -> Self {
        match id.form() {
            IdForm::Address(address) => Self::address(address),
            IdForm::AddressPort(_) | IdForm::Range(_) | IdForm::Opaque => {
                Self::digest(id.canonical().as_bytes())
            }
        }
    }

    /// The key of an opaque id, or of another id's canonical text.
    pub fn digest(text: &[u8]) -> Self {
        let mut value = [0; 16];
        value.copy_from_slice(&Sha256::digest(text)[..16]);
        Self { tag: TAG_DIGEST, value }
    }

    /// Whether it is the key of a crowd.
    pub fn is_crowd(self) -> bool {
        self.tag == TAG_CROWD
    }

    /// Whether it is an IPv4 address.
    pub fn is_ipv4(self) -> bool {
        Self::tags_ipv4(self.tag)
    }

    /// Whether `first` is the first byte of [`ClientKey::to_bytes`] of an IPv4 address, whose last twelve bytes are 0.
    pub fn tags_ipv4(first: u8) -> bool {
        first == TAG_V4
    }

    /// The [`Crowds`] that a crowd belongs to, as [`Crowds::of_range`] makes them; `None` for the key of a client.
    pub fn crowd_owner(self) -> Option<Crowds> {
        let mut owner = self.value;
        owner[14..].fill(0);
        self.is_crowd().then_some(Crowds { owner, count: Crowds::MOST })
    }

    /// Tag and value, for storage; the same in every process and version.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [self.tag; Self::BYTES];
        bytes[1..].copy_from_slice(&self.value);
        bytes
    }

    /// Reads what [`ClientKey::to_bytes`] wrote; `None` for an unknown tag.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let [tag, value @ ..] = bytes;
        (tag <= TAG_CROWD).then_some(Self { tag, value })
    }

    /// Value and tag as numbers, to be hashed. Bytes would have to be stored and loaded again, for which the processor
    /// waits.
    pub fn words(self) -> (u128, u8) {
        (u128::from_ne_bytes(self.value), self.tag)
    }

    /// The address or prefix, if the key is one.
    pub fn network(self) -> Option<IpNet> {
        let [a, b, c, d, ..] = self.value;
        match self.tag {
            TAG_V4 => Ipv4Net::new([a, b, c, d].into(), 32).ok().map(IpNet::V4),
            TAG_DIGEST | TAG_CROWD => None,
            prefix => Ipv6Net::new(Ipv6Addr::from(self.value), prefix).ok().map(IpNet::V6),
        }
    }
}

/// An address, a prefix, or a digest.
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

/// The addresses that count as one client with an address: for IPv4 that address alone, for IPv6 its whole prefix of
/// `ipv6_prefix` bits (1 to 128; more counts as 128). A v4-mapped address counts as its IPv4 one.
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

    #[test]
    fn a_crowd_has_the_number_that_the_hash_chooses_among_as_many_as_there_are() {
        let range = Crowds::of_range("10.0.0.0/8".parse().unwrap());
        // at most so many; hash; the number
        for (most, hash, number) in [
            (usize::MAX, 0x1_0403, 0x003),
            (1_024, 0x0fff, 0x3ff),
            (1_023, 0x0fff, 0x1ff),
            (512, 0x0200, 0),
            (3, 0x0003, 1),
            (1, 0x0fff, 0),
            (0, 0x0fff, 0),
        ] {
            let key = range.at_most(most).key(hash);
            assert_eq!(key.to_bytes()[15..], u16::to_be_bytes(number), "{most} {hash}");
            assert_eq!((key.is_crowd(), key.crowd_owner()), (true, Some(range)));
            assert_eq!((ClientKey::from_bytes(key.to_bytes()), key.network()), (Some(key), None));
        }
        assert_ne!(Crowds::OF_DEFAULT.key(1), range.key(1));
        let mut unknown = range.key(0).to_bytes();
        unknown[0] += 1;
        assert_eq!(ClientKey::from_bytes(unknown), None);
    }

    #[test]
    fn a_key_tells_what_it_is() {
        for (key, text, is_ipv4) in [
            (ClientKey::address(ip("1.2.3.4")), "1.2.3.4", true),
            (ClientKey::address(ip("2001:db8::1")), "2001:db8::1", false),
            (ClientKey::group(ip("2001:db8::1"), 64), "2001:db8::/64", false),
            (ClientKey::digest(b"abc"), "sha256:ba7816bf8f01cfea414140de5dae2223", false),
        ] {
            assert_eq!((key.to_string().as_str(), key.is_ipv4()), (text, is_ipv4));
            assert_eq!(ClientKey::tags_ipv4(key.to_bytes()[0]), is_ipv4);
            assert_eq!((key.is_crowd(), key.crowd_owner()), (false, None));
        }
    }
}
