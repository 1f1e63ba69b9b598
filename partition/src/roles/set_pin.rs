//! SetPin at the home member, by compare-and-set (PKCS #11 v3.1, 5.5.8; HA 2.7).
use prost::Message;
use spec::messages::{SetPin, SetPinAnswer};
use spec::{Rv, UserType};
use zeroize::Zeroizing;

use super::Role;
use super::credentials::{Credentials, Verifier, next_epoch};
use super::tries::change_tag;
use crate::contents::{Change, Contents};
use crate::error::Refusal;
use crate::partition::{Caller, Partition};
use crate::seal::{Context, What};
use crate::settings::PIN_BYTES_MAX;

impl Partition {
    pub(crate) fn set_pin(
        &self,
        caller: &Caller,
        set: &SetPin,
        now_ms: u64,
    ) -> Result<SetPinAnswer, Refusal> {
        crate::bounds::tag(&set.tag)?;
        let role = Role::of_user(UserType(set.user)).ok_or(Rv::USER_TYPE_INVALID)?;
        let tag = change_tag(caller, &set.tag);
        let verifier = {
            let contents = self.contents.read();
            self.check_home(&contents)?;
            if contents.credentials.tag == tag {
                return Ok(SetPinAnswer { credentials: self.sealed_credentials(&contents) });
            }
            contents.credentials.verifier(role).cloned().ok_or(Rv::USER_PIN_NOT_INITIALIZED)?
        };
        let bytes = self.settings.pin_bytes_min..=PIN_BYTES_MAX;
        if !u32::try_from(set.new.len()).is_ok_and(|length| bytes.contains(&length)) {
            let text =
                format!("wanted a PIN of {} to {} bytes, found another length", bytes.start(), bytes.end());
            return Err(Refusal::rv(Rv::PIN_LEN_RANGE, text));
        }
        self.try_pin(caller, role, &verifier, &set.old, &set.tag, now_ms)?;
        let new =
            Verifier::make(role, &set.new, verifier.revocation, &self.settings).ok_or(Rv::FUNCTION_FAILED)?;
        self.write(|contents| {
            // The same request, sent again while this one was at the verifier, has been carried out meanwhile (HA 4.2).
            if contents.credentials.tag == tag {
                return Ok((Change::default(), ()));
            }
            if contents.credentials.verifier(role) != Some(&verifier) {
                return Err(Refusal::rv(
                    Rv::PIN_INCORRECT,
                    "the PIN was changed by another caller meanwhile",
                ));
            }
            Ok((
                Change {
                    credentials: Some(replaced(contents, new.clone(), tag.clone())),
                    ..Change::default()
                },
                (),
            ))
        })?;
        Ok(SetPinAnswer { credentials: self.sealed_credentials(&self.contents.read()) })
    }

    /// The credentials under their seal, for the other members.
    pub(crate) fn sealed_credentials(&self, contents: &Contents) -> Vec<u8> {
        let plain = Zeroizing::new(contents.credentials.encode_to_vec());
        self.sealer.seal(&Context { group: contents.group(), what: What::Credentials }, &plain)
    }
}

/// The next epoch, with one verifier in the place of the old one.
fn replaced(contents: &Contents, new: Verifier, tag: Vec<u8>) -> Credentials {
    let mut next = contents.credentials.clone();
    next.epoch = next_epoch(&next, &contents.manifest);
    next.tag = tag;
    next.verifiers.retain(|verifier| verifier.role != new.role);
    next.verifiers.push(new);
    next.verifiers.sort_by_key(|verifier| verifier.role);
    next
}
