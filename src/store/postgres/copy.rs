//! Rows in the text format of `COPY` (PostgreSQL manual, "COPY", "Text Format"): one line for each row, tabs between columns.

use std::io::Write;

use postgres::Client;

use super::chain;
use super::fault;
use crate::store::StoreError;
use crate::store::session::SqlValue;

/// Appends rows of `width` values each, by one `COPY … FROM STDIN`.
pub(super) fn copy(
    client: &mut Client,
    sql: &str,
    values: &[SqlValue<'_>],
    width: usize,
) -> Result<(), StoreError> {
    let text = text(values, width);
    let mut writer = client.copy_in(sql).map_err(|error| fault(&error))?;
    writer.write_all(text.as_bytes()).map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<postgres::Error>());
        inner.map_or_else(|| StoreError::down(chain(&error)), fault)
    })?;
    writer.finish().map_err(|error| fault(&error))?;
    Ok(())
}

fn text(values: &[SqlValue<'_>], width: usize) -> String {
    let mut text = String::with_capacity(values.len() * 12);
    for row in values.chunks(width.max(1)) {
        for (at, value) in row.iter().enumerate() {
            if at > 0 {
                text.push('\t');
            }
            push(&mut text, value);
        }
        text.push('\n');
    }
    text
}

fn push(text: &mut String, value: &SqlValue<'_>) {
    use std::fmt::Write;
    // Writing to a string cannot fail.
    let _ = match value {
        SqlValue::Text(plain) | SqlValue::OptionalText(Some(plain)) => {
            for character in plain.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '\n' => text.push_str("\\n"),
                    '\r' => text.push_str("\\r"),
                    '\t' => text.push_str("\\t"),
                    other => text.push(other),
                }
            }
            Ok(())
        }
        SqlValue::Int(Some(number)) => write!(text, "{number}"),
        SqlValue::Bytes(Some(bytes)) => write!(text, "\\\\x{}", hex::encode(bytes)),
        SqlValue::OptionalText(None) | SqlValue::Int(None) | SqlValue::Bytes(None) => {
            text.push_str("\\N");
            Ok(())
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_copy_is_escaped() {
        let values = [
            SqlValue::Text("a\\N\t\n\r\\."),
            SqlValue::OptionalText(None),
            SqlValue::Int(Some(-7)),
            SqlValue::Bytes(Some(&[0, 255])),
            SqlValue::Text(""),
            SqlValue::Int(None),
        ];
        assert_eq!(text(&values, 3), "a\\\\N\\t\\n\\r\\\\.\t\\N\t-7\n\\\\x00ff\t\t\\N\n");
    }
}
