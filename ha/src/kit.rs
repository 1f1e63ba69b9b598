//! What a calling thread keeps from one call to the next: its mailbox and the room for its requests and their outputs. A kit belongs to one
//! group of one process: after a fork the child's groups are others, and what the parent's threads held is not touched
//! (HA 6).
use std::cell::Cell;
use std::sync::Arc;

use spec::long;
use spec::platform::Platform;
use spec::seam::Waiter;
use spec::wipe::wipe_out;
use zeroize::Zeroizing;

use crate::member::Member;
use crate::open::Open;
use crate::output::Output;
use crate::reply::Reply;

/// The memory of a larger body is not kept here, in bytes.
const BODY_BYTES_MAX: usize = 4 << 10;
/// The memory of a larger output is not kept here, in bytes: it is that of a whole reply.
const OUTPUT_BYTES_MAX: usize = 1_280;

/// So many members are kept.
const MEMBERS_MAX: usize = 4;

/// A mailbox, room for the requests on their way, room for the body of a use and for what is read of its reply.
pub(crate) struct Kit {
    /// The number of the group.
    group: u64,
    pub(crate) waiter: Arc<Waiter>,
    pub(crate) open: Vec<Open>,
    body: Option<Arc<Zeroizing<Vec<u8>>>>,
    reply: Option<Box<Reply>>,
    /// Members as they were sent to last, the last one behind.
    members: Vec<Arc<Member>>,
}

impl Drop for Kit {
    fn drop(&mut self) {
        if !self.waiter.is_own() {
            // Leaked like all that is the parent's: one more reference that nobody gives back.
            std::mem::forget(self.waiter.clone());
        }
    }
}

/// Takes back the memory of an output that has been read, wiped: the thread's next reply may be written into it. Touches
/// nothing but the calling thread's own, and the count of what all keep (HA 6).
pub fn give_back(output: Output) {
    let mut output = output.into_memory();
    if (1..=OUTPUT_BYTES_MAX).contains(&output.capacity()) {
        wipe_out(&mut output);
        let _ = OUTPUT.try_with(|kept| kept.set(Some(output)));
    } else {
        long::give(output);
    }
}

/// The memory of an output that the thread has given back, empty.
pub fn spare_output() -> Option<Zeroizing<Vec<u8>>> {
    OUTPUT.try_with(Cell::take).ok().flatten()
}

thread_local! {
    static OUTPUT: Cell<Option<Zeroizing<Vec<u8>>>> = const { Cell::new(None) };
    static KEPT: Cell<Option<Box<Kit>>> = const { Cell::new(None) };
}

impl Kit {
    /// The kit that this thread keeps for the group of this number, or a new one.
    pub(crate) fn take(group: u64, platform: &Arc<dyn Platform>) -> Box<Kit> {
        // A thread that ends has no kit any more; a desk within another one finds it taken.
        match KEPT.try_with(Cell::take) {
            Ok(Some(kit)) if kit.group == group => kit,
            _ => Box::new(Kit {
                group,
                waiter: Waiter::new(platform),
                open: Vec::new(),
                body: None,
                reply: None,
                members: Vec::new(),
            }),
        }
    }

    /// Empty room for a body, if no seam holds on to the one before.
    pub(crate) fn lend_body(&mut self) -> Arc<Zeroizing<Vec<u8>>> {
        self.body.take().unwrap_or_default()
    }

    /// Takes back the room of a body that is sent no more: wiped, and kept if it is small or long.
    pub(crate) fn take_body(&mut self, mut body: Arc<Zeroizing<Vec<u8>>>) {
        // A seam that still holds on to it wipes it when it lets go.
        let Some(bytes) = Arc::get_mut(&mut body) else { return };
        if bytes.capacity() > BODY_BYTES_MAX {
            return long::give(std::mem::take(bytes));
        }
        wipe_out(bytes);
        self.body = Some(body);
    }

    /// Room for what is read of a reply.
    pub(crate) fn lend_reply(&mut self) -> Box<Reply> {
        self.reply.take().unwrap_or_default()
    }

    /// Takes back the room of a reply of which nothing is left.
    pub(crate) fn take_reply(&mut self, reply: Box<Reply>) {
        self.reply = Some(reply);
    }

    /// The member for one request more. The thread keeps its own count of it from one request to the next: a count that all
    /// threads change makes each of them slower.
    pub(crate) fn lend_member(&mut self, member: &Arc<Member>) -> Arc<Member> {
        match self.members.iter().position(|own| Arc::ptr_eq(own, member)) {
            Some(at) => self.members.swap_remove(at),
            None => member.clone(),
        }
    }

    /// Takes back a member whose request has ended; of many the last ones are kept.
    pub(crate) fn take_member(&mut self, member: Arc<Member>) {
        if self.members.len() >= MEMBERS_MAX {
            self.members.remove(0);
        }
        self.members.push(member);
    }

    /// Keeps the kit for the thread's next call; nothing may be on its way.
    pub(crate) fn keep(self: Box<Self>) {
        let _ = KEPT.try_with(|kept| kept.set(Some(self)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn ha_6_the_mailbox_of_a_parent_is_not_taken_apart_by_its_child() {
        let world = World::new(1);
        let platform = world.platform();
        for (forks, is_kept) in [(false, false), (true, true)] {
            let kit = Kit::take(u64::MAX, &platform);
            let mailbox = Arc::downgrade(&kit.waiter);
            kit.keep();
            if forks {
                world.fork();
            }
            // Another group's first call on this thread puts its own kit in the place.
            Kit::take(u64::MAX - 1, &platform).keep();
            assert_eq!(mailbox.upgrade().is_some(), is_kept, "forked: {forks}");
        }
    }
}
