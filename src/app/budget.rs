//! Starts this instance's part in the shared budget, if it has one.

use std::net::SocketAddr;
use std::sync::Arc;

use super::shared::SharedServices;
use super::{StartFailure, failed};
use crate::budget::{Carrier, CarrierParts};
use crate::config::BudgetScope;

/// Takes part in the budget of all instances on this database. `None`: it is off, or the database can't pass messages
/// on.
pub(super) fn take_part(
    scope: BudgetScope,
    shared: &SharedServices,
    addresses: &[SocketAddr],
) -> Result<Option<Carrier>, StartFailure> {
    let channel = shared.limits.take_budget_channel();
    if scope == BudgetScope::Off {
        log::info!("budget: rate_limit.shared_budget is off: this instance counts alone");
        return Ok(None);
    }
    let (Some(channel), Some(address)) = (channel, addresses.first()) else {
        log::info!("budget: on SQLite each process counts alone");
        return Ok(None);
    };
    let parts = CarrierParts {
        limiter: Arc::clone(&shared.limiter),
        channel,
        shown: Arc::clone(&shared.budget),
        address: *address,
        clock: shared.keeper.clock.clone(),
    };
    Carrier::start(parts).map(Some).map_err(failed("a thread can't be started"))
}
