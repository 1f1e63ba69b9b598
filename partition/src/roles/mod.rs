//! Roles: who may do what, and how they prove it (RULES 2.5 to 2.8).
//!
//! ```text
//! Login(PIN) -> remembered? else try reserved -> Argon2id -> ticket, sealed for client, instance, role, group, generation
//! request(ticket) -> opened lately, or opened now, in that context; revocation number not older -> Access
//! ```
use spec::UserType;

mod access;
mod credentials;
mod login;
mod opened;
mod remembered;
mod revoke;
mod set_pin;
mod tries;
mod turns;

pub(crate) use access::{Access, open as open_ticket};
pub(crate) use credentials::{Credentials, Verifier, next_epoch};
pub(crate) use opened::Opened;
pub(crate) use remembered::Remembered;
pub(crate) use tries::change_tag;
pub(crate) use turns::Turns;

/// A role of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Sets PINs and trust; sees no private object.
    SecurityOfficer,
    /// `CKU_USER`: makes, changes, uses and destroys.
    CryptoOfficer,
    /// Uses and reads, makes nothing that lasts.
    CryptoUser,
}

impl Role {
    pub(crate) const ALL: [Role; 3] = [Role::SecurityOfficer, Role::CryptoOfficer, Role::CryptoUser];

    /// The role behind a `CKU_*`; none for context login and unknown numbers.
    pub(crate) fn of_user(user: UserType) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.user() == user)
    }

    /// Its `CKU_*`.
    pub(crate) fn user(self) -> UserType {
        match self {
            Role::SecurityOfficer => UserType::SO,
            Role::CryptoOfficer => UserType::USER,
            Role::CryptoUser => UserType::CRYPTO_USER,
        }
    }

    /// One byte in tickets. Never reused for another role.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Role::SecurityOfficer => 1,
            Role::CryptoOfficer => 2,
            Role::CryptoUser => 3,
        }
    }

    /// The role of that byte.
    pub(crate) fn of_byte(byte: u8) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.byte() == byte)
    }
}
