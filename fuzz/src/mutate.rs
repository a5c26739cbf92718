//! Plain mutation, for where libFuzzer isn't.

/// Longest input that grows further.
const MAX_BYTES: usize = 2048;

/// What framing hangs on.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b":",
    b"0",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b",",
    b";",
    b"%",
    b"?",
    b"+",
    b"-",
    b"Host: a\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"0\r\n\r\n",
    b"http://b",
    b"ffffffffffffffff",
    b"18446744073709551616",
    b" HTTP/1.0",
];

/// One change: a byte, a range taken away, a range twice or from another input, a word of the dictionary between
/// two bytes or in place of one.
pub fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut fastrand::Rng) {
    let at = random.usize(0..=input.len());
    let end = random.usize(at..=input.len());
    match random.u8(0..8) {
        0 | 1 if at < input.len() => input[at] = random.u8(..),
        2 if at < input.len() => input[at] ^= 1 << random.u8(0..8),
        3 => drop(input.drain(at..end.min(at + 16))),
        4 if input.len() < MAX_BYTES => {
            let twice = input[at..end].to_vec();
            input.splice(end..end, twice);
        }
        5 if input.len() < MAX_BYTES => {
            let Some(other) = random.choice(others) else { return };
            let from = random.usize(0..=other.len());
            input.splice(at..end, other[from..].iter().copied());
        }
        kind => {
            let word = WORDS[random.usize(0..WORDS.len())];
            // In place of a byte, or between two.
            let behind = if kind == 6 { input.len().min(at + 1) } else { at };
            input.splice(at..behind, word.iter().copied());
        }
    }
}
