//! Debt (HA 2.5): acknowledged writes that one member has not acknowledged to this process.

use spec::Ouid;
use spec::platform::Moment;
use spec::seam::MemberId;

use crate::body::Body;
use crate::group::Group;
use crate::member::Member;
use crate::spread::{Goal, Settled};

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
    /// What is still to be sent.
    pub(crate) bodies: Vec<Body>,
}

impl Group {
    /// Notes that a member owes a write.
    pub(crate) fn owe(&self, member: &Member, ouids: &[Ouid], bodies: &[Body]) {
        if !self.settings().synchronize {
            return;
        }
        member.owe(Debt { number: self.number(), ouids: ouids.to_vec(), bodies: bodies.to_vec() });
    }

    /// Pays debts on behalf of a call that waits for them, for a second at most and not past the call's deadline,
    /// unless the group is being tended at this moment.
    pub(crate) fn pay_now(&self, deadline: Moment) {
        if let Some(_turn) = self.turn() {
            self.pay_debts(deadline.min(self.platform.now().after_ms(PAY_NOW_MS_MAX)));
        }
    }

    /// Sends what reachable members owe, oldest first, until the moment has come; stops at a member with the first
    /// one it does not take.
    pub(crate) fn pay_debts(&self, until: Moment) {
        for seat in &self.view().seats {
            let member = &seat.member;
            let mut paid = 0_usize;
            while !self.is_closed() && paid < PAID_IN_A_ROUND_MAX && member.is_writable(&*self.seam) {
                let now = self.platform.now();
                if now >= until {
                    return;
                }
                let Some(debt) = member.oldest_debt() else { break };
                let deadline = until.min(now.after_ms(PAYMENT_MS_MAX));
                let goal = Goal { enough: 1, deadline, lost_ms: 0, sends_max: None };
                let settled = self.spread(&[(member.clone(), 0)], &debt.bodies, &goal);
                match settled.into_iter().next().map(|(_, settled)| settled) {
                    Some(Settled::Done { .. }) => {}
                    Some(Settled::Refused(error)) => self.give_up_debt(member.id, &error.to_string(), member),
                    Some(Settled::Missing) => self.suspect(&debt.ouids),
                    Some(Settled::Open { .. }) | None => break,
                }
                member.settle_debt(debt.number);
                paid += 1;
            }
        }
    }

    /// The member does not take what it owes (a ticket that has ended, a full disk): comparison repairs it.
    fn give_up_debt(&self, id: MemberId, reason: &str, member: &Member) {
        tracing::warn!(member = %id, reason, "the member refuses a write that it owes: it is repaired by comparison instead");
        if self.view().seats.len() > 1 {
            member.demote();
        }
    }
}
