//! The verdict of all members about an object that one of them misses (HA 3.1).
use std::sync::Arc;

use spec::messages::Outcome;
use spec::planted::{self, Bug};

use crate::attempts::Attempts;
use crate::desk::{Desk, End};
use crate::error::Error;
use crate::member::Member;
use crate::ready::{Answered, answered};

/// How long members that fail or do not answer are asked about an object that another member misses, in milliseconds
/// (at most `OutageWaitMs`).
const OPEN_MS_MAX: u64 = 2_000;
/// Between two such questions, in milliseconds.
const OPEN_AGAIN_MS: u64 = 200;

/// Why a member has not said whether it holds an object.
enum Silence {
    /// It asks for so many milliseconds of patience.
    Busy(u32),
    /// The request or its reply was lost.
    Lost,
    /// It answered this.
    Failed(Error),
}

impl Attempts<'_> {
    /// A member misses the object or is behind: all the others of the read set are asked in parallel, and only their
    /// agreement is final (HA 3.1). A member that gave no verdict and is still of the read set keeps the question
    /// open: it is put again for a while, and an object is never called gone without it.
    pub(crate) fn ask_others(
        &mut self,
        desk: &mut Desk<'_>,
        first: &Arc<Member>,
        error: Error,
    ) -> Result<Option<Answered>, Error> {
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
        let mut verdict = error;
        let mut open: Vec<(Arc<Member>, Silence)> = Vec::new();
        while desk.is_waiting() {
            let Some((_, member, end)) = desk.next(self.errand.deadline) else {
                self.ended_by_close(desk)?;
                desk.clear();
                return Err(Error::Deadline);
            };
            let (header, reply) = match end {
                End::Reply(header, reply) => (header, reply),
                End::Busy(ms) => {
                    open.push((member, Silence::Busy(ms)));
                    continue;
                }
                End::Unknown => {
                    self.executed += 1;
                    open.push((member, Silence::Lost));
                    continue;
                }
                End::NotSent => {
                    open.push((member, Silence::Lost));
                    continue;
                }
            };
            match (Outcome(reply.outcome), Error::of_reply(member.id, &reply)) {
                (_, None) => {
                    if let Some(object) = self.errand.object {
                        group.suspect(&[object]);
                    }
                    return answered(member.id, header, reply).map(Some);
                }
                (Outcome::DESTROYED, Some(gone)) => return Err(gone),
                (Outcome::UNKNOWN, Some(_)) => {}
                (Outcome::RECOVERING, Some(_)) => member.demote(),
                (Outcome::NO_PARTITION | Outcome::FAILED | Outcome::EXPIRED, Some(error)) => {
                    open.push((member, Silence::Failed(error)));
                }
                (_, Some(other)) => verdict = other,
            }
        }
        open.retain(|(member, _)| member.is_readable(&*group.seam));
        if open.is_empty() { Err(verdict) } else { self.put_again(desk, &open).map(|()| None) }
    }

    /// Members that can be reached have not had their say: waits before they are asked again, or ends the call.
    fn put_again(&mut self, desk: &mut Desk<'_>, open: &[(Arc<Member>, Silence)]) -> Result<(), Error> {
        let now = self.group.platform.now();
        let since = *self.open_since.get_or_insert(now);
        let busy_ms = open.iter().filter_map(|(_, silence)| match silence {
            Silence::Busy(ms) => Some(u64::from(*ms)),
            Silence::Lost | Silence::Failed(_) => None,
        });
        let outage_wait_ms = self.group.settings().outage_wait_ms;
        // A busy member is patiently waited for; one that fails is given less time.
        let (bound_ms, pause_ms) = match busy_ms.min() {
            Some(ms) => (outage_wait_ms, ms),
            None => (OPEN_MS_MAX.min(outage_wait_ms), OPEN_AGAIN_MS),
        };
        if now >= since.after_ms(bound_ms) {
            let (member, silence) = &open[0];
            let why = match silence {
                Silence::Busy(_) => "is busy".to_owned(),
                Silence::Lost => "did not answer".to_owned(),
                Silence::Failed(error) => format!("gave no verdict ({error})"),
            };
            return Err(Error::Peer(format!(
                "a member does not know the object, and member {} that may hold it {why}: repair or remove it",
                member.id
            )));
        }
        desk.pause(self.group.jitter_ms(pause_ms).max(1));
        Ok(())
    }
}
