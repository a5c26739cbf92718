//! Root certificates, which chains have to lead to.

use std::path::Path;

use rustls::RootCertStore;

use super::pem;

/// The roots that the system trusts, read anew from its files. An error: there are none.
pub fn of_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // A root that can't be read or parsed is left out.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err("this system has no root certificates".into()) } else { Ok(roots) }
}

/// The roots in a PEM file, at least one. An error is the end of a sentence about the file.
pub fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(path)? {
        roots.add(certificate).map_err(|error| format!("holds what is no root: {error}"))?;
    }
    Ok(roots)
}
