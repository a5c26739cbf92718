//! Client ids. Addresses and ranges are compared by value, everything else byte for byte.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

/// A client's id: stored and shown as it was given, compared by [`ClientId::canonical`].
#[derive(Clone, Debug)]
pub struct ClientId {
    text: Box<str>,
    form: IdForm,
}

/// What an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdForm {
    /// `1.2.3.4` or `2001:db8::1`: one address. A v4-mapped one is its IPv4 address.
    Address(IpAddr),
    /// `1.2.3.4:567` or `[2001:db8::1]:567`: one TCP peer, without scope and flow.
    AddressPort(SocketAddr),
    /// `10.0.0.0/8`: a range, its host bits 0. A range of one address is less specific than the address itself.
    Range(IpNet),
    /// Anything else.
    Opaque,
}

/// Why a text is not a client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdFault {
    /// It is empty.
    Empty,
    /// It has that many bytes, more than [`ClientId::MAX_BYTES`].
    TooLong(usize),
    /// It holds a control character (Unicode category Cc).
    Control,
}

impl std::fmt::Display for IdFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "must not be empty; 1 to {} bytes are allowed", ClientId::MAX_BYTES),
            Self::TooLong(bytes) => {
                write!(f, "has {bytes} bytes; 1 to {} bytes of UTF-8 are allowed", ClientId::MAX_BYTES)
            }
            Self::Control => f.write_str("must not hold control characters"),
        }
    }
}

impl std::error::Error for IdFault {}

impl ClientId {
    /// Longest id in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Reads an id.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, IdFault> {
        match text.len() {
            0 => return Err(IdFault::Empty),
            1..=Self::MAX_BYTES => {}
            bytes => return Err(IdFault::TooLong(bytes)),
        }
        if text.chars().any(char::is_control) {
            return Err(IdFault::Control);
        }
        Ok(Self { text: text.into(), form: form_of(text) })
    }

    /// The id as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it names.
    pub fn form(&self) -> IdForm {
        self.form
    }

    /// The text that all ids of equal value have in common, which is unique in a store. It parses to an id of equal
    /// value, so ids of different forms never have the same one. At most [`ClientId::MAX_BYTES`] bytes.
    pub fn canonical(&self) -> Cow<'_, str> {
        match self.form {
            IdForm::Address(address) => Cow::Owned(address.to_string()),
            IdForm::AddressPort(peer) => Cow::Owned(peer.to_string()),
            IdForm::Range(range) => Cow::Owned(range.to_string()),
            IdForm::Opaque => Cow::Borrowed(&self.text),
        }
    }

    /// The address of an address or an `ip:port`. Entries for both are looked up together.
    pub fn address(&self) -> Option<IpAddr> {
        match self.form {
            IdForm::Address(address) => Some(address),
            IdForm::AddressPort(peer) => Some(peer.ip()),
            IdForm::Range(_) | IdForm::Opaque => None,
        }
    }
}

/// Ids are equal if their form and value are.
impl PartialEq for ClientId {
    fn eq(&self, other: &Self) -> bool {
        match (self.form, other.form) {
            (IdForm::Opaque, IdForm::Opaque) => self.text == other.text,
            (one, two) => one == two,
        }
    }
}

impl Eq for ClientId {}

impl std::hash::Hash for ClientId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self.form {
            IdForm::Opaque => self.text.hash(state),
            form => form.hash(state),
        }
    }
}

/// A range with its host bits 0; as an IPv4 range if it lies within the v4-mapped addresses (`::ffff:0:0/96`).
pub fn canonical_range(range: IpNet) -> IpNet {
    let IpNet::V6(v6) = range.trunc() else { return range.trunc() };
    let folded = v6
        .prefix_len()
        .checked_sub(96)
        .zip(v6.addr().to_ipv4_mapped())
        .and_then(|(prefix, v4)| Ipv4Net::new(v4, prefix).ok());
    folded.map_or(IpNet::V6(v6), IpNet::V4)
}

fn form_of(text: &str) -> IdForm {
    if let Ok(address) = text.parse::<IpAddr>() {
        return IdForm::Address(address.to_canonical());
    }
    if let Ok(peer) = text.parse::<SocketAddr>() {
        // A scope (`[fe80::1%3]:80`) is the number of an interface of one machine, and means nothing to another one.
        let scoped = matches!(peer, SocketAddr::V6(v6) if v6.scope_id() != 0) || text.contains('%');
        return if scoped {
            IdForm::Opaque
        } else {
            IdForm::AddressPort(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
        };
    }
    range_of(text).map_or(IdForm::Opaque, IdForm::Range)
}

fn range_of(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    // `parse::<u8>` alone would take "+8".
    if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let range = IpNet::new(address.parse().ok()?, prefix.parse().ok()?).ok()?;
    Some(canonical_range(range))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> ClientId {
        ClientId::parse(text).unwrap()
    }

    #[test]
    fn ids_of_one_value_share_one_canonical_text() {
        let rows: &[(&str, &str, &str)] = &[
            // given, canonical, form
            ("1.2.3.4", "1.2.3.4", "address"),
            ("::ffff:1.2.3.4", "1.2.3.4", "address"),
            ("::FFFF:102:304", "1.2.3.4", "address"),
            ("2001:DB8:0:0::1", "2001:db8::1", "address"),
            ("::1.2.3.4", "::102:304", "address"),
            ("123.5.6.7:890", "123.5.6.7:890", "peer"),
            ("123.5.6.7:00890", "123.5.6.7:890", "peer"),
            ("[::ffff:123.5.6.7]:890", "123.5.6.7:890", "peer"),
            ("[2001:DB8::0:1]:80", "[2001:db8::1]:80", "peer"),
            ("1.2.3.4:0", "1.2.3.4:0", "peer"),
            ("10.1.2.3/8", "10.0.0.0/8", "range"),
            ("10.0.0.0/08", "10.0.0.0/8", "range"),
            ("1.2.3.4/32", "1.2.3.4/32", "range"),
            ("0.0.0.0/0", "0.0.0.0/0", "range"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8", "range"),
            ("::ffff:0:0/96", "0.0.0.0/0", "range"),
            ("::ffff:1.2.3.4/128", "1.2.3.4/32", "range"),
            ("::ffff:0:0/95", "::fffe:0:0/95", "range"),
            ("2001:db8::1/32", "2001:db8::/32", "range"),
            ("::/0", "::/0", "range"),
            // Everything that is not quite one of these stays as it is.
            ("01.2.3.4", "01.2.3.4", "opaque"),
            ("1.2.3", "1.2.3", "opaque"),
            ("1.2.3.4:65536", "1.2.3.4:65536", "opaque"),
            ("1.2.3.4:", "1.2.3.4:", "opaque"),
            (" 1.2.3.4", " 1.2.3.4", "opaque"),
            ("[2001:db8::1]", "[2001:db8::1]", "opaque"),
            ("fe80::1%3", "fe80::1%3", "opaque"),
            ("[fe80::1%3]:80", "[fe80::1%3]:80", "opaque"),
            ("[fe80::1%0]:80", "[fe80::1%0]:80", "opaque"),
            ("10.0.0.0/33", "10.0.0.0/33", "opaque"),
            ("10.0.0.0/+8", "10.0.0.0/+8", "opaque"),
            ("10.0.0.0/", "10.0.0.0/", "opaque"),
            ("10.0.0.0/8/8", "10.0.0.0/8/8", "opaque"),
            ("::/129", "::/129", "opaque"),
            ("Tenant", "Tenant", "opaque"),
            ("tenant", "tenant", "opaque"),
            ("a \"quoted\" /slash/ 🦀", "a \"quoted\" /slash/ 🦀", "opaque"),
        ];
        for (given, canonical, form) in rows {
            let id = id(given);
            assert_eq!(id.text(), *given);
            assert_eq!(id.canonical(), *canonical, "{given}");
            let kind = match id.form() {
                IdForm::Address(_) => "address",
                IdForm::AddressPort(_) => "peer",
                IdForm::Range(_) => "range",
                IdForm::Opaque => "opaque",
            };
            assert_eq!(kind, *form, "{given}");
        }
    }

    #[test]
    fn what_is_no_id_is_refused_with_the_fault() {
        let long = "é".repeat(128) + "x";
        let rows = [
            ("", Some(IdFault::Empty)),
            (long.as_str(), Some(IdFault::TooLong(257))),
            (&long[..256], None),
            ("a\0b", Some(IdFault::Control)),
            ("a\nb", Some(IdFault::Control)),
            ("\u{7f}", Some(IdFault::Control)),
            ("\u{85}", Some(IdFault::Control)),
            (" ", None),
        ];
        for (text, fault) in rows {
            assert_eq!(ClientId::parse(text).err(), fault, "{text:?}");
        }
        assert_eq!(IdFault::TooLong(257).to_string(), "has 257 bytes; 1 to 256 bytes of UTF-8 are allowed");
    }

    #[test]
    fn an_address_and_its_ports_have_one_address() {
        let rows = [
            ("::ffff:1.2.3.4", Some("1.2.3.4")),
            ("1.2.3.4:80", Some("1.2.3.4")),
            ("[2001:db8::1]:80", Some("2001:db8::1")),
            ("1.2.3.4/32", None),
            ("tenant", None),
        ];
        for (text, address) in rows {
            assert_eq!(id(text).address(), address.map(|text| text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn ids_are_found_by_their_value() {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let hash = |text| BuildHasherDefault::<DefaultHasher>::default().hash_one(id(text));
        assert_eq!(hash("::ffff:1.2.3.4"), hash("1.2.3.4"));
        let rows = ["1.2.3.4", "1.2.3.5", "1.2.3.4:80", "1.2.3.4/32", "tenant", "Tenant"];
        let different: std::collections::HashSet<u64> = rows.into_iter().map(hash).collect();
        assert_eq!(different.len(), rows.len());
    }

    proptest! {
        #[test]
        fn a_canonical_text_parses_to_an_equal_id_and_equality_is_equality_of_canonical_texts(
            one in any_id(), two in any_id()
        ) {
            let (one, two) = (id(&one), id(&two));
            let again = id(&one.canonical());
            prop_assert_eq!(&again, &one);
            prop_assert_eq!(again.canonical(), one.canonical());
            prop_assert_eq!(one == two, one.canonical() == two.canonical());
        }
    }

    fn any_id() -> impl Strategy<Value = String> {
        // Few different bits, so that equal values come up.
        let v4 = (0u32..4).prop_map(|bits| std::net::Ipv4Addr::from(0x0a00_0000 | bits));
        let address = (v4, any::<bool>())
            .prop_map(|(v4, mapped)| if mapped { format!("::ffff:{v4}") } else { v4.to_string() });
        let v6 = (0u128..4).prop_map(|bits| std::net::Ipv6Addr::from(bits).to_string());
        prop_oneof![
            address.clone(),
            v6.clone(),
            (address.clone(), 0u8..33).prop_map(|(address, prefix)| {
                if address.contains(':') {
                    format!("{address}/{}", prefix + 96)
                } else {
                    format!("{address}/{prefix}")
                }
            }),
            (v6, 0u8..129).prop_map(|(v6, prefix)| format!("{v6}/{prefix}")),
            (address, 80u16..82).prop_map(|(address, port)| {
                if address.contains(':') {
                    format!("[{address}]:{port}")
                } else {
                    format!("{address}:{port}")
                }
            }),
            "[^\\p{Cc}]{1,64}",
        ]
    }
}
