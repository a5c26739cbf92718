//! The field lines of an answer's head (RFC 9112 §5) and what they say about its framing (§6) and its connection (§9).

use std::borrow::Cow;

use super::super::bytes::{TOKEN, is};
use super::super::content_length;
use super::{Declared, Head, HeadRules, Stop, broken, end_of_line, unless_accepted, value_end};
use crate::fields::{Fields, tokens};
use crate::message::Version;

/// What the field lines say so far.
pub(super) struct FieldReader<'a> {
    rules: &'a HeadRules,
    version: Version,
    status: u16,
    lines: usize,
    fields: Fields,
    declared: Declared,
    /// The answer announces a body that it can't have.
    announces_body: bool,
    close: bool,
    keep: bool,
}

impl<'a> FieldReader<'a> {
    pub fn new(version: Version, status: u16, rules: &'a HeadRules) -> Self {
        Self {
            rules,
            version,
            status,
            lines: 0,
            // Has room for the fields that are added before the client gets them.
            fields: Fields::with_room(20, 768),
            declared: Declared::Nothing,
            announces_body: false,
            close: false,
            keep: false,
        }
    }

    /// Reads `field-name ":" OWS field-value OWS CRLF` (RFC 9112 §5) and returns where the next line begins. If the
    /// rules accept it, whitespace before the colon is removed (§5.1), and folded lines are joined to the value (§5.2).
    pub fn line(&mut self, bytes: &[u8], start: usize) -> Result<usize, Stop> {
        if matches!(bytes[start], b' ' | b'\t') {
            return Err(match self.lines {
                // Folded to the status line, which no rule accepts.
                0 => broken("a header line starts with whitespace"),
                _ => unless_accepted!("a folded header field"),
            });
        }
        self.count_line()?;
        let length = bytes[start..].iter().position(|byte| !is(*byte, TOKEN)).ok_or(Stop::Incomplete)?;
        let name_end = start + length;
        let colon = self.colon(bytes, name_end)?;
        match bytes[colon] {
            b':' if length > 0 => {}
            b':' => return Err(broken("a header field has an empty name")),
            _ => return Err(broken("a header field's name holds a byte that may not stand in it")),
        }
        let end = value_end(bytes, colon + 1)?;
        let mut next = end_of_line(bytes, end, self.rules.accept_invalid)?;
        let mut value = Cow::Borrowed(bytes[colon + 1..end].trim_ascii());
        if self.rules.accept_invalid {
            next = self.unfold(bytes, next, &mut value)?;
        }
        // Tokens are ASCII, so this can't fail.
        let name = std::str::from_utf8(&bytes[start..name_end]).unwrap_or_default();
        self.take(name, &value)?;
        Ok(next)
    }

    fn count_line(&mut self) -> Result<(), Stop> {
        if self.lines == self.rules.max_headers {
            return Err(broken("more header fields than upstream.max_headers"));
        }
        self.lines += 1;
        Ok(())
    }

    /// The position at which the colon has to be: behind the name, or behind blanks where the rules accept them.
    fn colon(&self, bytes: &[u8], name_end: usize) -> Result<usize, Stop> {
        let blanks = bytes[name_end..].iter().position(|byte| !matches!(byte, b' ' | b'\t'));
        match blanks.ok_or(Stop::Incomplete)? {
            0 => Ok(name_end),
            blanks if bytes[name_end + blanks] == b':' && !self.rules.accept_invalid => {
                Err(unless_accepted!("blanks before the colon of a header field"))
            }
            blanks => Ok(name_end + blanks),
        }
    }

    /// Joins the lines from `next` on that begin with whitespace to `value`. Returns where the next field begins.
    fn unfold(&mut self, bytes: &[u8], mut next: usize, value: &mut Cow<'_, [u8]>) -> Result<usize, Stop> {
        while matches!(bytes.get(next).ok_or(Stop::Incomplete)?, b' ' | b'\t') {
            self.count_line()?;
            let end = value_end(bytes, next)?;
            let more = bytes[next..end].trim_ascii();
            next = end_of_line(bytes, end, true)?;
            if !more.is_empty() {
                let value = value.to_mut();
                if !value.is_empty() {
                    value.push(b' ');
                }
                value.extend_from_slice(more);
            }
        }
        Ok(next)
    }

    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), Stop> {
        match name.len() {
            14 if name.eq_ignore_ascii_case("content-length") => return self.length(value),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => return self.coding(value),
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in tokens(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        self.fields.push(name, value);
        Ok(())
    }

    /// Whether the answer ends with its head, whatever its fields say (RFC 9112 §6.3).
    fn has_only_a_head(&self) -> bool {
        matches!(self.status, 100..=199 | 204)
    }

    /// RFC 9110 §8.6: one value of digits. A second field is refused even if it has the same value, which RFC 9112 §6.3
    /// would allow.
    fn length(&mut self, value: &[u8]) -> Result<(), Stop> {
        if self.has_only_a_head() {
            self.announces_body |= value.is_empty() || value.iter().any(|byte| *byte != b'0');
            return Ok(());
        }
        match self.declared {
            Declared::Length(_) => return Err(broken("more than one Content-Length")),
            Declared::Chunked => return Err(broken("both Content-Length and Transfer-Encoding")),
            Declared::Nothing => {}
        }
        let no_number = broken("the Content-Length is not one number");
        let too_large = broken("the Content-Length is too large");
        self.declared = Declared::Length(content_length(value, no_number, too_large)?);
        Ok(())
    }

    /// RFC 9112 §6.1: `chunked`, once, and not in HTTP/1.0.
    fn coding(&mut self, value: &[u8]) -> Result<(), Stop> {
        if self.has_only_a_head() {
            self.announces_body = true;
            return Ok(());
        }
        match self.declared {
            Declared::Length(_) => return Err(broken("both Content-Length and Transfer-Encoding")),
            Declared::Chunked => return Err(broken("more than one Transfer-Encoding")),
            Declared::Nothing => {}
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            let mut codings = tokens(value);
            let is_chunked = codings.next().is_some_and(|one| one.eq_ignore_ascii_case(b"chunked"));
            if !is_chunked || codings.next().is_some() {
                return Err(broken("a transfer coding other than chunked"));
            }
            if !self.rules.accept_invalid {
                return Err(unless_accepted!("an empty transfer coding beside chunked"));
            }
        }
        if self.version == Version::Http10 {
            if !self.rules.accept_invalid {
                return Err(unless_accepted!("a transfer coding in HTTP/1.0"));
            }
            // RFC 9112 §6.1: the framing of such a message may be wrong, so the connection ends behind it.
            self.close = true;
        }
        self.declared = Declared::Chunked;
        Ok(())
    }

    pub fn finish(self, reason: Vec<u8>) -> Head {
        let may_stay = self.version == Version::Http11 || self.keep;
        Head {
            version: self.version,
            status: self.status,
            reason,
            fields: self.fields,
            declared: self.declared,
            keep_alive: may_stay && !self.close && !self.announces_body,
        }
    }
}
