//! What memory holds of the database, as text. It is kept on this machine, so that clients keep their limits when this process
//! restarts while the database is down.
//!
//! Each line is a JSON object as the API shows it: plans first, then ranges and what is in the cache.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use ipnet::IpNet;

use super::super::json;
use super::super::v1::LimitRow;
use super::{Core, parsed};
use crate::store::cache::{CacheGroup, Entry};
use balancer_limiter::document::{Document, LimitDocument, PlanDocument};
use balancer_limiter::identity::IdForm;
use balancer_limiter::terms::{ClientLimit, Plan};

impl Core {
    /// Everything that is in memory. Takes each lock of the cache in turn, for a walk over it.
    pub fn remembered(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail, here and below.
        for (name, planned) in self.plans.load().iter() {
            let plan = Plan { name: name.clone(), terms: planned.terms.clone() };
            let _ = writeln!(text, "{}", json::text(&PlanDocument::new(&plan)));
        }
        for range in self.ranges.load().iter() {
            let _ = writeln!(text, "{}", json::text(&LimitDocument::new(&range.id, &range.limit)));
        }
        self.cache.each(|id, limit| {
            let _ = writeln!(text, "{}", json::text(&LimitDocument::new(id, limit)));
        });
        text
    }

    /// Puts that text back in force, until the database can be asked. Returns how many limits and plans there were. What
    /// can't be read is logged; its client gets the default.
    pub fn recall(&self, text: &str) -> usize {
        let mut count = 0;
        let mut ranges = Vec::new();
        let mut places: HashMap<CacheGroup, Vec<Entry>> = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            match Document::read(line).or_else(|fault| unreadable(line, number, &fault)) {
                Ok(Document::Plan(plan)) => self.change_plan(&plan.name, Some(&plan.terms)),
                Ok(Document::Limit(client_id, limit)) => {
                    let row = LimitRow { client_id, limit, version: 0 };
                    let Some(id) = parsed(&row) else { continue };
                    match (id.form(), CacheGroup::of(&id, self.ipv6_prefix)) {
                        (IdForm::Range(net), _) => ranges.push((net, Some(row))),
                        (_, Some(place)) => {
                            places.entry(place).or_default().extend(Entry::new(&id, Arc::new(row.limit)));
                        }
                        (_, None) => continue,
                    }
                }
                Err(()) => continue,
            }
            count += 1;
        }
        self.recall_ranges(ranges);
        for (place, entries) in places {
            self.cache.put(place.clone(), entries);
            // In force, but loaded again as soon as the database can be asked.
            self.cache.doubt(place);
        }
        count
    }

    fn recall_ranges(&self, ranges: Vec<(IpNet, Option<LimitRow>)>) {
        let mut book = self.book.lock();
        book.writes += 1;
        self.change_ranges(ranges);
        drop(book);
        self.tell_shared();
    }
}

/// A line that can't be read as a whole. If it has an id, that client gets the default, as for such a row of the database.
fn unreadable(line: &str, number: usize, fault: &str) -> Result<Document, ()> {
    match Document::client_id(line) {
        Some(id) => {
            log::error!(
                "store: the remembered limit of {id:?} can't be read, and the default decides: {fault}"
            );
            Ok(Document::Limit(id, ClientLimit::unreadable()))
        }
        None => {
            log::error!("store: line {number} of the remembered limits is left out: {fault}");
            Err(())
        }
    }
}
