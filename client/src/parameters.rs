//! Mechanisms on their way: the check against the rows of `spec` before anything is sent, and the fields
//! that a plan depends on (RULES 1.1).
use std::cell::Cell;

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

/// The longest IV or AAD whose memory is used again, in bytes.
const SPARE_BYTES_MAX: usize = 256;

thread_local! {
    /// The memory of the IV and the AAD of an operation that this thread has ended, empty.
    static SPARE: Cell<[Vec<u8>; 2]> = const { Cell::new([const { Vec::new() }; 2]) };
}

/// A copy of these bytes for a mechanism's parameter, in memory of an operation that this thread has ended, if there is some.
#[must_use]
pub fn parameter_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut copy = Vec::new();
    if (1..=SPARE_BYTES_MAX).contains(&bytes.len()) {
        // A thread that ends has none any more.
        let _ = SPARE.try_with(|kept| {
            let [mut one, mut other] = kept.take();
            let wanted = if one.capacity() < bytes.len() { &mut other } else { &mut one };
            copy = std::mem::take(wanted);
            kept.set([one, other]);
        });
    }
    copy.reserve_exact(bytes.len());
    copy.extend_from_slice(bytes);
    copy
}

/// Takes back the memory of a mechanism's IV and AAD. Touches nothing but the calling thread's own (HA 6).
pub(crate) fn give_back(mechanism: &mut MechanismMessage) {
    for bytes in [&mut mechanism.iv, &mut mechanism.aad] {
        if !(1..=SPARE_BYTES_MAX).contains(&bytes.capacity()) {
            continue;
        }
        let mut bytes = std::mem::take(bytes);
        spec::wipe::wipe_out(&mut bytes);
        let _ = SPARE.try_with(|kept| {
            let [mut one, mut other] = kept.take();
            let least = if one.capacity() <= other.capacity() { &mut one } else { &mut other };
            if least.capacity() < bytes.capacity() {
                *least = bytes;
            }
            kept.set([one, other]);
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use spec::flags::mechanism::{DECRYPT, SIGN};
    use spec::{MechanismType, Parameters};

    #[test]
    fn the_memory_of_an_ended_operation_holds_the_next_parameters_and_none_of_the_old_bytes() {
        let [iv, aad] = [&[1; 12][..], &[2; 40]].map(parameter_bytes);
        let places = [iv.as_ptr(), aad.as_ptr()];
        give_back(&mut MechanismMessage { iv, aad, ..MechanismMessage::default() });
        let (aad, iv) = (parameter_bytes(&[3; 40]), parameter_bytes(&[4; 12]));
        assert_eq!([iv.as_ptr(), aad.as_ptr()], places);
        assert_eq!((&*iv, &*aad), (&[4; 12][..], &[3; 40][..]));
        // Of three the two longest stay; what is longer than a parameter is likely to be does not.
        let third = parameter_bytes(&[5; 16]);
        assert!(!places.contains(&third.as_ptr()));
        let long = vec![6; SPARE_BYTES_MAX + 1];
        give_back(&mut MechanismMessage { iv: third, aad: long, ..MechanismMessage::default() });
        give_back(&mut MechanismMessage { iv, aad, ..MechanismMessage::default() });
        assert!(
            SPARE
                .take()
                .iter()
                .all(|kept| kept.is_empty() && (16..=SPARE_BYTES_MAX).contains(&kept.capacity()))
        );
    }

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
