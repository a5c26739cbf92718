//! A line of the access log as a JSON object, which always has the same members in the same order.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use crate::log::lines::{push_json_text, push_number, push_time};
use crate::log::record::{AccessRecord, DEFAULT_ENTRY};
use balancer_http::message::Version;

/// Room for a line without long texts, in bytes. A longer line makes the buffer grow.
const USUAL_LINE_BYTES: usize = 512;

/// The record as a line with its newline. Allocates once, unless texts are long.
pub(super) fn line(record: &AccessRecord) -> Vec<u8> {
    let mut line = Vec::with_capacity(USUAL_LINE_BYTES + record.path.len());
    line.extend_from_slice(b"{\"time\":\"");
    push_time(&mut line, record.time);
    line.push(b'"');
    text(&mut line, "request_id", Some(&record.request_id));
    text(&mut line, "trace_id", Some(record.trace_id.as_str()).filter(|id| !id.is_empty()));
    name(&mut line, "client_addr");
    line.push(b'"');
    push_address(&mut line, record.client_addr.to_canonical());
    line.push(b'"');
    text(&mut line, "client_id", record.client_id.as_deref());
    text(&mut line, "method", Some(&record.method));
    text(&mut line, "path", Some(&record.path));
    number(&mut line, "status", Some(record.status.into()));
    number(&mut line, "bytes", Some(record.body_bytes));
    seconds(&mut line, "duration", Some(record.duration));
    seconds(&mut line, "upstream_duration", record.upstream_duration);
    text(&mut line, "backend", record.backend.as_deref());
    number(&mut line, "retries", Some(record.retries.into()));
    let limit = record.limit.as_ref();
    text(&mut line, "limit_entry", limit.map(|limit| limit.entry.as_deref().unwrap_or(DEFAULT_ENTRY)));
    text(&mut line, "limit_bucket", limit.and_then(|limit| limit.bucket.as_ref()?.as_str().into()));
    text(&mut line, "limit_decision", limit.map(|limit| if limit.allowed { "allowed" } else { "denied" }));
    number(&mut line, "limit_remaining", limit.and_then(|limit| limit.remaining));
    text(&mut line, "cause", record.cause.as_deref());
    text(&mut line, "pool", record.pool.as_deref());
    text(&mut line, "protocol", record.protocol.map(version));
    let secure = record.secure.as_deref();
    text(&mut line, "tls_version", secure.map(|session| session.version));
    text(&mut line, "tls_cipher", secure.map(|session| session.cipher));
    text(&mut line, "sni", secure.and_then(|session| session.sni.as_deref()));
    line.extend_from_slice(b"}\n");
    line
}

/// The version as both log formats show it.
pub(super) fn version(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2",
    }
}

fn name(line: &mut Vec<u8>, name: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
}

fn text(line: &mut Vec<u8>, member: &str, value: Option<&str>) {
    name(line, member);
    match value {
        Some(value) => push_json_text(line, value.as_bytes()),
        None => line.extend_from_slice(b"null"),
    }
}

fn number(line: &mut Vec<u8>, member: &str, value: Option<u64>) {
    name(line, member);
    match value {
        Some(value) => push_number(line, value, 1),
        None => line.extend_from_slice(b"null"),
    }
}

/// Seconds with 6 decimals.
fn seconds(line: &mut Vec<u8>, member: &str, value: Option<Duration>) {
    name(line, member);
    match value {
        Some(value) => {
            push_number(line, value.as_secs(), 1);
            line.push(b'.');
            push_number(line, value.subsec_micros().into(), 6);
        }
        None => line.extend_from_slice(b"null"),
    }
}

pub(super) fn push_address(line: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            for (index, octet) in v4.octets().into_iter().enumerate() {
                if index > 0 {
                    line.push(b'.');
                }
                push_number(line, octet.into(), 1);
            }
        }
        // Writing into a vector cannot fail.
        IpAddr::V6(v6) => drop(write!(line, "{v6}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::log::record::LimitRecord;
    use balancer_http::message::TlsSession;
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    fn record() -> AccessRecord {
        AccessRecord {
            time: UNIX_EPOCH + Duration::from_millis(1_772_366_400_250),
            request_id: "r-1".into(),
            trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
            client_addr: "::ffff:10.0.0.7".parse().unwrap(),
            client_id: Some(Arc::from("10.0.0.7")),
            method: "GET".into(),
            path: "/a/b".into(),
            protocol: Some(Version::Http10),
            secure: None,
            status: 200,
            body_bytes: 12,
            duration: Duration::from_micros(1_002_003),
            upstream_duration: Some(Duration::from_micros(7)),
            pool: Some(Arc::from("default")),
            backend: Some(Arc::from("a")),
            retries: 1,
            cause: Some("backend a: \"refused\"".into()),
            limit: Some(LimitRecord {
                names_client: false,
                key: None,
                entry: Some(Arc::from("10.0.0.0/8")),
                bucket: balancer_limiter::terms::BucketName::parse("range").ok(),
                allowed: true,
                remaining: Some(9),
            }),
            agent: None,
        }
    }

    #[test]
    fn a_line_has_every_member_in_the_documented_order() {
        let line = String::from_utf8(line(&record())).unwrap();
        let expected = r#"{"time":"2026-03-01T12:00:00.250Z","request_id":"r-1","trace_id":"0af7651916cd43dd8448eb211c80319c","client_addr":"10.0.0.7","client_id":"10.0.0.7","method":"GET","path":"/a/b","status":200,"bytes":12,"duration":1.002003,"upstream_duration":0.000007,"backend":"a","retries":1,"limit_entry":"10.0.0.0/8","limit_bucket":"range","limit_decision":"allowed","limit_remaining":9,"cause":"backend a: \"refused\"","pool":"default","protocol":"HTTP/1.0","tls_version":null,"tls_cipher":null,"sni":null}"#;
        assert_eq!(line, format!("{expected}\n"));
    }

    #[test]
    fn what_is_not_known_is_null() {
        let bare = AccessRecord {
            trace_id: String::new(),
            client_id: None,
            upstream_duration: None,
            pool: None,
            backend: None,
            cause: None,
            protocol: None,
            limit: None,
            ..record()
        };
        let value: serde_json::Value = serde_json::from_slice(&line(&bare)).unwrap();
        let members =
            ["trace_id", "client_id", "upstream_duration", "backend", "limit_entry", "limit_bucket"];
        for member in
            members.into_iter().chain(["limit_decision", "limit_remaining", "cause", "pool", "protocol"])
        {
            assert_eq!(value.get(member), Some(&serde_json::Value::Null), "{member}");
        }
        assert_eq!(value.as_object().unwrap().len(), 23);
    }

    #[test]
    fn how_the_connection_was_secured_is_told() {
        let session = |sni: Option<&str>| TlsSession {
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            sni: sni.map(Into::into),
            certificate: None,
        };
        for sni in [Some("a.test"), None] {
            let secure = Some(Arc::new(session(sni)));
            let record = AccessRecord { secure, protocol: Some(Version::Http2), ..record() };
            let value: serde_json::Value = serde_json::from_slice(&line(&record)).unwrap();
            let told = ["protocol", "tls_version", "tls_cipher", "sni"].map(|member| value[member].as_str());
            assert_eq!(told, [Some("HTTP/2"), Some("TLSv1.3"), Some("TLS_AES_128_GCM_SHA256"), sni]);
        }
    }

    #[test]
    fn addresses_are_written_as_std_writes_them() {
        for text in ["0.0.0.0", "255.10.9.100", "::1", "2001:db8::7"] {
            let mut line = Vec::new();
            push_address(&mut line, text.parse().unwrap());
            assert_eq!(String::from_utf8(line).unwrap(), text);
        }
    }

    proptest! {
        #[test]
        fn every_path_gives_one_line_of_json(path in any::<String>()) {
            let line = line(&AccessRecord { path: path.clone(), ..record() });
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert!(!line[..line.len() - 1].iter().any(|byte| *byte < b' ' || *byte == 0x7f));
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(value["path"].as_str().unwrap(), path);
        }
    }
}
