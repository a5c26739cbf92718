//! Roots that chains of certificates lead to.

use std::path::Path;

use rustls::RootCertStore;

use super::pem;

/// Those that the system trusts. Reads its files anew; an error says that there are none.
pub fn of_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // What can't be read or parsed leaves out one root of many.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err("this system has no root certificates".into()) } else { Ok(roots) }
}

/// Those of a file in PEM form, at least one. An error is what is wrong with the file.
pub fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(path)? {
        roots.add(certificate).map_err(|error| format!("holds what is no root: {error}"))?;
    }
    Ok(roots)
}
