//! JSON strings of text that clients chose.

use std::io::Write;

/// Appends a JSON string (RFC 8259 §7). Bytes that are not UTF-8 become U+FFFD. Besides what JSON asks for, DEL and the
/// C1 control characters are escaped, so that no line can control the terminal that shows it.
pub fn push_json_text(line: &mut Vec<u8>, bytes: &[u8]) {
    line.push(b'"');
    // Looks at every byte without branches, so that the compiler can check many bytes at once.
    let plain = |ok, byte: &u8| ok & (*byte >= b' ') & (*byte <= b'~') & (*byte != b'"') & (*byte != b'\\');
    if bytes.iter().fold(true, plain) {
        line.extend_from_slice(bytes);
    } else {
        for chunk in bytes.utf8_chunks() {
            chunk.valid().chars().for_each(|char| push_json_char(line, char));
            if !chunk.invalid().is_empty() {
                line.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    line.push(b'"');
}

fn push_json_char(line: &mut Vec<u8>, char: char) {
    match char {
        '"' => line.extend_from_slice(b"\\\""),
        '\\' => line.extend_from_slice(b"\\\\"),
        '\n' => line.extend_from_slice(b"\\n"),
        '\r' => line.extend_from_slice(b"\\r"),
        '\t' => line.extend_from_slice(b"\\t"),
        // Control characters (category Cc) are below U+0100, so four digits are enough.
        control if control.is_control() => drop(write!(line, "\\u{:04x}", u32::from(control))),
        other => line.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_bytes_are_escaped_and_can_be_read_back() {
        for (bytes, expected) in [
            (&b"/a\"\\b"[..], r#""/a\"\\b""#),
            (b"/\x00\x1b[2J\x7f\n", r#""/\u0000\u001b[2J\u007f\n""#),
            ("/\u{9b}31m".as_bytes(), r#""/\u009b31m""#),
            (b"/\xff\xfex", "\"/\u{fffd}\u{fffd}x\""),
            ("/é🦀".as_bytes(), "\"/é🦀\""),
        ] {
            let mut line = Vec::new();
            push_json_text(&mut line, bytes);
            assert_eq!(String::from_utf8_lossy(&line), expected);
            let back: String = serde_json::from_slice(&line).unwrap();
            assert_eq!(back, String::from_utf8_lossy(bytes));
        }
    }
}
