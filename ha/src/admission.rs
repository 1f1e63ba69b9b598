//! Admission (HA 4.6): who is read. A member that returns is read once it holds all that its references held.
//!
//! A reference is a member that is read, was verified, and has refused nothing that it owes. The returner holds what a
//! reference held when their roots are equal, which need not be at one moment for all references: objects only move down
//! the lattice (HA 1.2), later writes reach the returner because it is in the write set (HA 2.4), and what it does not
//! take is owed (HA 2.5). A reference that is slow to answer stands by the root of the commit at which it was heard last.
use std::collections::BTreeSet;
use std::sync::Arc;

use spec::messages::StatusAnswer;
use spec::meter::News;
use spec::planted::{self, Bug};
use spec::platform::{Lock, Moment};
use spec::seam::MemberId;

use crate::group::Group;
use crate::member::{Member, Phase, SeenRoot};
use crate::view::age;

/// One member's answer in a round.
pub(crate) struct Seen {
    pub(crate) member: Arc<Member>,
    pub(crate) since: Moment,
    pub(crate) status: StatusAnswer,
}

/// The references whose content a member has held since a link to it came up.
#[derive(Default)]
pub(crate) struct Caught(Lock<CaughtOn>);

#[derive(Default)]
struct CaughtOn {
    /// When the link came up.
    link: u64,
    /// Each reference, its incarnation and the member's own.
    up_with: BTreeSet<(MemberId, u64, u64)>,
}

impl Caught {
    /// The member, of this incarnation, holds what the reference of that incarnation held.
    pub(crate) fn up_with(&self, since: Moment, reference: &Member, theirs: u64, own: u64) {
        let mut caught = self.0.lock();
        if caught.link != since.0 {
            *caught = CaughtOn { link: since.0, ..CaughtOn::default() };
        }
        caught.up_with.insert((reference.id, theirs, own));
    }

    fn is_up_with(&self, since: Moment, reference: &Member, theirs: u64, own: u64) -> bool {
        let caught = self.0.lock();
        caught.link == since.0 && caught.up_with.contains(&(reference.id, theirs, own))
    }

    /// Nothing is known of what the member holds.
    pub(crate) fn forget(&self) {
        self.0.lock().up_with.clear();
    }
}

/// What a returner was found to hold in one round.
struct Found<'a> {
    /// Whether it holds, or has held since its link came up, what each reference held.
    all: bool,
    /// Whether it differs from a reference that answered in this round, and has never been equal to it.
    differs: bool,
    /// The references that hold the same at this moment.
    equal: Vec<&'a Arc<Member>>,
}

impl Group {
    /// Decides who is read; the picture stands in `member`. `mark` is the number of the round: what was owed before it
    /// was acknowledged before the members answered. `round` is the number of the view under which they were asked.
    pub(crate) fn judge(&self, seen: &[Seen], mark: u64, round: u64) {
        // The newest alone: a member that is behind must not put out another one for a moment.
        let manifests = seen.iter().filter_map(|seen| seen.status.manifest.as_ref());
        if let Some(newest) = manifests.max_by_key(|manifest| age(manifest)) {
            self.learn(newest);
        }
        if self.view().seats.iter().any(|seat| seat.member.is_readable(&*self.seam)) {
            self.outage_over();
        }
        let view = self.view();
        let seen = seen.iter().filter(|seen| view.member(seen.member.id).is_some());
        if !self.settings().synchronize || view.seats.len() == 1 {
            for seen in seen {
                // The last member is never put out, and without replication there is nothing to compare with.
                seen.member.compared();
                self.acquit(&seen.member, &[], true, mark);
                let phase = if seen.status.recovering { Phase::Recovering } else { Phase::Admitted };
                self.decide(&seen.member, seen.since, phase);
            }
            return;
        }
        let (recovering, able): (Vec<&Seen>, Vec<&Seen>) = seen.partition(|seen| seen.status.recovering);
        for seen in recovering {
            self.decide(&seen.member, seen.since, Phase::Recovering);
        }
        let level = able.windows(2).all(|pair| pair[0].status.root == pair[1].status.root);
        if level && able.len() == view.seats.len() {
            self.snapshot.all_hold_the_same(round);
        }
        let members = view.seats.iter().map(|seat| &seat.member);
        let references: Vec<&Arc<Member>> = members.filter(|member| self.is_reference(member)).collect();
        if references.is_empty() {
            return self.judge_without_reference(&able, view.seats.len() == able.len(), mark);
        }
        for seen in able.iter().filter(|seen| !self.is_reference(&seen.member)) {
            let found = self.found(seen, &references, &able);
            let level = self.is_level(&seen.member);
            if found.all && level || planted::is(Bug::ReadBeforeRepair) {
                seen.member.compared();
                self.acquit(&seen.member, &found.equal, false, mark);
                self.decide(&seen.member, seen.since, Phase::Admitted);
            } else if found.differs || !level {
                self.decide(&seen.member, seen.since, Phase::Recovering);
            }
        }
    }

    /// Whether a returner must hold what this member holds.
    pub(crate) fn is_reference(&self, member: &Member) -> bool {
        member.phase(&*self.seam) == Some(Phase::Admitted) && !member.has_given_up()
    }

    /// What a returner holds of what the references hold.
    fn found<'a>(&self, returner: &Seen, references: &[&'a Arc<Member>], able: &[&Seen]) -> Found<'a> {
        let Seen { member, since, status } = returner;
        let own = status.incarnation;
        let mut found = Found { all: true, differs: false, equal: Vec::new() };
        for reference in references {
            let answer = able.iter().find(|seen| seen.member.id == reference.id).map(|seen| &seen.status);
            let at = |status: &StatusAnswer| SeenRoot {
                at: (status.incarnation, status.seq),
                root: status.root.clone(),
            };
            let heard_last = || reference.last_root().filter(|seen| seen.at == reference.position());
            let theirs = answer.map(at).or_else(heard_last);
            if let Some(theirs) = theirs.as_ref().filter(|theirs| theirs.root == status.root) {
                member.caught.up_with(*since, reference, theirs.at.0, own);
                found.equal.push(reference);
                continue;
            }
            let incarnation = theirs.map_or(reference.position().0, |theirs| theirs.at.0);
            let caught_up = member.caught.is_up_with(*since, reference, incarnation, own);
            found.all &= caught_up;
            found.differs |= !caught_up && answer.is_some();
        }
        found
    }

    /// With no reference alive members are admitted as they are: verified when several agree, else unverified. One
    /// whose store went back is not until it agrees with another one (HA 1.5), nor one that has come late until it agrees with one
    /// that has not (HA 2.4).
    fn judge_without_reference(&self, able: &[&Seen], whole: bool, mark: u64) {
        let agree = able.windows(2).all(|pair| pair[0].status.root == pair[1].status.root);
        let verified = agree && able.len() > 1;
        let members: Vec<&Arc<Member>> = able.iter().map(|seen| &seen.member).collect();
        let late_may_serve = self.may_late_serve(members.iter().copied());
        let waits_for_others = self.view().seats.iter().any(|seat| !seat.member.is_late());
        for seen in able {
            let is_late = seen.member.is_late();
            let equal = verified && self.is_level(&seen.member) && (!is_late || late_may_serve);
            if equal {
                seen.member.compared();
                self.acquit(&seen.member, &members, whole, mark);
            }
            let phase = match equal {
                true => Phase::Admitted,
                false if seen.member.is_rolled_back() => Phase::Recovering,
                false if is_late && waits_for_others => {
                    if !late_may_serve {
                        self.tell_late(&seen.member, seen.since);
                    }
                    Phase::Recovering
                }
                false => Phase::Unverified,
            };
            self.decide(&seen.member, seen.since, phase);
        }
        if able.len() > 1 {
            self.set_divergent(!agree);
        }
    }

    /// Whether a late member is known to hold what was written before it came once it holds what these hold: one of them has not come
    /// late itself, or there is none any more that has not.
    pub(crate) fn may_late_serve<'a>(&self, mut these: impl Iterator<Item = &'a Arc<Member>>) -> bool {
        these.any(|member| !member.is_late()) || self.view().seats.iter().all(|seat| seat.member.is_late())
    }

    /// Tells, once for each link, why a member that answers is not used though nobody of before can be reached.
    fn tell_late(&self, member: &Member, since: Moment) {
        if member.phase_on(since) != Phase::Recovering {
            let view = self.view();
            let others = view.seats.iter().map(|seat| &seat.member).filter(|other| !other.is_late());
            let others: Vec<String> = others.map(|other| other.id.to_string()).collect();
            tracing::warn!(
                member = %member.id, others = others.join(", "),
                "the member has come to the group after this process had written, and was not compared with one that had been in \
                 it: it is not used until it has been. Bring one of the others back, or remove those that are lost for good \
                 (vtl haAdmin promote, removeMember)"
            );
        }
    }

    /// The member holds what these others hold. Of what it refused it lacks nothing that one of them had acknowledged; or
    /// nothing at all when these are the `whole` group, which cannot have any more what none of them has. What it came to
    /// owe after the mark is not looked at.
    pub(crate) fn acquit(&self, member: &Member, others: &[&Arc<Member>], whole: bool, mark: u64) {
        for debt in member.given_up_debts() {
            let mut holders = others.iter().filter(|other| debt.holders.contains(&other.id));
            if debt.number < mark
                && (whole || holders.any(|other| !debt.ouids.iter().any(|ouid| other.owes(*ouid))))
            {
                member.settle_debt(debt.number);
            }
        }
    }

    /// Whether a member whose store went back holds the newest credentials and manifest: digests do not cover them.
    /// Others need no such proof, for logins look at the epochs themselves.
    fn is_level(&self, member: &Member) -> bool {
        let behind = |other: &Member| {
            member.credential_epoch() < other.credential_epoch()
                || member.manifest_age() < other.manifest_age()
        };
        !member.is_rolled_back() || !self.view().seats.iter().any(|seat| behind(&seat.member))
    }

    /// Puts a member into a phase on the link that came up at this moment, and tells of it.
    pub(crate) fn decide(&self, member: &Member, since: Moment, phase: Phase) {
        let before = member.phase_on(since);
        if before == phase {
            return;
        }
        tracing::info!(member = %member.id, from = ?before, to = ?phase, "the member's standing has changed");
        let was_read = matches!(before, Phase::Admitted | Phase::Unverified);
        member.decide(since, phase);
        let meter = self.settings().meter.clone();
        match phase {
            Phase::Admitted | Phase::Unverified if !was_read => {
                if self.is_settled() {
                    member.load.begin_ramp(self.platform.now());
                }
                member.in_use_on(since);
                meter.news(&News::Admitted { member: member.id });
            }
            Phase::Recovering => meter.news(&News::Recovering { member: member.id }),
            Phase::Refused => {
                meter.news(&News::Lost { member: member.id, reason: member.refusal() });
            }
            Phase::Admitted | Phase::Unverified | Phase::Fresh => {}
        }
    }
}
