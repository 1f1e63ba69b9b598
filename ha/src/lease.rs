//! The repair lease (HA 4.6): one repairer at a time. It is asked of the members in ascending order, so that of two
//! repairers that begin together one gets it at the first member that both reach.
//!
//! ```text
//! free --granted by every participant--> held --renewed at half its life--> held --done, dropped--> given back
//!   ^------refused by one: given back, the round is left to the other repairer
//! held --member cannot be reached to give it back--> runs out by itself, or is taken up by the next repair of this process
//! ```
//! The lease spares work and is no safety rule: joins do no harm whoever makes them (HA 1.2). A member that cannot say is
//! taken to agree, and so is one whose clock stands still: there no lease ever runs out.
use std::sync::Arc;

use spec::messages::{Answer, Call, Lease};
use spec::platform::{Lock, Moment};

use crate::error::Error;
use crate::group::Group;
use crate::member::Member;

/// The life of a lease in milliseconds.
const LEASE_MS: u32 = 15_000;

/// Who waits for a lease looks at it more often than this, in milliseconds.
const LOOKS_MS: u64 = 5_000;

/// A lease that this process holds.
pub(crate) struct Held {
    holder: Vec<u8>,
    members: Vec<Arc<Member>>,
    renew_at: Moment,
}

/// What a member says, look after look, of the lease of another repairer.
#[derive(Default)]
pub(crate) struct RefusedLease(Lock<Option<Said>>);

/// The lease has so many milliseconds left: said since when, and when last.
#[derive(Clone, Copy)]
struct Said {
    left_ms: u32,
    since: Moment,
    last: Moment,
}

impl RefusedLease {
    /// The lease has so many milliseconds left, says the member; whether it has said just so for as long. A lease that is
    /// renewed has another time left at each look.
    fn is_for_ever(&self, left_ms: u32, now: Moment) -> bool {
        let mut said = self.0.lock();
        let same = said.filter(|said| said.left_ms == left_ms && now < said.last.after_ms(LOOKS_MS));
        let since = same.map_or(now, |said| said.since);
        *said = Some(Said { left_ms, since, last: now });
        now >= since.after_ms(u64::from(left_ms))
    }

    /// The member has granted the lease.
    fn forget(&self) {
        *self.0.lock() = None;
    }
}

/// What became of asking for a lease.
pub(crate) enum Asked {
    /// This process repairs.
    Granted(Held),
    /// Another repairer is at work, for so many milliseconds at most unless it goes on.
    Taken(u32),
}

impl Group {
    /// Asks for the right to repair these members.
    pub(crate) fn take_lease(&self, mut members: Vec<Arc<Member>>, ticket: &[u8]) -> Result<Asked, Error> {
        members.sort_unstable_by_key(|member| member.id);
        let now = self.platform.now();
        // One that could not be given back is held still: nobody has to wait for its end.
        let holder = self.unreturned.lock().take().unwrap_or_else(|| self.random_tag());
        let mut held = Held { holder, members: Vec::new(), renew_at: half_life(now) };
        for member in members {
            match self.ask_lease(&member, &held.holder, LEASE_MS, ticket) {
                Ok(None) => {
                    member.refused_lease.forget();
                    held.members.push(member);
                }
                Ok(Some(left_ms)) if member.refused_lease.is_for_ever(left_ms, self.platform.now()) => {
                    tracing::warn!(
                        member = %member.id, left_ms,
                        "the repair lease of another process does not run out at this member, whose clock stands still: it is \
                         not waited for"
                    );
                }
                Ok(Some(left_ms)) => {
                    self.give_back(held, ticket);
                    return Ok(Asked::Taken(left_ms));
                }
                Err(error) => {
                    self.give_back(held, ticket);
                    return Err(error);
                }
            }
        }
        Ok(Asked::Granted(held))
    }

    /// Renews the lease when half its life is over.
    ///
    /// # Errors
    /// `Peer` when another repairer has it.
    pub(crate) fn renew_lease(&self, held: &mut Held, ticket: &[u8]) -> Result<(), Error> {
        let now = self.platform.now();
        if now < held.renew_at {
            return Ok(());
        }
        for member in &held.members {
            if let Some(left_ms) = self.ask_lease(member, &held.holder, LEASE_MS, ticket)? {
                return Err(Error::Peer(format!("another repairer holds the lease for {left_ms} ms")));
            }
        }
        held.renew_at = half_life(now);
        Ok(())
    }

    /// Gives the lease back; a member that does not hear of it lets it run out.
    pub(crate) fn give_back(&self, held: Held, ticket: &[u8]) {
        for member in held.members.iter().filter(|member| member.is_writable(&*self.seam)) {
            if let Err(error) = self.ask_lease(member, &held.holder, 0, ticket) {
                tracing::debug!(member = %member.id, "the repair lease runs out by itself: {error}");
                *self.unreturned.lock() = Some(held.holder.clone());
            }
        }
    }

    /// Asks one member; `Some(left_ms)` when another repairer holds the lease there.
    fn ask_lease(
        &self,
        member: &Arc<Member>,
        holder: &[u8],
        ms: u32,
        ticket: &[u8],
    ) -> Result<Option<u32>, Error> {
        let lease = Lease { holder: holder.to_vec(), ms };
        match self.step(member, Call::Lease(lease), ticket) {
            Ok(Answer::Lease(answer)) if answer.granted || ms == 0 => Ok(None),
            Ok(Answer::Lease(answer)) => Ok(Some(answer.left_ms)),
            // An older release does not know the call.
            Ok(_) | Err(Error::Ourselves(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn half_life(now: Moment) -> Moment {
    now.after_ms(u64::from(LEASE_MS / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_looks_all_the_time_and_hears_the_same_stops_to_wait() {
        let at = |seconds: u64| Moment(0).after_ms(seconds * 1_000);
        let refused = RefusedLease::default();
        assert!((0..15).all(|second| !refused.is_for_ever(15_000, at(second))));
        assert!(refused.is_for_ever(15_000, at(15)));
        // Another time left: its clock goes.
        assert!(!refused.is_for_ever(14_000, at(16)) && !refused.is_for_ever(15_000, at(17)));
        // What was said long ago says nothing of the lease of today.
        assert!(!refused.is_for_ever(15_000, at(90)) && !refused.is_for_ever(15_000, at(91)));
        let again = RefusedLease::default();
        assert!((0..15).all(|second| !again.is_for_ever(15_000, at(second))));
        again.forget();
        assert!(!again.is_for_ever(15_000, at(15)));
    }
}
