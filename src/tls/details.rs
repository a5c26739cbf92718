//! What a certificate says about itself: which names it is for, and when it is valid. `rustls` checks both, and tells
//! neither.

use std::time::{Duration, SystemTime};

use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::Any;
use x509_cert::der::{Decode, Tag, TagNumber};
use x509_cert::time::Time;

/// `id-ce-subjectAltName` (RFC 5280 §4.2.1.6).
const ALTERNATIVE_NAMES: &str = "2.5.29.17";
/// The longest name that is taken: that of the longest DNS name.
const MAX_NAME_BYTES: usize = 253;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateDetails {
    /// DNS names in lower case, in order; a wildcard as `*.example.net`.
    pub names: Vec<String>,
    /// The first DNS name or URI.
    pub san: Option<String>,
    /// Valid from then on.
    pub not_before: SystemTime,
    /// Valid until then.
    pub not_after: SystemTime,
}

/// Reads them from a certificate in DER form.
///
/// # Errors
/// What in it can't be read.
pub fn of(der: &[u8]) -> Result<CertificateDetails, String> {
    // `Raw` is lenient: every certificate that rustls takes has to be read.
    let certificate = CertificateInner::<Raw>::from_der(der).map_err(|error| error.to_string())?;
    let body = &certificate.tbs_certificate;
    let at = |time: &Time| SystemTime::UNIX_EPOCH + time.to_unix_duration();
    let extensions = body.extensions.iter().flatten();
    let mut names = Vec::new();
    let mut san = None;
    for extension in extensions.filter(|one| one.extn_id.to_string() == ALTERNATIVE_NAMES) {
        let all = Vec::<Any>::from_der(extension.extn_value.as_bytes()).map_err(|error| error.to_string())?;
        for (number, name) in all.iter().filter_map(|one| Some((number_of(one)?, name_of(one)?))) {
            if number == TagNumber::N2 {
                names.push(name.to_ascii_lowercase());
            }
            san.get_or_insert_with(|| name.to_owned());
        }
    }
    Ok(CertificateDetails {
        names,
        san,
        not_before: at(&body.validity.not_before),
        not_after: at(&body.validity.not_after),
    })
}

/// The tag of a name that is a DNS name (2) or a URI (6).
fn number_of(name: &Any) -> Option<TagNumber> {
    use x509_cert::der::Tagged;
    match name.tag() {
        Tag::ContextSpecific { constructed: false, number: number @ (TagNumber::N2 | TagNumber::N6) } => {
            Some(number)
        }
        _ => None,
    }
}

/// The text of a name, if it is visible ASCII.
fn name_of(name: &Any) -> Option<&str> {
    let text = std::str::from_utf8(name.value()).ok()?;
    let is_plain =
        (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain.then_some(text)
}

impl CertificateDetails {
    /// Why it is not valid at that time, as the end of a sentence; `None`: it is valid.
    pub fn outside(&self, now: SystemTime) -> Option<String> {
        let days = |span: Duration| span.as_secs() / 86_400;
        if let Ok(since) = now.duration_since(self.not_after)
            && !since.is_zero()
        {
            return Some(format!("expired {} days ago", days(since)));
        }
        let until = self.not_before.duration_since(now).ok().filter(|until| !until.is_zero())?;
        Some(format!("is valid in {} days only", days(until)))
    }
}
