//! Reads objects by declaring their members: each call that reads one says its name, what it takes, its default and what it
//! is for. Faults are collected, each with its place, and the declarations are what references and schemas are made of. May
//! use nothing of the program.

mod duration;
mod fault;
mod keys;
mod objects;
mod section;
mod share;
mod tree;

pub use duration::parse_duration;
pub use fault::{Fault, FaultOrigin, Parsed, did_you_mean};
pub use keys::{Inherited, Key, Report, Shape, Spec};
pub use section::{Section, whole_of};
pub use tree::{Lines, Member, Node, Value, parse};
