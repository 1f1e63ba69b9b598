//! What a call over the group may end with, and the one total match to a `CKR`.
use std::fmt;

use spec::Rv;
use spec::messages::{Outcome, ReplyBody};
use spec::seam::MemberId;

/// Why a call failed. Variants are named by fault; [`Error::rv`] gives the code that the application hears when the
/// caller has nothing more exact to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The partition decided by the standard's rules.
    Rv(Rv),
    /// The object is destroyed, or every reachable member agrees that there is none (HA 3.1); its ouid, 16 bytes.
    Gone(Vec<u8>),
    /// The member asks for the blob of this session object (its ouid): call again with the blob (RULES 2.2).
    NeedBlob(Vec<u8>),
    /// The plan is older than the key: plan again (RULES 1.1).
    PlanChanged,
    /// The ticket is no longer valid: the user is logged out (RULES 2.6).
    TicketDead,
    /// A sealed thing did not open in this context (RULES 3.1).
    NotOpened,
    /// Compare-and-set met another epoch (HA 2.6, 2.7).
    EpochChanged,
    /// Only the home member does this, and it cannot be reached or is another one (HA 2.7).
    Home(String),
    /// No member could be reached for so many milliseconds (DESIGN 2).
    Outage {
        /// How long the call waited.
        waited_ms: u64,
    },
    /// The call's time was over before a member had answered (HA 4.2).
    Deadline,
    /// The write may or may not have happened: it was sent and its end is not known (HA 2.2).
    OutcomeUnknown(String),
    /// Fewer members can be reached than copies are wanted; nothing was made (HA 2.2).
    BelowMinimum {
        /// The copies that `Hatoki: MinimumCopies` demands.
        wanted: usize,
        /// The members that can be reached.
        reachable: usize,
    },
    /// The partitions do not form the group that the configuration names (RULES 3.3).
    NoGroup(String),
    /// A member holds an older state of the object than this process has seen (HA 3.1).
    Behind,
    /// No member that can be reached holds the state of the object that this process has seen, and the caller may ask for an
    /// older one (HA 3.1, 4.6). Nothing was executed.
    OnlyOlder,
    /// The members that can be reached do not know the object, are too few to say that there is none, and those that may hold
    /// it cannot be reached (HA 3.1). Nothing was executed.
    Undecided(String),
    /// A member failed or answered what this release does not understand; the sentence says what.
    Peer(String),
    /// This library made a request that a member refuses to read: a defect of ours.
    Ourselves(String),
}

impl Error {
    /// The code for the application (PKCS #11 v3.1, 5.1).
    pub fn rv(&self) -> Rv {
        match self {
            Error::Rv(rv) => *rv,
            Error::Gone(_) => Rv::OBJECT_HANDLE_INVALID,
            Error::TicketDead => Rv::USER_NOT_LOGGED_IN,
            Error::NotOpened => Rv::FUNCTION_FAILED,
            Error::NeedBlob(_) | Error::PlanChanged | Error::Ourselves(_) => Rv::GENERAL_ERROR,
            Error::EpochChanged
            | Error::Home(_)
            | Error::Outage { .. }
            | Error::Deadline
            | Error::OutcomeUnknown(_)
            | Error::BelowMinimum { .. }
            | Error::NoGroup(_)
            | Error::Behind
            | Error::OnlyOlder
            | Error::Undecided(_)
            | Error::Peer(_) => Rv::DEVICE_ERROR,
        }
    }

    /// The error that a reply carries, whichever member sent it; `None` when its outcome is OK.
    pub(crate) fn of_reply(member: MemberId, reply: &ReplyBody) -> Option<Error> {
        let said = |what: &str| format!("member {member} {what}: {}", reply.text);
        Some(match Outcome(reply.outcome) {
            Outcome::OK => return None,
            Outcome::RV => Error::Rv(Rv(reply.rv)),
            Outcome::UNKNOWN | Outcome::DESTROYED => Error::Gone(reply.object.clone()),
            Outcome::BEHIND => Error::Behind,
            Outcome::NEED_BLOB => Error::NeedBlob(reply.object.clone()),
            Outcome::PLAN_CHANGED => Error::PlanChanged,
            Outcome::TICKET_DEAD => Error::TicketDead,
            Outcome::NOT_OPENED => Error::NotOpened,
            Outcome::EPOCH_CHANGED => Error::EpochChanged,
            Outcome::NOT_HOME => Error::Home(said("is not the home member")),
            Outcome::WRONG_GROUP => Error::NoGroup(said("is of another group or generation")),
            Outcome::MALFORMED => Error::Ourselves(said("cannot read the request")),
            Outcome::RECOVERING => Error::Peer(said("is being repaired")),
            Outcome::EXPIRED => Error::Peer(said("took up the request too late")),
            Outcome::NO_PARTITION => {
                Error::Peer(said("is not assigned to this client (hsm client assignPartition)"))
            }
            Outcome::FAILED => Error::Peer(said("failed")),
            Outcome(other) => Error::Peer(said(&format!("answered the unknown outcome {other}"))),
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Rv(rv) => write!(f, "the partition answered {rv}"),
            Error::Gone(_) => f.write_str("the object does not exist any more"),
            Error::NeedBlob(_) => f.write_str("the member asks for the session object's blob"),
            Error::PlanChanged => f.write_str("the key has changed since its plan was made"),
            Error::TicketDead => f.write_str("the login is no longer valid: log in again"),
            Error::NotOpened => f.write_str("a sealed value was refused by the partition"),
            Error::EpochChanged => {
                f.write_str("somebody else has changed it meanwhile: read it again and repeat")
            }
            Error::Home(text) | Error::NoGroup(text) | Error::Undecided(text) | Error::Peer(text) => {
                f.write_str(text)
            }
            Error::Outage { waited_ms } => write!(f, "no member could be reached for {waited_ms} ms"),
            Error::Deadline => f.write_str("no member answered before the call's time was over"),
            Error::OutcomeUnknown(what) => write!(f, "outcome unknown: {what}"),
            Error::BelowMinimum { wanted, reachable } => write!(
                f,
                "{wanted} copies are wanted (Hatoki: MinimumCopies) and {reachable} members can be reached: \
                 bring members back or lower the setting"
            ),
            Error::Behind => f.write_str("a member holds an older state of the object than was seen"),
            Error::OnlyOlder => {
                f.write_str("no member that can be reached holds the state of the object that was seen")
            }
            Error::Ourselves(text) => write!(f, "defect of this library: {text}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_but_ok_is_an_error_and_unknown_numbers_are_the_peers_fault() {
        let of = |outcome: u32| {
            Error::of_reply(
                MemberId(1),
                &ReplyBody { outcome, rv: Rv::KEY_SIZE_RANGE.0, ..ReplyBody::default() },
            )
        };
        assert_eq!(of(0), None);
        assert_eq!(of(1), Some(Error::Rv(Rv::KEY_SIZE_RANGE)));
        assert!((1..=16).all(|outcome| of(outcome).is_some()));
        assert!(matches!(of(9_999), Some(Error::Peer(_))));
    }

    #[test]
    fn outage_and_below_minimum_are_device_errors() {
        assert_eq!(Error::Outage { waited_ms: 1 }.rv(), Rv::DEVICE_ERROR);
        assert_eq!(Error::BelowMinimum { wanted: 2, reachable: 1 }.rv(), Rv::DEVICE_ERROR);
        assert!(
            Error::BelowMinimum { wanted: 2, reachable: 1 }.to_string().contains("Hatoki: MinimumCopies")
        );
    }
}
