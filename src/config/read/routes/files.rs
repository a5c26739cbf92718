//! `basic_auth` and `errors`, which name files. Each file is read once, however many routes name it.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::htpasswd::Users;
use crate::config::{forms, words};
use crate::declare::{Section, Spec, Value};

/// Largest file of users. 10,000 with bcrypt hashes need about 800 KiB.
const MAX_USERS_BYTES: u64 = 1 << 20;
/// Most pages of one route: one a status.
const MAX_PAGES: usize = 200;
/// Largest page.
const MAX_PAGE_BYTES: u64 = 256 << 10;
/// All pages together: they stay in memory.
const MAX_PAGES_BYTES: usize = 64 << 20;

/// What was read so far.
#[derive(Default)]
pub(super) struct Files {
    users: HashMap<PathBuf, Result<Arc<Users>, Vec<String>>>,
    pages: HashMap<PathBuf, Result<Arc<[u8]>, String>>,
    pages_bytes: usize,
}

impl Files {
    /// `basic_auth`.
    pub fn users(&mut self, s: &mut Section<'_>, base: &Path) -> Option<Arc<Users>> {
        let about = "A file of users and bcrypt hashes of their passwords, as htpasswd -B writes it, which clients have to show (RFC 7617); null: none.";
        let spec = Spec::of("basic_auth", words::PATH, "null", about).or_null();
        let path = s.text(&spec, |text| forms::file(text, base))?;
        let read = self.users.entry(path.clone()).or_insert_with(|| {
            let bytes = read(&path, MAX_USERS_BYTES).map_err(|why| vec![why])?;
            let text = String::from_utf8(bytes).map_err(|_| vec!["is not UTF-8".to_owned()])?;
            Users::parse(&text).map(Arc::new)
        });
        match read {
            Ok(users) => Some(Arc::clone(users)),
            Err(faults) => {
                for fault in faults.iter() {
                    s.fault("basic_auth", format!("{} {fault}", path.display()));
                }
                None
            }
        }
    }

    /// `errors`.
    pub fn errors(&mut self, s: &mut Section<'_>, base: &Path) -> Vec<(u16, Arc<[u8]>)> {
        let about = "Pages for statuses of ours, for clients that prefer HTML to JSON.";
        let mut pages: Vec<(u16, Arc<[u8]>)> = Vec::new();
        for member in s.entries(&Spec::of("errors", words::ERRORS, "{}", about), MAX_PAGES) {
            let name = &member.name;
            let status =
                name.parse::<u16>().ok().filter(|status| (400..=599).contains(status) && name.len() == 3);
            let path = match &member.node.value {
                Value::Text(text) => forms::file(text, base),
                _ => Err(None),
            };
            let no_path = |_| format!("must be a path; found {}", member.node.describe(true));
            let read = match status {
                None => Err("must be a status from 400 to 599".to_owned()),
                Some(status) => path.map_err(no_path).and_then(|path| Ok((status, self.page(&path)?))),
            };
            match read {
                Ok(page) => pages.push(page),
                Err(text) => s.fault_of("errors", &member, text),
            }
        }
        pages
    }

    fn page(&mut self, path: &Path) -> Result<Arc<[u8]>, String> {
        if let Some(page) = self.pages.get(path) {
            return page.clone();
        }
        let page = read(path, MAX_PAGE_BYTES).map(Arc::<[u8]>::from);
        self.pages_bytes += page.as_ref().map_or(0, |page| page.len());
        let page = match page {
            Ok(_) if self.pages_bytes > MAX_PAGES_BYTES => {
                Err(format!("is too much: all pages together may have {MAX_PAGES_BYTES} bytes"))
            }
            page => page,
        };
        let page = page.map_err(|why| format!("{} {why}", path.display()));
        self.pages.insert(path.to_owned(), page.clone());
        page
    }
}

/// A whole file of at most so many bytes. An error does not name it.
fn read(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // Opening a named pipe would wait for a writer.
    let is_file = std::fs::metadata(path).map(|about| about.is_file());
    if is_file.as_ref().is_ok_and(|is_file| !is_file) {
        return Err("is no file".to_owned());
    }
    let read = is_file.and_then(|_| std::fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(length) if length as u64 > most => Err(format!("is longer than {most} bytes")),
        Ok(_) => Ok(bytes),
    }
}
