//! The API's v1: one file a resource.

pub mod live;
pub mod reload;
pub mod status;
