//! Lists of the API, read page after page, so that a million rows need the memory of one page.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::Api;
use super::failure::CommandFailure;
use super::session::ApiSession;
use balancer_http::path::encoded;

/// Rows of a page: the most that the API gives.
const PAGE: usize = 1_000;

/// One page. The name of its list depends on what is listed.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow, alias = "limits", alias = "plans", alias = "entries")]
    items: Vec<&'a RawValue>,
    next_cursor: Option<String>,
}

/// Asks for all pages of a list, and gives the items of each page to `each` as JSON texts. `path` may have a query.
///
/// # Errors
/// Those of the API and of `each`.
pub fn for_each_page(
    api: &Api,
    path: &str,
    mut each: impl FnMut(&[&str]) -> Result<(), CommandFailure>,
) -> Result<(), CommandFailure> {
    let joint = if path.contains('?') { '&' } else { '?' };
    let mut cursor = None::<String>;
    loop {
        let after =
            cursor.as_deref().map(|cursor| format!("&cursor={}", encoded(cursor))).unwrap_or_default();
        let body = api.get(&format!("{path}{joint}limit={PAGE}{after}"))?;
        let page: Page<'_> = api.read(&body)?;
        let items: Vec<&str> = page.items.iter().map(|item| item.get()).collect();
        each(&items)?;
        match page.next_cursor {
            // A cursor that leads back to its own page would never end.
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => return Ok(()),
        }
    }
}

/// Prints all pages of a list as a table with the columns `column` and `LIMIT`, or with `--json` as [`print_json`]
/// does. `row` makes the cells of an item. When the list is empty, a person at a terminal is told `making_one`, the
/// command that makes an item.
///
/// # Errors
/// As [`for_each_page`].
pub fn print_all(
    session: &mut ApiSession,
    path: &str,
    list: &str,
    column: &str,
    making_one: &str,
    row: impl Fn(&Api, &str) -> Result<Vec<String>, CommandFailure>,
) -> Result<(), CommandFailure> {
    if session.out.is_json() {
        return print_json(session, path, list);
    }
    let ApiSession { api, out } = session;
    let mut count = 0;
    for_each_page(api, path, |items| {
        let head: &[&str] = if count == 0 && !items.is_empty() { &[column, "LIMIT"] } else { &[] };
        count += items.len();
        let rows = items.iter().map(|item| row(api, item)).collect::<Result<Vec<_>, _>>()?;
        out.table(head, &rows)
    })?;
    if count == 0 && out.is_terminal() {
        out.line(&format!("there is none; one is made like this: {making_one}"))?;
    }
    out.flush()
}

/// Prints all pages of a list as one JSON object, as if the API had answered with a single page: `{"limits": […],
/// "next_cursor": null}`, with one item on each line.
///
/// # Errors
/// As [`for_each_page`].
pub fn print_json(session: &mut ApiSession, path: &str, name: &str) -> Result<(), CommandFailure> {
    let ApiSession { api, out } = session;
    out.raw(&format!("{{\"{name}\":["))?;
    let mut separator = "\n";
    for_each_page(api, path, |items| {
        for item in items {
            out.raw(separator)?;
            out.raw(item)?;
            separator = ",\n";
        }
        Ok(())
    })?;
    out.raw("\n],\"next_cursor\":null}\n")?;
    out.flush()
}

/// A query such as `?a=1&b=2` of the members that have a value; empty when none has.
pub fn query(members: &[(&str, Option<&str>)]) -> String {
    let there: Vec<String> = members
        .iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name}={}", encoded(value))))
        .collect();
    if there.is_empty() { String::new() } else { format!("?{}", there.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_query() {
        assert_eq!(encoded("a-b._~1"), "a-b._~1");
        assert_eq!(encoded("10.0.0.0/8"), "10.0.0.0%2F8");
        assert_eq!(encoded("a+b &é%"), "a%2Bb%20%26%C3%A9%25");
        assert_eq!(query(&[("a", None), ("b", None)]), "");
        assert_eq!(query(&[("a", Some("x y")), ("b", None), ("c", Some(""))]), "?a=x%20y&c=");
    }

    #[test]
    fn a_page_is_read_whatever_its_list_is_called() {
        for name in ["limits", "plans", "entries"] {
            let body = format!(r#"{{"{name}": [{{"a": 1.50}}, 2], "next_cursor": "n"}}"#);
            let page: Page<'_> = serde_json::from_str(&body).unwrap();
            let items: Vec<&str> = page.items.iter().map(|item| item.get()).collect();
            assert_eq!(items, [r#"{"a": 1.50}"#, "2"]);
            assert_eq!(page.next_cursor.as_deref(), Some("n"));
        }
    }
}
