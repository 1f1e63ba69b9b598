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

/// A lease that this process holds.
pub(crate) struct Held {
    holder: Vec<u8>,
    members: Vec<Arc<Member>>,
    renew_at: Moment,
}

/// When a member began to say that the lease of another repairer has so many milliseconds left.
#[derive(Default)]
pub(crate) struct RefusedLease(Lock<Option<(u32, Moment)>>);

impl RefusedLease {
    /// The lease has so many milliseconds left, says the member; whether it has said just so for as long. A lease that is
    /// renewed has another time left at each look.
    fn is_for_ever(&self, left_ms: u32, now: Moment) -> bool {
        let mut said = self.0.lock();
        let since = said.filter(|(left, _)| *left == left_ms).map_or(now, |(_, since)| since);
        *said = Some((left_ms, since));
        now >= since.after_ms(u64::from(left_ms))
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
                Ok(None) => held.members.push(member),
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
