//! Pages of listings: how many, from where on, and the link to the next one.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::call::as_json;
use super::input::name_of;
use super::route::Parameter;
use crate::declare::{Form, OPTIONAL, Section, Spec, Value as Given, whole};
use crate::error::Reject;
use crate::proxy::exchange::Answer;
use balancer_http::message::RequestHead;

/// How many lines a page has.
pub(super) const LIMIT: Parameter =
    Parameter::query(|| whole("limit", &(1..=1_000), "100", "How many a page has."), "100");

/// Where a page begins.
pub(super) const CURSOR: Parameter = Parameter::query(
    || {
        Spec::of(
            "cursor",
            Form::new("a cursor of this listing and filter: next_cursor from the page before", || {
                json!({
                    "type": "string", "minLength": 18, "maxLength": 528,
                    "pattern": "^[0-9a-f]{16}([0-9a-f]{2}){1,256}$",
                })
            }),
            OPTIONAL,
            "`next_cursor` of the page before, and nothing else; it belongs to one path and filter.",
        )
    },
    // Hexadecimal; a page's own `next_cursor` is another one.
    r#""0123456789abcdef31302e302e302e37""#,
);

/// What a caller asks for.
pub(super) struct Page {
    /// As [`LIMIT`] allows.
    pub count: usize,
    /// Where the page before ended.
    pub after: Option<String>,
    /// What cursors of this listing belong to: its path and filter.
    scope: String,
}

/// Hexadecimal digits of the sum in a cursor.
const SUM_DIGITS: usize = 16;

/// Longest place that a cursor holds, in bytes.
const MAX_PLACE_BYTES: usize = 256;

/// What a query may hold and a reference may not (RFC 3986 §3.4): a `>` would end it in `Link`.
const NOT_IN_A_REFERENCE: &AsciiSet = &CONTROLS
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b']')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

impl Page {
    /// Reads `limit` and `cursor`. `filter` holds the other parameters that decide what is listed: a cursor made with
    /// other values of them is refused.
    pub fn read(path: &str, query: &mut Section<'_>, filter: &[&str]) -> Self {
        let mut scope = path.to_owned();
        for name in filter {
            let value = match query.get(name).map(|node| node.value) {
                Some(Given::Word(text)) => Some(text),
                _ => None,
            };
            // With lengths, so that one value can't look like two.
            scope.push_str(&format!("\n{name} {}", value.as_ref().map_or(-1, |value| value.len() as i64)));
            scope.push_str(&value.unwrap_or_default());
        }
        let count = query.number(&LIMIT.spec()).unwrap_or_default();
        let after = query.text(&CURSOR.spec(), |text| read_cursor(&scope, text).ok_or(None));
        Self { count, after, scope }
    }

    /// `rows` were asked for with one more than the page has. Takes that one off, and makes the cursor of the next page
    /// if it was there.
    pub fn cut<T>(&self, rows: &mut Vec<T>, place: impl Fn(&T) -> String) -> Option<String> {
        let more = rows.len() > self.count;
        rows.truncate(self.count);
        let last = rows.last().filter(|_| more)?;
        Some(cursor(&self.scope, &place(last)))
    }
}

/// A page as it is shown: its rows under the listing's name, and the cursor of the next one.
pub(super) struct Rows<'a, T> {
    name: &'static str,
    rows: Vec<T>,
    next_cursor: Option<&'a str>,
    /// How many there are on all pages, where that was asked for.
    total: Option<i64>,
}

impl<'a, T> Rows<'a, T> {
    /// Without a total.
    pub const fn new(name: &'static str, rows: Vec<T>, next_cursor: Option<&'a str>) -> Self {
        Self { name, rows, next_cursor, total: None }
    }

    /// With what was asked for.
    pub fn with_total(self, total: Option<i64>) -> Self {
        Self { total, ..self }
    }
}

impl<T: Serialize> Serialize for Rows<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut page = serializer.serialize_map(None)?;
        page.serialize_entry(self.name, &self.rows)?;
        page.serialize_entry("next_cursor", &self.next_cursor)?;
        if let Some(total) = self.total {
            page.serialize_entry("total", &total)?;
        }
        page.end()
    }
}

/// The schema of such a page.
pub(super) fn page_schema(name: &str, row: &Value) -> Value {
    json!({
        "type": "object",
        "required": [name, "next_cursor"],
        "properties": {
            name: { "type": "array", "items": row },
            "next_cursor": { "type": ["string", "null"] },
        },
    })
}

/// The answer of a listing; `Link` is there exactly when there is another page (RFC 8288).
pub(super) fn listing<T: Serialize>(head: &RequestHead, page: &Rows<'_, T>) -> Result<Answer, Reject> {
    let answer = as_json(page)?;
    let Some(cursor) = page.next_cursor else { return Ok(answer) };
    let mut target = format!("{}?", head.path());
    for part in head.query().unwrap_or_default().split('&') {
        // As it was sent, as a reference (RFC 8288 §3); only what the query's reader takes for a cursor is replaced.
        if !part.is_empty() && name_of(part).as_deref() != Some("cursor") {
            target.push_str(&format!("{}&", utf8_percent_encode(part, NOT_IN_A_REFERENCE)));
        }
    }
    Ok(answer.with("Link", format!("<{target}cursor={cursor}>; rel=\"next\"")))
}

/// A place in a listing, in hexadecimal behind a sum over it and the listing. It is opaque, not secret; and the same in
/// every process, so that it outlives a restart and serves another instance.
fn cursor(scope: &str, place: &str) -> String {
    sum(scope, place) + &hex::encode(place)
}

fn read_cursor(scope: &str, text: &str) -> Option<String> {
    let digits = text.get(SUM_DIGITS..).filter(|digits| (1..=2 * MAX_PLACE_BYTES).contains(&digits.len()))?;
    let place = String::from_utf8(hex::decode(digits).ok()?).ok()?;
    // Compares the whole text: `decode` takes capitals, too, which we never write.
    (text == cursor(scope, &place)).then_some(place)
}

fn sum(scope: &str, place: &str) -> String {
    let digest = Sha256::new_with_prefix(scope.as_bytes()).chain_update([0]).chain_update(place).finalize();
    hex::encode(&digest[..SUM_DIGITS / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::input::read_query;
    use proptest::prelude::*;

    fn page(path: &str, query: &str) -> Result<Page, Reject> {
        read_query(Some(query), |query| {
            query.know(&["prefix", "plan"]);
            Page::read(path, query, &["prefix", "plan"])
        })
    }

    #[test]
    fn a_cursor_belongs_to_one_path_and_filter_and_not_to_a_size() {
        let first = page("/v1/limits", "limit=2&prefix=a").unwrap();
        let mut rows = vec!["a1", "a2", "a3"];
        let cursor = first.cut(&mut rows, |row| (*row).to_owned()).unwrap();
        assert_eq!(rows, ["a1", "a2"]);
        let next = |path: &str, query: &str| page(path, &format!("{query}&cursor={cursor}"));
        assert_eq!(next("/v1/limits", "prefix=a").unwrap().after.as_deref(), Some("a2"));
        assert_eq!(next("/v1/limits", "limit=7&prefix=a").unwrap().after.as_deref(), Some("a2"));
        for (path, query) in [
            ("/v1/plans", "prefix=a"),
            ("/v1/limits", ""),
            ("/v1/limits", "prefix="),
            ("/v1/limits", "prefix=ab"),
            ("/v1/limits", "prefix=a&plan=a"),
            ("/v1/limits", "plan=a"),
        ] {
            let reject = next(path, query).err().unwrap();
            assert_eq!(reject.status(), 400, "{path}?{query}");
            assert_eq!(reject.errors[0].pointer, "/cursor");
        }
    }

    #[test]
    fn nothing_in_a_query_breaks_out_of_the_link() {
        let mut head = RequestHead::blank("192.0.2.1:5".parse().unwrap());
        head.target = "/v1/limits?prefix=a>;\"\u{e9}%3E&cursor=1".into();
        let answer = listing(&head, &Rows::new("limits", Vec::<()>::new(), Some("2"))).unwrap();
        let link = "</v1/limits?prefix=a%3E;%22%C3%A9%3E&cursor=2>; rel=\"next\"";
        assert_eq!(answer.fields.get("Link"), Some(link.as_bytes()));
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let page = page("/v1/limits", "limit=2").unwrap();
        for mut rows in [vec![], vec!["a"], vec!["a", "b"]] {
            let before = rows.clone();
            assert_eq!(page.cut(&mut rows, |row| (*row).to_owned()), None);
            assert_eq!(rows, before);
        }
    }

    proptest! {
        #[test]
        fn a_cursor_reads_back_and_a_touched_one_does_not(
            scope in ".{0,20}", place in ".{1,60}", at in any::<prop::sample::Index>()
        ) {
            let text = cursor(&scope, &place);
            prop_assert_eq!(read_cursor(&scope, &text), Some(place));
            let capitals = text.to_uppercase();
            prop_assert_eq!(read_cursor(&scope, &capitals).is_some(), capitals == text);
            let mut touched = text.into_bytes();
            let at = at.index(touched.len());
            touched[at] = if touched[at] == b'0' { b'1' } else { b'0' };
            prop_assert_eq!(read_cursor(&scope, std::str::from_utf8(&touched).unwrap()), None);
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            prop_assert_eq!(read_cursor("/v1/limits", &text), None);
        }
    }
}
