//! Login: a PIN for a ticket (PKCS #11 v3.1, 5.6.8; RULES 2.5, 2.6).
use spec::messages::{Login, LoginAnswer};
use spec::{Rv, UserType};

use super::{Role, access};
use crate::error::Refusal;
use crate::partition::{Caller, Partition};

impl Partition {
    pub(crate) fn login(&self, caller: &Caller, login: &Login, now_ms: u64) -> Result<LoginAnswer, Refusal> {
        crate::bounds::tag(&login.tag)?;
        let role = Role::of_user(UserType(login.user)).ok_or_else(|| {
            Refusal::rv(
                Rv::USER_TYPE_INVALID,
                "wanted CKU_SO, CKU_USER or the Crypto User, found another user type",
            )
        })?;
        let verifier = self.contents.read().credentials.verifier(role).cloned();
        let verifier = verifier.ok_or(match role {
            Role::CryptoUser => Rv::USER_TYPE_INVALID,
            Role::SecurityOfficer | Role::CryptoOfficer => Rv::USER_PIN_NOT_INITIALIZED,
        })?;
        self.try_pin(caller, role, &verifier, &login.pin, &login.tag, now_ms)?;
        let contents = self.contents.read();
        // The PIN was right for the verifier read above; a change meanwhile must not give a ticket for the new one.
        if contents.credentials.verifier(role) != Some(&verifier) {
            return Err(Rv::PIN_INCORRECT.into());
        }
        Ok(LoginAnswer { ticket: access::mint(&self.sealer, &contents, caller, role) })
    }
}
