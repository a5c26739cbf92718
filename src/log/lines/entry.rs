//! One entry of the error log.

use std::time::SystemTime;

use super::{push_json_text, push_time};

/// Appends a line of the error log: `TIME [LEVEL] TEXT`, or a JSON object of the three. `text` must not have control
/// characters unless `json` is set.
pub fn push_entry(out: &mut Vec<u8>, time: SystemTime, level: log::Level, text: &str, json: bool) {
    if json {
        out.extend_from_slice(b"{\"time\":\"");
        push_time(out, time);
        out.extend_from_slice(b"\",\"level\":\"");
        out.extend_from_slice(level.as_str().to_ascii_lowercase().as_bytes());
        out.extend_from_slice(b"\",\"message\":");
        push_json_text(out, text.as_bytes());
        out.extend_from_slice(b"}\n");
    } else {
        push_time(out, time);
        out.extend_from_slice(format!(" [{level}] {text}\n").as_bytes());
    }
}
