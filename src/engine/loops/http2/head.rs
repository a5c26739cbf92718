//! Writes the head of a request of HTTP/2 as text of HTTP/1.1, for its parser: one set of rules judges both
//! (RFC 9113 §8.3.1). A value can't break out of its line, since the `h2` crate refuses fields and pseudo-fields with
//! CR, LF or NUL.

use balancer_http::fields::Fields;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};

use crate::engine::render::Framing;

/// Writes a request's head. True: a body of unknown length follows, which is read in chunks.
pub(in crate::engine::loops) fn write(out: &mut Vec<u8>, parts: &Parts, has_body: bool) -> bool {
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    // CONNECT has no path (RFC 9113 §8.5).
    let target = parts.uri.path_and_query().map_or(authority.unwrap_or("/"), |target| target.as_str());
    line(out, &[parts.method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1"]);
    if let Some(authority) = authority {
        line(out, &[b"host: ", authority.as_bytes()]);
    }
    for (name, value) in &parts.headers {
        // A Host that differs is written, too: the parser refuses a head with two of them.
        let is_same =
            name == HOST && authority.is_some_and(|authority| value.as_bytes() == authority.as_bytes());
        if !is_same && name != COOKIE {
            line(out, &[name.as_str().as_bytes(), b": ", value.as_bytes()]);
        }
    }
    cookies(out, &parts.headers);
    let is_unbounded = has_body && !parts.headers.contains_key(CONTENT_LENGTH);
    if is_unbounded {
        line(out, &[b"transfer-encoding: chunked"]);
    }
    line(out, &[]);
    is_unbounded
}

/// Joins cookie fields, which HTTP/2 may split, to the single one that HTTP/1.1 has (RFC 9113 §8.2.3).
fn cookies(out: &mut Vec<u8>, fields: &HeaderMap) {
    let mut all = fields.get_all(COOKIE).iter();
    let Some(first) = all.next() else { return };
    out.extend_from_slice(b"cookie: ");
    out.extend_from_slice(first.as_bytes());
    for one in all {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(one.as_bytes());
    }
    line(out, &[]);
}

fn line(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    out.extend_from_slice(b"\r\n");
}

/// Whether an answer over HTTP/2 must not have that field (RFC 9113 §8.2.2). Of a 426, for example, it would be
/// `Upgrade`.
fn is_of_connection(name: &HeaderName) -> bool {
    [CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "te")
}

/// An answer's head. Reason phrases do not exist in HTTP/2.
pub(super) fn answer(status: u16, fields: &Fields, framing: Framing) -> Response<()> {
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let to = answer.headers_mut();
    to.reserve(fields.len() + 1);
    // All values share one piece of memory.
    let mut text = Vec::with_capacity(fields.lines().map(|(_, value)| value.len()).sum());
    fields.lines().for_each(|(_, value)| text.extend_from_slice(value));
    let (text, mut at) = (Bytes::from(text), 0);
    for (name, value) in fields.lines() {
        let start = at;
        at += value.len();
        let value = HeaderValue::from_maybe_shared(text.slice(start..at));
        // Fields that a lenient backend may send and HTTP/2 can't express are left out, and so are those of the
        // connection.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value)
            && !is_of_connection(&name)
        {
            to.append(name, value);
        }
    }
    if let Framing::Length(bytes) | Framing::None(Some(bytes)) = framing {
        to.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, Request};

    fn text(request: Request<()>, has_body: bool) -> String {
        let mut out = Vec::new();
        write(&mut out, &request.into_parts().0, has_body);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn heads_become_text() {
        let get = |uri: &str| Request::builder().uri(uri);
        let rows = [
            (
                get("https://a.example/x?y=1").body(()),
                false,
                "GET /x?y=1 HTTP/1.1\r\nhost: a.example\r\n\r\n",
            ),
            (
                get("https://a.example/").header("host", "a.example").body(()),
                false,
                "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n",
            ),
            (
                get("https://a.example/").header("host", "b.example").body(()),
                false,
                "GET / HTTP/1.1\r\nhost: a.example\r\nhost: b.example\r\n\r\n",
            ),
            (
                get("/").header("cookie", "a=1").header("accept", "*/*").header("cookie", "b=2").body(()),
                false,
                "GET / HTTP/1.1\r\naccept: */*\r\ncookie: a=1; b=2\r\n\r\n",
            ),
            (
                get("https://a.example/").method(Method::POST).body(()),
                true,
                "POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
            (
                get("https://a.example/").method(Method::POST).header("content-length", "3").body(()),
                true,
                "POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 3\r\n\r\n",
            ),
            (
                get("a.example:443").method(Method::CONNECT).body(()),
                true,
                "CONNECT a.example:443 HTTP/1.1\r\nhost: a.example:443\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
            (
                get("*").method(Method::OPTIONS).header("host", "a").body(()),
                false,
                "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
            ),
        ];
        for (request, has_body, expected) in rows {
            assert_eq!(text(request.unwrap(), has_body), expected);
        }
    }

    #[test]
    fn answers_have_a_length_where_one_is_known() {
        let mut fields = Fields::new();
        fields.push("Set-Cookie", b"a=1");
        fields.push("Set-Cookie", b"b=2");
        fields.push("bad name", b"x");
        fields.push("Connection", b"upgrade");
        fields.push("Upgrade", b"websocket");
        for (framing, length) in [
            (Framing::Length(3), Some("3")),
            (Framing::None(Some(7)), Some("7")),
            (Framing::None(None), None),
            (Framing::UntilClose, None),
        ] {
            let answer = answer(299, &fields, framing);
            assert_eq!(answer.status(), 299);
            let told = answer.headers().get(CONTENT_LENGTH).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(told.as_deref(), length, "{framing:?}");
            assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 2);
            assert_eq!(answer.headers().len(), 2 + usize::from(length.is_some()));
        }
    }
}
