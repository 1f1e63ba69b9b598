//! What this process knows of one member.
//!
//! ```text
//!                    Status answered, no verified member to compare with
//!          .---------------------------------------------------------> Unverified --- roots agree,
//!          |                                                           (read set)     or repaired --.
//! Fresh ---+---- root equal to a verified member's ----------------------------------------------> Admitted
//! (not     |                                                                                     (read set)
//!  read)   '---- root differs -----> Recovering ------ repaired (HA 4.6) ------------------------------^
//!                                    (write set only; Unverified when no verified member lives)
//! any of them ---- its link is another one than the judged one ----> Fresh
//! any of them ---- of another group ----> Refused
//! any of them ---- its store went back (HA 1.5) ----> Recovering until compared, whatever its link
//! ```
//!
//! A phase holds for one link only: `link` keeps the moment at which that link came up, and a member whose link is
//! younger counts as Fresh until it is judged again. Every member whose link is up is in the write set (HA 2.4).
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use spec::Ouid;
use spec::messages::{ReplyHeader, StatusAnswer};
use spec::platform::{Lock, Moment};
use spec::record::MemberRole;
use spec::seam::{MemberId, Seam, Standing};

use crate::debt::{DEBT_MAX, Debt};
use crate::load::Load;

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

/// What replies have said of the member's store (HA 1.5).
#[derive(Clone, Copy, Default)]
struct Known {
    /// When the link came up on which it was heard.
    link: u64,
    incarnation: u64,
    seq: u64,
    credential_epoch: u64,
    manifest_epoch: u64,
}

/// One member.
pub(crate) struct Member {
    /// Its partition's serial number.
    pub(crate) id: MemberId,
    /// How busy, fast and trustworthy in time it is.
    pub(crate) load: Load,
    lacks: ArcSwap<Vec<u64>>,
    lacks_any: AtomicBool,
    phase: AtomicU8,
    link: AtomicU64,
    known: Lock<Known>,
    rolled_back: AtomicBool,
    report: Lock<Option<StatusAnswer>>,
    refusal: Lock<String>,
    debt: Lock<VecDeque<Debt>>,
    debts: AtomicUsize,
    /// Its attempts to return are used up (`reconnAtt`).
    given_up: AtomicBool,
    /// When the link came up on which it was first read since `forget_use`; the greatest number for none.
    used_link: AtomicU64,
}

impl Member {
    /// A member of which nothing is known.
    pub(crate) fn new(id: MemberId) -> Arc<Self> {
        Arc::new(Self {
            id,
            load: Load::default(),
            lacks: ArcSwap::from_pointee(Vec::new()),
            lacks_any: AtomicBool::new(false),
            phase: AtomicU8::new(Phase::Fresh.byte()),
            link: AtomicU64::new(u64::MAX),
            known: Lock::new(Known::default()),
            rolled_back: AtomicBool::new(false),
            report: Lock::new(None),
            refusal: Lock::new(String::new()),
            debt: Lock::new(VecDeque::new()),
            debts: AtomicUsize::new(0),
            given_up: AtomicBool::new(false),
            used_link: AtomicU64::new(u64::MAX),
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

    /// The member counts as never used.
    pub(crate) fn forget_use(&self) {
        self.given_up.store(false, Ordering::Release);
        self.used_link.store(u64::MAX, Ordering::Release);
    }

    /// Takes the member out of the read set until it has been repaired.
    pub(crate) fn demote(&self) {
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

    /// Keeps what every reply says about the member. `link` is when the link that took the request came up, `floor`
    /// the position known when it was sent. Replies may overtake each other, so nothing goes back within one link and
    /// incarnation; the first reply on another link or of another incarnation replaces what was known. A reply that
    /// is below its floor shows that the store was rolled back: the member is not read until it has been compared
    /// (HA 1.5). Replies made outside a partition (incarnation 0) say nothing.
    pub(crate) fn note(&self, header: &ReplyHeader, link: Option<Moment>, floor: (u64, u64)) {
        if header.incarnation == 0 {
            return;
        }
        let rolled_back = floor.0 == header.incarnation && header.seq < floor.1;
        let mut known = self.known.lock();
        let link = link.map_or(known.link, |link| link.0);
        if link < known.link {
            return;
        }
        let other = header.incarnation != known.incarnation;
        if other || link > known.link || rolled_back {
            *known = Known {
                link,
                incarnation: header.incarnation,
                seq: header.seq,
                credential_epoch: header.credential_epoch,
                manifest_epoch: header.manifest_epoch,
            };
        } else {
            known.seq = known.seq.max(header.seq);
            known.credential_epoch = known.credential_epoch.max(header.credential_epoch);
            known.manifest_epoch = known.manifest_epoch.max(header.manifest_epoch);
        }
        drop(known);
        self.load.set_window(header.window);
        if rolled_back {
            self.roll_back(floor.1, header.seq);
        } else if other {
            // A store that knows of its restore says `recovering` itself.
            self.compared();
        }
    }

    fn roll_back(&self, before: u64, now: u64) {
        self.demote();
        if !self.rolled_back.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                member = %self.id,
                "the member went back from commit {before} to {now}: its store was replaced by an older image. It \
                 serves no logins and no uses until it has been compared with another member: let a process with \
                 the Crypto Officer logged in run, which repairs it, or make its partition anew and add it again \
                 (vtl haAdmin addMember)"
            );
        }
    }

    /// Whether the member's store went back and has not been compared with another one since (HA 1.5).
    pub(crate) fn is_rolled_back(&self) -> bool {
        self.rolled_back.load(Ordering::Acquire)
    }

    /// The member has been compared with another one.
    pub(crate) fn compared(&self) {
        self.rolled_back.store(false, Ordering::Release);
    }

    /// The incarnation and seq last heard (HA 1.5).
    pub(crate) fn position(&self) -> (u64, u64) {
        let known = self.known.lock();
        (known.incarnation, known.seq)
    }

    /// The version of its credentials last heard.
    pub(crate) fn credential_epoch(&self) -> u64 {
        self.known.lock().credential_epoch
    }

    /// The version of its manifest last heard.
    pub(crate) fn manifest_epoch(&self) -> u64 {
        self.known.lock().manifest_epoch
    }

    /// Keeps an answer to Status.
    pub(crate) fn set_report(&self, report: StatusAnswer) {
        *self.report.lock() = Some(report);
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

    /// Adds an acknowledged write that the member has not acknowledged (HA 2.5). Past the bound the list is given up
    /// and the member must be compared before it is read again.
    pub(crate) fn owe(&self, debt: Debt) {
        let mut list = self.debt.lock();
        if list.len() >= DEBT_MAX {
            tracing::warn!(member = %self.id, "{DEBT_MAX} writes are owed by the member: it is repaired by comparison instead");
            list.clear();
            self.demote();
        } else {
            list.push_back(debt);
        }
        self.debts.store(list.len(), Ordering::Release);
    }

    /// How many writes the member owes.
    pub(crate) fn debts(&self) -> usize {
        self.debts.load(Ordering::Acquire)
    }

    /// Whether the member owes a write of this object.
    pub(crate) fn owes(&self, object: Ouid) -> bool {
        self.debts() > 0 && self.debt.lock().iter().any(|debt| debt.ouids.contains(&object))
    }

    /// The oldest write that the member owes.
    pub(crate) fn oldest_debt(&self) -> Option<Debt> {
        self.debt.lock().front().cloned()
    }

    /// The oldest debt is settled. Only the one thread that tends the group takes from this list.
    pub(crate) fn settle_debt(&self, settled: u64) {
        let mut list = self.debt.lock();
        if list.front().is_some_and(|debt| debt.number == settled) {
            list.pop_front();
        }
        self.debts.store(list.len(), Ordering::Release);
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
    fn debt_is_bounded_and_overflow_demotes() {
        let member = Member::new(MemberId(1));
        member.decide(Moment(1), Phase::Admitted);
        let ouid = Ouid([7; 16]);
        for number in 0..DEBT_MAX as u64 {
            member.owe(Debt { number, ouids: vec![ouid], bodies: Vec::new() });
        }
        assert_eq!(member.debts(), DEBT_MAX);
        assert!(member.owes(ouid) && !member.owes(Ouid([8; 16])));
        assert_eq!(member.phase_on(Moment(1)), Phase::Admitted);
        member.owe(Debt { number: 9_999, ouids: vec![ouid], bodies: Vec::new() });
        assert_eq!((member.debts(), member.phase_on(Moment(1))), (0, Phase::Recovering));
    }

    fn header(incarnation: u64, seq: u64, credential_epoch: u64) -> ReplyHeader {
        ReplyHeader { incarnation, seq, credential_epoch, ..ReplyHeader::default() }
    }

    #[test]
    fn replies_that_overtake_each_other_take_nothing_back() {
        let member = Member::new(MemberId(1));
        let link = Some(Moment(5));
        member.note(&header(1, 9, 3), link, (0, 0));
        member.note(&header(1, 7, 2), link, (0, 0));
        member.note(&header(0, 0, 0), link, (1, 9));
        member.note(&header(1, 6, 1), Some(Moment(4)), (0, 0));
        assert_eq!((member.position(), member.credential_epoch()), ((1, 9), 3));
        member.note(&header(2, 1, 1), link, (1, 9));
        assert_eq!((member.position(), member.credential_epoch()), ((2, 1), 1));
        member.note(&header(2, 1, 0), Some(Moment(6)), (2, 1));
        assert_eq!((member.position(), member.credential_epoch()), ((2, 1), 0));
        assert!(!member.is_rolled_back());
    }

    #[test]
    fn a_reply_below_what_was_known_when_it_was_asked_for_is_a_roll_back() {
        let member = Member::new(MemberId(1));
        member.decide(Moment(5), Phase::Admitted);
        member.note(&header(1, 9, 3), Some(Moment(5)), (0, 0));
        member.note(&header(1, 7, 2), Some(Moment(5)), (1, 9));
        assert!(member.is_rolled_back());
        assert_eq!(member.phase_on(Moment(5)), Phase::Recovering);
        assert_eq!((member.position(), member.credential_epoch()), ((1, 7), 2));
        // A restore that is owned up to takes a new incarnation.
        member.note(&header(2, 7, 2), Some(Moment(5)), (1, 7));
        assert!(!member.is_rolled_back());
    }
}
