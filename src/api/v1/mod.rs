//! The API's v1: limits and plans, and what an instance is doing. One file a resource; each is a line in
//! [`RESOURCES`].

mod audit;
pub mod backends;
pub mod batch;
mod check;
mod conditions;
pub mod control;
mod history;
mod import;
mod limited;
mod limits;
pub mod live;
mod overview;
mod patterns;
mod plans;
mod pools;
pub mod reload;
mod routes;
mod schemas;
pub mod status;
mod terms;
mod usage;

use super::problem::refused;
use super::route::Resource;

/// In the order of the documentation.
pub(super) const RESOURCES: &[Resource] = &[
    limits::RESOURCE,
    usage::RESOURCE,
    plans::RESOURCE,
    batch::RESOURCE,
    import::RESOURCE,
    check::RESOURCE,
    limited::RESOURCE,
    audit::RESOURCE,
    overview::RESOURCE,
    history::RESOURCE,
    status::RESOURCE,
    backends::RESOURCE,
    pools::RESOURCE,
    routes::RESOURCE,
    reload::RESOURCE,
];

#[cfg(test)]
mod tests;
