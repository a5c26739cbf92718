//! Reads objects member by member. Each call that reads a member also declares it: its name, what it takes, its default
//! and what it is for. Faults are collected with their places; reference pages and schemas are made from the
//! declarations. The configuration is read this way, and so are bodies and queries of the API; [`ReaderRules`] says
//! what differs. May use nothing of the program.

mod duration;
mod fault;
mod objects;
mod report;
mod schema;
mod section;
mod spec;
mod tree;
mod values;

pub use duration::parse_duration;
pub use fault::{Fault, FaultOrigin, Parsed, did_you_mean, pointer};
pub use report::{ReaderRules, Report, tell_places};
pub use schema::{More, between, duration_pattern, object, property, schema_of, schema_of_value};
pub use section::Section;
pub use spec::{Form, Key, OPTIONAL, Shape, Spec};
pub use tree::{Lines, Member, Node, Value, parse};
pub use values::{duration_of, micro_of, owned, shown, whole, whole_of};
