//! Files in PEM form.

use std::io::Read;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The largest file. A bundle of all roots that browsers trust has 250 KiB.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Reads a whole file. An error is the end of a sentence about the file, without its name.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| {
        // One byte more than allowed shows that a file is too long.
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)
    });
    match read {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(length) if length as u64 > MAX_FILE_BYTES => Err(format!("is longer than {MAX_FILE_BYTES} bytes")),
        Ok(_) => Ok(bytes),
    }
}

/// All certificates of a file, at least one. An error is the end of a sentence about the file.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path)?;
    let all = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match all {
        Err(error) => Err(format!("is no PEM file: {error}")),
        Ok(all) if all.is_empty() => Err("holds no certificate in PEM form".to_owned()),
        Ok(all) => Ok(all),
    }
}

/// The first private key of a file. An error is the end of a sentence about the file, and tells nothing of its content.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let is_locked = bytes.windows(9).any(|word| word == b"ENCRYPTED");
        if is_locked {
            "holds a private key with a password, which there is no place for: write it without one (openssl pkey \
             -in FILE -out NEW)"
                .to_owned()
        } else {
            "holds no private key in PEM form".to_owned()
        }
    })
}
