//! Which byte is allowed where: a table with flags for each byte, built at compile time.

/// A byte of a token (RFC 9110 §5.6.2).
pub const TOKEN: u8 = 1;
/// A byte of a field value: visible ASCII, obs-text, space, tab (RFC 9110 §5.5).
pub const VALUE: u8 = 1 << 1;
/// A byte of a request target: what RFC 3986 §3.3 and §3.4 allow, and the rest of visible ASCII, which clients send
/// too, except `#`.
pub const TARGET: u8 = 1 << 2;
/// A byte above 0x7F.
pub const HIGH: u8 = 1 << 3;
/// A byte of a registered name or an IPv4 address in an authority (RFC 3986 §3.2.2), except the comma: a list of two
/// hosts must never pass for one host.
pub const NAME: u8 = 1 << 4;
/// A hexadecimal digit.
pub const HEX: u8 = 1 << 5;
/// The underscore, which some backends take for a hyphen.
pub const UNDERSCORE: u8 = 1 << 6;

/// The flags of each byte.
pub static CLASS: [u8; 256] = build();

/// Whether the byte has one of the flags.
#[inline(always)]
pub fn is(byte: u8, flags: u8) -> bool {
    CLASS[byte as usize] & flags != 0
}

const fn build() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = classify(byte as u8);
        byte += 1;
    }
    table
}

const fn classify(byte: u8) -> u8 {
    let mut flags = 0;
    if byte.is_ascii_alphanumeric() {
        flags |= TOKEN | NAME;
    }
    if byte.is_ascii_hexdigit() {
        flags |= HEX;
    }
    if byte.is_ascii_graphic() && byte != b'#' {
        flags |= TARGET;
    }
    if !byte.is_ascii() {
        flags |= HIGH;
    }
    flags |= match byte {
        b'-' | b'.' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'*' | b'+' => TOKEN | NAME,
        b'_' => TOKEN | NAME | UNDERSCORE,
        b'%' | b'#' | b'^' | b'|' | b'`' => TOKEN,
        b'(' | b')' | b';' | b'=' => NAME,
        _ => 0,
    };
    // RFC 9110 §5.6.2: of the punctuation, the delimiters "(),/:;<=>?@[\]{} and the double quote are no bytes of a
    // token.
    if byte == b'\t' || (byte >= b' ' && byte != 0x7F) {
        flags |= VALUE;
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_holds_exactly_what_its_grammar_lists() {
        let alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let rows = [
            (TOKEN, "!#$%&'*+-.^_`|~"),
            (TARGET, "-._~!$&'()*+,;=:@/?%[]^|\\{}`\"<>"),
            (NAME, "-._~!$&'()*+;="),
        ];
        for (class, punctuation) in rows {
            for byte in 0..=255u8 {
                let listed =
                    alphanumeric.as_bytes().contains(&byte) || punctuation.as_bytes().contains(&byte);
                assert_eq!(is(byte, class), listed, "class {class}, byte {byte:#x}");
            }
        }
        for byte in 0..=255u8 {
            assert_eq!(is(byte, VALUE), byte == 9 || (byte >= 32 && byte != 127), "byte {byte:#x}");
            assert_eq!(is(byte, HEX), (byte as char).is_ascii_hexdigit(), "byte {byte:#x}");
            assert_eq!(is(byte, HIGH), byte > 0x7F, "byte {byte:#x}");
        }
    }
}
