//! What a calling thread keeps from one call to the next: its mailbox and the room for its requests and their outputs. A kit belongs to one
//! group of one process: after a fork the child's groups are others, and what the parent's threads held is not touched
//! (HA 6).
use std::cell::Cell;
use std::sync::Arc;

use spec::platform::Platform;
use spec::seam::Waiter;
use spec::wipe::wipe_out;
use zeroize::Zeroizing;

use crate::open::Open;

/// The memory of a larger body is not kept, in bytes.
const BODY_BYTES_MAX: usize = 4 << 10;
/// The memory of a larger output is not kept, in bytes.
const OUTPUT_BYTES_MAX: usize = 1 << 10;

/// A mailbox, room for the requests on their way, and room for the body of a use.
pub(crate) struct Kit {
    pub(crate) waiter: Arc<Waiter>,
    pub(crate) open: Vec<Open>,
    body: Option<Arc<Zeroizing<Vec<u8>>>>,
}

/// Takes back the memory of an output that has been read, wiped: the thread's next reply may be written into it. Touches
/// nothing but the calling thread's own (HA 6).
pub fn give_back(mut output: Zeroizing<Vec<u8>>) {
    if (1..=OUTPUT_BYTES_MAX).contains(&output.capacity()) {
        wipe_out(&mut output);
        let _ = OUTPUT.try_with(|kept| kept.set(Some(output)));
    }
}

/// The memory of an output that was given back.
pub(crate) fn spare_output() -> Option<Zeroizing<Vec<u8>>> {
    OUTPUT.try_with(Cell::take).ok().flatten()
}

thread_local! {
    static OUTPUT: Cell<Option<Zeroizing<Vec<u8>>>> = const { Cell::new(None) };
    static KEPT: Cell<Option<(u64, Kit)>> = const { Cell::new(None) };
}

impl Kit {
    /// The kit that this thread keeps for the group of this number, or a new one.
    pub(crate) fn take(group: u64, platform: &Arc<dyn Platform>) -> Kit {
        // A thread that ends has no kit any more; a desk within another one finds it taken.
        match KEPT.try_with(Cell::take) {
            Ok(Some((owner, kit))) if owner == group => kit,
            _ => Kit { waiter: Waiter::new(platform), open: Vec::new(), body: None },
        }
    }

    /// Empty room for a body, if no seam holds on to the one before.
    pub(crate) fn lend_body(&mut self) -> Arc<Zeroizing<Vec<u8>>> {
        self.body.take().unwrap_or_default()
    }

    /// Takes back the room of a body that is sent no more: wiped, and kept if it is small.
    pub(crate) fn take_body(&mut self, mut body: Arc<Zeroizing<Vec<u8>>>) {
        if let Some(bytes) = Arc::get_mut(&mut body).filter(|bytes| bytes.capacity() <= BODY_BYTES_MAX) {
            wipe_out(bytes);
            self.body = Some(body);
        }
    }

    /// Keeps the kit for the thread's next call; nothing may be on its way.
    pub(crate) fn keep(self, group: u64) {
        let _ = KEPT.try_with(|kept| kept.set(Some((group, self))));
    }
}
