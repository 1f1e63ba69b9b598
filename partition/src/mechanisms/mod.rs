//! The mechanisms: registry, checks that every use passes, and how a use runs in parts. Pure: no I/O, no store, no clock.
//!
//! Facts about a mechanism are its row in `spec::mechanisms`; here is what it does. One file a family with its known answers below, one
//! line a mechanism in the registry. [`plan`] answers a Plan, [`run`] a Use, [`generate`] a Make. The caller has checked the
//! object's rights (CKA_SIGN and so on, ALLOWED_MECHANISMS, login) and seals the running states that [`run`] gives and takes.
//!
//! ```text
//! WHOLE    data ---------------------------> result         any mechanism
//! PREHASH  digest -------------------------> result         hash-and-sign, where RULES 1.4 permits
//! STREAM   data -> state, data -> state, .. -> result       hash-and-sign, HMAC
//! CHAIN    blocks -> blocks, blocks -> blocks, ..           ECB, CBC, CBC_PAD; the IV of a part is the last cipher block before it
//! ```

mod aes_cbc;
mod aes_ecb;
mod aes_gcm;
mod ecdsa;
mod generation;
mod hmac;
mod key;
#[cfg(test)]
pub(crate) mod known;
mod rsa_oaep;
mod rsa_pkcs;
mod rsa_pss;
mod rsa_x_509;

pub use crate::placed::Placed;
pub use digests::{EcPublicKey, RsaPublicKey};
pub use generation::{Generated, generate};
pub use key::{EcPrivateKey, KeyMaterial, Lookup, RsaPrivateKey, SecretKey};

use digests::{Hash, Running, Scheme, digest};
use spec::flags::mechanism::{DECRYPT, ENCRYPT, SIGN, VERIFY};
use spec::mechanisms::{Row, Unit, row_of};
use spec::messages::{How, KeyFunction, OutputRule, PlanAnswer};
use spec::{Mechanism, MechanismType, MechanismType as M, Parameters, Rv};
use zeroize::Zeroizing;

/// Bytes that are wiped when dropped.
pub type Bytes = Zeroizing<Vec<u8>>;

/// What is done with which key: the same for every part of an operation.
pub struct Job<'a> {
    /// The mechanism with its parameters.
    pub mechanism: &'a Mechanism,
    /// Sign, verify, encrypt or decrypt.
    pub function: KeyFunction,
    /// The key.
    pub key: &'a KeyMaterial,
    /// Whether the key permits the raw form of a hash-and-sign mechanism, so that a digest from outside grants nothing new, and
    /// no policy says `hash in member` (RULES 1.4).
    pub prehash_permitted: bool,
}

/// One use or part.
pub struct Input<'a> {
    /// How the client runs it.
    pub how: How,
    /// The data, digest or part.
    pub data: &'a [u8],
    /// What is verified; empty for other functions and for parts before the last.
    pub signature: &'a [u8],
    /// Whether this is the last part (`STREAM`, `CHAIN`).
    pub last: bool,
    /// The running state of the part before, unsealed; `None` for the first part (`STREAM`).
    pub state: Option<&'a [u8]>,
}

/// What one use or part gave.
pub struct Output {
    /// Signature, ciphertext or plaintext; empty for a verdict and for parts of a stream.
    pub data: Placed,
    /// The running state for the next part, to be sealed; `None` unless parts of a stream follow.
    pub state: Option<Bytes>,
}

impl Output {
    fn data(data: impl Into<Placed>) -> Output {
        Output { data: data.into(), state: None }
    }

    fn state(state: Bytes) -> Output {
        Output { data: Placed::default(), state: Some(state) }
    }
}

/// What a family does. A function that a family does not have is CKR_MECHANISM_INVALID; the rows' flags refuse it before.
trait Family: Sync {
    /// Lengths and parts for this job; refuses parameters that do not fit the key.
    fn plan(&self, job: &Use<'_>) -> Result<PlanAnswer, Rv>;

    /// Signs; `message` is the digest for mechanisms that hash and sign.
    fn sign(&self, _job: &Use<'_>, _message: &[u8]) -> Result<Bytes, Rv> {
        Err(Rv::MECHANISM_INVALID)
    }

    /// Verifies; `message` as for `sign`.
    fn verify(&self, _job: &Use<'_>, _message: &[u8], _signature: &[u8]) -> Result<(), Rv> {
        Err(Rv::MECHANISM_INVALID)
    }

    /// Encrypts all of the data.
    fn encrypt(&self, _job: &Use<'_>, _data: &[u8]) -> Result<Placed, Rv> {
        Err(Rv::MECHANISM_INVALID)
    }

    /// Decrypts all of the data.
    fn decrypt(&self, _job: &Use<'_>, _data: &[u8]) -> Result<Placed, Rv> {
        Err(Rv::MECHANISM_INVALID)
    }

    /// One part of a chain of blocks.
    fn chain(&self, job: &Use<'_>, _data: &[u8], _last: bool) -> Result<Placed, Rv> {
        Err(job.refused())
    }

    /// One part of a keyed stream.
    fn stream(&self, job: &Use<'_>, _input: &Input<'_>) -> Result<Output, Rv> {
        Err(job.refused())
    }
}

/// The registry: one line a mechanism, in the order of their numbers. Digests run in the client and generation stands in
/// `generation`.
static FAMILIES: &[(MechanismType, &dyn Family)] = &[
    (M::RSA_PKCS, &rsa_pkcs::RsaPkcs),
    (M::RSA_X_509, &rsa_x_509::RsaX509),
    (M::SHA1_RSA_PKCS, &rsa_pkcs::RsaPkcs),
    (M::RSA_PKCS_OAEP, &rsa_oaep::RsaOaep),
    (M::RSA_PKCS_PSS, &rsa_pss::RsaPss),
    (M::SHA1_RSA_PKCS_PSS, &rsa_pss::RsaPss),
    (M::SHA256_RSA_PKCS, &rsa_pkcs::RsaPkcs),
    (M::SHA384_RSA_PKCS, &rsa_pkcs::RsaPkcs),
    (M::SHA512_RSA_PKCS, &rsa_pkcs::RsaPkcs),
    (M::SHA256_RSA_PKCS_PSS, &rsa_pss::RsaPss),
    (M::SHA384_RSA_PKCS_PSS, &rsa_pss::RsaPss),
    (M::SHA512_RSA_PKCS_PSS, &rsa_pss::RsaPss),
    (M::SHA224_RSA_PKCS, &rsa_pkcs::RsaPkcs),
    (M::SHA224_RSA_PKCS_PSS, &rsa_pss::RsaPss),
    (M::SHA_1_HMAC, &hmac::Hmac),
    (M::SHA_1_HMAC_GENERAL, &hmac::Hmac),
    (M::SHA256_HMAC, &hmac::Hmac),
    (M::SHA256_HMAC_GENERAL, &hmac::Hmac),
    (M::SHA224_HMAC, &hmac::Hmac),
    (M::SHA224_HMAC_GENERAL, &hmac::Hmac),
    (M::SHA384_HMAC, &hmac::Hmac),
    (M::SHA384_HMAC_GENERAL, &hmac::Hmac),
    (M::SHA512_HMAC, &hmac::Hmac),
    (M::SHA512_HMAC_GENERAL, &hmac::Hmac),
    (M::ECDSA, &ecdsa::Ecdsa),
    (M::ECDSA_SHA1, &ecdsa::Ecdsa),
    (M::ECDSA_SHA224, &ecdsa::Ecdsa),
    (M::ECDSA_SHA256, &ecdsa::Ecdsa),
    (M::ECDSA_SHA384, &ecdsa::Ecdsa),
    (M::ECDSA_SHA512, &ecdsa::Ecdsa),
    (M::AES_ECB, &aes_ecb::AesEcb),
    (M::AES_CBC, &aes_cbc::AesCbc { padded: false }),
    (M::AES_CBC_PAD, &aes_cbc::AesCbc { padded: true }),
    (M::AES_GCM, &aes_gcm::AesGcm),
];

/// A job that has passed the checks which all mechanisms share.
struct Use<'a> {
    row: &'static Row,
    family: &'static dyn Family,
    parameters: &'a Parameters,
    function: KeyFunction,
    key: &'a KeyMaterial,
    prehash_permitted: bool,
    /// The hash that the row names.
    hash: Option<Hash>,
}

/// Says how to run a job (RULES 1.1). IV and AAD may be left out (empty). The caller adds `version` and `always_authenticate`.
///
/// # Errors
/// What the standard reports at C_*Init: CKR_MECHANISM_INVALID, CKR_MECHANISM_PARAM_INVALID, CKR_KEY_TYPE_INCONSISTENT,
/// CKR_KEY_SIZE_RANGE, CKR_KEY_FUNCTION_NOT_PERMITTED.
pub fn plan(job: &Job<'_>) -> Result<PlanAnswer, Rv> {
    let filled = match &job.mechanism.parameters {
        Parameters::Iv(iv) if iv.is_empty() => Parameters::Iv(vec![0; 16]),
        Parameters::Gcm { iv, tag_bits, .. } if iv.is_empty() => {
            Parameters::Gcm { iv: vec![0; 12], aad: Vec::new(), tag_bits: *tag_bits }
        }
        given => given.clone(),
    };
    let checked = check(job, &filled)?;
    checked.family.plan(&checked)
}

/// Runs one use or part, whatever plan the client claims to follow.
///
/// # Errors
/// Those of [`plan`], and those of the function: CKR_DATA_LEN_RANGE, CKR_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE,
/// CKR_ENCRYPTED_DATA_INVALID, CKR_SIGNATURE_LEN_RANGE, CKR_SIGNATURE_INVALID; CKR_FUNCTION_REJECTED (sign) or
/// CKR_FUNCTION_FAILED (others) for a way to run that is not permitted (RULES 1.1, 1.4).
pub fn run(job: &Job<'_>, input: &Input<'_>) -> Result<Output, Rv> {
    let job = check(job, &job.mechanism.parameters)?;
    job.family.plan(&job)?;
    match (input.how, job.hash_and_sign()) {
        (How::WHOLE, Some(hash)) => job.apply(&digest(hash, input.data), input.signature),
        (How::WHOLE, None) => job.apply(input.data, input.signature),
        (How::PREHASH, Some(hash)) if job.prehash_permitted => {
            if input.data.len() != hash.len_bytes() {
                return Err(Rv::DATA_LEN_RANGE);
            }
            job.apply(input.data, input.signature)
        }
        (How::STREAM, Some(hash)) => {
            let mut running = resume(hash, input.state)?.unwrap_or_else(|| Running::new(hash));
            running.update(input.data);
            if input.last {
                job.apply(&running.finish(), input.signature)
            } else {
                Ok(Output::state(running.to_state()))
            }
        }
        (How::STREAM, None) => job.family.stream(&job, input),
        (How::CHAIN, None) => job.family.chain(&job, input.data, input.last).map(Output::data),
        _ => Err(job.refused()),
    }
}

/// The checks that all mechanisms share.
fn check<'a>(job: &Job<'a>, parameters: &'a Parameters) -> Result<Use<'a>, Rv> {
    let number = job.mechanism.mechanism_type;
    let row = row_of(number).ok_or(Rv::MECHANISM_INVALID)?;
    let at = FAMILIES.binary_search_by_key(&number.0, |(mechanism, _)| mechanism.0);
    let (_, family) = at.ok().and_then(|at| FAMILIES.get(at)).ok_or(Rv::MECHANISM_INVALID)?;
    let (flag, private) = match job.function {
        KeyFunction::SIGN => (SIGN, true),
        KeyFunction::VERIFY => (VERIFY, false),
        KeyFunction::ENCRYPT => (ENCRYPT, false),
        KeyFunction::DECRYPT => (DECRYPT, true),
        _ => return Err(Rv::ARGUMENTS_BAD),
    };
    if !row.permits(flag) {
        return Err(Rv::MECHANISM_INVALID);
    }
    row.check_parameters(parameters)?;
    if !row.accepts_key(job.key.key_type()) {
        return Err(Rv::KEY_TYPE_INCONSISTENT);
    }
    let right_half = match job.key {
        KeyMaterial::RsaPrivate(_) | KeyMaterial::EcPrivate(_) => private,
        KeyMaterial::RsaPublic(_) | KeyMaterial::EcPublic(_) => !private,
        KeyMaterial::Secret(_) => true,
    };
    if !right_half {
        return Err(Rv::KEY_FUNCTION_NOT_PERMITTED);
    }
    let size = if row.key_size_unit == Unit::Bytes { job.key.bits() / 8 } else { job.key.bits() } as u64;
    if !(row.key_size_min..=row.key_size_max).contains(&size) {
        return Err(Rv::KEY_SIZE_RANGE);
    }
    Ok(Use {
        row,
        family: *family,
        parameters,
        function: job.function,
        key: job.key,
        prehash_permitted: job.prehash_permitted,
        hash: row.hash.and_then(|hash| Hash::from_mechanism(hash.0)),
    })
}

/// The running hash in a state, if there is one. A state was sealed by a member for this job, so another hash in it is a fault.
fn resume(hash: Hash, state: Option<&[u8]>) -> Result<Option<Running>, Rv> {
    let running = state.map(Running::from_state).transpose().map_err(|_| Rv::FUNCTION_FAILED)?;
    if running.as_ref().is_some_and(|running| running.hash() != hash) {
        Err(Rv::FUNCTION_FAILED)
    } else {
        Ok(running)
    }
}

impl Use<'_> {
    /// The hash of a mechanism that hashes and then signs the digest.
    fn hash_and_sign(&self) -> Option<Hash> {
        self.hash.filter(|_| self.row.raw.is_some())
    }

    fn apply(&self, data: &[u8], signature: &[u8]) -> Result<Output, Rv> {
        let out = match self.function {
            KeyFunction::SIGN => self.family.sign(self, data)?.into(),
            KeyFunction::ENCRYPT => self.family.encrypt(self, data)?,
            KeyFunction::DECRYPT => self.family.decrypt(self, data)?,
            _ => self.family.verify(self, data, signature).map(|()| Placed::default())?,
        };
        Ok(Output::data(out))
    }

    /// What the mechanism does with an asymmetric key.
    fn scheme(&self) -> Result<Scheme<'_>, Rv> {
        Scheme::of(self.row.mechanism, self.parameters).ok_or(Rv::MECHANISM_PARAM_INVALID)
    }

    /// The answer to a way of running that is not permitted (RULES 1.1).
    fn refused(&self) -> Rv {
        if self.function == KeyFunction::SIGN { Rv::FUNCTION_REJECTED } else { Rv::FUNCTION_FAILED }
    }

    /// The plan of a signature of fixed length over raw data or a digest.
    fn signature_plan(&self, signature_bytes: usize, raw_bytes_max: usize) -> PlanAnswer {
        let how = match self.hash_and_sign() {
            Some(_) if self.prehash_permitted => How::PREHASH,
            Some(_) => How::STREAM,
            None => How::WHOLE,
        };
        let prehash = if how == How::PREHASH { self.row.hash.map_or(0, |hash| hash.0) } else { 0 };
        let input_bytes_max = if how == How::WHOLE { raw_bytes_max as u64 } else { 0 };
        PlanAnswer { prehash, input_bytes_max, ..answer(how, OutputRule::FIXED, signature_bytes) }
    }
}

/// A plan in its commonest form.
fn answer(how: How, rule: OutputRule, output_bytes: usize) -> PlanAnswer {
    PlanAnswer { how: how.0, output_rule: rule.0, output_bytes: output_bytes as u64, ..PlanAnswer::default() }
}

/// Fresh random bytes. Errs when the system has none.
fn random(bytes: usize) -> Result<Bytes, Rv> {
    let mut out = Zeroizing::new(vec![0; bytes]);
    fill_random(&mut out)?;
    Ok(out)
}

/// Fills a buffer with fresh random bytes. Errs when the system has none.
fn fill_random(buffer: &mut [u8]) -> Result<(), Rv> {
    aws_lc_rs::rand::fill(buffer).map_err(|_| Rv::FUNCTION_FAILED)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use digests::EcCurve;
    use known::*;
    use spec::KeyType;
    use spec::flags::mechanism::{DIGEST, GENERATE, GENERATE_KEY_PAIR};
    use spec::mechanisms::ROWS;

    fn refusal(mechanism: M, function: KeyFunction, key: &KeyMaterial) -> Option<Rv> {
        plan_of(&plain(mechanism), function, key, true).err()
    }

    #[test]
    fn every_row_is_a_family_a_generation_or_a_digest_and_nothing_else_is_registered() {
        for row in ROWS {
            let registered = FAMILIES.iter().filter(|(mechanism, _)| *mechanism == row.mechanism).count();
            let used = row.permits(SIGN | VERIFY | ENCRYPT | DECRYPT);
            assert_eq!(registered, usize::from(used), "{}", row.name());
            assert!(used || row.permits(DIGEST | GENERATE | GENERATE_KEY_PAIR), "{}", row.name());
            let made = generate(&Mechanism::plain(row.mechanism), &|_| None).err();
            let incomplete = made == Some(Rv::TEMPLATE_INCOMPLETE);
            assert_eq!(incomplete, row.permits(GENERATE | GENERATE_KEY_PAIR), "{}", row.name());
        }
        assert!(FAMILIES.iter().all(|(mechanism, _)| row_of(*mechanism).is_some()));
        assert!(FAMILIES.is_sorted_by(|(one, _), (next, _)| one.0 < next.0));
    }

    #[test]
    fn wrong_mechanisms_functions_and_keys_have_the_codes_of_init() {
        let (rsa, secret, ec) = (rsa_private(), aes(AES_128_KEY), ec_public(EcCurve::P256));
        assert_eq!(refusal(M::DES3_ECB, KeyFunction::ENCRYPT, &secret), Some(Rv::MECHANISM_INVALID));
        assert_eq!(refusal(M::SHA256, KeyFunction::SIGN, &rsa), Some(Rv::MECHANISM_INVALID));
        assert_eq!(refusal(M::AES_KEY_GEN, KeyFunction::SIGN, &secret), Some(Rv::MECHANISM_INVALID));
        assert_eq!(refusal(M::AES_ECB, KeyFunction::SIGN, &secret), Some(Rv::MECHANISM_INVALID));
        assert_eq!(refusal(M::RSA_PKCS, KeyFunction(9), &rsa), Some(Rv::ARGUMENTS_BAD));
        assert_eq!(refusal(M::AES_CBC, KeyFunction::ENCRYPT, &secret), Some(Rv::MECHANISM_PARAM_INVALID));
        assert_eq!(refusal(M::RSA_PKCS, KeyFunction::SIGN, &secret), Some(Rv::KEY_TYPE_INCONSISTENT));
        assert_eq!(refusal(M::AES_ECB, KeyFunction::ENCRYPT, &rsa), Some(Rv::KEY_TYPE_INCONSISTENT));
        assert_eq!(refusal(M::SHA_1_HMAC, KeyFunction::SIGN, &secret), Some(Rv::KEY_TYPE_INCONSISTENT));
        assert_eq!(refusal(M::RSA_PKCS, KeyFunction::VERIFY, &rsa), Some(Rv::KEY_FUNCTION_NOT_PERMITTED));
        assert_eq!(refusal(M::ECDSA, KeyFunction::SIGN, &ec), Some(Rv::KEY_FUNCTION_NOT_PERMITTED));
        assert_eq!(refusal(M::ECDSA, KeyFunction::VERIFY, &ec), None);
    }

    #[test]
    fn key_of_a_size_outside_the_row_is_refused() {
        let raw = awsraw::RsaPrivate::generate(512, &[1, 0, 1]).unwrap();
        let parts = raw.components();
        let small = rsa_public_of(&[
            spec::Attribute::new(spec::AttributeType::MODULUS, parts.modulus),
            spec::Attribute::new(spec::AttributeType::PUBLIC_EXPONENT, parts.public_exponent),
        ]);
        assert_eq!(refusal(M::RSA_PKCS, KeyFunction::VERIFY, &small), Some(Rv::KEY_SIZE_RANGE));
    }

    #[test]
    fn hand_made_prehash_is_refused_when_the_raw_form_is_not_permitted() {
        // RULES 1.4: whatever plan the client claims.
        for (mechanism, key) in
            [(M::SHA256_RSA_PKCS, rsa_private()), (M::ECDSA_SHA256, ec_private(EcCurve::P256))]
        {
            let mechanism = plain(mechanism);
            let held = |function, key| Job { mechanism: &mechanism, function, key, prehash_permitted: false };
            let input = Input { how: How::PREHASH, ..whole(&[7; 32]) };
            let answer = run(&held(KeyFunction::SIGN, &key), &input);
            assert_eq!(answer.err(), Some(Rv::FUNCTION_REJECTED));
            assert!(run(&held(KeyFunction::SIGN, &key), &whole(b"data")).is_ok());
        }
        let mechanism = plain(M::SHA256_RSA_PKCS);
        let key = rsa_public();
        let held =
            Job { mechanism: &mechanism, function: KeyFunction::VERIFY, key: &key, prehash_permitted: false };
        let input = Input { how: How::PREHASH, signature: &[1; 256], ..whole(&[7; 32]) };
        assert_eq!(run(&held, &input).err(), Some(Rv::FUNCTION_FAILED));
    }

    #[test]
    fn ways_to_run_that_a_mechanism_does_not_have_are_refused() {
        let (rsa, secret) = (rsa_private(), aes(AES_128_KEY));
        let mac = secret_key(KeyType::GENERIC_SECRET, b"key");
        let sign = KeyFunction::SIGN;
        for (mechanism, function, key, how) in [
            (M::RSA_PKCS, sign, &rsa, How::PREHASH),
            (M::RSA_PKCS, sign, &rsa, How::STREAM),
            (M::RSA_PKCS, sign, &rsa, How::CHAIN),
            (M::SHA256_RSA_PKCS, sign, &rsa, How::CHAIN),
            (M::SHA256_RSA_PKCS, sign, &rsa, How(0)),
            (M::AES_ECB, KeyFunction::ENCRYPT, &secret, How::STREAM),
            (M::AES_ECB, KeyFunction::ENCRYPT, &secret, How::PREHASH),
            (M::SHA256_HMAC, sign, &mac, How::PREHASH),
            (M::SHA256_HMAC, sign, &mac, How::CHAIN),
            (M::SHA256_HMAC, sign, &mac, How(77)),
        ] {
            let plain = plain(mechanism);
            let job = Job { mechanism: &plain, function, key, prehash_permitted: true };
            let refused = if function == sign { Rv::FUNCTION_REJECTED } else { Rv::FUNCTION_FAILED };
            let answer = run(&job, &Input { how, ..whole(&[1; 32]) });
            assert_eq!(answer.err(), Some(refused), "{mechanism} {how:?}");
        }
    }

    #[test]
    fn hash_states_that_are_none_or_of_another_hash_are_refused() {
        let other = Running::new(Hash::Sha1).to_state();
        for state in [&other[..], b"", b"\x03short"] {
            let answer = stream_from(&plain(M::SHA256_RSA_PKCS), &rsa_private(), state);
            assert_eq!(answer.err(), Some(Rv::FUNCTION_FAILED));
        }
    }
}
