//! Ids of clients that show a secret: an API key, a bearer token, a cookie.

use sha2::{Digest, Sha256};

/// Most bytes of a secret.
pub const MAX_KEY_BYTES: usize = 4_096;

/// The id of a secret: `sha256:` and the first 32 hexadecimal digits of its SHA-256, so that the secret itself is never
/// stored, logged or shown. `None`: it is empty, longer than [`MAX_KEY_BYTES`], or holds an ASCII control character.
pub fn secret_id(secret: &[u8]) -> Option<String> {
    let fits = (1..=MAX_KEY_BYTES).contains(&secret.len());
    if !fits || secret.iter().any(u8::is_ascii_control) {
        return None;
    }
    Some(format!("sha256:{}", hex::encode(&Sha256::digest(secret)[..16])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_beginning_of_the_sha_256() {
        // FIPS 180-2, appendix B.1: SHA-256("abc").
        assert_eq!(secret_id(b"abc").as_deref(), Some("sha256:ba7816bf8f01cfea414140de5dae2223"));
        for (secret, known) in [
            (&b""[..], false),
            (b"a b", true),
            ("schlüssel".as_bytes(), true),
            (b"a\nb", false),
            (b"a\x7f", false),
            (&[b'x'; MAX_KEY_BYTES], true),
            (&[b'x'; MAX_KEY_BYTES + 1], false),
        ] {
            assert_eq!(secret_id(secret).is_some(), known, "{secret:?}");
        }
    }
}
