//! One PIN try at a time for each client in a role.
//!
//! A try counts as a failure from its reservation to its settling. Without turns, right PINs that are verified at the
//! same time would look like failures to each other, and a fourth login would meet a delay (HA 4.2: a right PIN spends no
//! try). No rule rests on this lock: a try is spent in the store before the verifier runs (HA 7), with turns or without.
use std::collections::BTreeSet;

use parking_lot::{Condvar, Mutex};

use super::Role;

/// A client in a role.
type Who = (u8, [u8; 32]);

/// Who has a turn now. No larger than the number of requests being run.
#[derive(Default)]
pub(crate) struct Turns {
    taken: Mutex<BTreeSet<Who>>,
    given_back: Condvar,
}

/// A turn; it ends when this is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    who: Who,
}

impl Turns {
    /// Waits for the turn of this client in this role.
    pub(crate) fn take(&self, role: Role, client: &[u8; 32]) -> Turn<'_> {
        let who = (role.byte(), *client);
        let mut taken = self.taken.lock();
        while !taken.insert(who) {
            self.given_back.wait(&mut taken);
        }
        Turn { turns: self, who }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.taken.lock().remove(&self.who);
        self.turns.given_back.notify_all();
    }
}
