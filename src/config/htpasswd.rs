//! Files of users and hashes of their passwords, as `htpasswd -B` writes them.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use bcrypt::HashParts;

/// Most users of one file.
pub(super) const MAX_USERS: usize = 10_000;

/// The costs that are accepted: a password of the highest takes about a second to check.
const COSTS: std::ops::RangeInclusive<u32> = 4..=14;

/// Most faults of one file that are reported.
const MAX_FAULTS: usize = 8;

/// A bcrypt hash of a password. Never shows.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Whether that is the password. Takes as long as the hash's cost says: milliseconds, up to a second.
    pub fn is_of(&self, password: &[u8]) -> bool {
        // A hash that can't be read fits no password. The loader refuses such hashes.
        bcrypt::verify(password, &self.0).unwrap_or(false)
    }

    /// The hash's text, by which two hashes are told apart.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hash]")
    }
}

/// Users and the hashes of their passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Users {
    by_name: HashMap<Vec<u8>, PasswordHash>,
    /// Checked for names that are not there, so that they take as long as the others.
    nobody: PasswordHash,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} users]", self.by_name.len())
    }
}

impl Users {
    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong, a line each; none holds a hash.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut by_name = HashMap::new();
        let mut faults = Vec::new();
        let mut dearest = *COSTS.start();
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match user(line) {
                Ok((name, hash, cost)) => {
                    dearest = dearest.max(cost);
                    if by_name.insert(name.as_bytes().to_vec(), hash).is_some() {
                        faults.push(format!("line {number}: {name:?} stands in it twice"));
                    }
                }
                Err(why) => faults.push(format!("line {number}: {why}")),
            }
        }
        if by_name.len() > MAX_USERS {
            faults.push(format!("holds more than {MAX_USERS} users"));
        } else if by_name.is_empty() && faults.is_empty() {
            faults.push("holds no user: nobody could come in (htpasswd -cB FILE NAME)".to_owned());
        }
        faults.truncate(MAX_FAULTS);
        if faults.is_empty() { Ok(Self { by_name, nobody: nobody(dearest) }) } else { Err(faults) }
    }

    /// The hash to check a password with, and whether there is a user of that name. For an unknown name it is a hash
    /// that no password fits, as slow to check as the slowest of the file: the time does not tell which names there
    /// are.
    pub fn hash_of(&self, name: &[u8]) -> (&PasswordHash, bool) {
        match self.by_name.get(name) {
            Some(hash) => (hash, true),
            None => (&self.nobody, false),
        }
    }
}

/// A line's name, hash and cost.
fn user(line: &str) -> Result<(&str, PasswordHash, u32), String> {
    let Some((name, hash)) = line.split_once(':') else {
        return Err("must be NAME:HASH, as htpasswd -B writes it".to_owned());
    };
    if name.is_empty() {
        return Err("has no name before the colon".to_owned());
    }
    if !["$2y$", "$2a$", "$2b$"].iter().any(|kind| hash.starts_with(kind)) {
        let found = kind(hash);
        return Err(format!(
            "the password of {name:?} is {found}; must be hashed by bcrypt ($2y$, $2a$ or $2b$): htpasswd -B FILE {name}"
        ));
    }
    let Ok(parts) = HashParts::from_str(hash) else {
        return Err(format!(
            "the bcrypt hash of {name:?} is broken: it has 60 characters, $2y$COST$ and 53 more"
        ));
    };
    let cost = parts.get_cost();
    if !COSTS.contains(&cost) {
        let (least, most) = (COSTS.start(), COSTS.end());
        return Err(format!(
            "the bcrypt hash of {name:?} has cost {cost}; must be {least} to {most} (htpasswd -B -C 10)"
        ));
    }
    Ok((name, PasswordHash(hash.to_owned()), cost))
}

/// How a password is stored that is not hashed by bcrypt.
fn kind(hash: &str) -> &'static str {
    const KINDS: [(&str, &str); 8] = [
        ("$apr1$", "hashed by Apache's MD5"),
        ("$1$", "hashed by MD5"),
        ("$5$", "hashed by SHA-256"),
        ("$6$", "hashed by SHA-512"),
        ("$2x$", "hashed by a broken bcrypt"),
        ("$argon2", "hashed by Argon2"),
        ("{SHA}", "hashed by SHA-1"),
        ("{SSHA}", "hashed by salted SHA-1"),
    ];
    let known = KINDS.iter().find(|(start, _)| hash.starts_with(start));
    known.map_or("hashed by crypt, or not at all", |(_, kind)| kind)
}

/// A random hash of that cost: no password that can be found fits it.
fn nobody(cost: u32) -> PasswordHash {
    let digits = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789".as_bytes();
    let random: String =
        std::iter::repeat_with(|| char::from(digits[fastrand::usize(..digits.len())])).take(51).collect();
    // The last digits of salt and hash hold 2 and 4 bits.
    PasswordHash(format!("$2b${cost:02}${}u{}u", &random[..21], &random[21..51]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash of cost 4 with a fixed salt.
    fn hash(password: &str, kind: bcrypt::Version) -> String {
        bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap().format_for_version(kind)
    }

    #[test]
    fn users_are_read_and_passwords_checked() {
        use bcrypt::Version::{TwoA, TwoB, TwoY};
        let text = format!(
            "# comment\r\n\nalice:{}\r\n b\u{fc}b :{}  \ncarol:{}",
            hash("wonderland", TwoY),
            hash("p:w", TwoA),
            hash("", TwoB)
        );
        let users = Users::parse(&text).unwrap();
        let rows: &[(&str, &str, bool)] = &[
            ("alice", "wonderland", true),
            ("alice", "Wonderland", false),
            ("alice", "", false),
            ("b\u{fc}b ", "p:w", true),
            ("carol", "", true),
            ("carol", "x", false),
        ];
        for (name, password, is_right) in rows {
            let (hash, exists) = users.hash_of(name.as_bytes());
            assert_eq!((exists, hash.is_of(password.as_bytes())), (true, *is_right), "{name} {password}");
        }
        let (hash, exists) = users.hash_of(b"mallory");
        assert!(!exists && HashParts::from_str(hash.reveal()).unwrap().get_cost() == 4);
        assert!(!hash.is_of(b"wonderland") && !hash.is_of(b""));
        assert_eq!(format!("{users:?} {hash:?}"), "[3 users] [hash]");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let good = hash("x", bcrypt::Version::TwoY);
        let dear = good.replace("$04$", "$15$");
        let rows: &[(String, &[&str])] = &[
            (String::new(), &["holds no user: nobody could come in"]),
            ("# only a comment\n".into(), &["holds no user"]),
            ("alice".into(), &["line 1: must be NAME:HASH"]),
            (format!(":{good}"), &["line 1: has no name before the colon"]),
            (
                format!("a:{good}\n\nb:$apr1$x$y"),
                &["line 3: the password of \"b\" is hashed by Apache's MD5; must be hashed by bcrypt"],
            ),
            (
                "a:{SHA}x\nb:secret".into(),
                &[
                    "line 1: the password of \"a\" is hashed by SHA-1",
                    "line 2: the password of \"b\" is hashed by crypt, or not at all",
                ],
            ),
            (format!("a:{}", &good[..59]), &["line 1: the bcrypt hash of \"a\" is broken"]),
            (format!("a:{dear}"), &["line 1: the bcrypt hash of \"a\" has cost 15; must be 4 to 14"]),
            (format!("a:{good}\na:{good}"), &["line 2: \"a\" stands in it twice"]),
        ];
        for (text, expected) in rows {
            let faults = Users::parse(text).unwrap_err();
            assert_eq!(faults.len(), expected.len(), "{faults:?}");
            for (fault, start) in faults.iter().zip(*expected) {
                assert!(fault.starts_with(start), "{fault}");
                assert!(!fault.contains(&good[10..]), "{fault}");
            }
        }
    }
}
