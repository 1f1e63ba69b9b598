//! Who reads for all: the leadership of one link, without any input or output, so that it can be checked (`tests`
//! below, by `loom`: every run of few threads that are interrupted at most three times).
//!
//! ```text
//! waiting caller --enter--> leader, when there is none
//!                      `--> in the list --token from a leader that steps down--> leader
//! leader --leave--> the flag is cleared, the list is read again, its last one gets the token and is woken
//! listed, or given a token and not yet aware --leave--> off the list, the token passed on
//! ```
//! All of it changes under the one short lock of the link, which is never held across a system call (HA 5 (2)): if a
//! caller is listed, a leader exists or a token is on its way. The last in the list gets the token: it waits longest.

/// The flag, the list and the token of one link. `W` names a waiting caller.
pub(crate) struct Lead<W> {
    /// Who leads, or has been given the token and will find it when woken.
    leader: Option<W>,
    /// Who waits for a leader to read for them.
    list: Vec<W>,
}

/// What [`Lead::leave`] did.
pub(crate) struct Left<W> {
    /// Whether the caller was the leader or in the list.
    pub(crate) was_there: bool,
    /// Who has been given the token, and must be woken once the lock is free.
    pub(crate) token: Option<W>,
}

impl<W: Clone + Same> Lead<W> {
    /// Nobody waits.
    pub(crate) fn new() -> Self {
        Self { leader: None, list: Vec::new() }
    }

    /// The caller waits from now on. Answers whether it leads, and whether it was not here before.
    pub(crate) fn enter(&mut self, caller: &W) -> (bool, bool) {
        match &self.leader {
            Some(leader) if leader.same(caller) => (true, false),
            Some(_) => {
                let is_new = !self.list.iter().any(|listed| listed.same(caller));
                if is_new {
                    self.list.push(caller.clone());
                }
                (false, is_new)
            }
            None => {
                self.leader = Some(caller.clone());
                (true, true)
            }
        }
    }

    /// The caller waits no more, leads no more, and passes on a token that it was given.
    pub(crate) fn leave(&mut self, caller: &W) -> Left<W> {
        if self.leader.as_ref().is_some_and(|leader| leader.same(caller)) {
            self.leader = None;
            self.leader = self.list.pop();
            return Left { was_there: true, token: self.leader.clone() };
        }
        let place = self.list.iter().position(|listed| listed.same(caller));
        if let Some(place) = place {
            self.list.remove(place);
        }
        Left { was_there: place.is_some(), token: None }
    }

    /// Whether the caller leads or has the token.
    pub(crate) fn is_led_by(&self, caller: &W) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.same(caller))
    }

    /// Who leads.
    pub(crate) fn leader(&self) -> Option<&W> {
        self.leader.as_ref()
    }

    /// Who would get the token now.
    pub(crate) fn last(&self) -> Option<W> {
        self.list.last().cloned()
    }

    /// What must not be: the leader hands over to somebody that it saw before, if that one is still listed, and does not
    /// read the list again. Answers who leads then. For the models and the planted bug, which must be found by what is left
    /// behind.
    pub(crate) fn leave_to(&mut self, seen: Option<W>) -> Option<W> {
        let place = seen.and_then(|seen| self.list.iter().position(|listed| listed.same(&seen)));
        self.leader = place.map(|place| self.list.remove(place));
        self.leader.clone()
    }

    /// Takes everybody off the list, and the leader too unless it is to stay.
    pub(crate) fn clear(&mut self, leader_stays: bool) -> Vec<W> {
        let leader = self.leader.take_if(|_| !leader_stays);
        std::mem::take(&mut self.list).into_iter().chain(leader).collect()
    }

    /// Whether nobody waits in vain: if a caller is listed, somebody leads or has been given the token.
    pub(crate) fn is_sound(&self) -> bool {
        self.leader.is_some() || self.list.is_empty()
    }

    /// Everybody, at the end of the link.
    pub(crate) fn into_all(self) -> impl Iterator<Item = W> {
        self.leader.into_iter().chain(self.list)
    }
}

/// Whether two names mean the same caller.
pub(crate) trait Same {
    /// See the trait.
    fn same(&self, other: &Self) -> bool;
}

impl Same for std::sync::Arc<spec::seam::Waiter> {
    fn same(&self, other: &Self) -> bool {
        std::sync::Arc::ptr_eq(self, other)
    }
}

#[cfg(test)]
#[path = "lead_tests.rs"]
mod tests;
