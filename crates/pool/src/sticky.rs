//! The value of a sticky session's cookie: a message authentication code of an endpoint. It names the endpoint and is
//! its own signature: it can't be made without the secret, does not show where the backend is, and is the same in
//! every instance with the same secret.

use std::fmt;
use std::net::SocketAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Bytes of the code that are kept (RFC 2104 §5: at least half).
const KEPT: usize = 16;

/// The secret with which codes are made. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Box<[u8]>);

impl SigningKey {
    /// A key from a secret, which may have any length.
    pub fn new(secret: &[u8]) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The code of one endpoint, 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The length of every token, in bytes.
    pub const LENGTH: usize = 2 * KEPT;

    /// The token of one address of a backend: HMAC-SHA-256 (RFC 2104) over the backend's name and the address.
    pub fn of(key: &SigningKey, backend: &str, address: SocketAddr) -> Self {
        // Can't fail: HMAC takes a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key.0) else { return Self(String::new()) };
        mac.update(format!("{backend}\n{address}").as_bytes());
        let code = mac.finalize().into_bytes();
        Self(hex::encode(&code[..KEPT]))
    }

    /// The token as the cookie has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a client sent this token. Compares in constant time.
    pub fn is(&self, sent: &[u8]) -> bool {
        !self.0.is_empty() && bool::from(self.0.as_bytes().ct_eq(sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_one_endpoint_under_one_secret() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let token = Token::of(&SigningKey::new(b"secret"), "a", address("10.0.0.1:80"));
        // From another implementation: python3 -c "import
        // hmac;print(hmac.new(b'secret',b'a\\n10.0.0.1:80','sha256').hexdigest()[:32])"
        assert_eq!(token.as_str(), "1ad3c36509c8f6b318d054f76f2d39b1");
        assert!(token.is(token.as_str().as_bytes()));
        for other in [
            Token::of(&SigningKey::new(b"secreT"), "a", address("10.0.0.1:80")),
            Token::of(&SigningKey::new(b"secret"), "b", address("10.0.0.1:80")),
            Token::of(&SigningKey::new(b"secret"), "a", address("10.0.0.1:81")),
        ] {
            assert!(!token.is(other.as_str().as_bytes()));
        }
        for sent in [&b""[..], b"1ad3c36509c8f6b318d054f76f2d39b10", &token.as_str().as_bytes()[1..]] {
            assert!(!token.is(sent));
        }
    }
}
