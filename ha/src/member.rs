//! What this process knows of one member.
//!
//! ```text
//!                    Status answered, no verified member to compare with
//!          .---------------------------------------------------------> Unverified --- roots agree,
//!          |                                                           (read set)     or repaired --.
//! Fresh ---+---- root equal to each verified member's, if not at one moment (`admission`) ---------> Admitted
//! (not     |                                                                                     (read set)
//!  read)   '---- one differs ------> Recovering ------ repaired (HA 4.6) ------------------------------^
//!                                    (write set only; Unverified when no verified member lives)
//! any of them ---- its link is another one than the judged one ----> Fresh
//! any of them ---- of another group ----> Refused
//! any of them ---- its store went back (HA 1.5) ----> Recovering until compared, whatever its link
//! come to the group after this process had begun to write ----> the same, while a member of before is one (HA 2.4)
//! ```
//!
//! A phase holds for one link only: `link` keeps the moment at which that link came up, and a member whose link is
//! younger counts as Fresh until it is judged again. Every member whose link is up is in the write set (HA 2.4).
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use spec::messages::{ReplyHeader, StatusAnswer};
use spec::platform::{Lock, Moment};
use spec::record::MemberRole;
use spec::seam::{MemberId, Seam, Standing};

use crate::admission::Caught;
use crate::debt::Debts;
use crate::known::{Known, KnownCell, Shown};
use crate::lease::RefusedLease;
use crate::load::Load;
use crate::view::age;

/// A member at which a repair failed is left out of the next ones for so long at first, in milliseconds.
const REPAIR_REST_MS: u64 = 250;
/// The same at most.
const REPAIR_REST_MS_MAX: u64 = 60_000;

/// What was decided about a member (see the head of this file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not judged yet.
    Fresh,
    /// Takes writes; is not read.
    Recovering,
    /// Read, but not known to hold what the others hold.
    Unverified,
    /// Read.
    Admitted,
    /// Of another group: neither read nor written.
    Refused,
}

impl Phase {
    fn from_byte(byte: u8) -> Phase {
        match byte {
            1 => Phase::Recovering,
            2 => Phase::Unverified,
            3 => Phase::Admitted,
            4 => Phase::Refused,
            _ => Phase::Fresh,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Phase::Fresh => 0,
            Phase::Recovering => 1,
            Phase::Unverified => 2,
            Phase::Admitted => 3,
            Phase::Refused => 4,
        }
    }
}

/// One member as a place in the group: the manifest's words about it.
#[derive(Clone)]
pub(crate) struct Seat {
    /// The member.
    pub(crate) member: Arc<Member>,
    /// Its role.
    pub(crate) role: MemberRole,
    /// Its share of the load.
    pub(crate) weight: u32,
    /// Its place in this host's order; members that the configuration does not name come last.
    pub(crate) preference: usize,
}

/// The digest last seen, at this incarnation and seq (HA 1.5).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SeenRoot {
    pub(crate) at: (u64, u64),
    pub(crate) root: Vec<u8>,
}

/// What the operator was last told of the member's link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing yet.
    #[default]
    Nothing,
    /// That it is up.
    Up,
    /// That it is down, for this reason.
    Down(String),
}

/// One member.
pub(crate) struct Member {
    /// Its partition's serial number.
    pub(crate) id: MemberId,
    /// How busy, fast and trustworthy in time it is.
    pub(crate) load: Load,
    lacks: ArcSwap<Vec<u64>>,
    lacks_any: AtomicBool,
    listed_link: AtomicU64,
    refused: Lock<BTreeSet<u64>>,
    told: Lock<Told>,
    phase: AtomicU8,
    link: AtomicU64,
    known: KnownCell,
    root: Lock<Option<SeenRoot>>,
    rolled_back: AtomicBool,
    came_late: AtomicBool,
    report: Lock<Option<StatusAnswer>>,
    refusal: Lock<String>,
    /// With which references it has caught up on its link (HA 4.6).
    pub(crate) caught: Caught,
    /// What it owes this process.
    pub(crate) debts: Arc<Debts>,
    /// What it says of the lease of another repairer (HA 4.6).
    pub(crate) refused_lease: RefusedLease,
    /// Its attempts to return are used up (`reconnAtt`).
    given_up: AtomicBool,
    /// When the link came up on which it was first read since `forget_use`; the greatest number for none.
    used_link: AtomicU64,
    /// Repairs that failed at it one after the other on this link, and until when it is left out of the next one.
    repair_failures: AtomicU32,
    repair_after: AtomicU64,
}

impl Member {
    /// A member of which nothing is known.
    pub(crate) fn new(id: MemberId) -> Arc<Self> {
        Self::with_debts(id, Arc::default())
    }

    /// A member that has come to the group again: of its store nothing is known, and what it owed it owes.
    pub(crate) fn with_debts(id: MemberId, debts: Arc<Debts>) -> Arc<Self> {
        Arc::new(Self {
            id,
            load: Load::default(),
            lacks: ArcSwap::from_pointee(Vec::new()),
            lacks_any: AtomicBool::new(false),
            listed_link: AtomicU64::new(u64::MAX),
            refused: Lock::new(BTreeSet::new()),
            told: Lock::new(Told::Nothing),
            phase: AtomicU8::new(Phase::Fresh.byte()),
            link: AtomicU64::new(u64::MAX),
            known: KnownCell::default(),
            root: Lock::new(None),
            rolled_back: AtomicBool::new(false),
            came_late: AtomicBool::new(false),
            report: Lock::new(None),
            refusal: Lock::new(String::new()),
            caught: Caught::default(),
            debts,
            refused_lease: RefusedLease::default(),
            given_up: AtomicBool::new(false),
            used_link: AtomicU64::new(u64::MAX),
            repair_failures: AtomicU32::new(0),
            repair_after: AtomicU64::new(0),
        })
    }

    /// The phase on the link that is up; `None` when none is.
    pub(crate) fn phase(&self, seam: &dyn Seam) -> Option<Phase> {
        match seam.standing(self.id) {
            Standing::Down { .. } => None,
            Standing::Up { since, .. } => Some(self.phase_on(since)),
        }
    }

    /// The phase on the link that came up at this moment.
    pub(crate) fn phase_on(&self, since: Moment) -> Phase {
        // The writer sets Fresh before it moves `link`; so a phase read after a matching link is of that link.
        if self.link.load(Ordering::Acquire) == since.0 {
            Phase::from_byte(self.phase.load(Ordering::Acquire))
        } else {
            Phase::Fresh
        }
    }

    /// Whether the member is in the read set.
    pub(crate) fn is_readable(&self, seam: &dyn Seam) -> bool {
        match self.phase(seam) {
            Some(Phase::Admitted | Phase::Unverified) => true,
            Some(Phase::Fresh | Phase::Recovering | Phase::Refused) | None => false,
        }
    }

    /// Whether the member is in the write set (HA 2.4).
    pub(crate) fn is_writable(&self, seam: &dyn Seam) -> bool {
        match self.phase(seam) {
            Some(Phase::Admitted | Phase::Unverified | Phase::Fresh | Phase::Recovering) => true,
            Some(Phase::Refused) | None => false,
        }
    }

    /// Decides the phase on the link that came up at this moment.
    pub(crate) fn decide(&self, since: Moment, phase: Phase) {
        if self.link.load(Ordering::Acquire) != since.0 {
            self.phase.store(Phase::Fresh.byte(), Ordering::Release);
            self.load.new_link();
            self.repair_done();
            self.link.store(since.0, Ordering::Release);
        }
        self.phase.store(phase.byte(), Ordering::Release);
    }

    /// The member is read from now on, on the link that came up at this moment.
    pub(crate) fn in_use_on(&self, since: Moment) {
        self.used_link.store(since.0, Ordering::Release);
    }

    /// Whether the member was in use on another link than this one: it was lost in between.
    pub(crate) fn was_lost(&self, since: Moment) -> bool {
        ![u64::MAX, since.0].contains(&self.used_link.load(Ordering::Acquire))
    }

    /// Once it has been lost the member is not taken back before `forget_use`.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// Whether `give_up` was called.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// A repair failed at this member: it is left out of the next ones for a time that doubles with each failure.
    pub(crate) fn repair_failed(&self, now: Moment) {
        let failures = self.repair_failures.fetch_add(1, Ordering::AcqRel).min(16);
        let ms = (REPAIR_REST_MS << failures).min(REPAIR_REST_MS_MAX);
        self.repair_after.fetch_max(now.after_ms(ms).0, Ordering::AcqRel);
    }

    /// The member has taken part in a whole repair, or is another one than the one that failed.
    pub(crate) fn repair_done(&self) {
        self.repair_failures.store(0, Ordering::Release);
        self.repair_after.store(0, Ordering::Release);
    }

    /// Whether the member is left out of repairs (see `repair_failed`).
    pub(crate) fn rests_from_repair(&self, now: Moment) -> bool {
        now.0 < self.repair_after.load(Ordering::Acquire)
    }

    /// The member's attempts to return are not used up.
    pub(crate) fn take_back(&self) {
        self.given_up.store(false, Ordering::Release);
    }

    /// The member counts as never used.
    pub(crate) fn forget_use(&self) {
        self.take_back();
        self.used_link.store(u64::MAX, Ordering::Release);
    }

    /// Takes the member out of the read set until it has been repaired.
    pub(crate) fn demote(&self) {
        self.caught.forget();
        self.phase.store(Phase::Recovering.byte(), Ordering::Release);
    }

    /// Why the member is refused or fails, for the operator.
    pub(crate) fn set_refusal(&self, reason: String) {
        *self.refusal.lock() = reason;
    }

    /// The sentence of `set_refusal`.
    pub(crate) fn refusal(&self) -> String {
        self.refusal.lock().clone()
    }

    /// Keeps what the operator is told of the link; what he was told before.
    pub(crate) fn tell(&self, told: Told) -> Told {
        std::mem::replace(&mut *self.told.lock(), told)
    }

    /// Keeps what every reply says about the member (see [`KnownCell::note`]). A store that was rolled back is not read
    /// until it has been compared (HA 1.5).
    pub(crate) fn note(
        &self,
        header: &ReplyHeader,
        link: Option<Moment>,
        floor: (u64, u64),
        acknowledges: bool,
    ) {
        let shown = self.known.note(header, link, floor, acknowledges);
        if header.incarnation != 0 {
            self.load.set_window(header.window);
        }
        match shown {
            Shown::Usual => {}
            // A store that knows of its restore says `recovering` itself.
            Shown::Other => self.rolled_back.store(false, Ordering::Release),
            Shown::WentBack(before, now) => self.roll_back(&format!(
                "went back from commit {before} to {now}: its store was replaced by an older image"
            )),
        }
    }

    /// Takes note of the digest that the store has at one commit; two digests of one commit show a clone (HA 1.5).
    pub(crate) fn note_root(&self, position: (u64, u64), root: &[u8]) {
        if position.0 == 0 {
            return;
        }
        let mut seen = self.root.lock();
        let cloned = seen.as_ref().is_some_and(|seen| seen.at == position && seen.root != root);
        *seen = Some(SeenRoot { at: position, root: root.to_vec() });
        drop(seen);
        if cloned {
            self.roll_back(&format!(
                "has two different contents at commit {}: its store was cloned and both copies are in use",
                position.1
            ));
        }
    }

    /// The digest last seen.
    pub(crate) fn last_root(&self) -> Option<SeenRoot> {
        self.root.lock().clone()
    }

    /// The store is not the one that it says it is (HA 1.5).
    pub(crate) fn roll_back(&self, what: &str) {
        self.demote();
        if !self.rolled_back.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                member = %self.id,
                "the member {what}. It serves no logins and no uses until it has been compared with another member: \
                 let a process with the Crypto Officer logged in run, which repairs it, or make its partition anew \
                 and add it again (vtl haAdmin addMember)"
            );
        }
    }

    /// Whether the member's store went back and has not been compared with another one since (HA 1.5).
    pub(crate) fn is_rolled_back(&self) -> bool {
        self.rolled_back.load(Ordering::Acquire)
    }

    /// The member has come to the group after this process had begun to write, or nothing of that is there any more: a late one
    /// lacks what was written before and may hold what was destroyed, and of that it owes this process nothing.
    pub(crate) fn set_late(&self, late: bool) {
        self.came_late.store(late, Ordering::Release);
    }

    /// Whether the member has come late and was not compared with one that had not.
    pub(crate) fn is_late(&self) -> bool {
        self.came_late.load(Ordering::Acquire)
    }

    /// The member has been compared with another one.
    pub(crate) fn compared(&self) {
        self.rolled_back.store(false, Ordering::Release);
        self.set_late(false);
    }

    /// What is known of its store.
    pub(crate) fn known(&self) -> Known {
        self.known.get()
    }

    /// The incarnation and seq last heard (HA 1.5).
    pub(crate) fn position(&self) -> (u64, u64) {
        let known = self.known.get();
        (known.incarnation, known.seq)
    }

    /// The version of its credentials last heard.
    pub(crate) fn credential_epoch(&self) -> u64 {
        self.known.get().credential_epoch
    }

    /// The version of its manifest last heard.
    pub(crate) fn manifest_epoch(&self) -> u64 {
        self.known.get().manifest_epoch
    }

    /// How new its manifest is (see [`age`]); without a tag while replies have named a newer epoch than the last Status.
    pub(crate) fn manifest_age(&self) -> (u64, u64, Vec<u8>) {
        let epoch = self.manifest_epoch();
        let (generation, told, tag) = self
            .report
            .lock()
            .as_ref()
            .and_then(|report| report.manifest.as_ref().map(age))
            .unwrap_or_default();
        if told < epoch { (generation, epoch, Vec::new()) } else { (generation, told, tag) }
    }

    /// Keeps an answer to Status; one without the list of mechanisms keeps the list of the one before.
    pub(crate) fn set_report(&self, mut report: StatusAnswer) {
        let mut kept = self.report.lock();
        if let Some(before) = kept.take().filter(|_| report.mechanisms.is_empty()) {
            report.mechanisms = before.mechanisms;
        }
        *kept = Some(report);
    }

    /// The mechanisms that its last list names, ascending; none before it has given one.
    pub(crate) fn offers(&self) -> Option<BTreeSet<u64>> {
        let report = self.report.lock();
        let facts = &report.as_ref()?.mechanisms;
        (!facts.is_empty()).then(|| facts.iter().map(|fact| fact.number).collect())
    }

    /// Whether the list of mechanisms has been given on the link that came up at this moment.
    pub(crate) fn has_listed(&self, since: Moment) -> bool {
        self.listed_link.load(Ordering::Acquire) == since.0
    }

    /// The list was given on the link that came up at this moment: what was learned from refusals is forgotten.
    pub(crate) fn listed_on(&self, since: Moment) {
        self.listed_link.store(since.0, Ordering::Release);
        self.refused.lock().clear();
    }

    /// The member has refused a mechanism that another one carried out.
    pub(crate) fn has_refused(&self, mechanism: u64) {
        self.refused.lock().insert(mechanism);
    }

    /// The mechanisms of `has_refused`.
    pub(crate) fn refused_mechanisms(&self) -> BTreeSet<u64> {
        self.refused.lock().clone()
    }

    /// The last answer to Status.
    pub(crate) fn report(&self) -> Option<StatusAnswer> {
        self.report.lock().clone()
    }

    /// Mechanisms that another member offers and this one does not, ascending.
    pub(crate) fn lacks(&self) -> Vec<u64> {
        self.lacks.load().to_vec()
    }

    /// Whether the member is known to lack a mechanism that another one offers.
    pub(crate) fn lacks_mechanism(&self, mechanism: u64) -> bool {
        self.lacks_any.load(Ordering::Acquire) && self.lacks.load().binary_search(&mechanism).is_ok()
    }

    /// Keeps what the member lacks, ascending; whether that is news.
    pub(crate) fn set_lacks(&self, lacks: Vec<u64>) -> bool {
        if **self.lacks.load() == lacks {
            return false;
        }
        self.lacks_any.store(!lacks.is_empty(), Ordering::Release);
        self.lacks.store(Arc::new(lacks));
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_holds_for_one_link_only() {
        let member = Member::new(MemberId(1));
        member.decide(Moment(5), Phase::Admitted);
        assert_eq!(member.phase_on(Moment(5)), Phase::Admitted);
        assert_eq!(member.phase_on(Moment(6)), Phase::Fresh);
        member.decide(Moment(6), Phase::Recovering);
        assert_eq!(member.phase_on(Moment(6)), Phase::Recovering);
        assert_eq!(member.phase_on(Moment(5)), Phase::Fresh);
    }

    #[test]
    fn a_store_that_went_back_is_not_read_until_it_owns_up_to_it() {
        let header = |incarnation, seq| ReplyHeader { incarnation, seq, ..ReplyHeader::default() };
        let member = Member::new(MemberId(1));
        let link = Some(Moment(5));
        member.decide(Moment(5), Phase::Admitted);
        member.note(&header(1, 9), link, (0, 0), false);
        member.note(&header(1, 7), link, (1, 9), false);
        assert!(member.is_rolled_back());
        assert_eq!(member.phase_on(Moment(5)), Phase::Recovering);
        // A restore that is owned up to takes a new incarnation.
        member.note(&header(2, 7), link, (1, 7), false);
        assert!(!member.is_rolled_back());
    }

    #[test]
    fn two_digests_of_one_commit_are_a_clone_and_two_commits_are_not() {
        let member = Member::new(MemberId(1));
        member.note_root((1, 5), &[1]);
        member.note_root((1, 6), &[2]);
        member.note_root((1, 6), &[2]);
        member.note_root((2, 6), &[3]);
        member.note_root((0, 0), &[4]);
        assert!(!member.is_rolled_back());
        member.note_root((2, 6), &[4]);
        assert!(member.is_rolled_back());
    }
}
