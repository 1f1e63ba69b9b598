//! Background work: who is alive, who owes, who must be repaired; who is read is judged in `admission` (HA 4.6).
//!
//! One round: Status to every member whose link is up (it is the probe too: unanswered for `ProbeTimeout`, the link
//! is given up) -> judge -> pay debts -> repair.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use spec::messages::{Answer, Outcome, SeenMember, StatusAnswer};
use spec::meter::News;
use spec::platform::Moment;
use spec::record::MemberRole;
use spec::seam::{MemberId, Standing};

use crate::admission::Seen;
use crate::desk::{Desk, End, status_body};
use crate::error::Error;
use crate::group::Group;
use crate::meaning::Meaning;
use crate::member::{Member, Phase, Told};

/// Between two rounds when all is well, in milliseconds.
const ROUND_MS: u64 = 1_000;
/// Between two rounds while a member waits to be read again, in milliseconds.
const HURRY_MS: u64 = 250;
/// So long a repair works before the background thread sees to everything else, in milliseconds.
const SLICE_MS: u64 = 200;
/// How long a round waits for answers to Status at most, in milliseconds, however long `ProbeTimeout` is.
const ANSWER_MS_MAX: u64 = 1_000;
/// Once one member has answered a caller's look, the others are given so long, in milliseconds.
const COMPANY_MS: u64 = 100;

/// See [`Group::turn`].
pub(crate) struct Turn<'a>(&'a Group);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.tending.store(false, Ordering::Release);
    }
}

impl Group {
    /// One round of background work; returns when to come back. A thread that calls it may come back earlier when a
    /// member's standing changes; `NEVER` once the group is closed. Only one thread works at a time; another returns at once.
    pub fn tend(&self) -> Moment {
        if let Some(_turn) = self.turn().filter(|_| !self.is_closed()) {
            self.look(&mut Desk::new(self), true);
            self.pay_debts(Moment::NEVER);
            self.repair_round(SLICE_MS);
        }
        if self.is_closed() {
            return Moment::NEVER;
        }
        if self.is_under_way() {
            return self.platform.now();
        }
        let waiting = self.view().seats.iter().any(|seat| {
            matches!(
                seat.member.phase(&*self.seam),
                Some(Phase::Fresh | Phase::Recovering | Phase::Unverified)
            )
        });
        // A changed manifest is known within a second (HA 2.6).
        let ms = if waiting { HURRY_MS } else { ROUND_MS };
        self.platform.now().after_ms(self.jitter_ms(ms))
    }

    /// The right to do background work, which one thread has at a time; given back when it is dropped.
    pub(crate) fn turn(&self) -> Option<Turn<'_>> {
        (!self.tending.swap(true, Ordering::AcqRel)).then_some(Turn(self))
    }

    /// Asks every member whose link is up for its standing, now, and judges the answers: what tools call before
    /// `status`. Waits at most one second for answers.
    pub fn refresh(&self) {
        self.look(&mut Desk::new(self), true);
    }

    /// Status to all members whose link is up. In a caller's look (`thorough` is false) nothing is sent when all of
    /// them are read already, and a slow member is not waited for. It ends when the desk's call must.
    pub(crate) fn look(&self, desk: &mut Desk<'_>, thorough: bool) {
        let view = arc_swap::Guard::into_inner(self.view());
        let links: Vec<(Arc<Member>, Moment)> = view
            .seats
            .iter()
            .filter_map(|seat| match self.seam.standing(seat.member.id) {
                Standing::Up { since, .. } => Some((seat.member.clone(), since)),
                Standing::Down { .. } => None,
            })
            .collect();
        self.watch();
        let late = self.platform.now() >= desk.end();
        if late
            || self.is_closed()
            || !thorough && links.iter().all(|(member, _)| member.is_readable(&*self.seam))
        {
            return;
        }
        self.inquire(desk, &links, thorough);
    }

    /// Goes for a manifest that a reply has named and that is newer than the one known (HA 2.6), at a member that has it.
    pub(crate) fn take_newer_manifest(&self, desk: &mut Desk<'_>) {
        if !self.snapshot.has_newer() || self.platform.now() >= desk.end() || !self.snapshot.takes_newer() {
            return;
        }
        let view = self.view().clone();
        let up = view.seats.iter().filter_map(|seat| match self.seam.standing(seat.member.id) {
            Standing::Up { since, .. } => Some((seat.member.clone(), since)),
            Standing::Down { .. } => None,
        });
        if let Some(newest) = up.max_by_key(|(member, _)| member.manifest_epoch()) {
            self.inquire(desk, &[newest], false);
        }
    }

    /// Asks one member for its standing, and waits for the answer as a caller does.
    pub(crate) fn ask_standing(&self, desk: &mut Desk<'_>, member: &Arc<Member>) {
        if let Standing::Up { since, .. } = self.seam.standing(member.id) {
            self.inquire(desk, &[(member.clone(), since)], false);
        }
    }

    /// Tells the meter of links that were lost and of attempts that failed for another reason than before.
    pub(crate) fn watch(&self) {
        let meter = self.settings().meter.clone();
        for seat in &self.view().seats {
            let member = &seat.member;
            let told = match self.seam.standing(member.id) {
                Standing::Up { .. } => Told::Up,
                Standing::Down { reason } => Told::Down(reason),
            };
            match (member.tell(told.clone()), told) {
                (Told::Up, Told::Down(reason)) => meter.news(&News::Lost { member: member.id, reason }),
                (Told::Down(before), Told::Down(reason)) if before != reason => {
                    meter.news(&News::AttemptFailed { member: member.id, reason });
                }
                _ => {}
            }
        }
        self.watch_standby();
    }

    /// Tells, once for each change, that standby members serve because no active one can be read (HA 2.4), or rest again. While
    /// nobody can be read, or nobody but draining members, nothing has changed.
    pub(crate) fn watch_standby(&self) {
        let view = self.view();
        let readable = |role: MemberRole| {
            let of_role = view.seats.iter().filter(move |seat| seat.role == role);
            of_role.map(|seat| &seat.member).filter(|member| member.is_readable(&*self.seam))
        };
        let serves = if readable(MemberRole::Active).next().is_some() {
            false
        } else if self.is_settled() && readable(MemberRole::Standby).next().is_some() {
            true
        } else {
            return;
        };
        if self.standby_serves.load(Ordering::Acquire) == serves
            || self.standby_serves.swap(serves, Ordering::AcqRel) == serves
        {
            return;
        }
        if !serves {
            tracing::info!("an active member serves again, the standby members rest");
            return self.settings().meter.news(&News::ActiveServes);
        }
        let members: Vec<MemberId> = readable(MemberRole::Standby).map(|member| member.id).collect();
        tracing::warn!(?members, "no active member can be used: standby members serve");
        self.settings().meter.news(&News::StandbyServes { members });
    }

    /// Asks members for their standing and judges the answers; in a caller's inquiry a slow one is not waited for.
    fn inquire(&self, desk: &mut Desk<'_>, links: &[(Arc<Member>, Moment)], thorough: bool) {
        // A probe may go on for longer: it stays unanswered until a later round judges it.
        let wait_ms = self.settings().probe_ms.min(ANSWER_MS_MAX);
        let (begun, mark) = (self.platform.now(), self.number());
        let round = self.view().number;
        let mut until = begun.after_ms(wait_ms).min(desk.end());
        let sightings = if thorough { self.sightings.lock().all() } else { Vec::new() };
        let [plain, for_list] = match sightings.is_empty() {
            true => [self.probe.clone(), self.probe_for_list.clone()],
            false => [false, true].map(|mechanisms| status_body(mechanisms, sightings.clone())),
        };
        for (place, (member, since)) in links.iter().enumerate() {
            if let Standing::Up { heard, .. } = self.seam.standing(member.id) {
                member.load.begin_probe(begun, heard);
            }
            let body = if member.has_listed(*since) { &plain } else { &for_list };
            desk.send(member, body, place, 0, until.after_ms(1));
        }
        let mut answered = vec![false; links.len()];
        let mut seen = Vec::new();
        while desk.is_waiting() {
            let Some((place, member, end)) = desk.next(until) else { break };
            answered[place] = true;
            if let End::Reply(_, reply) = end {
                seen.extend(self.status_of(&member, links[place].1, reply.body));
                if !thorough {
                    until = until.min(self.platform.now().after_ms(COMPANY_MS));
                }
            }
        }
        desk.leave();
        if self.is_closed() {
            return;
        }
        let now = self.platform.now();
        for ((member, _), _) in links.iter().zip(&answered).filter(|(_, answered)| !**answered) {
            self.judge_probe(member, now);
        }
        self.judge(&seen, mark, round);
        self.watch_standby();
    }

    fn status_of(
        &self,
        member: &Arc<Member>,
        since: Moment,
        reply: spec::messages::ReplyBody,
    ) -> Option<Seen> {
        if Meaning::of(Outcome(reply.outcome)) == Meaning::Later {
            return None;
        }
        if let Some(error) = Error::of_reply(member.id, &reply) {
            self.refuse(member, since, error.to_string());
            return None;
        }
        let Some(Answer::Status(status)) = reply.answer else {
            self.refuse(member, since, format!("member {} answered Status with something else", member.id));
            return None;
        };
        member.set_report(status.clone());
        self.note_root(member, &status);
        if !status.mechanisms.is_empty() {
            member.listed_on(since);
            self.compare_abilities();
        }
        if (!self.settings().recovery || member.is_given_up()) && member.was_lost(since) {
            let reason = format!(
                "member {} was lost and is not taken back: the attempts of reconnAtt are used up; \
                 `vtl haAdmin recover` takes it back",
                member.id
            );
            self.refuse(member, since, reason);
            return None;
        }
        match self.belongs(&status) {
            Ok(()) => {
                self.note_sightings(member, &status);
                Some(Seen { member: member.clone(), since, status })
            }
            Err(reason) => {
                self.refuse(member, since, reason);
                None
            }
        }
    }

    /// Two digests of one commit show a clone, in one member or in two that were made of one store (HA 1.5).
    fn note_root(&self, member: &Member, status: &StatusAnswer) {
        let position = (status.incarnation, status.seq);
        member.note_root(position, &status.root);
        let view = self.view();
        let twin = view.seats.iter().map(|seat| &seat.member).find(|other| {
            other.id != member.id
                && position.0 != 0
                && other.last_root().is_some_and(|seen| seen.at == position && seen.root != status.root)
        });
        if let Some(twin) = twin {
            member.roll_back(&format!("and member {} are clones of one store", twin.id));
        }
    }

    /// Keeps where a member says that it is, and where it says that others were seen (HA 1.5), for the members to hear. Whether it
    /// is so they can tell themselves.
    fn note_sightings(&self, member: &Member, status: &StatusAnswer) {
        let view = self.view();
        // Nothing of another length can be right, and a request has its bound.
        let is_whole = |seen: &SeenMember| seen.root.len() == 32 && seen.proof.len() == 32;
        let own = Some(status.own_word()).filter(|own| own.serial == member.id.0);
        let of_others = status.seen.iter().filter(|seen| seen.serial != member.id.0).cloned();
        let proved = own.into_iter().chain(of_others).filter(is_whole);
        let mut sightings = self.sightings.lock();
        sightings.keep_members(|serial| view.member(MemberId(serial)).is_some());
        proved
            .filter(|seen| view.member(MemberId(seen.serial)).is_some())
            .for_each(|seen| sightings.note(seen));
    }

    fn refuse(&self, member: &Member, since: Moment, reason: String) {
        if member.phase_on(since) != Phase::Refused {
            tracing::error!(member = %member.id, "{reason}");
        }
        member.set_refusal(reason);
        self.decide(member, since, Phase::Refused);
    }

    /// Whether the partition is of the group that the configuration names and that is known (RULES 3.3).
    fn belongs(&self, status: &StatusAnswer) -> Result<(), String> {
        let serial = status.serial;
        let Some(manifest) = &status.manifest else {
            return Err(format!("partition {serial} carries no manifest: it is not initialised"));
        };
        if self.settings().serial.is_none() {
            return Ok(());
        }
        if let Some(wanted) = self.settings().serial.filter(|wanted| manifest.serial != *wanted) {
            let found = if manifest.serial == 0 {
                "no group".to_owned()
            } else {
                format!("group {}", manifest.serial)
            };
            return Err(format!(
                "the configuration names group {wanted} and partition {serial} belongs to {found}: make the group \
                 with `vtl haAdmin newGroup`, or add the member with `vtl haAdmin addMember`"
            ));
        }
        match &self.view().manifest {
            Some(known) if known.group != manifest.group => {
                Err(format!("partition {serial} belongs to another group of the same serial number"))
            }
            Some(known) if known.generation > manifest.generation => Err(format!(
                "partition {serial} is of an older generation of the group: C_InitToken has ended it"
            )),
            _ => Ok(()),
        }
    }

    /// The attempts of `reconnAtt` to take this lost member back are used up: it is not taken back until
    /// [`Group::recover`].
    pub fn give_up(&self, member: MemberId) {
        if let Some(member) = self.view().member(member) {
            member.give_up();
        }
    }

    /// Takes members back that were lost while recovery is switched off (`reconnAtt = 0`): the next round of background
    /// work, or the next call that finds nobody, judges them like new ones. Those that are in use stay so, and are lost when
    /// they go.
    pub fn recover(&self) {
        for seat in &self.view().seats {
            match seat.member.is_readable(&*self.seam) {
                true => seat.member.take_back(),
                false => seat.member.forget_use(),
            }
        }
    }
}
