//! The chunked transfer coding (RFC 9112 §7.1), read strictly, for requests and answers.
//!
//! [`ChunkDecoder`] is given the bytes of each read and says which of them are body; it keeps none. It decides byte by
//! byte, so body and verdict are the same however a stream is cut into reads. Extensions and trailer fields are checked
//! for their form, counted against a bound, and dropped, as RFC 9112 §7.1.1 and §7.1.2 allow. In a request an extension
//! must keep its grammar: a backend that finds a line end inside a broken extension would see another request behind
//! it. In an answer it must only be text.

#[cfg(test)]
mod tests;

use super::bytes::{TOKEN, VALUE, is};

/// Most hexadecimal digits in a chunk's size, those of 64 bits. A longer size is refused even if it begins with zeros.
const MAX_SIZE_DIGITS: u8 = 16;
/// Most bytes of chunk extensions in one body, all chunks together. Extensions are hardly ever used; without a bound a
/// sender could make us read forever without a byte of body.
pub const MAX_EXTENSION_BYTES: u32 = 4096;
/// Most bytes of the trailer section in one body.
pub const MAX_TRAILER_BYTES: u32 = 8192;

/// Which rule a chunked body breaks. Such a body is always refused, because programs disagree about where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkFault {
    /// A chunk's size is missing, is not a hexadecimal number, or is followed by a byte that is not allowed there.
    Size,
    /// A chunk's size has more than 16 digits.
    SizeOverflow,
    /// An extension breaks its grammar; in an answer: it holds a control character.
    Extension,
    /// More than [`MAX_EXTENSION_BYTES`] of extensions.
    ExtensionsTooLong,
    /// A line ends with a bare CR or a bare LF.
    LineEnd,
    /// A chunk's data is not followed by CRLF.
    DataEnd,
    /// A line of the trailer section is not a field: its name is not a token, it has no colon, it is folded, or it
    /// holds a control character.
    Trailer,
    /// More than [`MAX_TRAILER_BYTES`] of trailer fields.
    TrailerTooLong,
}

impl std::fmt::Display for ChunkFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Size => "a chunk's size is not a hexadecimal number",
            Self::SizeOverflow => "a chunk's size has too many digits",
            Self::Extension => "a chunk extension is malformed",
            Self::ExtensionsTooLong => "the chunk extensions are too long",
            Self::LineEnd => "a line of the chunked coding does not end with CRLF",
            Self::DataEnd => "a chunk is longer than its size says",
            Self::Trailer => "the trailer section holds something that is no field",
            Self::TrailerTooLong => "the trailer section is too long",
        })
    }
}

impl std::error::Error for ChunkFault {}

/// What [`ChunkDecoder::step`] found in its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkStep {
    /// `input[start..end]` is body and not empty; what comes before it was framing. Go on with `input[end..]`.
    Data {
        /// Where the body's bytes begin.
        start: usize,
        /// Where they end.
        end: usize,
    },
    /// All of the input was framing. More input is needed.
    More,
    /// The body is complete. `input[used..]` does not belong to it.
    End {
        /// How many bytes of the input belong to the body.
        used: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a chunk's size, of which so many digits were read.
    Size {
        digits: u8,
    },
    /// In whitespace between a size and the semicolon of its extension.
    BeforeExtension,
    Extension(Extension),
    /// Behind the CR of a size line.
    SizeLf,
    /// In a chunk's data, of which [`ChunkDecoder::left`] bytes are still to come.
    Data,
    /// Behind a chunk's data; its CR comes next, then its LF.
    DataCr,
    DataLf,
    /// At the start of a line of the trailer section.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// Behind the CR of the last, empty line.
    LastLf,
    Done,
}

/// The place in an extension, `BWS ";" BWS name [ BWS "=" BWS value ]`, where a value is a token or a quoted string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    /// In an answer, where an extension is any text.
    Text,
    /// Behind the semicolon.
    Start,
    Name,
    /// In whitespace behind the name.
    NameEnd,
    /// Behind the equals sign.
    ValueStart,
    Value,
    Quoted,
    /// Behind the backslash of a quoted pair.
    Escaped,
    /// Behind the closing quote.
    QuotedEnd,
    /// In whitespace behind the value.
    ValueEnd,
}

/// Decodes a chunked body. Reads from left to right and never looks back; 24 bytes.
#[derive(Clone, Debug)]
pub struct ChunkDecoder {
    /// The chunk's size as read so far; in [`State::Data`] how many of its bytes are still to come.
    left: u64,
    extension_bytes: u32,
    trailer_bytes: u32,
    state: State,
    /// Whether extensions may be any text, and blanks may follow a size.
    of_answer: bool,
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkDecoder {
    /// A decoder at the start of a request's body.
    pub const fn new() -> Self {
        let state = State::Size { digits: 0 };
        Self { left: 0, extension_bytes: 0, trailer_bytes: 0, state, of_answer: false }
    }

    /// A decoder at the start of an answer's body. It accepts any text as an extension, and blanks behind a chunk's
    /// size, with which some servers pad it to a fixed width.
    pub const fn of_answer() -> Self {
        Self { of_answer: true, ..Self::new() }
    }

    /// Reads on. After the end it returns the end again. After a fault it must not be used any more.
    ///
    /// # Errors
    /// The input breaks a rule of the coding.
    pub fn step(&mut self, input: &[u8]) -> Result<ChunkStep, ChunkFault> {
        let mut at = 0;
        while self.state != State::Done {
            if self.state == State::Data {
                return Ok(self.data(input, at));
            }
            let Some(byte) = input.get(at) else { return Ok(ChunkStep::More) };
            self.state = self.framing(*byte)?;
            at += 1;
        }
        Ok(ChunkStep::End { used: at })
    }

    fn data(&mut self, input: &[u8], start: usize) -> ChunkStep {
        let here = input.len() - start;
        if here == 0 {
            return ChunkStep::More;
        }
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(here);
        self.left -= taken as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        ChunkStep::Data { start, end: start + taken }
    }

    /// The state after one byte of framing.
    fn framing(&mut self, byte: u8) -> Result<State, ChunkFault> {
        Ok(match (self.state, byte) {
            (State::Size { digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(digits, byte)?,
            (State::Size { digits: 0 }, _) => return Err(ChunkFault::Size),
            (State::Size { .. }, b'\r') => State::SizeLf,
            (State::BeforeExtension, b'\r') if self.of_answer => State::SizeLf,
            (State::Size { .. } | State::BeforeExtension, b';') => {
                State::Extension(if self.of_answer { Extension::Text } else { Extension::Start })
            }
            // RFC 9112 §7.1.1 allows whitespace behind the size only where a semicolon follows.
            (State::Size { .. } | State::BeforeExtension, b' ' | b'\t') => {
                self.count_extension()?;
                State::BeforeExtension
            }
            (State::Size { .. }, b'\n') => return Err(ChunkFault::LineEnd),
            (State::Size { .. } | State::BeforeExtension, _) => return Err(ChunkFault::Size),

            (State::Extension(so_far), byte) => self.extension(so_far, byte)?,

            (State::SizeLf, b'\n') if self.left == 0 => State::Trailer,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0 },
            (State::DataCr | State::DataLf, _) => return Err(ChunkFault::DataEnd),
            (State::LastLf, b'\n') => State::Done,
            (State::TrailerLf, b'\n') => State::Trailer,
            (State::SizeLf | State::LastLf | State::TrailerLf, _) => return Err(ChunkFault::LineEnd),

            (State::Trailer, b'\r') => State::LastLf,
            (State::Trailer | State::TrailerName | State::TrailerValue, b'\n') => {
                return Err(ChunkFault::LineEnd);
            }
            (State::Trailer | State::TrailerName | State::TrailerValue, byte) => self.trailer(byte)?,

            // Not reached: `step` calls this in neither state.
            (State::Data | State::Done, _) => self.state,
        })
    }

    fn digit(&mut self, digits: u8, byte: u8) -> Result<State, ChunkFault> {
        if digits == MAX_SIZE_DIGITS {
            return Err(ChunkFault::SizeOverflow);
        }
        let value = (byte as char).to_digit(16).unwrap_or(0);
        self.left = self.left * 16 + u64::from(value);
        Ok(State::Size { digits: digits + 1 })
    }

    /// One byte of an extension (RFC 9112 §7.1.1; tokens and quoted strings: RFC 9110 §5.6.2, §5.6.4).
    fn extension(&mut self, so_far: Extension, byte: u8) -> Result<State, ChunkFault> {
        use Extension::{
            Escaped, Name, NameEnd, Quoted, QuotedEnd, Start, Text, Value, ValueEnd, ValueStart,
        };
        let next = match (so_far, byte) {
            (Text | Name | Value | QuotedEnd, b'\r') => return Ok(State::SizeLf),
            (_, b'\n') => return Err(ChunkFault::LineEnd),
            (Text, byte) if is(byte, VALUE) => Text,
            (Quoted, b'"') => QuotedEnd,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, byte) if is(byte, VALUE) => Quoted,
            (Start | NameEnd | ValueStart | ValueEnd, b' ' | b'\t') => so_far,
            (Name, b' ' | b'\t') => NameEnd,
            (Value | QuotedEnd, b' ' | b'\t') => ValueEnd,
            (Name | NameEnd, b'=') => ValueStart,
            (Name | NameEnd | Value | QuotedEnd | ValueEnd, b';') => Start,
            (ValueStart, b'"') => Quoted,
            (Start | Name, byte) if is(byte, TOKEN) => Name,
            (ValueStart | Value, byte) if is(byte, TOKEN) => Value,
            _ => return Err(ChunkFault::Extension),
        };
        self.count_extension()?;
        Ok(State::Extension(next))
    }

    fn count_extension(&mut self) -> Result<(), ChunkFault> {
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(ChunkFault::ExtensionsTooLong);
        }
        Ok(())
    }

    fn trailer(&mut self, byte: u8) -> Result<State, ChunkFault> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return Err(ChunkFault::TrailerTooLong);
        }
        match (self.state, byte) {
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::Trailer | State::TrailerName, byte) if is(byte, TOKEN) => Ok(State::TrailerName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, byte) if is(byte, VALUE) => Ok(State::TrailerValue),
            _ => Err(ChunkFault::Trailer),
        }
    }
}
