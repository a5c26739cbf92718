//! Reads objects by declaring their members: each call that reads one says its name, what it takes, its default and what it
//! is for. Faults are collected, each with its place, and the declarations are what references and schemas are made of. The
//! configuration is read so, and bodies and queries of the API; what differs is said by a [`ReaderRules`]. May use nothing of the
//! program.

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
pub use fault::{Fault, FaultOrigin, Parsed, did_you_mean};
pub use report::{ReaderRules, Report, tell_places};
pub use schema::{More, between, duration_pattern, object, property, schema_of, schema_of_value};
pub use section::Section;
pub use spec::{Form, Key, OPTIONAL, Shape, Spec};
pub use tree::{Lines, Member, Node, Value, parse};
pub use values::{micro_of, owned, shown, whole, whole_of};
