//! Mechanisms of the application: `CK_MECHANISM` with its parameter structure, parsed by the kind that the table of
//! mechanisms names. Lengths and NULLs inside a parameter are CKR_MECHANISM_PARAM_INVALID.

use std::os::raw::c_void;

use cryptoki_sys::{
    CK_GCM_PARAMS, CK_MECHANISM, CK_RSA_PKCS_OAEP_PARAMS, CK_RSA_PKCS_PSS_PARAMS, CK_ULONG,
    CKZ_DATA_SPECIFIED,
};
use spec::mechanisms::{ParameterKind, row_of};
use spec::messages::BODY_BYTES_MAX;
use spec::numbers::MgfType;
use spec::{Mechanism, MechanismType, Parameters, Rv};

use super::convert::wide;
use super::pointer::{Caller, Plain, as_bytes};

/// Longest initialisation vector of GCM in bytes (PKCS #11 v3.1, 6.13.3).
const GCM_IV_BYTES_MAX: usize = 256;

impl Caller {
    /// The mechanism of an Init; none for NULL, which cancels the operation (PKCS #11 v3.1, 5.8.1 and its like).
    /// `function` is the bit of [`spec::flags::mechanism`] that the called function asks for: whether the mechanism
    /// does that at all is decided before its parameter is looked at.
    ///
    /// # Errors
    /// `CKR_MECHANISM_INVALID` when it is not in scope or not for this function, `CKR_MECHANISM_PARAM_INVALID`.
    pub(super) fn mechanism(&self, place: *mut CK_MECHANISM, function: u64) -> Result<Option<Mechanism>, Rv> {
        if place.is_null() {
            return Ok(None);
        }
        let given = self.value(place)?;
        let mechanism_type = MechanismType(wide(given.mechanism));
        let row = row_of(mechanism_type).filter(|row| row.permits(function)).ok_or(Rv::MECHANISM_INVALID)?;
        let parameters = match row.parameters {
            ParameterKind::None if given.ulParameterLen == 0 => Parameters::None,
            ParameterKind::None => return Err(Rv::MECHANISM_PARAM_INVALID),
            ParameterKind::Iv16 => {
                Parameters::Iv(self.piece(as_bytes(given.pParameter), given.ulParameterLen, 16)?)
            }
            ParameterKind::Gcm => self.gcm(self.parameter(&given)?)?,
            ParameterKind::Pss => pss(self.parameter(&given)?),
            ParameterKind::Oaep => self.oaep(self.parameter(&given)?)?,
            ParameterKind::MacGeneral => Parameters::MacGeneral { mac_bytes: wide(self.parameter(&given)?) },
        };
        row.check_parameters(&parameters)?;
        Ok(Some(Mechanism { mechanism_type, parameters }))
    }

    /// The mechanism of a function that must have one.
    ///
    /// # Errors
    /// `CKR_ARGUMENTS_BAD` for NULL; else as [`Self::mechanism`].
    pub(super) fn required_mechanism(
        &self,
        place: *mut CK_MECHANISM,
        function: u64,
    ) -> Result<Mechanism, Rv> {
        self.mechanism(place, function)?.ok_or(Rv::ARGUMENTS_BAD)
    }

    /// A parameter structure, copied.
    fn parameter<T: Plain>(&self, mechanism: &CK_MECHANISM) -> Result<T, Rv> {
        let place: *const c_void = mechanism.pParameter;
        if usize::try_from(mechanism.ulParameterLen) != Ok(size_of::<T>()) {
            return Err(Rv::MECHANISM_PARAM_INVALID);
        }
        self.value(place.cast()).map_err(|_| Rv::MECHANISM_PARAM_INVALID)
    }

    /// Bytes that a parameter points to.
    fn piece(&self, place: *const u8, length: CK_ULONG, bytes_max: usize) -> Result<Vec<u8>, Rv> {
        if usize::try_from(length).map_or(true, |length| length > bytes_max) {
            return Err(Rv::MECHANISM_PARAM_INVALID);
        }
        self.bytes(place, length).map(client::parameter_bytes).map_err(|_| Rv::MECHANISM_PARAM_INVALID)
    }

    /// `ulIvBits` is not looked at: callers leave it unset, and the length in bytes says the same.
    fn gcm(&self, given: CK_GCM_PARAMS) -> Result<Parameters, Rv> {
        Ok(Parameters::Gcm {
            iv: self.piece(given.pIv, given.ulIvLen, GCM_IV_BYTES_MAX)?,
            aad: self.piece(given.pAAD, given.ulAADLen, BODY_BYTES_MAX)?,
            tag_bits: wide(given.ulTagBits),
        })
    }

    /// A source of 0 beside an empty label counts as "no label": callers leave the field unset.
    fn oaep(&self, given: CK_RSA_PKCS_OAEP_PARAMS) -> Result<Parameters, Rv> {
        let label =
            self.piece(given.pSourceData.cast_const().cast(), given.ulSourceDataLen, BODY_BYTES_MAX)?;
        if given.source != CKZ_DATA_SPECIFIED && !(given.source == 0 && label.is_empty()) {
            return Err(Rv::MECHANISM_PARAM_INVALID);
        }
        Ok(Parameters::Oaep {
            hash: MechanismType(wide(given.hashAlg)),
            mgf: MgfType(wide(given.mgf)),
            label,
        })
    }
}

fn pss(given: CK_RSA_PKCS_PSS_PARAMS) -> Parameters {
    Parameters::Pss {
        hash: MechanismType(wide(given.hashAlg)),
        mgf: MgfType(wide(given.mgf)),
        salt_bytes: wide(given.sLen),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::abi::convert::ulong;
    use spec::MechanismType as M;
    use spec::flags::mechanism as to;
    use std::ptr::null_mut;

    fn parse(kind: MechanismType, place: *mut c_void, length: usize) -> Result<Option<Mechanism>, Rv> {
        // SAFETY: each test passes pointers into buffers of its own, with their lengths.
        let caller = unsafe { Caller::promised() };
        let mut mechanism =
            CK_MECHANISM { mechanism: ulong(kind.0), pParameter: place, ulParameterLen: ulong(length) };
        let functions = [to::ENCRYPT, to::DIGEST, to::SIGN, to::GENERATE, to::GENERATE_KEY_PAIR];
        let permitted = |function: &&u64| row_of(kind).is_some_and(|row| row.permits(**function));
        caller.mechanism(&raw mut mechanism, functions.iter().find(permitted).copied().unwrap_or(to::SIGN))
    }

    #[test]
    fn another_function_is_refused_before_the_parameter_is_looked_at() {
        // SAFETY: the mechanism is our own and its parameter is NULL.
        let caller = unsafe { Caller::promised() };
        let mut mechanism =
            CK_MECHANISM { mechanism: ulong(M::AES_CBC.0), pParameter: null_mut(), ulParameterLen: 0 };
        assert_eq!(caller.mechanism(&raw mut mechanism, to::DIGEST), Err(Rv::MECHANISM_INVALID));
        assert_eq!(caller.mechanism(&raw mut mechanism, to::ENCRYPT), Err(Rv::MECHANISM_PARAM_INVALID));
    }

    fn parse_value<T>(kind: MechanismType, mut value: T) -> Result<Parameters, Rv> {
        parse(kind, (&raw mut value).cast(), size_of::<T>()).map(|parsed| parsed.unwrap().parameters)
    }

    #[test]
    fn null_cancels_or_is_bad_where_a_mechanism_is_needed() {
        // SAFETY: only NULL is passed.
        let caller = unsafe { Caller::promised() };
        assert_eq!(caller.mechanism(null_mut(), to::SIGN), Ok(None));
        assert_eq!(caller.required_mechanism(null_mut(), to::GENERATE), Err(Rv::ARGUMENTS_BAD));
    }

    #[test]
    fn mechanisms_without_a_parameter_take_none() {
        assert_eq!(parse(M::RSA_PKCS, null_mut(), 0).unwrap(), Some(Mechanism::plain(M::RSA_PKCS)));
        assert_eq!(parse(M::RSA_PKCS, null_mut(), 1), Err(Rv::MECHANISM_PARAM_INVALID));
        assert_eq!(parse(M::DES3_CBC, null_mut(), 0), Err(Rv::MECHANISM_INVALID));
        assert_eq!(parse(MechanismType(u64::MAX), null_mut(), 0), Err(Rv::MECHANISM_INVALID));
    }

    #[test]
    fn an_initialisation_vector_has_sixteen_bytes() {
        let mut iv = [7_u8; 17];
        let at = |length| parse(M::AES_CBC, iv.as_mut_ptr().cast(), length);
        let results: Vec<_> = [0, 15, 16, 17].map(at).into_iter().map(|result| result.is_ok()).collect();
        assert_eq!(results, [false, false, true, false]);
        assert_eq!(parse(M::AES_CBC, null_mut(), 16), Err(Rv::MECHANISM_PARAM_INVALID));
    }

    #[test]
    fn gcm_parameters_are_read_and_null_inside_is_refused() {
        let (mut iv, mut aad) = ([1_u8; 12], [2_u8; 3]);
        let good = CK_GCM_PARAMS {
            pIv: iv.as_mut_ptr(),
            ulIvLen: 12,
            ulIvBits: 0,
            pAAD: aad.as_mut_ptr(),
            ulAADLen: 3,
            ulTagBits: 128,
        };
        let expected = Parameters::Gcm { iv: vec![1; 12], aad: vec![2; 3], tag_bits: 128 };
        assert_eq!(parse_value(M::AES_GCM, good), Ok(expected));
        for bad in [
            CK_GCM_PARAMS { pIv: null_mut(), ..good },
            CK_GCM_PARAMS { pAAD: null_mut(), ..good },
            CK_GCM_PARAMS { ulIvLen: CK_ULONG::MAX, ..good },
            CK_GCM_PARAMS { ulAADLen: CK_ULONG::MAX, ..good },
            CK_GCM_PARAMS { ulTagBits: 129, ..good },
        ] {
            assert_eq!(parse_value(M::AES_GCM, bad), Err(Rv::MECHANISM_PARAM_INVALID));
        }
        assert_eq!(
            parse(M::AES_GCM, null_mut(), size_of::<CK_GCM_PARAMS>()),
            Err(Rv::MECHANISM_PARAM_INVALID)
        );
        assert_eq!(parse_value(M::AES_GCM, [0_u8; 47]), Err(Rv::MECHANISM_PARAM_INVALID));
    }

    #[test]
    fn pss_and_oaep_and_mac_lengths_are_read() {
        let hash = ulong(M::SHA256.0);
        let mgf = ulong(MgfType::MGF1_SHA256.0);
        assert_eq!(
            parse_value(M::RSA_PKCS_PSS, CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash, mgf, sLen: 32 }),
            Ok(Parameters::Pss { hash: M::SHA256, mgf: MgfType::MGF1_SHA256, salt_bytes: 32 })
        );
        let mut label = *b"label";
        let oaep = CK_RSA_PKCS_OAEP_PARAMS {
            hashAlg: hash,
            mgf,
            source: CKZ_DATA_SPECIFIED,
            pSourceData: label.as_mut_ptr().cast(),
            ulSourceDataLen: 5,
        };
        let expected = |label: &[u8]| Parameters::Oaep {
            hash: M::SHA256,
            mgf: MgfType::MGF1_SHA256,
            label: label.to_vec(),
        };
        assert_eq!(parse_value(M::RSA_PKCS_OAEP, oaep), Ok(expected(b"label")));
        let unset =
            CK_RSA_PKCS_OAEP_PARAMS { source: 0, pSourceData: null_mut(), ulSourceDataLen: 0, ..oaep };
        assert_eq!(parse_value(M::RSA_PKCS_OAEP, unset), Ok(expected(b"")));
        let wrong = CK_RSA_PKCS_OAEP_PARAMS { source: 0, ..oaep };
        assert_eq!(parse_value(M::RSA_PKCS_OAEP, wrong), Err(Rv::MECHANISM_PARAM_INVALID));
        assert_eq!(
            parse_value::<CK_ULONG>(M::SHA256_HMAC_GENERAL, 16),
            Ok(Parameters::MacGeneral { mac_bytes: 16 })
        );
        assert_eq!(parse_value(M::SHA256_HMAC_GENERAL, [1_u8; 3]), Err(Rv::MECHANISM_PARAM_INVALID));
    }
}
