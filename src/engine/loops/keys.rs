//! Names of a loop's connections. A name is never used again for another connection.

use slotmap::new_key_type;

new_key_type! {
    /// A client of one loop.
    pub(super) struct ClientSlot;

    /// A backend connection of one loop.
    pub(super) struct BackSlot;
}
