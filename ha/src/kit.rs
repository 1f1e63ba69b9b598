//! What a calling thread keeps from one call to the next: its mailbox and the room for its requests. A kit belongs to one
//! group of one process: after a fork the child's groups are others, and what the parent's threads held is not touched
//! (HA 6).
use std::cell::Cell;
use std::sync::Arc;

use spec::platform::Platform;
use spec::seam::Waiter;

use crate::open::Open;

/// A mailbox, and room for the requests on their way.
pub(crate) struct Kit {
    pub(crate) waiter: Arc<Waiter>,
    pub(crate) open: Vec<Open>,
}

thread_local! {
    static KEPT: Cell<Option<(u64, Kit)>> = const { Cell::new(None) };
}

impl Kit {
    /// The kit that this thread keeps for the group of this number, or a new one.
    pub(crate) fn take(group: u64, platform: &Arc<dyn Platform>) -> Kit {
        // A thread that ends has no kit any more; a desk within another one finds it taken.
        match KEPT.try_with(Cell::take) {
            Ok(Some((owner, kit))) if owner == group => kit,
            _ => Kit { waiter: Waiter::new(platform), open: Vec::new() },
        }
    }

    /// Keeps the kit for the thread's next call; nothing may be on its way.
    pub(crate) fn keep(self, group: u64) {
        let _ = KEPT.try_with(|kept| kept.set(Some((group, self))));
    }
}
