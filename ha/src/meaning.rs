//! What an outcome means for the call that hears it: one table, read by every loop that hears replies (HA 1.5, 3.1, 4.2).
//!
//! ```text
//!              another member is asked | the member is        | the outcome ends the call
//! Done                                 |                      | with the answer
//! Decided                              |                      | with the refusal
//! Destroyed                            |                      | the object is gone
//! Missing      all others, in parallel |                      | when all agree
//! Behind       all others, in parallel |                      |
//! Later        yes                     | asked again          |
//! Failed       yes                     |                      | when every member fails
//! Recovering   yes                     | read no more         |
//! OtherGroup   the body is made anew   |                      | when it still is
//! ```
use spec::messages::Outcome;

/// See the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Done.
    Done,
    /// Decided by rules that every member keeps: asking another one changes nothing.
    Decided,
    /// The member holds the tombstone: final (HA 3.1).
    Destroyed,
    /// The member holds nothing of that ouid: it may have missed it (HA 3.1).
    Missing,
    /// The member holds an older state than the request demands (HA 3.1).
    Behind,
    /// Not executed for want of time (HA 4.5).
    Later,
    /// The member cannot do it for a reason of its own.
    Failed,
    /// The member is being repaired and says so (HA 1.5).
    Recovering,
    /// The member is of another group or generation than the body names.
    OtherGroup,
}

impl Meaning {
    /// The table. What this release does not understand is a failure of the member.
    pub(crate) fn of(outcome: Outcome) -> Meaning {
        match outcome {
            Outcome::OK => Meaning::Done,
            Outcome::RV
            | Outcome::NEED_BLOB
            | Outcome::PLAN_CHANGED
            | Outcome::NOT_HOME
            | Outcome::TICKET_DEAD
            | Outcome::EPOCH_CHANGED
            | Outcome::MALFORMED
            | Outcome::NOT_OPENED => Meaning::Decided,
            Outcome::DESTROYED => Meaning::Destroyed,
            Outcome::UNKNOWN => Meaning::Missing,
            Outcome::BEHIND => Meaning::Behind,
            Outcome::EXPIRED => Meaning::Later,
            Outcome::RECOVERING => Meaning::Recovering,
            Outcome::WRONG_GROUP => Meaning::OtherGroup,
            Outcome::FAILED | Outcome::NO_PARTITION | Outcome(_) => Meaning::Failed,
        }
    }

    /// Whether the outcome is the group's word and not only this member's.
    pub(crate) fn is_final(self) -> bool {
        match self {
            Meaning::Done | Meaning::Decided | Meaning::Destroyed => true,
            Meaning::Missing
            | Meaning::Behind
            | Meaning::Later
            | Meaning::Failed
            | Meaning::Recovering
            | Meaning::OtherGroup => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_member_says_of_itself_is_not_final_and_unknown_numbers_are_its_failure() {
        let own = [2, 3, 7, 8, 10, 15, 16, 17, 9_999];
        for number in 0..40 {
            assert_eq!(
                Meaning::of(Outcome(number)).is_final(),
                number < 17 && !own.contains(&number),
                "outcome {number}"
            );
        }
        assert_eq!(Meaning::of(Outcome(9_999)), Meaning::Failed);
    }
}
