//! CKM_SHA*_HMAC and CKM_SHA*_HMAC_GENERAL (PKCS #11 v3.1, 6.20 to 6.24; RFC 2104).
//!
//! In parts, the state is the inner hash in progress: as secret as the key, so it leaves a member sealed only (RULES 1.6).

use super::{Bytes, Family, Input, KeyMaterial, Output, Placed, Use, answer, resume};
use aws_lc_rs::hmac as aws;
use digests::{Hash, Running, digest};
use spec::messages::{How, KeyFunction, OutputRule, PlanAnswer};
use spec::{Parameters, Rv};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The family.
pub(super) struct Hmac;

impl Family for Hmac {
    fn plan(&self, job: &Use<'_>) -> Result<PlanAnswer, Rv> {
        Ok(answer(How::STREAM, OutputRule::FIXED, mac_bytes(job)?))
    }

    fn sign(&self, job: &Use<'_>, message: &[u8]) -> Result<Bytes, Rv> {
        let key = aws::Key::new(algorithm(hash(job)?), secret(job)?);
        let mut mac = Zeroizing::new(aws::sign(&key, message).as_ref().to_vec());
        mac.truncate(mac_bytes(job)?);
        Ok(mac)
    }

    fn verify(&self, job: &Use<'_>, message: &[u8], signature: &[u8]) -> Result<(), Rv> {
        verdict(&self.sign(job, message)?, signature)
    }

    fn stream(&self, job: &Use<'_>, input: &Input<'_>) -> Result<Output, Rv> {
        let hash = hash(job)?;
        let block = key_block(hash, secret(job)?);
        let mut inner = match resume(hash, input.state)? {
            Some(inner) => inner,
            None => begun(hash, &block, 0x36),
        };
        inner.update(input.data);
        if !input.last {
            return Ok(Output::state(inner.to_state()));
        }
        let mut outer = begun(hash, &block, 0x5c);
        outer.update(&inner.finish());
        let mut mac = outer.finish();
        mac.truncate(mac_bytes(job)?);
        if job.function == KeyFunction::SIGN {
            Ok(Output::data(mac))
        } else {
            verdict(&mac, input.signature).map(|()| Output::data(Placed::default()))
        }
    }
}

/// Compares in constant time (RULES 1.10).
fn verdict(mac: &[u8], signature: &[u8]) -> Result<(), Rv> {
    if mac.len() != signature.len() {
        Err(Rv::SIGNATURE_LEN_RANGE)
    } else if bool::from(mac.ct_eq(signature)) {
        Ok(())
    } else {
        Err(Rv::SIGNATURE_INVALID)
    }
}

/// The key in one block: hashed if it is longer, filled with zeros (RFC 2104, 2).
fn key_block(hash: Hash, key: &[u8]) -> Bytes {
    let hashed = Zeroizing::new(if key.len() > hash.block_bytes() {
        digest(hash, key).to_vec()
    } else {
        key.to_vec()
    });
    let mut block = Zeroizing::new(vec![0; hash.block_bytes()]);
    block[..hashed.len()].copy_from_slice(&hashed);
    block
}

/// A hash that has taken the key block mixed with a pad byte.
fn begun(hash: Hash, block: &[u8], pad: u8) -> Running {
    let mixed = Zeroizing::new(block.iter().map(|byte| byte ^ pad).collect::<Vec<u8>>());
    let mut running = Running::new(hash);
    running.update(&mixed);
    running
}

fn hash(job: &Use<'_>) -> Result<Hash, Rv> {
    job.hash.ok_or(Rv::MECHANISM_INVALID)
}

fn secret<'a>(job: &Use<'a>) -> Result<&'a [u8], Rv> {
    if let KeyMaterial::Secret(key) = job.key { Ok(&key.bytes) } else { Err(Rv::KEY_TYPE_INCONSISTENT) }
}

/// Length of the MAC in bytes: the digest's, or the one asked for.
fn mac_bytes(job: &Use<'_>) -> Result<usize, Rv> {
    let whole = hash(job)?.len_bytes();
    match job.parameters {
        Parameters::None => Ok(whole),
        Parameters::MacGeneral { mac_bytes } => usize::try_from(*mac_bytes)
            .ok()
            .filter(|bytes| (1..=whole).contains(bytes))
            .ok_or(Rv::MECHANISM_PARAM_INVALID),
        _ => Err(Rv::MECHANISM_PARAM_INVALID),
    }
}

fn algorithm(hash: Hash) -> aws::Algorithm {
    match hash {
        Hash::Sha1 => aws::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha224 => aws::HMAC_SHA224,
        Hash::Sha256 => aws::HMAC_SHA256,
        Hash::Sha384 => aws::HMAC_SHA384,
        Hash::Sha512 => aws::HMAC_SHA512,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::mechanisms::known::*;
    use spec::{KeyType, Mechanism, MechanismType as M};

    /// Whole form, general form, key type, and the MACs of "what do ya want for nothing?" under "Jefe" and of the message about keys
    /// larger than a block under many bytes aa. Sources: RFC 2202, 3, cases 2 and 6 (80 bytes) for SHA-1; RFC 4231, 4.3 and 4.7
    /// (131 bytes) for SHA-2.
    const ANSWERS: [(M, M, KeyType, &str, &str); 5] = [
        (
            M::SHA_1_HMAC,
            M::SHA_1_HMAC_GENERAL,
            KeyType::SHA_1_HMAC,
            "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
            "aa4ae5e15272d00e95705637ce8a3b55ed402112",
        ),
        (
            M::SHA224_HMAC,
            M::SHA224_HMAC_GENERAL,
            KeyType::SHA224_HMAC,
            "a30e01098bc6dbbf45690f3a7e9e6d0f8bbea2a39e6148008fd05e44",
            "95e9a0db962095adaebe9b2d6f0dbce2d499f112f2d2b7273fa6870e",
        ),
        (
            M::SHA256_HMAC,
            M::SHA256_HMAC_GENERAL,
            KeyType::SHA256_HMAC,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            M::SHA384_HMAC,
            M::SHA384_HMAC_GENERAL,
            KeyType::SHA384_HMAC,
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
        ),
        (
            M::SHA512_HMAC,
            M::SHA512_HMAC_GENERAL,
            KeyType::SHA512_HMAC,
            concat!(
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554",
                "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
            ),
            concat!(
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352",
                "6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598"
            ),
        ),
    ];
    const JEFE: &[u8] = b"what do ya want for nothing?";
    const LARGE: &[u8] = b"Test Using Larger Than Block-Size Key - Hash Key First";

    /// General form and MAC of "Test With Truncation" under 20 bytes 0c. Sources: RFC 2202, 3, case 5 (96 bits) and RFC 4231, 4.6
    /// (128 bits).
    const TRUNCATED: [(M, &str); 5] = [
        (M::SHA_1_HMAC_GENERAL, "4c1a03424b55e07fe7f27be1"),
        (M::SHA224_HMAC_GENERAL, "0e2aea68a90c8d37c988bcdb9fca6fa8"),
        (M::SHA256_HMAC_GENERAL, "a3b6167473100ee06e0c796c2955552b"),
        (M::SHA384_HMAC_GENERAL, "3abf34c3503b2a23a46efc619baef897"),
        (M::SHA512_HMAC_GENERAL, "415fad6271580a531d4179bc891d87a6"),
    ];

    fn general(mechanism_type: M, mac_bytes: u64) -> Mechanism {
        Mechanism { mechanism_type, parameters: Parameters::MacGeneral { mac_bytes } }
    }

    #[test]
    fn macs_are_those_of_rfc_2202_and_4231_whole_and_in_parts() {
        for (form, general_form, key_type, jefe, large) in ANSWERS {
            let mechanism = plain(form);
            let long_key = vec![0xaa; if form == M::SHA_1_HMAC { 80 } else { 131 }];
            for (key, data, answer) in [(b"Jefe".to_vec(), JEFE, jefe), (long_key, LARGE, large)] {
                for key in [secret_key(KeyType::GENERIC_SECRET, &key), secret_key(key_type, &key)] {
                    let mac = unhex(answer);
                    assert_eq!(*sign(&mechanism, &key, data).unwrap(), mac, "{form}");
                    assert_eq!(*use_stream(&mechanism, &key, &[&data[..5], b"", &data[5..]]).unwrap(), mac);
                    assert_eq!(*use_stream(&mechanism, &key, &[data]).unwrap(), mac);
                    assert_eq!(*sign(&general(general_form, 10), &key, data).unwrap(), mac[..10]);
                    assert_eq!(*use_stream(&general(general_form, 3), &key, &[data]).unwrap(), mac[..3]);
                    assert_eq!(verify(&mechanism, &key, data, &mac), Ok(()));
                    assert_eq!(verify_stream(&mechanism, &key, &[&data[..9], &data[9..]], &mac), Ok(()));
                }
            }
        }
    }

    #[test]
    fn truncated_macs_are_those_of_rfc_2202_and_4231() {
        let key = secret_key(KeyType::GENERIC_SECRET, &[0x0c; 20]);
        for (form, answer) in TRUNCATED {
            let (mac, data) = (unhex(answer), b"Test With Truncation");
            let mechanism = general(form, mac.len() as u64);
            assert_eq!(*sign(&mechanism, &key, data).unwrap(), mac, "{form}");
            assert_eq!(*use_stream(&mechanism, &key, &[&data[..3], &data[3..]]).unwrap(), mac);
            assert_eq!(verify(&mechanism, &key, data, &mac), Ok(()));
        }
    }

    #[test]
    fn wrong_macs_and_lengths_have_their_answers() {
        let (mechanism, key) = (plain(M::SHA256_HMAC), secret_key(KeyType::GENERIC_SECRET, b"Jefe"));
        let mut mac = sign(&mechanism, &key, JEFE).unwrap();
        for wrong in [&mac[1..], &[], &[&mac[..], &[0]].concat()] {
            assert_eq!(verify(&mechanism, &key, JEFE, wrong), Err(Rv::SIGNATURE_LEN_RANGE));
        }
        mac[31] ^= 1;
        assert_eq!(verify(&mechanism, &key, JEFE, &mac), Err(Rv::SIGNATURE_INVALID));
        assert_eq!(verify_stream(&mechanism, &key, &[JEFE], &mac), Err(Rv::SIGNATURE_INVALID));
        let part = verify(&general(M::SHA256_HMAC_GENERAL, 31), &key, JEFE, &mac[..31]);
        assert_eq!(part, Ok(()));
        let other = secret_key(KeyType::SHA_1_HMAC, b"Jefe");
        assert_eq!(sign(&mechanism, &other, JEFE).err(), Some(Rv::KEY_TYPE_INCONSISTENT));
    }

    #[test]
    fn state_of_another_hash_is_refused() {
        let key = secret_key(KeyType::GENERIC_SECRET, b"Jefe");
        let state = Running::new(Hash::Sha512).to_state();
        for state in [&state[..], &state[1..], &[]] {
            let answer = stream_from(&plain(M::SHA256_HMAC), &key, state);
            assert_eq!(answer.err(), Some(Rv::FUNCTION_FAILED));
        }
    }

    #[test]
    fn plan_streams_with_the_length_asked_for() {
        let key = secret_key(KeyType::GENERIC_SECRET, b"Jefe");
        let plan = plan_of(&general(M::SHA512_HMAC_GENERAL, 20), KeyFunction::SIGN, &key, true).unwrap();
        assert_eq!((plan.how, plan.output_bytes), (How::STREAM.0, 20));
    }
}
