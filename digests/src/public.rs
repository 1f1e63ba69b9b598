//! Public-key operations: a public key parsed once, the schemes it serves, verification and encryption. The partition and the
//! application's process run this same code, so that they answer alike to the code (RULES 1.10).
//!
//! Nothing here is secret but the data that is encrypted.
use awsraw::RsaPublic;
use spec::mechanisms::{mgf_hash, row_of};
use spec::{MechanismType as M, Parameters, Rv};
use zeroize::Zeroizing;

use crate::Hash;
use crate::ecdsa::EcPublicKey;
use crate::padding::oaep::Oaep;
use crate::padding::pkcs1;
use crate::padding::pss::Pss;

/// Largest RSA modulus that is taken, in bytes (the limit of the mechanism table).
const MODULUS_BYTES_MAX: usize = 1024;
/// Largest public exponent that is taken, in bytes: each operation, and each check of a key, raises to it.
/// DEVIATION: docs/adr/0006-deviations.md, item 9: the standard knows no such bound.
const PUBLIC_EXPONENT_BYTES_MAX: usize = 8;

/// Room for a block of the longest modulus.
type Room = [u8; MODULUS_BYTES_MAX];
const ROOM: Room = [0; MODULUS_BYTES_MAX];

/// A source of random bytes: fills the buffer, or errs with the code to be answered.
pub type Random<'a> = &'a dyn Fn(&mut [u8]) -> Result<(), Rv>;

/// The bytes of a number from its first that is not zero.
#[must_use]
pub fn significant(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// A public exponent without leading zeros; `None` above eight bytes.
#[must_use]
pub fn public_exponent(e: &[u8]) -> Option<&[u8]> {
    Some(significant(e)).filter(|e| e.len() <= PUBLIC_EXPONENT_BYTES_MAX)
}

/// Size of a modulus in bits; `None` for nothing and above 8192.
#[must_use]
pub fn modulus_bits(n: &[u8]) -> Option<usize> {
    let n = significant(n);
    let first = n.first().filter(|_| n.len() <= MODULUS_BYTES_MAX)?;
    Some(n.len() * 8 - first.leading_zeros() as usize)
}

/// An RSA public key, usable by many threads at once.
pub struct RsaPublicKey {
    raw: RsaPublic,
    modulus_bits: usize,
}

impl RsaPublicKey {
    /// The key of modulus and exponent, big-endian. `None` unless n is odd, of 64 to 1024 bytes, and e odd, above 1, of at most
    /// eight bytes.
    #[must_use]
    pub fn new(n: &[u8], e: &[u8]) -> Option<Self> {
        let (modulus_bits, e) = (modulus_bits(n)?, public_exponent(e)?);
        Some(Self { raw: RsaPublic::new(n, e).ok()?, modulus_bits })
    }

    /// Size of the modulus in bits.
    #[must_use]
    pub fn modulus_bits(&self) -> usize {
        self.modulus_bits
    }

    /// Length of the modulus in bytes, k.
    #[must_use]
    pub fn modulus_bytes(&self) -> usize {
        self.raw.modulus_bytes()
    }

    /// The public operation on a signature, with its length and range checked. Anybody can do it: nothing of it is secret.
    fn opened<'a>(&self, signature: &[u8], room: &'a mut Room) -> Result<&'a [u8], Rv> {
        if signature.len() != self.modulus_bytes() {
            return Err(Rv::SIGNATURE_LEN_RANGE);
        }
        let block = &mut room[..signature.len()];
        self.raw.public_op_into(signature, block).map_err(|_| Rv::SIGNATURE_INVALID)?;
        Ok(block)
    }

    /// Whether a signature opens to this block.
    fn opens_to(&self, block: &[u8], signature: &[u8]) -> Result<(), Rv> {
        let mut room = ROOM;
        let right = self.opened(signature, &mut room)? == block;
        if right { Ok(()) } else { Err(Rv::SIGNATURE_INVALID) }
    }

    /// The public operation on a block that is padded already.
    fn closed(&self, block: &[u8]) -> Result<Zeroizing<Vec<u8>>, Rv> {
        self.raw.public_op(block).map_err(|fault| match fault {
            awsraw::Error::Input => Rv::DATA_INVALID,
            awsraw::Error::Key | awsraw::Error::Failed => Rv::FUNCTION_FAILED,
        })
    }
}

/// A public key of any kind.
pub enum PublicKey {
    /// RSA.
    Rsa(RsaPublicKey),
    /// On a NIST curve.
    Ec(EcPublicKey),
}

/// What a mechanism does with a public key, its choices parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme<'a> {
    /// RSA with the padding of PKCS #1 v1.5: over a digest of this hash, or over the data as they are.
    Pkcs1(Option<Hash>),
    /// RSA without padding.
    Bare,
    /// RSA with PSS.
    Pss(Pss),
    /// RSA with OAEP.
    Oaep(Oaep<'a>),
    /// ECDSA.
    Ecdsa,
}

impl<'a> Scheme<'a> {
    /// The scheme of a mechanism; `None` for mechanisms without public keys, and for parameters that cannot be right. Whether a
    /// PSS salt fits a key is the plan's to say.
    #[must_use]
    pub fn of(mechanism: M, parameters: &'a Parameters) -> Option<Self> {
        let hash_of = |number: M| Hash::from_mechanism(number.0);
        match parameters {
            Parameters::Pss { hash, mgf, salt_bytes } => Some(Scheme::Pss(Pss {
                hash: hash_of(*hash)?,
                mask_hash: hash_of(mgf_hash(*mgf)?)?,
                salt_bytes: usize::try_from(*salt_bytes).ok()?,
            })),
            Parameters::Oaep { hash, mgf, label } => Some(Scheme::Oaep(Oaep {
                hash: hash_of(*hash)?,
                mask_hash: hash_of(mgf_hash(*mgf)?)?,
                label,
            })),
            Parameters::None => {
                let row = row_of(mechanism)?;
                match (row.mechanism, row.raw) {
                    (M::RSA_X_509, _) => Some(Scheme::Bare),
                    (M::RSA_PKCS, _) => Some(Scheme::Pkcs1(None)),
                    (M::ECDSA, _) | (_, Some(M::ECDSA)) => Some(Scheme::Ecdsa),
                    (_, Some(M::RSA_PKCS)) => Some(Scheme::Pkcs1(Some(hash_of(row.hash?)?))),
                    _ => None,
                }
            }
            Parameters::Iv(_) | Parameters::Gcm { .. } | Parameters::MacGeneral { .. } => None,
        }
    }
}

impl PublicKey {
    /// Checks a signature of `message`, which is the digest for schemes over one.
    ///
    /// # Errors
    /// CKR_DATA_LEN_RANGE, CKR_SIGNATURE_LEN_RANGE, CKR_SIGNATURE_INVALID; CKR_FUNCTION_FAILED when the library fails;
    /// CKR_KEY_TYPE_INCONSISTENT for a scheme of other keys.
    pub fn verify(&self, scheme: &Scheme<'_>, message: &[u8], signature: &[u8]) -> Result<(), Rv> {
        match (self, scheme) {
            (PublicKey::Rsa(key), _) => key.verify(scheme, message, signature),
            (PublicKey::Ec(key), Scheme::Ecdsa) => key.verify(message, signature),
            (PublicKey::Ec(_), _) => Err(Rv::KEY_TYPE_INCONSISTENT),
        }
    }

    /// Encrypts `data`.
    ///
    /// # Errors
    /// CKR_DATA_LEN_RANGE, CKR_DATA_INVALID (not below the modulus); CKR_FUNCTION_FAILED when the library fails;
    /// CKR_KEY_TYPE_INCONSISTENT for keys and schemes that do not encrypt; those of `random`.
    pub fn encrypt(
        &self,
        scheme: &Scheme<'_>,
        data: &[u8],
        random: Random<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, Rv> {
        match self {
            PublicKey::Rsa(key) => key.encrypt(scheme, data, random),
            PublicKey::Ec(_) => Err(Rv::KEY_TYPE_INCONSISTENT),
        }
    }
}

impl RsaPublicKey {
    /// As [`PublicKey::verify`].
    ///
    /// # Errors
    /// Those of [`PublicKey::verify`].
    pub fn verify(&self, scheme: &Scheme<'_>, message: &[u8], signature: &[u8]) -> Result<(), Rv> {
        let k = self.modulus_bytes();
        match scheme {
            Scheme::Pkcs1(hash) => {
                let prefix = hash.map_or(&[][..], Hash::digest_info_prefix);
                let mut room = ROOM;
                let block = &mut room[..k];
                pkcs1::write_sign_block([prefix, message], block).ok_or(Rv::DATA_LEN_RANGE)?;
                self.opens_to(block, signature)
            }
            Scheme::Bare => self.opens_to(&filled(message, k)?, signature),
            Scheme::Pss(pss) => {
                if message.len() != pss.hash.len_bytes() {
                    return Err(Rv::DATA_LEN_RANGE);
                }
                let mut room = ROOM;
                let block = self.opened(signature, &mut room)?;
                let right = pss.verifies(message, block, self.modulus_bits);
                if right { Ok(()) } else { Err(Rv::SIGNATURE_INVALID) }
            }
            Scheme::Oaep(_) | Scheme::Ecdsa => Err(Rv::KEY_TYPE_INCONSISTENT),
        }
    }

    /// As [`PublicKey::encrypt`].
    ///
    /// # Errors
    /// Those of [`PublicKey::encrypt`].
    pub fn encrypt(
        &self,
        scheme: &Scheme<'_>,
        data: &[u8],
        random: Random<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, Rv> {
        let k = self.modulus_bytes();
        match scheme {
            Scheme::Pkcs1(None) => {
                let filling = k.checked_sub(3 + data.len()).ok_or(Rv::DATA_LEN_RANGE)?;
                let block = pkcs1::encrypt_block(data, &nonzero(filling, random)?, k);
                self.closed(&block.ok_or(Rv::DATA_LEN_RANGE)?)
            }
            Scheme::Bare => self.closed(&filled(data, k)?),
            Scheme::Oaep(oaep) => {
                let mut seed = Zeroizing::new(vec![0; oaep.hash.len_bytes()]);
                random(&mut seed)?;
                self.closed(&oaep.encode(data, &seed, k).ok_or(Rv::DATA_LEN_RANGE)?)
            }
            Scheme::Pkcs1(Some(_)) | Scheme::Pss(_) | Scheme::Ecdsa => Err(Rv::KEY_TYPE_INCONSISTENT),
        }
    }
}

/// `data` with zeros in front, `k` bytes: the block of CKM_RSA_X_509 (PKCS #11 v3.1, 6.1.12).
///
/// # Errors
/// CKR_DATA_LEN_RANGE for more than `k` bytes.
pub fn filled(data: &[u8], k: usize) -> Result<Zeroizing<Vec<u8>>, Rv> {
    let start = k.checked_sub(data.len()).ok_or(Rv::DATA_LEN_RANGE)?;
    let mut block = Zeroizing::new(vec![0; k]);
    block[start..].copy_from_slice(data);
    Ok(block)
}

/// Random bytes without a zero among them.
fn nonzero(bytes: usize, random: Random<'_>) -> Result<Zeroizing<Vec<u8>>, Rv> {
    let mut out = Zeroizing::new(Vec::with_capacity(bytes));
    while out.len() < bytes {
        let mut more = Zeroizing::new(vec![0; bytes - out.len()]);
        random(&mut more)?;
        out.extend(more.iter().filter(|byte| **byte != 0));
    }
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::EcCurve;
    use spec::flags::mechanism::{ENCRYPT, VERIFY};
    use spec::mechanisms::{ParameterKind, ROWS};
    use spec::numbers::MgfType;
    use spec::{KeyType, MechanismType};

    fn parameters(kind: ParameterKind, hash: Option<MechanismType>) -> Parameters {
        let hash = hash.unwrap_or(M::SHA256);
        match kind {
            ParameterKind::Pss => Parameters::Pss { hash, mgf: MgfType::MGF1_SHA256, salt_bytes: 32 },
            ParameterKind::Oaep => Parameters::Oaep { hash, mgf: MgfType::MGF1_SHA256, label: Vec::new() },
            _ => Parameters::None,
        }
    }

    #[test]
    fn every_mechanism_with_public_keys_has_a_scheme_and_no_other() {
        for row in ROWS {
            let asymmetric = row.permits(VERIFY | ENCRYPT)
                && row.key_types.iter().all(|kind| [KeyType::RSA, KeyType::EC].contains(kind));
            let parameters = parameters(row.parameters, row.hash);
            assert_eq!(Scheme::of(row.mechanism, &parameters).is_some(), asymmetric, "{}", row.name());
        }
    }

    #[test]
    fn filling_has_no_zero_whatever_the_source_gives() {
        let counter = std::cell::Cell::new(0u8);
        let source = |buffer: &mut [u8]| {
            for byte in buffer {
                *byte = counter.get() % 3;
                counter.set(counter.get().wrapping_add(1));
            }
            Ok(())
        };
        let filling = nonzero(100, &source).unwrap();
        assert!(filling.len() == 100 && !filling.contains(&0));
        assert_eq!(nonzero(1, &|_: &mut [u8]| Err(Rv::FUNCTION_FAILED)), Err(Rv::FUNCTION_FAILED));
    }

    #[test]
    fn keys_out_of_bounds_are_none() {
        let n = [&[0xc1; 127][..], &[1]].concat();
        assert!(RsaPublicKey::new(&n, &[3]).is_some_and(|key| key.modulus_bits() == 1024));
        assert!(RsaPublicKey::new(&n, &[1; 9]).is_none());
        assert!(RsaPublicKey::new(&[0xff; 1025], &[3]).is_none());
        assert!(RsaPublicKey::new(&[], &[3]).is_none());
        for curve in EcCurve::ALL {
            let bytes = 2 * curve.scalar_bytes();
            assert!(EcPublicKey::new(curve, &[&[4], &vec![1; bytes][..]].concat()).is_none());
            assert!(EcPublicKey::new(curve, &[]).is_none());
        }
    }
}
