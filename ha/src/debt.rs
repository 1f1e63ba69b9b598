//! Debt (HA 2.5): acknowledged writes that one member has not acknowledged to this process.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spec::Ouid;
use spec::platform::{Lock, Moment};
use spec::seam::MemberId;

use crate::body::Body;
use crate::group::Group;
use crate::member::Member;
use crate::spread::{Goal, Part, Settled};
use crate::view::View;

/// At most so many for each member; past it the member is repaired by comparison.
pub(crate) const DEBT_MAX: usize = 4_096;
/// At most so many are paid in one round of the background work.
const PAID_IN_A_ROUND_MAX: usize = 256;
/// How long one payment may take, in milliseconds.
const PAYMENT_MS_MAX: u64 = 2_000;
/// How long an application's call pays debts, in milliseconds.
const PAY_NOW_MS_MAX: u64 = 1_000;

/// One write that a member owes: the bodies to send in order (Store, then Commit), the same bytes as at first.
#[derive(Clone)]
pub(crate) struct Debt {
    /// Tells one debt from another.
    pub(crate) number: u64,
    /// The objects that it is about: the member does not serve them until it has paid.
    pub(crate) ouids: Vec<Ouid>,
    /// The members that had acknowledged the write when this one had not.
    pub(crate) holders: Vec<MemberId>,
    /// What is still to be sent.
    pub(crate) bodies: Vec<Body>,
    /// Whether the write was acknowledged to the application. One that was not is brought to the member all the same, and
    /// forgotten once the member refuses it: nobody was promised that it is there.
    pub(crate) acknowledged: bool,
    /// The member has refused it. It stays a debt, which is not sent any more, until the member has been compared.
    pub(crate) given_up: bool,
}

/// What one member owes. It outlives the member's place in the group: a partition that is taken out and added again with its
/// old store lacks the same writes (HA 2.6).
#[derive(Default)]
pub(crate) struct Debts {
    list: Lock<VecDeque<Debt>>,
    number: AtomicUsize,
}

impl Debts {
    /// How many writes are owed.
    pub(crate) fn number(&self) -> usize {
        self.number.load(Ordering::Acquire)
    }

    /// Adds a debt; false, and the list is empty, past its bound.
    fn add(&self, debt: Debt) -> bool {
        self.change(|list| {
            let has_room = list.len() < DEBT_MAX;
            if has_room {
                list.push_back(debt)
            } else {
                list.clear()
            }
            has_room
        })
    }

    /// Nothing is owed any more.
    pub(crate) fn clear(&self) {
        self.change(VecDeque::clear);
    }

    fn settle(&self, settled: u64) {
        self.change(|list| list.retain(|debt| debt.number != settled));
    }

    fn change<T>(&self, change: impl FnOnce(&mut VecDeque<Debt>) -> T) -> T {
        let mut list = self.list.lock();
        let changed = change(&mut list);
        self.number.store(list.len(), Ordering::Release);
        changed
    }

    fn any(&self, is: impl Fn(&Debt) -> bool) -> bool {
        self.number() > 0 && self.list.lock().iter().any(is)
    }
}

impl Member {
    /// How many writes the member owes.
    pub(crate) fn debts(&self) -> usize {
        self.debts.number()
    }

    /// Whether the member owes a write of this object.
    pub(crate) fn owes(&self, object: Ouid) -> bool {
        self.debts.any(|debt| debt.ouids.contains(&object))
    }

    /// The objects of all writes that the member owes.
    pub(crate) fn owed(&self) -> BTreeSet<Ouid> {
        if self.debts() == 0 {
            return BTreeSet::new();
        }
        self.debts.list.lock().iter().flat_map(|debt| debt.ouids.iter().copied()).collect()
    }

    /// Adds an acknowledged write that the member has not acknowledged (HA 2.5). Past the bound the list is given up
    /// and the member must be compared before it is read again.
    fn owe(&self, debt: Debt) {
        if !self.debts.add(debt) {
            tracing::warn!(member = %self.id, "{DEBT_MAX} writes are owed by the member: it is repaired by comparison instead");
            self.demote();
        }
    }

    /// The oldest write that the member owes and may take.
    fn oldest_debt(&self) -> Option<Debt> {
        self.debts.list.lock().iter().find(|debt| !debt.given_up).cloned()
    }

    /// A debt is settled.
    pub(crate) fn settle_debt(&self, settled: u64) {
        self.debts.settle(settled);
    }

    /// The member has refused a debt: it is sent no more. Where the write was acknowledged it is still owed.
    fn give_up_debt(&self, refused: &Debt) {
        if !refused.acknowledged {
            return self.settle_debt(refused.number);
        }
        if let Some(debt) = self.debts.list.lock().iter_mut().find(|debt| debt.number == refused.number) {
            (debt.given_up, debt.bodies) = (true, Vec::new());
        }
    }

    /// What the member has refused and owes.
    pub(crate) fn given_up_debts(&self) -> Vec<Debt> {
        if self.debts() == 0 {
            return Vec::new();
        }
        self.debts.list.lock().iter().filter(|debt| debt.given_up).cloned().collect()
    }

    /// Whether the member has refused anything that it owes.
    pub(crate) fn has_given_up(&self) -> bool {
        self.debts.any(|debt| debt.given_up)
    }
}

impl Group {
    /// Notes that a member owes a write, which the holders have acknowledged: `acknowledged` when they are the minimum.
    pub(crate) fn owe(
        &self,
        member: &Member,
        ouids: &[Ouid],
        holders: &[MemberId],
        bodies: &[Body],
        acknowledged: bool,
    ) {
        if !self.settings().synchronize {
            return;
        }
        let (number, ouids, bodies) = (self.number(), ouids.to_vec(), bodies.to_vec());
        // It may have left the group, and come again, since it was asked.
        let view = self.view();
        let member = view.member(member.id).map_or(member, |now| &**now);
        member.owe(Debt { number, ouids, holders: holders.to_vec(), bodies, acknowledged, given_up: false });
    }

    /// Every member of the group but the holders of the write owes it, whether `enough` hold it or not.
    pub(crate) fn owe_rest(
        &self,
        view: &View,
        holders: &[MemberId],
        ouids: &[Ouid],
        bodies: &[Body],
        enough: bool,
    ) {
        // Those too that have come into the group since the view was taken: what was under way has not gone to them, and what
        // they are compared with may not hold it yet (HA 4.6).
        let now = self.view();
        let come = now.seats.iter().filter(|seat| view.member(seat.member.id).is_none());
        for seat in view.seats.iter().chain(come).filter(|seat| !holders.contains(&seat.member.id)) {
            self.owe(&seat.member, ouids, holders, bodies, enough);
        }
    }

    /// Pays debts on behalf of a call that waits for them, for a second at most and not past the call's deadline,
    /// unless the group is being tended at this moment.
    pub(crate) fn pay_now(&self, deadline: Moment) {
        if let Some(_turn) = self.turn() {
            self.pay_debts(deadline.min(self.platform.now().after_ms(PAY_NOW_MS_MAX)));
        }
    }

    /// Sends what reachable members owe, all members at once and each one's oldest first, until the moment has come; stops
    /// for a member with the first one it does not take.
    pub(crate) fn pay_debts(&self, until: Moment) {
        self.pay(self.owing(), until);
    }

    /// C_Finalize: sends what members owe that can take it at once, until the moment at the latest, and logs what remains
    /// owed: repair brings it to them (HA 2.5, 4.6). A member that cannot be reached is not waited for, and one that hangs
    /// holds up nobody but the caller.
    pub fn pay_last(&self, until: Moment) {
        let owing = self.owing();
        if owing.is_empty() {
            return;
        }
        self.pay(owing.clone(), until);
        for member in owing.iter().filter(|member| member.debts() > 0) {
            tracing::warn!(
                member = %member.id, writes = member.debts(),
                "the process ends while the member lacks acknowledged writes: it is repaired by any process with the Crypto \
                 Officer logged in, by appliances with peers, or by `vtl haAdmin synchronize`"
            );
        }
    }

    fn owing(&self) -> Vec<Arc<Member>> {
        let view = self.view();
        let members = view.seats.iter().map(|seat| &seat.member);
        members.filter(|member| member.debts() > 0).cloned().collect()
    }

    fn pay(&self, mut payers: Vec<Arc<Member>>, until: Moment) {
        for _ in 0..PAID_IN_A_ROUND_MAX {
            let now = self.platform.now();
            if self.is_closed() || now >= until {
                return;
            }
            payers.retain(|member| member.is_writable(&*self.seam));
            let debts: Vec<(Arc<Member>, Debt)> =
                payers.iter().filter_map(|member| Some((member.clone(), member.oldest_debt()?))).collect();
            if debts.is_empty() {
                return;
            }
            let parts: Vec<Part<'_>> = debts
                .iter()
                .map(|(member, debt)| Part { member: member.clone(), step: 0, bodies: &debt.bodies })
                .collect();
            // Once one has paid, those that are slow hold it up for a moment only.
            let goal = Goal {
                enough: 1,
                deadline: until.min(now.after_ms(PAYMENT_MS_MAX)),
                lost_ms: 0,
                sends_max: None,
            };
            for ((member, settled), (_, debt)) in self.spread_each(&parts, &goal).into_iter().zip(&debts) {
                match settled {
                    Settled::Done { .. } => {}
                    Settled::Refused(error) => {
                        self.give_up_debt(&member, debt, &error.to_string());
                        continue;
                    }
                    Settled::Missing => self.suspect(&debt.ouids),
                    Settled::Open { .. } => {
                        payers.retain(|payer| payer.id != member.id);
                        continue;
                    }
                }
                member.settle_debt(debt.number);
            }
        }
    }

    /// The member does not take what it owes (a ticket that has ended, a full disk): comparison repairs it. Until then it
    /// owes it, for it may be the last one and be read unverified (HA 2.5, 4.6).
    fn give_up_debt(&self, member: &Member, debt: &Debt, reason: &str) {
        let id = member.id;
        tracing::warn!(member = %id, reason, "the member refuses a write that it owes: it is repaired by comparison instead");
        member.give_up_debt(debt);
        let view = self.view();
        if view.seats.len() > 1 {
            // It may have left the group, and come again, since it was asked.
            view.member(id).map_or(member, |now| &**now).demote();
        }
    }
}

#[cfg(test)]
mod tests {
    use spec::platform::Moment;
    use spec::seam::MemberId;

    use super::*;
    use crate::member::Phase;

    #[test]
    fn debt_is_bounded_and_overflow_demotes() {
        let member = Member::new(MemberId(1));
        member.decide(Moment(1), Phase::Admitted);
        let ouid = Ouid([7; 16]);
        let debt = |number| Debt {
            number,
            ouids: vec![ouid],
            holders: Vec::new(),
            bodies: Vec::new(),
            acknowledged: true,
            given_up: false,
        };
        for number in 0..DEBT_MAX as u64 {
            member.owe(debt(number));
        }
        assert_eq!(member.debts(), DEBT_MAX);
        assert!(member.owes(ouid) && !member.owes(Ouid([8; 16])));
        assert_eq!(member.phase_on(Moment(1)), Phase::Admitted);
        member.owe(debt(9_999));
        assert_eq!((member.debts(), member.phase_on(Moment(1))), (0, Phase::Recovering));
    }
}
