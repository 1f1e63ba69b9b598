//! ECDSA verification over a digest of any length (FIPS 186-5, 6.4.2). It needs no secret, so it runs anywhere.

use std::ops::Deref;

use aws_lc_rs::{digest as aws, signature as check};
use spec::Rv;

/// Length of the longest scalar in bytes.
const SCALAR_BYTES_MAX: usize = EcCurve::P521.scalar_bytes();

/// A curve of SP 800-186.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EcCurve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
}

impl EcCurve {
    /// Every curve, smallest first.
    pub const ALL: [EcCurve; 3] = [EcCurve::P256, EcCurve::P384, EcCurve::P521];

    /// Size of the order in bits.
    #[must_use]
    pub const fn order_bits(self) -> usize {
        match self {
            EcCurve::P256 => 256,
            EcCurve::P384 => 384,
            EcCurve::P521 => 521,
        }
    }

    /// Length in bytes of a scalar and of a coordinate; a signature `r || s` has twice as many.
    #[must_use]
    pub const fn scalar_bytes(self) -> usize {
        self.order_bits().div_ceil(8)
    }

    /// The DER of the curve's object identifier, the value of CKA_EC_PARAMS (RFC 5480, 2.1.1.1).
    #[must_use]
    pub const fn parameters(self) -> &'static [u8] {
        match self {
            EcCurve::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            EcCurve::P384 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
            EcCurve::P521 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23],
        }
    }

    /// The curve of an object identifier's DER; `None` for any other bytes.
    #[must_use]
    pub fn from_parameters(parameters: &[u8]) -> Option<EcCurve> {
        EcCurve::ALL.into_iter().find(|curve| curve.parameters() == parameters)
    }

    /// The number that ECDSA takes of a digest: its leftmost bits, as many as the order has, in `scalar_bytes` bytes
    /// (FIPS 186-5, 6.4.1 step 2).
    #[must_use]
    pub fn truncated(self, digest: &[u8]) -> Number {
        let mut all = Number { bytes: [0; SCALAR_BYTES_MAX], len: self.scalar_bytes() };
        let number = &mut all.bytes[..all.len];
        let cut = &digest[..digest.len().min(number.len())];
        let start = number.len() - cut.len();
        number[start..].copy_from_slice(cut);
        let surplus_bits = (cut.len() * 8).saturating_sub(self.order_bits());
        if surplus_bits > 0 {
            let mut above = 0;
            for byte in number {
                let carried = above << (8 - surplus_bits);
                above = *byte;
                *byte = carried | *byte >> surplus_bits;
            }
        }
        all
    }

    /// The algorithm that verifies, over a digest of the curve's own length.
    fn verification(self) -> &'static check::EcdsaVerificationAlgorithm {
        match self {
            EcCurve::P256 => &check::ECDSA_P256_SHA256_FIXED,
            EcCurve::P384 => &check::ECDSA_P384_SHA384_FIXED,
            EcCurve::P521 => &check::ECDSA_P521_SHA512_FIXED,
        }
    }
}

/// What ECDSA takes of a digest, big-endian, in the bytes of the curve's scalars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    bytes: [u8; SCALAR_BYTES_MAX],
    len: usize,
}

impl Deref for Number {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A public key on a curve, usable by many threads at once: an uncompressed point, known to lie on it, parsed once.
pub struct EcPublicKey {
    curve: EcCurve,
    point: Vec<u8>,
    parsed: check::ParsedPublicKey,
}

impl EcPublicKey {
    /// The key of an uncompressed point `04 || x || y`; `None` unless it lies on the curve.
    #[must_use]
    pub fn new(curve: EcCurve, point: &[u8]) -> Option<Self> {
        if point.len() != 1 + 2 * curve.scalar_bytes() || point[0] != 4 {
            return None;
        }
        let parsed = check::ParsedPublicKey::new(curve.verification(), point).ok()?;
        Some(Self { curve, point: point.to_vec(), parsed })
    }

    /// The curve.
    #[must_use]
    pub fn curve(&self) -> EcCurve {
        self.curve
    }

    /// The uncompressed point.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        &self.point
    }

    /// Checks an ECDSA signature `r || s` of a digest of any length. Nothing here is secret.
    ///
    /// # Errors
    /// CKR_DATA_LEN_RANGE for an empty digest, whose signatures are forged without the key; CKR_SIGNATURE_LEN_RANGE;
    /// CKR_SIGNATURE_INVALID.
    pub fn verify(&self, digest: &[u8], signature: &[u8]) -> Result<(), Rv> {
        if digest.is_empty() {
            return Err(Rv::DATA_LEN_RANGE);
        }
        if signature.len() != 2 * self.curve.scalar_bytes() {
            return Err(Rv::SIGNATURE_LEN_RANGE);
        }
        let number = self.curve.truncated(digest);
        let hash = match self.curve {
            EcCurve::P256 => &aws::SHA256,
            EcCurve::P384 => &aws::SHA384,
            // The fixed form of P-521 takes 64 bytes; a longer number goes the other way.
            EcCurve::P521 if digest.len() > 64 => return verify_p521(&self.point, &number, signature),
            EcCurve::P521 => &aws::SHA512,
        };
        let number = &number[number.len() - hash.output_len..];
        let number = aws::Digest::import_less_safe(number, hash).map_err(|_| Rv::SIGNATURE_INVALID)?;
        self.parsed.verify_digest_sig(&number, signature).map_err(|_| Rv::SIGNATURE_INVALID)
    }
}

fn verify_p521(point: &[u8], number: &[u8], signature: &[u8]) -> Result<(), Rv> {
    use p521::ecdsa::{Signature, VerifyingKey, signature::hazmat::PrehashVerifier};
    // Known to lie on the curve.
    let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| Rv::FUNCTION_FAILED)?;
    let signature = Signature::from_slice(signature).map_err(|_| Rv::SIGNATURE_INVALID)?;
    key.verify_prehash(number, &signature).map_err(|_| Rv::SIGNATURE_INVALID)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::{Hash, digest};
    use p256::ecdsa::signature::hazmat::PrehashSigner;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    /// `None` for what is no point of the curve.
    fn verify(curve: EcCurve, point: &[u8], digest: &[u8], signature: &[u8]) -> Option<Result<(), Rv>> {
        EcPublicKey::new(curve, point).map(|key| key.verify(digest, signature))
    }

    /// RFC 6979, A.2.5 (P-256), A.2.6 (P-384) and A.2.7 (P-521): message "sample" under SHA-256, SHA-384 and SHA-512.
    fn known() -> [(EcCurve, Hash, Vec<u8>, Vec<u8>); 3] {
        [
            (
                EcCurve::P256,
                Hash::Sha256,
                unhex(concat!(
                    "0460FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6",
                    "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"
                )),
                unhex(concat!(
                    "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
                    "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
                )),
            ),
            (
                EcCurve::P384,
                Hash::Sha384,
                unhex(concat!(
                    "04EC3A4E415B4E19A4568618029F427FA5DA9A8BC4AE92E02E06AAE5286B300C64DEF8F0EA9055866064A254515480BC13",
                    "8015D9B72D7D57244EA8EF9AC0C621896708A59367F9DFB9F54CA84B3F1C9DB1288B231C3AE0D4FE7344FD2533264720"
                )),
                unhex(concat!(
                    "94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46",
                    "99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8"
                )),
            ),
            (
                EcCurve::P521,
                Hash::Sha512,
                unhex(concat!(
                    "0401894550D0785932E00EAA23B694F213F8C3121F86DC97A04E5A7167DB4E5BCD371123D46E45DB6B5D5370A7F20FB633155D38FFA16D2BD761DCAC474B9A2F5023A4",
                    "00493101C962CD4D2FDDF782285E64584139C2F91B47F87FF82354D6630F746A28A0DB25741B5B34A828008B22ACC23F924FAAFBD4D33F81EA66956DFEAA2BFDFCF5"
                )),
                unhex(concat!(
                    "00C328FAFCBD79DD77850370C46325D987CB525569FB63C5D3BC53950E6D4C5F174E25A1EE9017B5D450606ADD152B534931D7D4E8455CC91F9B15BF05EC36E377FA",
                    "00617CCE7CF5064806C467F678D3B4080D6F1CC50AF26CA209417308281B68AF282623EAA63E5B5C0723D8B8C37FF0777B1A20F8CCB1DCCC43997F1EE0E44DA4A67A"
                )),
            ),
        ]
    }

    #[test]
    fn signatures_of_rfc_6979_are_accepted_and_altered_ones_refused() {
        for (curve, hash, point, signature) in known() {
            let sample = digest(hash, b"sample");
            assert_eq!(verify(curve, &point, &sample, &signature), Some(Ok(())), "{curve:?}");
            assert_eq!(
                verify(curve, &point, &digest(hash, b"test"), &signature),
                Some(Err(Rv::SIGNATURE_INVALID))
            );
            for i in 0..signature.len() {
                let mut altered = signature.clone();
                altered[i] ^= 1;
                assert_eq!(verify(curve, &point, &sample, &altered), Some(Err(Rv::SIGNATURE_INVALID)));
            }
        }
    }

    #[test]
    fn wrong_lengths_and_points_have_their_own_answers() {
        for (curve, hash, point, signature) in known() {
            let sample = digest(hash, b"sample");
            for wrong in [&signature[1..], &[], &[&signature[..], &[0]].concat()] {
                assert_eq!(verify(curve, &point, &sample, wrong), Some(Err(Rv::SIGNATURE_LEN_RANGE)));
            }
            assert_eq!(verify(curve, &point, &[], &signature), Some(Err(Rv::DATA_LEN_RANGE)));
            let mut off_curve = point.clone();
            *off_curve.last_mut().unwrap() ^= 1;
            let zero = vec![0; signature.len()];
            assert_eq!(verify(curve, &point, &sample, &zero), Some(Err(Rv::SIGNATURE_INVALID)));
            for wrong in [&off_curve[..], &point[1..], &[0], &[]] {
                assert_eq!(verify(curve, wrong, &sample, &signature), None);
            }
            assert_eq!(verify(curve, &off_curve, &[7; 70], &signature), None);
        }
    }

    #[test]
    fn digests_of_other_lengths_count_by_their_leftmost_bits() {
        let key = p256::ecdsa::SigningKey::from_slice(&[0x17; 32]).unwrap();
        let point = key.verifying_key().to_encoded_point(false);
        for length in [16, 20, 32, 36, 64, 100] {
            let data: Vec<u8> = (0..length).map(|i| 0xf1 ^ i as u8).collect();
            let signature: p256::ecdsa::Signature =
                key.sign_prehash(&EcCurve::P256.truncated(&data)).unwrap();
            verify(EcCurve::P256, point.as_bytes(), &data, &signature.to_bytes()).unwrap().unwrap();
        }
        let key = p521::ecdsa::SigningKey::from_slice(&[&[0], &[0x17; 65][..]].concat()).unwrap();
        let point = p521::ecdsa::VerifyingKey::from(&key).to_encoded_point(false);
        for length in [20, 33, 64, 65, 66, 67, 200] {
            let data: Vec<u8> = (0..length).map(|i| 0xf1 ^ i as u8).collect();
            let signature: p521::ecdsa::Signature =
                key.sign_prehash(&EcCurve::P521.truncated(&data)).unwrap();
            verify(EcCurve::P521, point.as_bytes(), &data, &signature.to_bytes()).unwrap().unwrap();
        }
    }

    #[test]
    fn truncation_shifts_only_what_is_longer_than_the_order() {
        assert_eq!(EcCurve::P521.truncated(&[0xff; 65])[0], 0);
        assert_eq!(EcCurve::P521.truncated(&[0xff; 66])[0], 1);
        let mut last = [0; 66];
        last[65] = 0x80;
        last[64] = 1;
        assert_eq!(EcCurve::P521.truncated(&last)[65], 0b11);
        assert_eq!(*EcCurve::P256.truncated(&[9; 40]), [9; 32]);
        assert_eq!(*EcCurve::P384.truncated(&[9]), [&[0; 47][..], &[9]].concat());
    }
}
