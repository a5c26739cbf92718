//! Seeds as text: one input a line, with Rust's escapes for what is not printable (`\r`, `\n`, `\t`, `\x00`, `\\`, quotes).
//! Lines that start with `#` and empty ones are comments; the empty input is `\`.

/// The inputs of a seed file.
///
/// # Errors
/// The first line that is not of that form.
pub fn read(text: &str) -> Result<Vec<Vec<u8>>, String> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| unescape(line).ok_or_else(|| format!("not a seed: {line}")))
        .collect()
}

/// One line for an input.
pub fn line(input: &[u8]) -> String {
    match input {
        [] => "\\".to_owned(),
        // A comment otherwise.
        [b'#', rest @ ..] => format!("\\x23{}", rest.escape_ascii()),
        _ => input.escape_ascii().to_string(),
    }
}

fn unescape(line: &str) -> Option<Vec<u8>> {
    if line == "\\" {
        return Some(Vec::new());
    }
    let mut bytes = Vec::with_capacity(line.len());
    let mut chars = line.bytes();
    while let Some(byte) = chars.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match chars.next()? {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            byte @ (b'\\' | b'"' | b'\'') => byte,
            b'x' => {
                let digits = [chars.next()?, chars.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            _ => return None,
        });
    }
    Some(bytes)
}
