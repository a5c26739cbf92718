//! An answer as a strict client reads it.

/// How the end of an answer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body, whatever the fields say: HEAD, 204, 304.
    None,
    /// By `Content-Length`.
    Length(u64),
    /// By `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// Why there is no whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ended before the first byte of an answer.
    Closed,
    /// It ended or was reset inside the answer, after so many bytes of the body.
    Truncated(usize),
    /// It was reset before the first byte of an answer.
    Reset,
    /// Nothing came in time.
    TimedOut,
    /// The bytes are not HTTP.
    Malformed(String),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub reason: String,
    /// In order and as they came.
    pub fields: Vec<(String, String)>,
    pub framing: Framing,
    pub body: Vec<u8>,
    /// The statuses of 1xx answers before it.
    pub interim: Vec<u16>,
}

impl Response {
    /// The first field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All fields of that name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Fails unless the status is that one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}\n{:?}", self.status, self.text(), self.fields);
        self
    }

    /// Fails unless it is a problem document (RFC 9457) with that status. Returns its JSON.
    #[track_caller]
    pub fn problem(&self, status: u16) -> serde_json::Value {
        assert_eq!(self.status, status, "{}: {}\n{:?}", self.status, self.text(), self.fields);
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], status, "{json}");
        for member in ["type", "title", "detail", "instance"] {
            assert!(json[member].is_string(), "{member} is missing in {json}");
        }
        json
    }
}

/// Reads a head strictly: lines end with CRLF, names are tokens, and there is one framing.
pub fn parse(head: &[u8]) -> Result<Response, Fault> {
    let bad = |what: &str| Fault::Malformed(format!("{what} in {:?}", String::from_utf8_lossy(head)));
    // Values may have bytes that are not UTF-8, which no test looks at.
    let text = String::from_utf8_lossy(head).into_owned();
    let text = text.strip_suffix("\r\n\r\n").ok_or_else(|| bad("no end"))?;
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let (version, rest) = status_line.split_once(' ').ok_or_else(|| bad("no status line"))?;
    let (code, reason) = rest.split_once(' ').ok_or_else(|| bad("no space behind the status"))?;
    let three_digits = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") || !three_digits {
        return Err(bad("no status line"));
    }
    let status: u16 = code.parse().map_err(|_| bad("no status"))?;
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a line without a colon"))?;
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) || value.contains(['\r', '\n', '\0']) {
            return Err(bad("a bad field"));
        }
        fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
    let all = |name: &str| -> Vec<&str> {
        fields
            .iter()
            .filter(|(n, _): &&(String, String)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    };
    let framing = match (all("transfer-encoding").as_slice(), all("content-length").as_slice()) {
        ([], []) => Framing::UntilClose,
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
        ([], [length]) if length.bytes().all(|b| b.is_ascii_digit()) => {
            Framing::Length(length.parse().map_err(|_| bad("a huge length"))?)
        }
        _ => return Err(bad("ambiguous framing")),
    };
    let reason = reason.to_owned();
    Ok(Response { status, reason, fields, framing, body: Vec::new(), interim: Vec::new() })
}
