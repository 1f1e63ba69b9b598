//! Where this appliance has last seen the members on other appliances (HA 1.5): told to peers, so that a member whose store
//! was brought back from an older image, or cloned, hears of it.
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use partition::{Contradiction, Partition};
use spec::messages::{SeenMember, StatusAnswer};

use crate::book::Book;
use crate::error::Error;

/// What was seen of each member, by serial number.
pub struct Sightings {
    book: Arc<Book>,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    seen: BTreeMap<u64, SeenMember>,
    unsaved: bool,
}

impl Sightings {
    /// What the book knows.
    ///
    /// # Errors
    /// Those of the database.
    pub fn load(book: Arc<Book>) -> Result<Self, Error> {
        let seen = book.seen()?.into_iter().map(|one| (one.serial, one)).collect();
        Ok(Self { book, members: Mutex::new(Members { seen, unsaved: false }) })
    }

    /// Everything seen.
    pub fn all(&self) -> Vec<SeenMember> {
        self.members.lock().seen.values().cloned().collect()
    }

    /// Notes a member's own word. Within one incarnation nothing goes back: a store that did is what this is for; it takes
    /// another incarnation when it has heard of it.
    pub fn note(&self, status: &StatusAnswer) {
        if status.incarnation == 0 {
            return;
        }
        let mut members = self.members.lock();
        let known = members.seen.get(&status.serial);
        if known.is_some_and(|known| known.incarnation == status.incarnation && known.seq >= status.seq) {
            return;
        }
        members.seen.insert(status.serial, SeenMember { proof: Vec::new(), said_ms: 0, ..status.own_word() });
        members.unsaved = true;
    }

    /// Writes down what is new. What was seen after the last time is lost with this process; a member that went back by no
    /// more than that is not recognised then.
    ///
    /// # Errors
    /// Those of the database.
    pub fn save(&self) -> Result<(), Error> {
        let mut members = self.members.lock();
        if std::mem::take(&mut members.unsaved) {
            let all: Vec<SeenMember> = members.seen.values().cloned().collect();
            drop(members);
            self.book.set_seen(&all).inspect_err(|_| self.members.lock().unsaved = true)?;
        }
        Ok(())
    }
}

/// Tells the operator of a partition that has found itself to be another store than the one that somebody has seen.
pub fn log_contradiction(partition: &Partition) {
    if let Some(Contradiction { seen, found_at }) = partition.take_contradiction() {
        tracing::error!(
            serial = seen.serial,
            seen_at = seen.seq,
            found_at,
            "the store of this partition is not the one that others have seen: it was brought back from an older image, or \
             cloned. It has taken a new incarnation and serves nobody until a member has been compared with it, or until an \
             operator runs `hsm partition adopt`"
        );
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn status(incarnation: u64, seq: u64, mark: u8) -> StatusAnswer {
        StatusAnswer { serial: 7, incarnation, seq, root: vec![mark; 32], ..StatusAnswer::default() }
    }

    #[test]
    fn ha_1_5_what_was_seen_never_goes_back_within_an_incarnation_and_outlives_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let book = || Arc::new(Book::open(&place.path().join("appliance.sqlite")).unwrap().0);
        let sightings = Sightings::load(book()).unwrap();
        let seen = || sightings.all().pop().map(|one| (one.incarnation, one.seq, one.root[0]));
        sightings.note(&status(0, 9, 1));
        assert_eq!(seen(), None, "no incarnation says nothing");
        sightings.note(&status(5, 9, 1));
        sightings.note(&status(5, 8, 2));
        sightings.note(&status(5, 9, 3));
        assert_eq!(seen(), Some((5, 9, 1)), "the roll-back stays visible");
        sightings.save().unwrap();
        sightings.note(&status(6, 2, 4));
        assert_eq!(seen(), Some((6, 2, 4)), "another incarnation replaces it");
        assert_eq!(Sightings::load(book()).unwrap().all()[0].incarnation, 5, "as it was saved");
        sightings.save().unwrap();
        assert_eq!(Sightings::load(book()).unwrap().all()[0].incarnation, 6);
    }
}
