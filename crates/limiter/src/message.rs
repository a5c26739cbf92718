//! What instances tell each other of the shared budget: a message, and the text of the notification that carries it.
//!
//! In order, numbers big-endian: version (1 byte), length of everything in front of the signature (2), instance (8), epoch
//! (8), sequence (8), lag in milliseconds (4), hot clients (4), flags (1), length of the address (1), number of instances heard
//! (1), the address, those instances (8 each), the reports, and HMAC-SHA-256 (RFC 2104) over all of that (32). The text is Base64
//! without padding (RFC 4648 §4).
//!
//! Whoever may notify on the database's channel may send any text. Only what was signed with the key counts, and reading
//! never panics. Against a message that is sent again stand epoch and sequence: see [`BudgetMessage::is_after`]. A process that was
//! started since has heard none of them. It counts an instance in when that names it among those it has heard: an id is made anew
//! at each start, so nothing that was signed before can hold it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The only version that there is. Version 1 was never released.
const VERSION: u8 = 2;

/// PostgreSQL takes payloads under 8,000 bytes.
const MAX_TEXT: usize = 7_999;

/// Most bytes that such a text holds.
const MAX_BYTES: usize = MAX_TEXT * 3 / 4;

/// Version and length.
const PREFIX_BYTES: usize = 3;

/// The same, instance, epoch, sequence, lag, hot clients, flags, the address's length and the number of instances heard.
const HEAD_BYTES: usize = PREFIX_BYTES + 3 * 8 + 2 * 4 + 3;

/// Longest address.
const MAX_ADDRESS: usize = 64;

/// Most instances that a message says were heard.
pub const MAX_HEARD: usize = 64;

const SIGNATURE_BYTES: usize = 32;

/// Most bytes of reports in one message.
pub const MAX_REPORT_BYTES: usize = MAX_BYTES - HEAD_BYTES - MAX_ADDRESS - SIGNATURE_BYTES;

const FLAG_CUT_OFF: u8 = 1;
const FLAG_LEAVING: u8 = 2;

/// What messages are signed with: 32 random bytes that all instances read from their database. Never shows in `Debug`.
#[derive(Clone)]
pub struct BudgetKey(Hmac<Sha256>);

impl BudgetKey {
    /// How many bytes it has.
    pub const BYTES: usize = 32;

    /// `None` for any other number of bytes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == Self::BYTES).then(|| Hmac::new_from_slice(bytes).ok()).flatten().map(Self)
    }

    fn over(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(bytes);
        mac
    }
}

impl std::fmt::Debug for BudgetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// One instance's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetMessage {
    /// The instance's id, another one after each start.
    pub instance: u64,
    /// Grows when the same instance begins to count its messages anew.
    pub epoch: u64,
    /// Grows with each message.
    pub sequence: u64,
    /// How long its own messages take to come back to it, in milliseconds; [`BudgetMessage::NO_LAG`] while none has.
    pub lag_ms: u32,
    /// Clients that it tells of.
    pub hot_clients: u32,
    /// It hears nothing of itself, and counts alone.
    pub cut_off: bool,
    /// It ends, and says nothing more.
    pub leaving: bool,
    /// Where it listens, for people: printable ASCII of at most 64 bytes.
    pub address: String,
    /// Instances that it has heard lately, at most [`MAX_HEARD`]; none in a message with reports.
    pub heard: Vec<u64>,
    /// What it has spent, at most [`MAX_REPORT_BYTES`]; nothing in a message that only says that its instance is there.
    pub reports: Vec<u8>,
}

/// Why a text is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageFault {
    /// No Base64, or too long.
    Text,
    /// A version that this program does not know.
    Version,
    /// Its length is not the one that it names, or one that no message has.
    Length,
    /// It was not signed with that key.
    Signature,
    /// Signed, and yet something in it is nothing that this program writes.
    Content,
}

impl std::fmt::Display for MessageFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "it is no Base64",
            Self::Version => "its version is unknown",
            Self::Length => "its length is wrong",
            Self::Signature => "it is not signed with the key of this database",
            Self::Content => "its content is unknown",
        })
    }
}

impl std::error::Error for MessageFault {}

impl BudgetMessage {
    /// What [`BudgetMessage::lag_ms`] is while none of its messages has come back yet.
    pub const NO_LAG: u32 = u32::MAX;

    /// The text that carries it: under 8,000 bytes of ASCII without quotes. What an address has beyond its bound is left out;
    /// reports beyond theirs are left out altogether, since a part of them could not be read.
    pub fn to_text(&self, key: &BudgetKey) -> String {
        let reports = if self.reports.len() <= MAX_REPORT_BYTES { &self.reports[..] } else { &[] };
        let printable = self.address.bytes().filter(|byte| matches!(byte, b'!'..=b'~'));
        let address: Vec<u8> = printable.take(MAX_ADDRESS).collect();
        let heard = if reports.is_empty() { &self.heard[..self.heard.len().min(MAX_HEARD)] } else { &[] };
        let length = HEAD_BYTES + address.len() + 8 * heard.len() + reports.len();
        let mut bytes = Vec::with_capacity(length + SIGNATURE_BYTES);
        bytes.push(VERSION);
        // At most `MAX_BYTES`.
        bytes.extend((length as u16).to_be_bytes());
        for number in [self.instance, self.epoch, self.sequence] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(self.lag_ms.to_be_bytes());
        bytes.extend(self.hot_clients.to_be_bytes());
        let flags = [(self.cut_off, FLAG_CUT_OFF), (self.leaving, FLAG_LEAVING)];
        bytes.push(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
        bytes.extend([address.len() as u8, heard.len() as u8]);
        bytes.extend(address);
        bytes.extend(heard.iter().flat_map(|id| id.to_be_bytes()));
        bytes.extend(reports);
        let signature = key.over(&bytes).finalize().into_bytes();
        bytes.extend(signature);
        STANDARD_NO_PAD.encode(bytes)
    }

    /// Reads what [`BudgetMessage::to_text`] wrote with the same key.
    pub fn from_text(text: &str, key: &BudgetKey) -> Result<Self, MessageFault> {
        if text.len() > MAX_TEXT {
            return Err(MessageFault::Text);
        }
        let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| MessageFault::Text)?;
        // First, since a later version may sign otherwise.
        match bytes.first() {
            Some(&VERSION) => {}
            Some(_) => return Err(MessageFault::Version),
            None => return Err(MessageFault::Length),
        }
        let Some((signed, signature)) =
            bytes.len().checked_sub(SIGNATURE_BYTES).and_then(|at| bytes.split_at_checked(at))
        else {
            return Err(MessageFault::Length);
        };
        let mut fields = Fields(signed.get(1..).unwrap_or_default());
        if fields.take().map(u16::from_be_bytes).map(usize::from) != Some(signed.len()) {
            return Err(MessageFault::Length);
        }
        // In constant time.
        key.over(signed).verify_slice(signature).map_err(|_| MessageFault::Signature)?;
        Self::read(fields).ok_or(MessageFault::Content)
    }

    fn read(mut fields: Fields<'_>) -> Option<Self> {
        let [instance, epoch, sequence] = [fields.number()?, fields.number()?, fields.number()?];
        let lag_ms = u32::from_be_bytes(fields.take()?);
        let hot_clients = u32::from_be_bytes(fields.take()?);
        let [flags, address_bytes, heard] = fields.take()?;
        let address = fields.slice(address_bytes.into())?;
        let heard = (0..heard).map(|_| fields.number()).collect::<Option<Vec<u64>>>()?;
        let is_printable = address.iter().all(|byte| matches!(byte, b'!'..=b'~'));
        let too_long = address.len() > MAX_ADDRESS || heard.len() > MAX_HEARD;
        if flags & !(FLAG_CUT_OFF | FLAG_LEAVING) != 0 || too_long || !is_printable {
            return None;
        }
        let address = String::from_utf8(address.to_vec()).ok()?;
        let (cut_off, leaving) = (flags & FLAG_CUT_OFF != 0, flags & FLAG_LEAVING != 0);
        let reports = fields.0.to_vec();
        Some(Self {
            instance,
            epoch,
            sequence,
            lag_ms,
            hot_clients,
            cut_off,
            leaving,
            address,
            heard,
            reports,
        })
    }

    /// Whether it was written after another one of the same instance, of that epoch and sequence. One that was not has been
    /// sent again, or came late: counters only grow, so what it says is known.
    pub fn is_after(&self, epoch: u64, sequence: u64) -> bool {
        (self.epoch, self.sequence) > (epoch, sequence)
    }
}

/// What is left to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn slice(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests;
