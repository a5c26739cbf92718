//! The combined log format of Apache and nginx, for tools that read nothing else:
//! `ADDRESS - USER [TIME] "METHOD TARGET VERSION" STATUS BYTES "REFERER" "USER-AGENT"`.
//!
//! What a client wrote is escaped as nginx does it: quotes, backslashes and everything outside of visible ASCII as
//! `\xHH`. USER is the name that the client gave in `Authorization: Basic`, else the stored id of a client that is not
//! known by its address, else `-`.

use std::net::IpAddr;

use super::line::{push_address, version};
use crate::log::lines::{push_log_time, push_number};
use crate::log::record::AccessRecord;
use balancer_http::message::Version;

/// The record as a line with its newline.
pub(super) fn line(record: &AccessRecord) -> Vec<u8> {
    let mut line = Vec::with_capacity(256 + record.path.len());
    push_address(&mut line, record.client_addr.to_canonical());
    line.extend_from_slice(b" - ");
    let agent = record.agent.as_deref();
    let user = agent.map(|agent| &*agent.user).filter(|user| !user.is_empty());
    let id = record.client_id.as_deref().filter(|id| id.parse::<IpAddr>().is_err());
    match user.or(id.map(str::as_bytes)) {
        Some(name) => push_escaped(&mut line, name, b'!'),
        None => line.push(b'-'),
    }
    line.extend_from_slice(b" [");
    push_log_time(&mut line, record.time);
    line.extend_from_slice(b"] \"");
    if record.method.is_empty() {
        // No head could be read.
        line.push(b'-');
    } else {
        push_escaped(&mut line, record.method.as_bytes(), b'!');
        line.push(b' ');
        push_escaped(&mut line, record.path.as_bytes(), b'!');
        line.push(b' ');
        line.extend_from_slice(version(record.protocol.unwrap_or(Version::Http11)).as_bytes());
    }
    line.extend_from_slice(b"\" ");
    push_number(&mut line, record.status.into(), 3);
    line.push(b' ');
    push_number(&mut line, record.body_bytes, 1);
    for text in [agent.map(|agent| &agent.referer), agent.map(|agent| &agent.user_agent)] {
        line.extend_from_slice(b" \"");
        match text.filter(|text| !text.is_empty()) {
            Some(text) => push_escaped(&mut line, text, b' '),
            None => line.push(b'-'),
        }
        line.push(b'"');
    }
    line.push(b'\n');
    line
}

/// Appends the bytes. Those below `least` and above `~`, quotes and backslashes are written as `\xHH`.
fn push_escaped(line: &mut Vec<u8>, bytes: &[u8], least: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if (least..=b'~').contains(&byte) && byte != b'"' && byte != b'\\' {
            line.push(byte);
        } else {
            line.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::log::record::AgentRecord;
    use std::time::{Duration, UNIX_EPOCH};

    fn record(id: &str, path: &str, agent: Option<[&[u8]; 3]>) -> AccessRecord {
        let agent = agent.map(|told| {
            let [user, referer, user_agent] = told.map(<[u8]>::to_vec);
            Box::new(AgentRecord { user, referer, user_agent })
        });
        AccessRecord {
            time: UNIX_EPOCH + Duration::from_secs(1_772_366_400),
            request_id: "r-1".into(),
            trace_id: String::new(),
            client_addr: "::ffff:10.0.0.7".parse().unwrap(),
            client_id: Some(id.into()),
            method: "GET".into(),
            path: path.into(),
            protocol: agent.is_some().then_some(Version::Http10),
            secure: None,
            status: 200,
            body_bytes: 12,
            duration: Duration::ZERO,
            upstream_duration: None,
            pool: None,
            backend: None,
            retries: 0,
            cause: None,
            limit: None,
            agent,
        }
    }

    fn text(record: &AccessRecord) -> String {
        String::from_utf8(line(record)).unwrap()
    }

    #[test]
    fn a_line_is_what_the_tools_expect() {
        let agent: [&[u8]; 3] = [b"", b"http://a/b", b"curl/8.0 (x)"];
        assert_eq!(
            text(&record("10.0.0.7", "/a?b", Some(agent))),
            "10.0.0.7 - - [01/Mar/2026:12:00:00 +0000] \"GET /a?b HTTP/1.0\" 200 12 \"http://a/b\" \"curl/8.0 (x)\"\n"
        );
        assert_eq!(
            text(&record("team one", "/a", None)),
            "10.0.0.7 - team\\x20one [01/Mar/2026:12:00:00 +0000] \"GET /a HTTP/1.1\" 200 12 \"-\" \"-\"\n"
        );
        for id in ["10.0.0.7", "team one"] {
            let line = text(&record(id, "/a", Some([b"J\xC3\xBCrgen \"x\"", b"", b""])));
            assert!(line.starts_with("10.0.0.7 - J\\xC3\\xBCrgen\\x20\\x22x\\x22 ["), "{line}");
        }
        let unread = AccessRecord { method: String::new(), ..record("10.0.0.7", "", None) };
        assert!(text(&unread).contains("] \"-\" 200 "));
    }

    proptest! {
        #[test]
        fn nothing_breaks_out_of_its_place(
            id in ".*",
            path in ".*",
            user: Vec<u8>,
            referer: Vec<u8>,
            agent: Vec<u8>,
        ) {
            let line = text(&record(&id, &path, Some([&user, &referer, &agent])));
            prop_assert!(line.trim_end_matches('\n').bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(line.matches('"').count(), 6, "{}", line);
            let parts: Vec<&str> = line.split('"').collect();
            prop_assert_eq!(parts[0].split(' ').count(), 6, "{}", line);
            prop_assert_eq!(parts[1].split(' ').count(), 3, "{}", line);
        }
    }
}
