//! The end of all tickets of a role (RULES 2.6): the revocation number is raised at the home member, and a member that
//! knows the new number takes no ticket of an older one (HA 2.7).
use spec::UserType;

use super::Role;
use super::credentials::next_epoch;
use crate::contents::Change;
use crate::error::{Error, Refusal};
use crate::partition::Partition;

impl Partition {
    /// Ends all tickets of a role at once, as a change of the credentials: the other members take it over when they are
    /// repaired. Only the home member does it; its PIN stays what it is.
    ///
    /// # Errors
    /// [`Error::Store`] when this is not the home member, the role has no PIN, or it could not be written.
    pub fn end_tickets(&self, user: UserType) -> Result<(), Error> {
        let ended = self.write(|contents| {
            self.check_home(contents)?;
            let mut next = contents.credentials.clone();
            let role = Role::of_user(user).map_or(0, |role| u32::from(role.byte()));
            let verifier = next.verifiers.iter_mut().find(|verifier| verifier.role == role);
            let verifier =
                verifier.ok_or_else(|| Refusal::malformed("wanted a role with a PIN, found none"))?;
            verifier.revocation += 1;
            next.epoch = next_epoch(&contents.credentials, &contents.manifest);
            next.tag = Vec::new();
            Ok((Change { credentials: Some(next), ..Change::default() }, ()))
        });
        ended.map_err(|refusal| Error::Store(refusal.text))
    }
}
