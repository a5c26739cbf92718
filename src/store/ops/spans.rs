//! Networks as parameters of a statement that looks for the limits inside them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::session::SqlValue;

/// The condition for limits inside a network. It compares lengths to keep IPv4 and IPv6 apart, since an IPv4 address sorts
/// among the IPv6 addresses that begin with its bytes.
pub(super) const IN_SPAN: &str =
    "kind IN (1, 2) AND address BETWEEN v.low AND v.high AND octet_length(address) = v.length";

/// The first and the last address of each network, as they are stored.
pub(super) struct Spans(Vec<(Vec<u8>, Vec<u8>)>);

impl Spans {
    pub(super) fn of(networks: &[IpNet]) -> Self {
        Self(networks.iter().map(|net| (octets(net.network()), octets(net.broadcast()))).collect())
    }

    /// Four values for each network: its index, its first and its last address, and the length of an address.
    pub(super) fn values(&self) -> Vec<SqlValue<'_>> {
        let int = |number: usize| SqlValue::Int(i64::try_from(number).ok());
        let spans = self.0.iter().enumerate();
        spans
            .flat_map(|(number, (low, high))| {
                [int(number), SqlValue::Bytes(Some(low)), SqlValue::Bytes(Some(high)), int(low.len())]
            })
            .collect()
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
