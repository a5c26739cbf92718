//! The ways in which backends may read a path.
//!
//! Backends disagree about encoded slashes, backslashes, `;parameters`, blanks and dots at a segment's end, and more.
//! Each such habit is one bit of a [`Reading`]. A path is read with every combination of the habits that make a
//! difference to it. To an ordinary path none does, so it has one reading and costs little.

use super::means_itself;

/// A set of a backend's habits, one bit each.
pub(super) type Reading = u16;

/// No habit: the normal form.
pub(super) const AS_SENT: Reading = 0;
/// Encodings are decoded twice: `%252e` is a dot.
const TWICE: Reading = 1;
/// `%00` ends the path, as NUL ends a string in C.
const NUL: Reading = 1 << 1;
/// `%2F` is a slash.
const SLASH: Reading = 1 << 2;
/// `\` is a slash (WHATWG URL, Windows).
const BACKSLASH: Reading = 1 << 3;
/// `%5C` is a slash.
const ENCODED_BACKSLASH: Reading = 1 << 4;
/// `;` and the rest of its segment are cut off (Servlet 4.0 §3.5).
const PARAMETERS: Reading = 1 << 5;
/// `%3B` and the rest of its segment are cut off.
const ENCODED_PARAMETERS: Reading = 1 << 6;
/// Parameters are cut before anything is decoded, so only a plain slash ends them.
const LONG_PARAMETERS: Reading = 1 << 7;
/// Blanks and dots at a segment's end are cut off (Windows).
const TRIMMED: Reading = 1 << 8;
/// Together with [`TRIMMED`]: a segment of blanks and dots alone counts as `.`, never as `..`.
const NOT_UP: Reading = 1 << 9;
/// `..` removes an empty segment like any other (RFC 3986 §5.2.4): `/a//../b` is `/a/b`.
const EMPTY_COUNTS: Reading = 1 << 10;
/// A host follows two slashes at the start (RFC 3986 §4.2): `//host/b` is `/b`.
const HOST: Reading = 1 << 11;

/// An encoded `?` ends the path, since the path is decoded before it is split.
const QUERY: Reading = 1 << 12;
/// An encoded `#` ends the path, for the same reason.
const FRAGMENT: Reading = 1 << 13;

/// Bounds on one path's readings: their number, and their total size in bytes.
const MAX_READINGS: usize = 256;
const MAX_BYTES: usize = 64 * 1024;

/// Calls `see` with each reading of a path, the normal form first; the same reading may come more than once. Returns
/// false, and never calls `see`, if the path has too many readings (more than 256, or 64 KiB in all), as no honest path
/// has. Allocates nothing for an ordinary path: one of letters, digits and punctuation without `;` and `%`, with no
/// empty segment and none that begins or ends with a dot.
pub fn each_reading(path: &str, mut see: impl FnMut(&str)) -> bool {
    if is_ordinary(path) {
        see(path);
        return true;
    }
    each(path, |_, _, read| see(read))
}

/// Whether a path, put below another one, stays below it in each of its readings: no `..` leads above its root, and it
/// does not begin with two slashes, behind which a backend would read a host. Also false if it has too many.
pub fn stays_inside(path: &str) -> bool {
    let mut all = true;
    is_ordinary(path) || (each(path, |spelled, reading, _| all &= stays(spelled, reading)) && all)
}

/// [`stays_inside`] for one reading, as [`spell`] writes it. Blanks and dots at a segment's end are cut off in any
/// case: that never leads deeper, and where it makes a difference, a reading with [`TRIMMED`] is looked at, too.
fn stays(spelled: &str, reading: Reading) -> bool {
    let mut depth = 0_usize;
    let mut segments = spelled.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match trimmed(segment, reading) {
            "." => {}
            "" if depth > 0 || segments.peek().is_none() => {}
            ".." if depth > 0 => depth -= 1,
            "" | ".." => return false,
            _ => depth += 1,
        }
    }
    true
}

/// Calls `see` with each reading: as [`spell`] writes it, its habits, and its normal form. False: there are too many.
fn each(path: &str, mut see: impl FnMut(&str, Reading, &str)) -> bool {
    let habits = habits_for(path);
    let number = 1usize << habits.count_ones();
    if habits != AS_SENT && (number > MAX_READINGS || path.len().saturating_mul(number) > MAX_BYTES) {
        return false;
    }
    let (mut spelled, mut out) = (String::with_capacity(path.len()), String::with_capacity(path.len()));
    let mut reading = AS_SENT;
    for _ in 0..number {
        if reading & TRIMMED != 0 || reading & NOT_UP == 0 {
            read(path, reading, &mut spelled, &mut out);
            see(&spelled, reading, &out);
        }
        // The next subset of the habits: counts up on their bits alone.
        reading = (reading | !habits).wrapping_add(1) & habits;
    }
    true
}

/// Writes one reading of a path: to `spelled` as [`spell`] does, to `out` in its normal form.
pub(super) fn read(path: &str, reading: Reading, spelled: &mut String, out: &mut String) {
    let once = if reading & TWICE == 0 { None } else { decoded_once(path) };
    spell(once.as_deref().unwrap_or(path), reading, spelled);
    resolve(spelled, reading, out);
}

/// Whether a path is in its normal form and has no other reading.
fn is_ordinary(path: &str) -> bool {
    let mut before = None;
    for byte in path.bytes() {
        let fits = match (before, byte) {
            (Some(b'/'), b'/' | b'.') | (Some(b'.'), b'/') | (_, b';') => false,
            _ => byte == b'/' || means_itself(byte),
        };
        if !fits {
            return false;
        }
        before = Some(byte);
    }
    !matches!(before, None | Some(b'.'))
}

/// A byte of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Unit {
    byte: u8,
    /// Whether it was written as `%XX`.
    encoded: bool,
}

impl Unit {
    /// The habit with which this byte ends a segment; [`AS_SENT`] for a plain slash, which always does.
    fn separates(self) -> Option<Reading> {
        match (self.byte, self.encoded) {
            (b'/', false) => Some(AS_SENT),
            (b'/', true) => Some(SLASH),
            (b'\\', false) => Some(BACKSLASH),
            (b'\\', true) => Some(ENCODED_BACKSLASH),
            _ => None,
        }
    }

    /// The habit with which this byte ends the path.
    fn ends_path(self) -> Option<Reading> {
        match (self.byte, self.encoded) {
            (0, true) => Some(NUL),
            (b'?', _) => Some(QUERY),
            (b'#', _) => Some(FRAGMENT),
            _ => None,
        }
    }

    /// The habit with which this byte begins parameters.
    fn begins_parameters(self) -> Option<Reading> {
        match (self.byte, self.encoded) {
            (b';', false) => Some(PARAMETERS),
            (b';', true) => Some(ENCODED_PARAMETERS),
            _ => None,
        }
    }
}

fn units(path: &str) -> impl Iterator<Item = Unit> {
    let mut rest = path.as_bytes();
    std::iter::from_fn(move || {
        let (first, behind) = rest.split_first()?;
        rest = behind;
        let decoded = match (first, behind) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        Some(match decoded {
            Some(byte) => {
                rest = &behind[2..];
                Unit { byte, encoded: true }
            }
            None => Unit { byte: *first, encoded: false },
        })
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The path with each `%25` decoded that begins another encoding (`%252e` becomes `%2e`); `None` if there is none.
fn decoded_once(path: &str) -> Option<String> {
    let begins = |place: usize| {
        let digits = path.as_bytes().get(place + 3..place + 5);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let mut out = String::new();
    let mut copied = 0;
    for (place, _) in path.match_indices("%25").filter(|(place, _)| begins(*place)) {
        out.push_str(&path[copied..=place]);
        copied = place + 3;
    }
    (copied > 0).then(|| out + &path[copied..])
}

/// At least the habits that make a difference to a path; perhaps some that make none.
fn habits_for(path: &str) -> Reading {
    let once = decoded_once(path).map_or(AS_SENT, |once| TWICE | Scan::of(&once));
    once | Scan::of(path)
}

/// Looks from left to right for the habits that make a difference to a path. Every byte that may end a segment, with
/// some habit, counts as an end of one.
#[derive(Default)]
struct Scan {
    found: Reading,
    /// Length of the segment so far.
    length: usize,
    /// How many dots and blanks the segment ends with so far.
    tail: usize,
    /// Whether two dots follow each other among these.
    tail_goes_up: bool,
    tail_has_blanks: bool,
    /// Whether the segment begins behind a plain slash.
    plain_start: bool,
    /// Whether parameters have begun since the last plain slash.
    in_parameters: bool,
    last_was_dot: bool,
    /// Whether some segment so far may be `..`.
    may_go_up: bool,
    /// Whether some segment so far may be empty.
    may_be_empty: bool,
}

impl Scan {
    fn of(path: &str) -> Reading {
        let mut scan = Self { plain_start: true, ..Self::default() };
        let mut all = units(path);
        if all.next().is_some_and(|unit| unit.separates() == Some(AS_SENT))
            && all.next().is_some_and(|unit| unit.separates().is_some())
        {
            scan.found |= HOST;
        }
        let mut is_first = true;
        for unit in units(path) {
            scan.unit(unit, is_first);
            is_first = false;
        }
        scan.end_of_segment(true);
        if scan.may_go_up && scan.may_be_empty {
            scan.found |= EMPTY_COUNTS;
        }
        scan.found
    }

    fn unit(&mut self, unit: Unit, is_first: bool) {
        if let Some(habit) = unit.ends_path() {
            self.found |= habit;
            // With that habit the segment ends here, so blanks and dots at its end count.
            if self.tail > 0 {
                self.found |= TRIMMED | if self.tail_goes_up { NOT_UP } else { AS_SENT };
            }
        }
        if let Some(habit) = unit.separates().or(unit.begins_parameters()) {
            self.end_of_segment(is_first);
            self.found |= habit;
            self.plain_start = habit == AS_SENT;
            if habit & (PARAMETERS | ENCODED_PARAMETERS) != 0 {
                self.in_parameters = true;
            } else if habit == AS_SENT {
                self.in_parameters = false;
            } else if self.in_parameters {
                self.found |= LONG_PARAMETERS;
            }
            return;
        }
        self.length += 1;
        let is_dot = unit.byte == b'.';
        if is_dot || unit.byte <= b' ' {
            self.tail += 1;
            self.tail_has_blanks |= !is_dot;
            self.tail_goes_up |= is_dot && self.last_was_dot;
        } else {
            self.forget_tail();
        }
        self.may_go_up |= self.tail_goes_up;
        self.last_was_dot = is_dot;
    }

    fn end_of_segment(&mut self, may_be_nothing: bool) {
        self.may_be_empty |= self.length == 0 && !may_be_nothing;
        let is_dots = self.plain_start && !self.tail_has_blanks && self.tail <= 2;
        if self.tail > 0 && !(self.tail == self.length && is_dots) {
            self.found |= TRIMMED;
            if self.tail == self.length {
                self.may_be_empty = true;
                self.found |= if self.tail_goes_up { NOT_UP } else { AS_SENT };
            }
        }
        self.length = 0;
        self.forget_tail();
    }

    fn forget_tail(&mut self) {
        (self.tail, self.tail_goes_up, self.tail_has_blanks, self.last_was_dot) = (0, false, false, false);
    }
}

/// Writes a path as the habits in `reading` say: whatever ends a segment becomes `/`, encodings become those of
/// [`super::normal`], and parameters are cut.
fn spell(path: &str, reading: Reading, out: &mut String) {
    out.clear();
    let has = |habit: Reading| reading & habit != 0;
    // The position of the last `%` that does not begin an encoding. A decoded digit behind it stays encoded, so that
    // the two do not become an encoding together: `%a%30` must not become `%A0`, nor `%2%65` a dot.
    let mut stray = None;
    let mut in_parameters = false;
    for unit in units(path) {
        let Unit { byte, encoded } = unit;
        if unit.ends_path().is_some_and(has) {
            return;
        }
        if let Some(habit) = unit.separates()
            && (habit == AS_SENT || (has(habit) && !(in_parameters && has(LONG_PARAMETERS))))
        {
            out.push('/');
            (in_parameters, stray) = (false, None);
            continue;
        }
        in_parameters |= unit.begins_parameters().is_some_and(has);
        if in_parameters {
            continue;
        }
        let completes = byte.is_ascii_hexdigit() && stray.is_some_and(|at| out.len() - at <= 2);
        if byte == b'%' && !encoded {
            stray = Some(out.len());
            out.push('%');
        } else if means_itself(byte) && !(encoded && completes) {
            out.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            let digit = |value: u8| char::from(HEX[usize::from(value % 16)]);
            out.extend(['%', digit(byte / 16), digit(byte)]);
        }
    }
}

/// Resolves dot segments and removes empty ones.
fn resolve(spelled: &str, reading: Reading, out: &mut String) {
    out.clear();
    let mut in_host = reading & HOST != 0 && spelled.starts_with("//");
    let mut is_open = true;
    for (place, segment) in spelled.split('/').enumerate() {
        if in_host && !segment.is_empty() {
            in_host = false;
            continue;
        }
        let segment = if reading & TRIMMED == 0 { segment } else { trimmed(segment, reading) };
        is_open = matches!(segment, "" | "." | "..");
        match segment {
            "" if place > 0 && reading & EMPTY_COUNTS != 0 => out.push('/'),
            "" | "." => {}
            ".." => out.truncate(out.rfind('/').unwrap_or(0)),
            // Not in origin form, which begins with a slash: such a text keeps its start, so that it equals no path.
            _ if place == 0 => out.push_str(segment),
            _ => out.extend(["/", segment]),
        }
    }
    if out.is_empty() || is_open {
        out.push('/');
    }
    if reading & EMPTY_COUNTS != 0 {
        let mut before = ' ';
        out.retain(|letter| std::mem::replace(&mut before, letter) != '/' || letter != '/');
    }
}

/// A segment without the blanks and dots at its end. `.` and `..` stay; blanks and dots alone become one of these.
fn trimmed(segment: &str, reading: Reading) -> &str {
    if matches!(segment, "" | "." | "..") {
        return segment;
    }
    let mut rest = segment;
    while let Some(shorter) = rest.strip_suffix('.').or_else(|| without_blank(rest)) {
        rest = shorter;
    }
    match rest {
        "" if segment.contains("..") && reading & NOT_UP == 0 => "..",
        "" => ".",
        _ => rest,
    }
}

/// A segment without the encoded blank at its end; every byte up to the space counts as one. `None`: it has none.
fn without_blank(segment: &str) -> Option<&str> {
    let (rest, last) = segment.split_at_checked(segment.len().checked_sub("%20".len())?)?;
    let code = last.strip_prefix('%').and_then(|digits| u8::from_str_radix(digits, 16).ok())?;
    (code <= b' ').then_some(rest)
}
