//! The messages that instances send each other about the shared budget, and the text of the notification that carries
//! one.
//!
//! The bytes of a message, numbers big-endian: version (1 byte), length of everything before the signature (2),
//! instance (8), epoch (8), sequence (8), lag in milliseconds (4), hot clients (4), flags (1), length of the address
//! (1), number of instances heard (1), the address, the ids of those instances (8 each), the reports, and HMAC-SHA-256
//! (RFC 2104) over all of that (32). The text is Base64 without padding (RFC 4648 §3.2, §4).
//!
//! Anybody who may notify on the database's channel may send any text. So only messages that are signed with the key
//! count, and reading never panics. Epoch and sequence protect against messages that are sent again, see
//! [`BudgetMessage::is_after`]. A process that has just started knows no such numbers. It counts another instance only
//! after that has named this process among those it hears: the id is new at each start, so no message from before can
//! hold it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The only version. Version 1 was never released.
const VERSION: u8 = 2;

/// PostgreSQL accepts payloads under 8,000 bytes.
const MAX_TEXT: usize = 7_999;

/// Most bytes of a message in such a text.
const MAX_BYTES: usize = MAX_TEXT * 3 / 4;

/// Bytes of version and length.
const PREFIX_BYTES: usize = 3;

/// Bytes in front of the address.
const HEAD_BYTES: usize = PREFIX_BYTES + 3 * 8 + 2 * 4 + 3;

/// Most bytes of an address.
const MAX_ADDRESS: usize = 64;

/// Most instances that a message names as heard.
pub const MAX_HEARD: usize = 64;

const SIGNATURE_BYTES: usize = 32;

/// Most bytes of reports in one message.
pub const MAX_REPORT_BYTES: usize = MAX_BYTES - HEAD_BYTES - MAX_ADDRESS - SIGNATURE_BYTES;

const FLAG_CUT_OFF: u8 = 1;
const FLAG_LEAVING: u8 = 2;

/// The key with which messages are signed: 32 random bytes that all instances read from their database. `Debug` hides
/// it.
#[derive(Clone)]
pub struct BudgetKey(Hmac<Sha256>);

impl BudgetKey {
    /// The length of a key.
    pub const BYTES: usize = 32;

    /// A key from its bytes; `None` if there are not [`BudgetKey::BYTES`].
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
    /// The sender's id, another one at each start.
    pub instance: u64,
    /// Grows when the sender begins to number its messages anew.
    pub epoch: u64,
    /// Grows with each message.
    pub sequence: u64,
    /// How long the sender's own messages take to come back to it, in milliseconds; [`BudgetMessage::NO_LAG`] while
    /// none has.
    pub lag_ms: u32,
    /// Number of clients with hot buckets at the sender.
    pub hot_clients: u32,
    /// The sender hears nothing, not even itself, and counts alone.
    pub cut_off: bool,
    /// The sender ends; this is its last message.
    pub leaving: bool,
    /// The address at which the sender listens, for people: printable ASCII of at most 64 bytes.
    pub address: String,
    /// Ids of the instances that the sender has heard lately, at most [`MAX_HEARD`]; none in a message with reports.
    pub heard: Vec<u64>,
    /// Reports as [`crate::reports::SpentReport::write`] writes them, at most [`MAX_REPORT_BYTES`]. None in a message
    /// that only shows that the sender is alive.
    pub reports: Vec<u8>,
}

/// Why a text is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageFault {
    /// It is not Base64, or too long.
    Text,
    /// It has a version that this program does not know.
    Version,
    /// It does not have the length that it says, or is too short.
    Length,
    /// It is not signed with that key.
    Signature,
    /// It is signed, but holds something that this program never writes.
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
    /// The value of [`BudgetMessage::lag_ms`] while none of the sender's messages has come back.
    pub const NO_LAG: u32 = u32::MAX;

    /// The text of the notification: under 8,000 bytes of ASCII without quotes. An address over its bound is cut.
    /// Reports over theirs are all left out, since a part of them could not be read.
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
    ///
    /// # Errors
    /// The text is not such a message.
    pub fn from_text(text: &str, key: &BudgetKey) -> Result<Self, MessageFault> {
        if text.len() > MAX_TEXT {
            return Err(MessageFault::Text);
        }
        let bytes = STANDARD_NO_PAD.decode(text).map_err(|_| MessageFault::Text)?;
        // Checked first, since a later version may sign in another way.
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
        // Compares in constant time.
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

    /// Whether it was written after a message of the same instance with that epoch and sequence. Otherwise it was sent
    /// again or is late, and can be ignored: counters only grow, so its content is known.
    pub fn is_after(&self, epoch: u64, sequence: u64) -> bool {
        (self.epoch, self.sequence) > (epoch, sequence)
    }
}

/// The bytes that are still to be read.
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
