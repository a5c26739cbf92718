//! Limits as rows of comma-separated values (RFC 4180). Client ids, plans and buckets contain no line ends, so a record
//! is always one line. So lines can be named by their number, and a quote that is not closed spoils only its own line.

use balancer_limiter::document::{NewBucket, NewLimit};

/// The columns of an export. An import may have these and [`SHORTHANDS`].
pub const COLUMNS: [&str; 9] =
    ["client_id", "plan", "buckets", "max_in_flight", "mode", "shared", "per_instance", "weight", "priority"];

/// Other ways to write one bucket, for files that people make.
pub const SHORTHANDS: [&str; 3] = ["rate", "capacity", "rate_per_sec"];

/// The first line of an export.
pub fn head() -> String {
    format!("{}\n", COLUMNS.join(","))
}

/// A limit as a line, which [`super::entry::EntryColumns`] reads back.
pub fn line(terms: &NewLimit) -> String {
    let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
    let truth = |is: bool| if is { "true".to_owned() } else { String::new() };
    let cells = [
        terms.client_id.clone().unwrap_or_default(),
        terms.plan.clone().unwrap_or_default(),
        buckets_cell(&terms.buckets),
        number(terms.max_in_flight),
        terms.mode.clone().unwrap_or_default(),
        truth(terms.shared),
        truth(terms.per_instance),
        number(terms.weight),
        terms.priority.clone().unwrap_or_default(),
    ];
    let quoted: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
    format!("{}\n", quoted.join(","))
}

/// Buckets as `second=10/s burst 20; day=10000/d`, or as JSON where that would not be read back as the same buckets.
fn buckets_cell(buckets: &[NewBucket]) -> String {
    let plain = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    // Also false for a bucket that has more than its rate says.
    let reads_back = |bucket: &NewBucket| {
        let enforced =
            NewBucket { mode: bucket.mode.clone().filter(|mode| mode != "enforced"), ..bucket.clone() };
        NewBucket::parse(&bucket.name, &bucket.rate()).is_ok_and(|again| again == enforced)
    };
    if buckets.iter().all(|bucket| plain(&bucket.name) && reads_back(bucket)) {
        let named = buckets.iter().map(|bucket| format!("{}={}", bucket.name, bucket.rate()));
        return named.collect::<Vec<_>>().join("; ");
    }
    serde_json::to_string(buckets).unwrap_or_default()
}

/// Reads a cell of buckets that [`buckets_cell`] or a person wrote.
///
/// # Errors
/// What the cell must look like.
pub fn read_buckets(cell: &str) -> Result<Vec<NewBucket>, String> {
    if cell.trim_start().starts_with('[') {
        return serde_json::from_str(cell).map_err(|error| format!("is no list of buckets: {error}"));
    }
    let parts = cell.split(';').map(str::trim).filter(|part| !part.is_empty());
    parts.map(NewBucket::parse_named).collect()
}

fn quoted(cell: &str) -> String {
    let plain = !cell.contains(['"', ',', ';', '\t']) && cell.trim() == cell;
    if plain { cell.to_owned() } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
}

/// The separator of a file's columns, by its first line. Spreadsheets write semicolons in countries whose decimal sign
/// is a comma.
pub fn separator(head: &str) -> char {
    [',', ';', '\t'].into_iter().max_by_key(|sign| (head.matches(*sign).count(), *sign == ',')).unwrap_or(',')
}

/// The cells of a line. White space around an unquoted cell is not a part of it.
///
/// # Errors
/// What is wrong with the quotes.
pub fn cells(line: &str, separator: char) -> Result<Vec<String>, &'static str> {
    let mut cells = Vec::new();
    let mut rest = line;
    loop {
        let start = rest.trim_start_matches(' ');
        let (cell, behind) = match start.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = start.find(separator).unwrap_or(start.len());
                let cell = &start[..end];
                if cell.contains('"') {
                    return Err("has a quote inside a cell that does not begin with one");
                }
                (cell.trim().to_owned(), &start[end..])
            }
        };
        cells.push(cell);
        let behind = behind.trim_start_matches(' ');
        match behind.strip_prefix(separator) {
            Some(next) => rest = next,
            None if behind.is_empty() => return Ok(cells),
            None => return Err("has text between a closing quote and the next separator"),
        }
    }
}

/// Takes the text after an opening quote. Returns the cell, and the text after its closing quote.
fn unquote(text: &str) -> Result<(String, &str), &'static str> {
    let mut cell = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or("has a quote that is not closed")?;
        cell.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                cell.push('"');
                rest = next;
            }
            None => return Ok((cell, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_taken_apart_as_spreadsheets_write_them() {
        for (line, expected) in [
            ("a,b", Ok(vec!["a", "b"])),
            ("", Ok(vec![""])),
            (",", Ok(vec!["", ""])),
            (" a , \"b, c\" ,\"d\"\"e\"", Ok(vec!["a", "b, c", "d\"e"])),
            ("\u{feff}a,b", Ok(vec!["\u{feff}a", "b"])),
            ("\"\",x", Ok(vec!["", "x"])),
            ("\" a \"", Ok(vec![" a "])),
            ("a\"b,c", Err("has a quote inside a cell that does not begin with one")),
            ("\"a,b", Err("has a quote that is not closed")),
            ("\"a\"b,c", Err("has text between a closing quote and the next separator")),
        ] {
            let read = cells(line, ',');
            let read =
                read.as_ref().map(|cells| cells.iter().map(String::as_str).collect()).map_err(|fault| *fault);
            assert_eq!(read, expected, "{line:?}");
        }
        assert_eq!(cells("a;b,c", ';').unwrap(), ["a", "b,c"]);
    }

    #[test]
    fn the_separator_is_what_the_head_has_most_of() {
        for (head, sign) in [("client_id", ','), ("a,b;c", ','), ("a;b;c,d", ';'), ("a\tb", '\t')] {
            assert_eq!(separator(head), sign, "{head}");
        }
    }

    #[test]
    fn buckets_are_written_for_people_unless_a_name_forbids_it() {
        let day = NewBucket::parse("day", "10000/d utc").unwrap();
        let odd = NewBucket::parse("a; b=c", "2/s").unwrap();
        assert_eq!(
            buckets_cell(&[NewBucket::parse("s", "2/s burst 5").unwrap(), day.clone()]),
            "s=2/s burst 5; day=10000/d utc"
        );
        let enforced = NewBucket { mode: Some("enforced".into()), ..day.clone() };
        assert_eq!(buckets_cell(&[enforced]), "day=10000/d utc");
        let cell = buckets_cell(&[day.clone(), odd.clone()]);
        assert!(cell.starts_with('['), "{cell}");
        assert_eq!(read_buckets(&cell).unwrap(), [day, odd]);
        assert_eq!(read_buckets(" a=1/s ;; ").unwrap().len(), 1);
        assert_eq!(read_buckets("").unwrap(), []);
        for cell in ["1/s", "a=1", "[1]", "a=1/s, b=2/s"] {
            assert!(read_buckets(cell).is_err(), "{cell}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(cell in "\u{feff}?[^\\p{Cc}]{0,20}", more in "[ ,;\"a]{0,8}") {
            let line = [&cell, &more].map(|cell| quoted(cell)).join(",");
            prop_assert_eq!(cells(&line, ',').unwrap(), [cell, more]);
        }

        #[test]
        fn no_line_makes_it_panic(line in "\\PC{0,40}|[,\" a]{0,20}") {
            let _ = cells(&line, ',');
        }
    }
}
