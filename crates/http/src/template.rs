//! Texts with variables, which the operator writes as values of fields and as addresses of redirects: `$client_ip`,
//! `$request_id` and `$host`; `$$` is a dollar.

use std::fmt;

/// The values of the variables for one request.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a> {
    /// The client's address, as the trusted proxies in front of us name it.
    pub client_ip: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// The request's host, in small letters and without a port; empty if it has none.
    pub host: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    ClientIp,
    RequestId,
    Host,
}

/// The names of the variables.
const NAMES: [(&str, Piece); 3] =
    [("client_ip", Piece::ClientIp), ("request_id", Piece::RequestId), ("host", Piece::Host)];

/// A text with variables. Displays as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Reads a text with variables.
    ///
    /// # Errors
    /// A `$` begins no variable: the unknown name behind it (letters, digits and `_`), which may be empty.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            plain.push_str(before);
            if let Some(behind) = behind.strip_prefix('$') {
                plain.push('$');
                rest = behind;
                continue;
            }
            let end = behind.bytes().position(|byte| !byte.is_ascii_alphanumeric() && byte != b'_');
            let (name, behind) = behind.split_at(end.unwrap_or(behind.len()));
            let Some((_, piece)) = NAMES.iter().find(|(known, _)| *known == name) else {
                return Err(name.to_owned());
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece.clone());
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// Whether the text uses `$host`.
    pub fn has_host(&self) -> bool {
        self.0.contains(&Piece::Host)
    }

    /// Appends the text with the variables' values.
    pub fn write(&self, variables: &Variables<'_>, out: &mut Vec<u8>) {
        for piece in &self.0 {
            let text = match piece {
                Piece::Text(text) => text.as_str(),
                Piece::ClientIp => variables.client_ip,
                Piece::RequestId => variables.request_id,
                Piece::Host => variables.host,
            };
            out.extend_from_slice(text.as_bytes());
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(&text.replace('$', "$$")),
            Piece::ClientIp => f.write_str("$client_ip"),
            Piece::RequestId => f.write_str("$request_id"),
            Piece::Host => f.write_str("$host"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_written_out_and_no_others_are_taken() {
        let variables = Variables { client_ip: "192.0.2.1", request_id: "r1", host: "a.test" };
        let rows: &[(&str, Result<&str, &str>)] = &[
            ("", Ok("")),
            ("plain", Ok("plain")),
            ("$client_ip", Ok("192.0.2.1")),
            ("id=$request_id;", Ok("id=r1;")),
            ("https://$host:8443/", Ok("https://a.test:8443/")),
            ("$host$client_ip", Ok("a.test192.0.2.1")),
            ("$$host costs 5$$", Ok("$host costs 5$")),
            ("$$$host", Ok("$a.test")),
            ("$", Err("")),
            ("5$ each", Err("")),
            ("$HOST", Err("HOST")),
            ("$host_name", Err("host_name")),
            ("${host}", Err("")),
            ("$remote_addr", Err("remote_addr")),
        ];
        for (text, expected) in rows {
            let written = Template::parse(text).map(|template| {
                assert_eq!(template.to_string(), *text);
                let mut out = Vec::new();
                template.write(&variables, &mut out);
                String::from_utf8(out).unwrap()
            });
            assert_eq!(written.as_deref(), expected.map_err(str::to_owned).as_ref().copied(), "{text}");
        }
        assert!(
            Template::parse("x$host").unwrap().has_host() && !Template::parse("$$host").unwrap().has_host()
        );
    }
}
