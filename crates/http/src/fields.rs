//! Header fields: an ordered list of names and values in one buffer, so that a list costs two allocations however many
//! fields it has. Repeated fields stay separate and in order.

/// An ordered list of header fields (RFC 9110 §5). Names compare without regard to case and keep the spelling they
/// came with; values are bytes without leading or trailing whitespace.
#[derive(Clone, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

#[derive(Clone, Copy)]
struct Span {
    start: u32,
    name_len: u32,
    value_len: u32,
}

impl Span {
    fn name(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..][..self.name_len as usize]
    }

    fn value(self, bytes: &[u8]) -> &[u8] {
        &bytes[(self.start + self.name_len) as usize..][..self.value_len as usize]
    }
}

impl Fields {
    /// No fields.
    pub const EMPTY: Self = Self { bytes: Vec::new(), spans: Vec::new() };

    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty list with room for that many fields and bytes of text.
    pub fn with_room(fields: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), spans: Vec::with_capacity(fields) }
    }

    /// Appends a field. The caller makes sure that the name is a token and that the value holds no CR, LF or NUL. All
    /// texts together may have at most 4 GiB; every parser's bound on heads is far below that.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        self.push_line(name.as_bytes(), value);
    }

    /// Appends a field. `write` appends its value to the buffer, and must not change what is in it.
    pub fn push_written(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name.as_bytes());
        let value_at = self.bytes.len();
        write(&mut self.bytes);
        let value_len = (self.bytes.len() - value_at) as u32;
        self.spans.push(Span { start: start as u32, name_len: name.len() as u32, value_len });
    }

    /// Replaces every field of that name by one.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.push(name, value);
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        // Compared as bytes: making each name a text would check its UTF-8 again.
        let named = |span: &&Span| span.name(&self.bytes).eq_ignore_ascii_case(name.as_bytes());
        self.spans.iter().find(named).map(|span| span.value(&self.bytes))
    }

    /// Every value of that name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.spans
            .iter()
            .filter(move |span| span.name(&self.bytes).eq_ignore_ascii_case(name.as_bytes()))
            .map(|span| span.value(&self.bytes))
    }

    /// Whether a field of that name is there.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Removes every field of that name.
    pub fn remove(&mut self, name: &str) {
        self.retain(|other, _| !other.eq_ignore_ascii_case(name.as_bytes()));
    }

    /// Keeps the fields for which `keep(name, value)` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let bytes = &self.bytes;
        self.spans.retain(|span| keep(span.name(bytes), span.value(bytes)));
    }

    /// Name and value of each field, in order. Cheaper than [`Fields::iter`], which checks that names are UTF-8.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans.iter().map(|span| (span.name(&self.bytes), span.value(&self.bytes)))
    }

    /// Appends a copy of a field of another list; what [`Fields::push`] asks of its caller holds here too.
    pub fn push_line(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.spans.push(Span { start, name_len: name.len() as u32, value_len: value.len() as u32 });
    }

    /// Name and value of each field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.spans.iter().map(|span| (as_name(span.name(&self.bytes)), span.value(&self.bytes)))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Empties the list and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
    }

    /// Whether the list in the fields of that name (RFC 9110 §5.6.1) has the token, in any case, as
    /// `Connection: a, close` has `close`.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).any(|value| tokens(value).any(|one| one.eq_ignore_ascii_case(token.as_bytes())))
    }
}

/// The elements of a comma-separated value, without the whitespace around them and without empty ones.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|one| !one.is_empty())
}

fn as_name(name: &[u8]) -> &str {
    // Names are tokens, which are ASCII; the empty name is for a case that cannot happen.
    std::str::from_utf8(name).unwrap_or("")
}

/// Whether two names become the same variable in CGI, WSGI, PHP or Rack, which turn every byte other than a letter or a
/// digit into `_` (RFC 3875 §4.1.18) and ignore case.
pub fn is_one_variable(one: &[u8], two: &[u8]) -> bool {
    let letter = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' };
    one.len() == two.len() && one.iter().map(letter).eq(two.iter().map(letter))
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Names only, since values may be credentials.
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_fields_stay_apart_and_in_order() {
        let mut fields = Fields::new();
        fields.push("Set-Cookie", b"a=1");
        fields.push("Vary", b"x");
        fields.push("set-cookie", b"b=2");
        assert_eq!(fields.all("SET-COOKIE").collect::<Vec<_>>(), [&b"a=1"[..], b"b=2"]);
        fields.set("vary", b"y");
        assert_eq!(
            fields.iter().collect::<Vec<_>>(),
            [("Set-Cookie", &b"a=1"[..]), ("set-cookie", b"b=2"), ("vary", b"y")]
        );
        fields.remove("set-cookie");
        assert_eq!(fields.len(), 1);
    }

    #[test]
    fn tokens_of_a_list_are_found_in_any_case_and_never_as_a_part() {
        let mut fields = Fields::new();
        fields.push("Connection", b"keep-alive , Close,, x-hop");
        for (token, found) in [("close", true), ("X-HOP", true), ("keep", false), ("", false)] {
            assert_eq!(fields.has_token("connection", token), found, "{token}");
        }
    }

    #[test]
    fn names_that_programs_take_for_one_are_told() {
        for (one, two, is_one) in [
            ("X-User", "x_user", true),
            ("X.User", "X-USER", true),
            ("X-User1", "X-User2", false),
            ("X-User", "X-Users", false),
            ("X-User", "XUser", false),
            ("X-User", "X-Usér", false),
        ] {
            assert_eq!(is_one_variable(one.as_bytes(), two.as_bytes()), is_one, "{one} {two}");
        }
    }
}
