//! Slot events (RULES 2.11): which slots have something to tell to `C_WaitForSlotEvent`, each once.
use std::collections::VecDeque;
use std::sync::Arc;

use spec::SlotId;
use spec::platform::{Lock, Park};

#[derive(Default)]
struct Waiting {
    slots: VecDeque<SlotId>,
    parks: Vec<Arc<dyn Park>>,
}

/// Events that nobody has taken, and the threads that wait for one.
#[derive(Default)]
pub(crate) struct Events(Lock<Waiting>);

impl Events {
    /// Something has happened to a slot; several events of one slot are one until it is taken.
    pub(crate) fn tell(&self, slot: SlotId) {
        let mut waiting = self.0.lock();
        if !waiting.slots.contains(&slot) {
            waiting.slots.push_back(slot);
        }
        let parks = std::mem::take(&mut waiting.parks);
        drop(waiting);
        for park in parks {
            park.unpark();
        }
    }

    /// The oldest event.
    pub(crate) fn take(&self) -> Option<SlotId> {
        self.0.lock().slots.pop_front()
    }

    /// The place is woken by the next event, or by `wake`.
    pub(crate) fn subscribe(&self, park: &Arc<dyn Park>) {
        let mut waiting = self.0.lock();
        if !waiting.parks.iter().any(|other| Arc::ptr_eq(other, park)) {
            waiting.parks.push(park.clone());
        }
    }

    /// Wakes everyone who waits.
    pub(crate) fn wake(&self) {
        let parks = std::mem::take(&mut self.0.lock().parks);
        for park in parks {
            park.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_and_those_of_one_slot_are_one() {
        let events = Events::default();
        assert_eq!(events.take(), None);
        for slot in [2, 1, 2] {
            events.tell(SlotId(slot));
        }
        assert_eq!((events.take(), events.take(), events.take()), (Some(SlotId(2)), Some(SlotId(1)), None));
    }
}
