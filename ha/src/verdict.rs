//! The verdict of all members about an object that one of them misses (HA 3.1).
//!
//! ```text
//! Unknown of one -> all others of the read set are asked -- OK, Destroyed --> that is it
//!                     |-- one gave no verdict ----------------> asked again for a while, then an error
//!                     |-- enough of them do not know it ------> gone
//!                     |-- too few, others are out of reach ---> asked again as members come back, up to OutageWaitMs
//!                     '-- all in reach are behind ------------> asked again for a while, then the caller settles for less, or an error
//! ```
//! Enough are all members of the manifest, or so many verified ones that they cannot all have missed an object that was
//! acknowledged; two verified ones always do, so that a dead member holds nobody up. A member that was admitted as it is
//! (HA 4.6), or that owes this very object (HA 2.5), counts for nothing.
use std::sync::Arc;
use std::time::Duration;

use spec::calls::Class;
use spec::messages::{Outcome, ReplyHeader};
use spec::planted::{self, Bug};

use crate::attempts::Attempts;
use crate::desk::{Desk, End};
use crate::error::Error;
use crate::group::Group;
use crate::meaning::Meaning;
use crate::member::{Member, Phase};
use crate::ready::Given;
use crate::reply::Reply;

/// How long members that fail or do not answer are asked about an object that another member misses, in milliseconds
/// (at most `OutageWaitMs`).
pub(crate) const OPEN_MS_MAX: u64 = 2_000;
/// Between two such questions, in milliseconds.
pub(crate) const OPEN_AGAIN_MS: u64 = 200;
/// So many verified members that agree always decide.
const VERIFIED_MAX: usize = 2;

/// Why a member has not said whether it holds an object.
enum Silence {
    /// It asks for so many milliseconds of patience.
    Busy(u32),
    /// The request or its reply was lost.
    Lost,
    /// It answered this.
    Failed(Error),
    /// It cannot be asked, and those that can do not suffice.
    OutOfReach,
}

/// What members have said about an object that one of them misses.
struct Poll {
    /// What the call ends with when nobody knows better.
    verdict: Error,
    /// What a member that holds the object has decided by the rules: nothing but an answer or a tombstone goes before it.
    decided: Option<Error>,
    /// Members that do not know the object.
    without: Vec<Arc<Member>>,
    /// Members that have not had their say.
    open: Vec<(Arc<Member>, Silence)>,
}

impl Attempts<'_> {
    /// A member misses the object or is behind: all the others of the read set are asked in parallel, and only their
    /// agreement is final (HA 3.1). A member that gave no verdict and is still of the read set keeps the question
    /// open, and so do members out of reach when those that answered do not suffice: it is put again for a while, and
    /// an object is never called gone without them.
    pub(crate) fn ask_others(
        &mut self,
        desk: &mut Desk<'_>,
        first: &Arc<Member>,
        error: Error,
    ) -> Result<Option<Given>, Error> {
        if planted::is(Bug::UnknownOfOne) {
            return Err(error);
        }
        let group = self.group;
        let others: Vec<Arc<Member>> = group
            .view()
            .seats
            .iter()
            .map(|seat| seat.member.clone())
            .filter(|member| member.id != first.id && member.is_readable(&*group.seam))
            .collect();
        for (place, member) in others.iter().enumerate() {
            desk.send(member, &self.body, place, self.executed, self.errand.deadline);
        }
        let mut poll = Poll { verdict: error, decided: None, without: Vec::new(), open: Vec::new() };
        if matches!(poll.verdict, Error::Gone(_)) && !self.owes_it(first) {
            poll.without.push(first.clone());
        }
        while desk.is_waiting() {
            let Some((_, member, end)) = desk.next(self.errand.deadline) else {
                self.ended_by_close(desk)?;
                self.executed += desk.flights();
                desk.clear();
                return Err(self.of_doubtful_end(Error::Deadline));
            };
            match end {
                End::Reply(header, reply) => {
                    if let Some(answered) = self.polled(&mut poll, member, header, reply)? {
                        return Ok(Some(answered));
                    }
                }
                End::Busy(ms) => poll.open.push((member, Silence::Busy(ms))),
                End::Unknown => {
                    self.executed += 1;
                    poll.open.push((member, Silence::Lost));
                }
                End::NotSent => poll.open.push((member, Silence::Lost)),
            }
        }
        let Poll { verdict, decided, without, mut open } = poll;
        if let Some(decided) = decided {
            return Err(decided);
        }
        open.retain(|(member, _)| member.is_readable(&*group.seam));
        let is_behind =
            |(_, silence): &(Arc<Member>, Silence)| matches!(silence, Silence::Failed(Error::Behind));
        if open.iter().all(is_behind) && (!open.is_empty() || matches!(verdict, Error::Behind)) {
            return self.all_are_behind(desk, first);
        }
        if open.is_empty() && matches!(verdict, Error::Gone(_)) {
            let missed = group.who_may_know(&without);
            open.extend(missed.into_iter().map(|member| (member, Silence::OutOfReach)));
        }
        if open.is_empty() { Err(verdict) } else { self.put_again(desk, &open).map(|()| None) }
    }

    /// Nobody in reach has the state that was seen: asked again for a while, then the caller settles for less, or hears who is
    /// waited for.
    fn all_are_behind(&mut self, desk: &mut Desk<'_>, first: &Member) -> Result<Option<Given>, Error> {
        let group = self.group;
        group.suspect(self.errand.object.as_slice());
        let view = group.view();
        let seats = view.seats.iter().map(|seat| &seat.member);
        let away: Vec<String> = seats
            .filter(|member| !member.is_readable(&*group.seam))
            .map(|member| member.id.to_string())
            .collect();
        let settles = self.may_settle_for_less(first);
        let outage_wait_ms = group.settings().outage_wait_ms;
        let waits_for_them = !settles && !away.is_empty();
        let bound_ms = if waits_for_them { outage_wait_ms } else { OPEN_MS_MAX.min(outage_wait_ms) };
        if self.wait_for(desk, bound_ms, OPEN_AGAIN_MS) {
            return Ok(None);
        }
        if settles {
            return Err(self.of_doubtful_end(Error::OnlyOlder));
        }
        let away = if away.is_empty() { "none".to_owned() } else { away.join(", ") };
        Err(self.of_doubtful_end(Error::Undecided(format!(
            "wanted the state of an object that this process has seen, found older ones at the members that can be read (not \
             read now: {away}): bring back the member that has it, or have the members compared (vtl haAdmin synchronize)"
        ))))
    }

    /// Whether the caller may ask for an older state when nobody in reach has the one that it has seen: a change that was not
    /// acknowledged, or whose holders are out of reach, must not end the use of a key (HA 3.4). A use tells nothing of what was
    /// seen; everything else settles for less only where one member is left, which is never put out (HA 4.6).
    fn may_settle_for_less(&self, first: &Member) -> bool {
        let group = self.group;
        let is_up = |member: &Member| !matches!(member.phase(&*group.seam), None | Some(Phase::Refused));
        // A plan is a read that names a mechanism.
        let is_plan = self.errand.class == Class::Read && self.errand.mechanism.is_some();
        self.errand.class == Class::Use
            || is_plan
            || !group.view().seats.iter().any(|seat| seat.member.id != first.id && is_up(&seat.member))
    }

    /// Whether the member owes the object that the call is about: then it has no say about it (HA 2.5).
    fn owes_it(&self, member: &Member) -> bool {
        self.errand.object.is_some_and(|object| member.owes(object))
    }

    /// One member's word: an answer or a tombstone ends the poll.
    fn polled(
        &self,
        poll: &mut Poll,
        member: Arc<Member>,
        header: ReplyHeader,
        reply: Box<Reply>,
    ) -> Result<Option<Given>, Error> {
        let Some(error) = Error::of_reply(member.id, &reply) else {
            if let Some(object) = self.errand.object {
                self.group.suspect(&[object]);
            }
            return Ok(Some(Given { member: member.id, header, reply }));
        };
        match Meaning::of(Outcome(reply.outcome)) {
            Meaning::Destroyed => return Err(error),
            // The refusals of a store that went back are not believed (HA 1.5).
            _ if member.is_rolled_back() => poll.open.push((member, Silence::Failed(error))),
            Meaning::Missing if self.owes_it(&member) => {}
            Meaning::Missing => poll.without.push(member),
            Meaning::Recovering => member.demote(),
            Meaning::Behind | Meaning::Later | Meaning::Failed | Meaning::OtherGroup => {
                poll.open.push((member, Silence::Failed(error)));
            }
            Meaning::Done | Meaning::Decided => poll.decided = poll.decided.take().or(Some(error)),
        }
        Ok(None)
    }

    /// A write that an earlier send may have carried out has no known outcome, whatever ends it (HA 2.2).
    pub(crate) fn of_doubtful_end(&self, error: Error) -> Error {
        match self.errand.class {
            Class::Store | Class::Change | Class::Destroy if self.executed > 0 => {
                Error::OutcomeUnknown(error.to_string())
            }
            _ => error,
        }
    }

    /// Members have not had their say: waits before they are asked again, or ends the call.
    fn put_again(&mut self, desk: &mut Desk<'_>, open: &[(Arc<Member>, Silence)]) -> Result<(), Error> {
        let group = self.group;
        let busy_ms = open.iter().filter_map(|(_, silence)| match silence {
            Silence::Busy(ms) => Some(u64::from(*ms)),
            Silence::Lost | Silence::Failed(_) | Silence::OutOfReach => None,
        });
        let outage_wait_ms = group.settings().outage_wait_ms;
        let out_of_reach = open.iter().any(|(_, silence)| matches!(silence, Silence::OutOfReach));
        // A busy member and one that may come back are patiently waited for; one that fails is given less time.
        let (bound_ms, pause_ms) = match busy_ms.min() {
            Some(ms) => (outage_wait_ms, ms),
            None if out_of_reach => (outage_wait_ms, OPEN_AGAIN_MS),
            None => (OPEN_MS_MAX.min(outage_wait_ms), OPEN_AGAIN_MS),
        };
        if !self.wait_for(desk, bound_ms, pause_ms) {
            let (member, silence) = &open[0];
            let what = match silence {
                Silence::Busy(_) => "is busy".to_owned(),
                Silence::Lost => "did not answer".to_owned(),
                Silence::Failed(error) => format!("gave no verdict ({error})"),
                Silence::OutOfReach => {
                    let missed: Vec<Arc<Member>> = open.iter().map(|(member, _)| member.clone()).collect();
                    let now = group.platform.now();
                    let undecided = group.undecided(&missed, now.since(self.open_since.unwrap_or(now)));
                    return Err(self.of_doubtful_end(undecided));
                }
            };
            return Err(Error::Peer(format!(
                "a member does not know the object, and member {} that may hold it {what}: repair or remove it",
                member.id
            )));
        }
        Ok(())
    }

    /// Waits for so long before members are asked again, about `pause_ms`, unless they have been asked for `bound_ms` or the
    /// deadline is near: then not at all.
    fn wait_for(&mut self, desk: &mut Desk<'_>, bound_ms: u64, pause_ms: u64) -> bool {
        let group = self.group;
        let now = group.platform.now();
        let since = *self.open_since.get_or_insert(now);
        let pause_ms = group.jitter_ms(pause_ms).max(1);
        if now >= since.after_ms(bound_ms) || now.after_ms(pause_ms) >= self.errand.deadline {
            return false;
        }
        desk.pause(pause_ms);
        group.look(desk, false);
        group.take_newer_manifest(desk);
        true
    }
}

impl Group {
    /// The members that must still be asked before an object is called gone when these do not know it (HA 3.1, 4.6): none
    /// when all members of the manifest are among these, or enough verified ones. Without replication an object lives on one
    /// member, which may be any of them (HA 2.9).
    pub(crate) fn who_may_know(&self, without: &[Arc<Member>]) -> Vec<Arc<Member>> {
        let view = self.view();
        let members = view.seats.iter().map(|seat| &seat.member);
        let missed: Vec<Arc<Member>> =
            members.filter(|member| !without.iter().any(|one| one.id == member.id)).cloned().collect();
        let verified = |member: &&Arc<Member>| {
            member.phase(&*self.seam) == Some(Phase::Admitted) && view.member(member.id).is_some()
        };
        // More than the members that an acknowledged write may have left out (HA 2.2).
        let left_out = view.left_out();
        let enough = self.settings().synchronize
            && without.iter().filter(verified).count() >= VERIFIED_MAX.min(left_out + 1);
        if enough { Vec::new() } else { missed }
    }

    /// The answer when the question whether an object is there could not be decided for so long.
    pub(crate) fn undecided(&self, missed: &[Arc<Member>], waited: Duration) -> Error {
        let ids: Vec<String> = missed.iter().map(|member| member.id.to_string()).collect();
        let text = format!(
            "it cannot be decided whether the object exists: member{} {} may hold it and could not be asked for {} ms, \
             and those that do not know it are too few or were not compared with another one since they came back: \
             bring a member back, or remove the one that is lost for good (vtl haAdmin removeMember)",
            if ids.len() == 1 { "" } else { "s" },
            ids.join(", "),
            waited.as_millis()
        );
        tracing::error!("{text}");
        Error::Undecided(text)
    }
}
