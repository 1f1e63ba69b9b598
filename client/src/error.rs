//! What can go wrong in the client, named by fault, and the one match that gives the `CKR`.
use std::fmt;

use spec::Rv;

/// Why a call did not succeed.
#[derive(Debug)]
pub enum Error {
    /// Decided by the standard's rules, here or on a member: the code says all.
    Rv(Rv),
    /// Environment: no member could be reached within the call's time. The part was not taken; sessions, logins and
    /// handles stay valid (RULES 1.3).
    Outage(String),
    /// Environment: members were reached, but none that may know the object (HA 3.1). Otherwise as an outage.
    Undecided(String),
    /// Environment: the call's time was over before a member had answered; members may well be there.
    Late(String),
    /// Peer: a write may or may not have happened; the log says which (HA 2.2, CONVENTIONS 18).
    OutcomeUnknown(String),
    /// Environment: fewer members than `Hatoki: MinimumCopies` demands; nothing was made (HA 2.2).
    BelowMinimum(String),
    /// Peer: the member asks for the sealed blob of the session object (RULES 2.2). Handled inside.
    NeedBlob,
    /// Peer: the plan is older than the object (RULES 1.1). Handled inside.
    PlanChanged,
    /// Peer: the object is destroyed, or every reachable member agrees that there is none (HA 3.1).
    Gone,
    /// Peer: no member in reach has the state of the object that was seen, an older one may be asked for (HA 3.1, 4.6).
    /// Handled inside.
    OnlyOlder,
    /// Peer: the ticket is dead, a new login is needed (RULES 2.6).
    TicketDead,
    /// Peer: members answer, but not as this group: `vtl haAdmin newGroup` has not run, or the generation differs
    /// (RULES 2.9, 3.3).
    WrongGroup(String),
    /// Peer: an answer that no member of ours gives.
    Protocol(String),
    /// Ourselves: a request that members refuse to read.
    Ourselves(String),
    /// Environment: the configuration is malformed or unreadable (RULES 2.13).
    Configuration(crate::conf::Error),
    /// Environment: the operating system refused something, or a file that the configuration names is wrong.
    Environment(String),
}

impl Error {
    /// The code that the application hears.
    pub fn rv(&self) -> Rv {
        match self {
            Self::Rv(rv) => *rv,
            Self::Outage(_)
            | Self::Undecided(_)
            | Self::Late(_)
            | Self::OutcomeUnknown(_)
            | Self::BelowMinimum(_)
            | Self::NeedBlob
            | Self::OnlyOlder
            | Self::WrongGroup(_)
            | Self::Protocol(_) => Rv::DEVICE_ERROR,
            Self::PlanChanged => Rv::FUNCTION_FAILED,
            Self::Gone => Rv::OBJECT_HANDLE_INVALID,
            Self::TicketDead => Rv::USER_NOT_LOGGED_IN,
            Self::Configuration(_) | Self::Environment(_) | Self::Ourselves(_) => Rv::GENERAL_ERROR,
        }
    }
}

impl From<Rv> for Error {
    fn from(rv: Rv) -> Self {
        Self::Rv(rv)
    }
}

impl From<crate::conf::Error> for Error {
    fn from(error: crate::conf::Error) -> Self {
        Self::Configuration(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rv(rv) => write!(f, "{rv}"),
            Self::Outage(text) => write!(f, "no member can be reached: {text}"),
            Self::OutcomeUnknown(text) => write!(f, "outcome unknown: {text}"),
            Self::Late(text)
            | Self::Undecided(text)
            | Self::BelowMinimum(text)
            | Self::WrongGroup(text)
            | Self::Protocol(text)
            | Self::Ourselves(text)
            | Self::Environment(text) => f.write_str(text),
            Self::NeedBlob => f.write_str("a member asked again for a session object that it had been sent"),
            Self::PlanChanged => f.write_str("the key was changed during the operation; start it again"),
            Self::OnlyOlder => f.write_str(
                "no member that can be reached has the state of the object that was seen: bring back the one that has it",
            ),
            Self::Gone => f.write_str("the object does not exist any more"),
            Self::TicketDead => f.write_str(
                "the login is no longer valid (PIN reset, role revoked, group renewed); log in again",
            ),
            Self::Configuration(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<ha::Error> for Error {
    fn from(error: ha::Error) -> Self {
        let text = error.to_string();
        match error {
            ha::Error::Rv(rv) => Self::Rv(rv),
            ha::Error::Gone(_) => Self::Gone,
            ha::Error::NeedBlob(_) => Self::NeedBlob,
            ha::Error::PlanChanged => Self::PlanChanged,
            ha::Error::TicketDead => Self::TicketDead,
            ha::Error::NotOpened => Self::Rv(error.rv()),
            ha::Error::Outage { .. } => Self::Outage(text),
            ha::Error::Undecided(_) => Self::Undecided(text),
            ha::Error::Deadline => Self::Late(text),
            ha::Error::OutcomeUnknown(_) => Self::OutcomeUnknown(text),
            ha::Error::BelowMinimum { .. } => Self::BelowMinimum(text),
            ha::Error::NoGroup(_) => Self::WrongGroup(text),
            ha::Error::OnlyOlder => Self::OnlyOlder,
            ha::Error::EpochChanged | ha::Error::Home(_) | ha::Error::Behind | ha::Error::Peer(_) => {
                Self::Protocol(text)
            }
            ha::Error::Ourselves(_) => Self::Ourselves(text),
        }
    }
}

/// The result of every call of the client.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_outage_and_missing_copies_are_device_errors_and_nothing_tells_the_application_of_links() {
        for error in [
            Error::Outage(String::new()),
            Error::Late(String::new()),
            Error::BelowMinimum(String::new()),
            Error::Undecided(String::new()),
        ] {
            assert_eq!(error.rv(), Rv::DEVICE_ERROR);
        }
        assert_eq!(Error::TicketDead.rv(), Rv::USER_NOT_LOGGED_IN);
        assert_eq!(Error::Rv(Rv::PIN_INCORRECT).rv(), Rv::PIN_INCORRECT);
    }
}
