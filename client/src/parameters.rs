//! Mechanisms on their way: the check against the rows of `spec` before anything is sent, and the fields
//! that a plan depends on (RULES 1.1).
use spec::mechanisms::row_of;
use spec::messages::MechanismMessage;
use spec::{Mechanism, Rv};

use crate::error::Result;

/// Checks a mechanism for one function, given by its bit of `spec::flags::mechanism`.
///
/// # Errors
/// CKR_MECHANISM_INVALID without a row or for another function, CKR_MECHANISM_PARAM_INVALID.
pub(crate) fn check(mechanism: &Mechanism, function: u64) -> Result<()> {
    let row = row_of(mechanism.mechanism_type).filter(|row| row.permits(function));
    row.ok_or(Rv::MECHANISM_INVALID)?.check_parameters(&mechanism.parameters)?;
    Ok(())
}

/// What of a mechanism a plan depends on: never IV, AAD or label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relevant {
    number: u64,
    tag_bits: u64,
    hash: u64,
    mgf: u64,
    salt_bytes: u64,
    mac_bytes: u64,
}

impl Relevant {
    /// Of a mechanism's message.
    pub(crate) fn of(message: &MechanismMessage) -> Self {
        Self {
            number: message.number,
            tag_bits: message.tag_bits,
            hash: message.hash,
            mgf: message.mgf,
            salt_bytes: message.salt_bytes,
            mac_bytes: message.mac_bytes,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use spec::flags::mechanism::{DECRYPT, SIGN};
    use spec::{MechanismType, Parameters};

    #[test]
    fn a_mechanism_is_refused_before_anything_is_sent() {
        let rv = |mechanism: &Mechanism, function| check(mechanism, function).unwrap_err().rv();
        let aes = |parameters| Mechanism { mechanism_type: MechanismType::AES_CBC, parameters };
        assert_eq!(rv(&aes(Parameters::Iv(vec![0; 16])), SIGN), Rv::MECHANISM_INVALID);
        assert_eq!(rv(&aes(Parameters::None), SIGN), Rv::MECHANISM_INVALID);
        assert_eq!(rv(&aes(Parameters::Iv(vec![0; 15])), DECRYPT), Rv::MECHANISM_PARAM_INVALID);
        assert_eq!(rv(&Mechanism::plain(MechanismType::DES3_CBC), DECRYPT), Rv::MECHANISM_INVALID);
    }

    #[test]
    fn a_plan_does_not_depend_on_iv_or_aad() {
        let gcm = |iv: u8, aad: u8, tag_bits| {
            let parameters = Parameters::Gcm { iv: vec![iv; 12], aad: vec![aad], tag_bits };
            Relevant::of(&MechanismMessage::from(&Mechanism {
                mechanism_type: MechanismType::AES_GCM,
                parameters,
            }))
        };
        assert_eq!(gcm(1, 2, 128), gcm(3, 4, 128));
        assert_ne!(gcm(1, 2, 128), gcm(1, 2, 96));
    }
}
