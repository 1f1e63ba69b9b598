//! Where members were seen, as processes and members tell each other (HA 1.5).
//!
//! ```text
//! a member's Status: its position, proved --> a process --> the Status that the process asks of every member
//!      each keeps what is news and tells it on; the member that is spoken of judges itself:
//!      behind that commit, or another root there --> another incarnation, Recovering
//! ```
//! What a process carries it cannot make: the proof is made with a key of the domain. A store that was neither put back nor copied
//! never contradicts what it has proved, so whoever repeats that does no harm; where there is a copy, both are suspect, whoever tells.
use aws_lc_rs::hmac;
use parking_lot::Mutex;
use spec::messages::{Outcome, SeenMember};
use spec::record::Manifest;
use spec::sightings::Sightings;

use crate::contents::{Change, Contents};
use crate::domain::DomainSecret;
use crate::error::{Error, Refusal};
use crate::partition::Partition;

/// What a partition has heard of the others, and what it found of itself.
pub(crate) struct Board {
    key: hmac::Key,
    heard: Mutex<Sightings>,
    contradiction: Mutex<Option<Contradiction>>,
}

/// A store that is not the one that somebody has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// Where it was seen.
    pub seen: SeenMember,
    /// The commit at which it was found.
    pub found_at: u64,
}

impl Board {
    pub(crate) fn new(domain: &DomainSecret) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &*domain.derive(b"sighting", 1)),
            heard: Mutex::default(),
            contradiction: Mutex::default(),
        }
    }

    /// Shows that a member of the domain has said so of itself.
    pub(crate) fn proof(&self, seen: &SeenMember) -> Vec<u8> {
        hmac::sign(&self.key, &said(seen)).as_ref().to_vec()
    }

    fn is_proved(&self, seen: &SeenMember) -> bool {
        seen.root.len() == 32 && hmac::verify(&self.key, &said(seen), &seen.proof).is_ok()
    }

    /// What it has heard of the others in the group.
    pub(crate) fn of_others(&self, manifest: &Manifest, own: u64) -> Vec<SeenMember> {
        let mut heard = self.heard.lock();
        heard.keep_members(|serial| serial != own && is_member(manifest, serial));
        heard.all()
    }
}

fn said(seen: &SeenMember) -> Vec<u8> {
    let numbers = [seen.serial, seen.incarnation, seen.seq, seen.said_ms].map(u64::to_be_bytes);
    [numbers.as_flattened(), &seen.root].concat()
}

pub(crate) fn is_member(manifest: &Manifest, serial: u64) -> bool {
    manifest.members.iter().any(|member| member.serial == serial)
}

impl Contents {
    /// Whether somebody has seen the member at a commit that is not known here, or with another root there.
    fn contradicts(&self, serial: u64, seen: &SeenMember) -> bool {
        let same = seen.serial == serial && seen.incarnation == self.incarnation;
        let gone_back = seen.seq > self.seq;
        let cloned = seen.seq == self.seq && seen.root != self.index.tree.root().0;
        same && (gone_back || cloned)
    }
}

impl Partition {
    /// Whether somebody has seen this member at a commit that its store does not know, or with another root there: then
    /// the store went back, or it or the other one is a clone (HA 1.5).
    pub fn contradicts(&self, seen: &SeenMember) -> bool {
        self.look_for(seen.incarnation, seen.seq);
        self.contents.read().contradicts(self.serial, seen)
    }

    /// Takes what a process tells of the members of the group; what is not proved counts for nothing. In a group of one nobody
    /// judges itself: there is nobody to be compared with, and an outage for good would be all that comes of it.
    pub(crate) fn hear(&self, told: &[SeenMember]) -> Result<(), Refusal> {
        for seen in told {
            if seen.serial == self.serial {
                if self.board.is_proved(seen) && self.contradicts(seen) && self.manifest().members.len() > 1 {
                    self.yield_to(seen).map_err(|error| Refusal::new(Outcome::FAILED, error.to_string()))?;
                }
                continue;
            }
            let is_news = self.board.heard.lock().is_news(seen);
            if is_news && is_member(&self.contents.read().manifest, seen.serial) && self.board.is_proved(seen)
            {
                self.board.heard.lock().note(seen.clone());
            }
        }
        Ok(())
    }

    /// Somebody has seen this member where its store is not: it takes a new incarnation and serves nobody before it has been
    /// compared (HA 1.5), unless it has done so by now. A store that cannot be looked at is not judged.
    ///
    /// # Errors
    /// [`Error::Store`] when it could not be written.
    pub fn yield_to(&self, seen: &SeenMember) -> Result<(), Error> {
        {
            let _writer = self.writer.lock();
            if self.catch_up().is_err() {
                return Ok(());
            }
        }
        let change = self.another_incarnation(true);
        let judged = self.write(|contents| match contents.contradicts(self.serial, seen) {
            true => Ok((change.clone(), Some(contents.seq))),
            false => Ok((Change::default(), None)),
        });
        if let Some(found_at) = judged.map_err(|refusal| Error::Store(refusal.text))? {
            *self.board.contradiction.lock() = Some(Contradiction { seen: seen.clone(), found_at });
        }
        Ok(())
    }

    /// What was found of this member since this was asked last, for the log.
    pub fn take_contradiction(&self) -> Option<Contradiction> {
        self.board.contradiction.lock().take()
    }
}
