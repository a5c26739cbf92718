//! Reads a source line by line. Lines are numbered, and their length is bounded.

use std::io::{BufRead, Read};

/// Longest line in bytes. A limit with four buckets and an id of 256 bytes has about 1 KiB.
const MAX_LINE_BYTES: usize = 64 << 10;

/// What spreadsheets write at the beginning of a file, U+FEFF in UTF-8. It is not a part of the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of a source that are not blank.
pub struct ImportLines<R> {
    source: R,
    buffer: Vec<u8>,
    number: u64,
    read: u64,
}

/// A line of a source.
#[derive(Debug)]
pub struct Line<'a> {
    /// Its number, from 1; blank lines count, too.
    pub number: u64,
    /// The text without its line end, or why it can't be read.
    pub text: Result<&'a str, String>,
    /// How many bytes of the source are read up to its end.
    pub end: u64,
}

impl<R: BufRead> ImportLines<R> {
    /// Reads from the beginning of `source`.
    pub fn new(source: R) -> Self {
        Self { source, buffer: Vec::new(), number: 0, read: 0 }
    }

    /// The next line that is not blank; `None` at the end.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn next(&mut self) -> std::io::Result<Option<Line<'_>>> {
        loop {
            self.buffer.clear();
            let most = MAX_LINE_BYTES as u64 + 1;
            let read = Read::take(&mut self.source, most).read_until(b'\n', &mut self.buffer)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.read += read as u64;
            let ended = self.buffer.ends_with(b"\n");
            if !ended && self.buffer.len() > MAX_LINE_BYTES {
                self.read += self.source.skip_until(b'\n')? as u64;
                let text = Err(format!("is longer than {MAX_LINE_BYTES} bytes"));
                return Ok(Some(Line { number: self.number, text, end: self.read }));
            }
            if self.number == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.buffer.drain(..BYTE_ORDER_MARK.len());
            }
            if self.buffer.trim_ascii().is_empty() {
                continue;
            }
            let text = std::str::from_utf8(&self.buffer)
                .map(|text| text.trim_end_matches(['\r', '\n']))
                .map_err(|error| format!("is not UTF-8 from byte {} on", error.valid_up_to() + 1));
            return Ok(Some(Line { number: self.number, text, end: self.read }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_left_out_at_the_beginning_of_the_source_and_nowhere_else() {
        for (source, expected) in [
            ("\u{feff}a\n\u{feff}b", &["a", "\u{feff}b"][..]),
            ("\u{feff}\n\u{feff}a\n", &["\u{feff}a"]),
            ("\u{feff}\u{feff}a", &["\u{feff}a"]),
        ] {
            let (mut lines, mut found) = (ImportLines::new(source.as_bytes()), Vec::new());
            while let Some(line) = lines.next().unwrap() {
                found.push(line.text.unwrap().to_owned());
            }
            assert_eq!(found, expected, "{source:?}");
        }
    }

    #[test]
    fn lines_have_numbers_and_bounds() {
        let long = "x".repeat(200_000);
        let exact = "y".repeat(MAX_LINE_BYTES - 1);
        let mut source = format!("a\r\n\n  \nb\n{long}\n{exact}\n").into_bytes();
        source.extend_from_slice(b"\xff\nlast");
        let total = source.len() as u64;
        let mut lines = ImportLines::new(source.as_slice());
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push((
                line.number,
                line.text.map(|text| text.len()).map_err(|fault| fault.len() > 9),
                line.end,
            ));
        }
        let numbers: Vec<_> = found.iter().map(|(number, text, _)| (*number, *text)).collect();
        let expected =
            [(1, Ok(1)), (4, Ok(1)), (5, Err(true)), (6, Ok(MAX_LINE_BYTES - 1)), (7, Err(true)), (8, Ok(4))];
        assert_eq!(numbers, expected);
        assert_eq!(found.last().unwrap().2, total);
    }
}
