//! The mechanisms in scope, one row each, and the typed mechanism that calls carry.
//!
//! A row holds facts of the standard: what parameter, which keys, which functions, which sizes in which unit. Whether
//! a key may be used with it is the partition's decision. A mechanism without a row is CKR_MECHANISM_INVALID.

use core::fmt;
use core::fmt::Write as _;

use crate::flags::mechanism::{
    DECRYPT, DIGEST, EC_F_P, EC_OID, EC_UNCOMPRESS, ENCRYPT, GENERATE, GENERATE_KEY_PAIR, SIGN, VERIFY,
};
use crate::numbers::{KeyType, MechanismType, MgfType, Rv};
use MechanismType as M;

/// A mechanism with its parameter, parsed (PKCS #11 v3.1, 3.5, `CK_MECHANISM`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mechanism {
    /// The mechanism's number.
    pub mechanism_type: MechanismType,
    /// Its parameter.
    pub parameters: Parameters,
}

impl Mechanism {
    /// A mechanism without a parameter.
    pub const fn plain(mechanism_type: MechanismType) -> Self {
        Self { mechanism_type, parameters: Parameters::None }
    }

    /// Checks the mechanism against its row: known, and its parameter of the right kind and shape.
    ///
    /// # Errors
    /// `CKR_MECHANISM_INVALID` without a row, `CKR_MECHANISM_PARAM_INVALID` for a parameter that cannot be right.
    pub fn check(&self) -> Result<&'static Row, Rv> {
        let row = row_of(self.mechanism_type).ok_or(Rv::MECHANISM_INVALID)?;
        row.check_parameters(&self.parameters)?;
        Ok(row)
    }
}

/// The parameter of a mechanism, by shape. `Debug` shows the lengths of byte strings, not the bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Parameters {
    /// No parameter.
    None,
    /// An initialisation vector (AES-CBC: 16 bytes).
    Iv(Vec<u8>),
    /// `CK_GCM_PARAMS` (PKCS #11 v3.1, 6.13.3).
    Gcm {
        /// The initialisation vector.
        iv: Vec<u8>,
        /// The additional authenticated data.
        aad: Vec<u8>,
        /// Length of the tag in bits.
        tag_bits: u64,
    },
    /// `CK_RSA_PKCS_PSS_PARAMS` (PKCS #11 v3.1, 6.1.9).
    Pss {
        /// The digest of the message.
        hash: MechanismType,
        /// The mask generation function.
        mgf: MgfType,
        /// Length of the salt in bytes.
        salt_bytes: u64,
    },
    /// `CK_RSA_PKCS_OAEP_PARAMS` (PKCS #11 v3.1, 6.1.7).
    Oaep {
        /// The digest of the label.
        hash: MechanismType,
        /// The mask generation function.
        mgf: MgfType,
        /// The label ("source data" in the standard); empty when there is none.
        label: Vec<u8>,
    },
    /// `CK_MAC_GENERAL_PARAMS` (PKCS #11 v3.1, 6.9.1).
    MacGeneral {
        /// Length of the MAC in bytes.
        mac_bytes: u64,
    },
}

impl Parameters {
    /// The kind of this parameter.
    pub const fn kind(&self) -> ParameterKind {
        match self {
            Self::None => ParameterKind::None,
            Self::Iv(_) => ParameterKind::Iv16,
            Self::Gcm { .. } => ParameterKind::Gcm,
            Self::Pss { .. } => ParameterKind::Pss,
            Self::Oaep { .. } => ParameterKind::Oaep,
            Self::MacGeneral { .. } => ParameterKind::MacGeneral,
        }
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Iv(iv) => write!(f, "iv[{} bytes]", iv.len()),
            Self::Gcm { iv, aad, tag_bits } => {
                write!(f, "gcm(iv[{} bytes], aad[{} bytes], tag {tag_bits} bits)", iv.len(), aad.len())
            }
            Self::Pss { hash, mgf, salt_bytes } => write!(f, "pss({hash}, {mgf}, salt {salt_bytes} bytes)"),
            Self::Oaep { hash, mgf, label } => write!(f, "oaep({hash}, {mgf}, label[{} bytes])", label.len()),
            Self::MacGeneral { mac_bytes } => write!(f, "mac {mac_bytes} bytes"),
        }
    }
}

/// The kind of parameter that a mechanism takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// None.
    None,
    /// Sixteen bytes of initialisation vector.
    Iv16,
    /// `CK_GCM_PARAMS`.
    Gcm,
    /// `CK_RSA_PKCS_PSS_PARAMS`.
    Pss,
    /// `CK_RSA_PKCS_OAEP_PARAMS`.
    Oaep,
    /// `CK_MAC_GENERAL_PARAMS`: a `CK_ULONG` of bytes.
    MacGeneral,
}

/// The unit of `ulMinKeySize` and `ulMaxKeySize`, which the standard chooses for each mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// The mechanism takes no key.
    None,
    /// Bits.
    Bits,
    /// Bytes.
    Bytes,
}

/// The facts of one mechanism.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The mechanism.
    pub mechanism: MechanismType,
    /// What parameter it takes.
    pub parameters: ParameterKind,
    /// The key types it works with, or makes; empty for digests. The first is the one that a generation makes by default.
    pub key_types: &'static [KeyType],
    /// The functions it serves and other flags, as in `CK_MECHANISM_INFO`.
    pub flags: u64,
    /// The smallest key, in `key_size_unit`.
    pub key_size_min: u64,
    /// The largest key, in `key_size_unit`.
    pub key_size_max: u64,
    /// The unit of the sizes.
    pub key_size_unit: Unit,
    /// The digest that it applies; for a digest itself.
    pub hash: Option<MechanismType>,
    /// For hash-and-sign forms: the mechanism of the same padding over a digest made outside (RULES 1.4).
    pub raw: Option<MechanismType>,
    /// Where the standard defines it.
    pub section: &'static str,
}

impl Row {
    /// The name of the standard.
    pub fn name(&self) -> &'static str {
        self.mechanism.name().expect("a test shows that every row's mechanism has a name")
    }

    /// Whether it serves a function, given by one of the bits of [`crate::flags::mechanism`].
    pub const fn permits(&self, function: u64) -> bool {
        self.flags & function != 0
    }

    /// Whether it works with keys of a type.
    pub fn accepts_key(&self, key_type: KeyType) -> bool {
        self.key_types.contains(&key_type)
    }

    /// Checks kind and shape of a parameter; it says nothing about keys (RULES 1.1: syntax is checked from this table).
    ///
    /// # Errors
    /// `CKR_MECHANISM_PARAM_INVALID`.
    pub fn check_parameters(&self, parameters: &Parameters) -> Result<(), Rv> {
        let right = parameters.kind() == self.parameters
            && match parameters {
                Parameters::None => true,
                Parameters::Iv(iv) => iv.len() == 16,
                Parameters::Gcm { iv, tag_bits, .. } => {
                    !iv.is_empty() && *tag_bits <= 128 && tag_bits % 8 == 0
                }
                Parameters::Pss { hash, mgf, .. } => {
                    digest_bytes(*hash).is_some()
                        && mgf_hash(*mgf).is_some()
                        && self.hash.is_none_or(|own| own == *hash)
                }
                Parameters::Oaep { hash, mgf, .. } => {
                    digest_bytes(*hash).is_some() && mgf_hash(*mgf).is_some()
                }
                Parameters::MacGeneral { mac_bytes } => {
                    let whole = self.hash.and_then(digest_bytes).unwrap_or(0);
                    *mac_bytes > 0 && usize::try_from(*mac_bytes).is_ok_and(|bytes| bytes <= whole)
                }
            };
        if right { Ok(()) } else { Err(Rv::MECHANISM_PARAM_INVALID) }
    }
}

/// The facts of a mechanism; none when it is not in scope.
pub fn row_of(mechanism: MechanismType) -> Option<&'static Row> {
    let place = PLACES.get(usize::try_from(mechanism.0).ok()?)?;
    ROWS.get(usize::from(*place).checked_sub(1)?)
}

/// The mechanisms in scope have smaller numbers.
const NUMBERS: usize = 0x1100;

/// By the number of a mechanism one more than its place in [`ROWS`], or 0: every call asks for a row a few times.
static PLACES: [u8; NUMBERS] = {
    let (mut places, mut at) = ([0; NUMBERS], 0);
    while at < ROWS.len() {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the compiler refuses a number beyond the table, and ROWS is short"
        )]
        {
            places[ROWS[at].mechanism.0 as usize] = at as u8 + 1;
        }
        at += 1;
    }
    places
};

/// The length in bytes of what a digest mechanism gives; none for any other mechanism and for digests not in scope.
pub const fn digest_bytes(digest: MechanismType) -> Option<usize> {
    match digest {
        M::SHA_1 => Some(20),
        M::SHA224 => Some(28),
        M::SHA256 => Some(32),
        M::SHA384 => Some(48),
        M::SHA512 => Some(64),
        _ => None,
    }
}

/// The digest inside a mask generation function; none for those not in scope (PKCS #11 v3.1, 6.1.7, table 30).
pub const fn mgf_hash(mgf: MgfType) -> Option<MechanismType> {
    match mgf {
        MgfType::MGF1_SHA1 => Some(M::SHA_1),
        MgfType::MGF1_SHA224 => Some(M::SHA224),
        MgfType::MGF1_SHA256 => Some(M::SHA256),
        MgfType::MGF1_SHA384 => Some(M::SHA384),
        MgfType::MGF1_SHA512 => Some(M::SHA512),
        _ => None,
    }
}

/// Smallest RSA modulus used, in bits: what old keys that are imported still have.
const RSA_BITS_MIN: u64 = 1024;
/// Smallest RSA modulus generated, in bits (SP 800-131A).
const RSA_GENERATE_BITS_MIN: u64 = 2048;
/// Largest RSA modulus, in bits.
const RSA_BITS_MAX: u64 = 8192;
/// Largest generic secret and HMAC key, in bytes.
const SECRET_BYTES_MAX: u64 = 1024;

const SIGN_VERIFY: u64 = SIGN | VERIFY;
const ENCRYPT_DECRYPT: u64 = ENCRYPT | DECRYPT;
const EC: u64 = EC_F_P | EC_OID | EC_UNCOMPRESS;

const fn rsa(mechanism: MechanismType, parameters: ParameterKind, flags: u64, section: &'static str) -> Row {
    Row {
        mechanism,
        parameters,
        key_types: &[KeyType::RSA],
        flags,
        key_size_min: RSA_BITS_MIN,
        key_size_max: RSA_BITS_MAX,
        key_size_unit: Unit::Bits,
        hash: None,
        raw: None,
        section,
    }
}

const fn rsa_pkcs(mechanism: MechanismType, hash: MechanismType, section: &'static str) -> Row {
    Row {
        hash: Some(hash),
        raw: Some(M::RSA_PKCS),
        ..rsa(mechanism, ParameterKind::None, SIGN_VERIFY, section)
    }
}

const fn rsa_pss(mechanism: MechanismType, hash: MechanismType, section: &'static str) -> Row {
    Row {
        hash: Some(hash),
        raw: Some(M::RSA_PKCS_PSS),
        ..rsa(mechanism, ParameterKind::Pss, SIGN_VERIFY, section)
    }
}

const fn ec(mechanism: MechanismType, flags: u64, section: &'static str) -> Row {
    Row {
        mechanism,
        parameters: ParameterKind::None,
        key_types: &[KeyType::EC],
        flags: flags | EC,
        key_size_min: 256,
        key_size_max: 521,
        key_size_unit: Unit::Bits,
        hash: None,
        raw: None,
        section,
    }
}

const fn ecdsa(mechanism: MechanismType, hash: MechanismType) -> Row {
    Row { hash: Some(hash), raw: Some(M::ECDSA), ..ec(mechanism, SIGN_VERIFY, "v3.1, 6.3.14") }
}

const fn aes(mechanism: MechanismType, parameters: ParameterKind, flags: u64, section: &'static str) -> Row {
    Row {
        mechanism,
        parameters,
        key_types: &[KeyType::AES],
        flags,
        key_size_min: 16,
        key_size_max: 32,
        key_size_unit: Unit::Bytes,
        hash: None,
        raw: None,
        section,
    }
}

const fn digest(mechanism: MechanismType, section: &'static str) -> Row {
    Row {
        mechanism,
        parameters: ParameterKind::None,
        key_types: &[],
        flags: DIGEST,
        key_size_min: 0,
        key_size_max: 0,
        key_size_unit: Unit::None,
        hash: Some(mechanism),
        raw: None,
        section,
    }
}

const fn hmac(
    mechanism: MechanismType,
    parameters: ParameterKind,
    key_types: &'static [KeyType],
    hash: MechanismType,
    section: &'static str,
) -> Row {
    Row {
        mechanism,
        parameters,
        key_types,
        flags: SIGN_VERIFY,
        key_size_min: 1,
        key_size_max: SECRET_BYTES_MAX,
        key_size_unit: Unit::Bytes,
        hash: Some(hash),
        raw: None,
        section,
    }
}

/// The key types that hold plain secret bytes: generic secrets, and those named after one HMAC.
pub const SECRET_KEY_TYPES: &[KeyType] = &[
    KeyType::GENERIC_SECRET,
    KeyType::SHA_1_HMAC,
    KeyType::SHA224_HMAC,
    KeyType::SHA256_HMAC,
    KeyType::SHA384_HMAC,
    KeyType::SHA512_HMAC,
];

const HMAC_SHA_1: &[KeyType] = &[KeyType::GENERIC_SECRET, KeyType::SHA_1_HMAC];
const HMAC_SHA224: &[KeyType] = &[KeyType::GENERIC_SECRET, KeyType::SHA224_HMAC];
const HMAC_SHA256: &[KeyType] = &[KeyType::GENERIC_SECRET, KeyType::SHA256_HMAC];
const HMAC_SHA384: &[KeyType] = &[KeyType::GENERIC_SECRET, KeyType::SHA384_HMAC];
const HMAC_SHA512: &[KeyType] = &[KeyType::GENERIC_SECRET, KeyType::SHA512_HMAC];

/// Every mechanism in scope, family by family; the order of `docs/mechanisms.md`.
#[rustfmt::skip]
pub static ROWS: &[Row] = &[
    Row { key_size_min: RSA_GENERATE_BITS_MIN,
        ..rsa(M::RSA_PKCS_KEY_PAIR_GEN, ParameterKind::None, GENERATE_KEY_PAIR, "v3.1, 6.1.4") },
    rsa(M::RSA_PKCS, ParameterKind::None, SIGN_VERIFY | ENCRYPT_DECRYPT, "v3.1, 6.1.6"),
    rsa(M::RSA_PKCS_OAEP, ParameterKind::Oaep, ENCRYPT_DECRYPT, "v3.1, 6.1.8"),
    rsa(M::RSA_PKCS_PSS, ParameterKind::Pss, SIGN_VERIFY, "v3.1, 6.1.10"),
    rsa(M::RSA_X_509, ParameterKind::None, SIGN_VERIFY | ENCRYPT_DECRYPT, "v3.1, 6.1.12"),
    rsa_pkcs(M::SHA1_RSA_PKCS, M::SHA_1, "v3.1, 6.1.14"),
    rsa_pkcs(M::SHA224_RSA_PKCS, M::SHA224, "v3.1, 6.1.15"),
    rsa_pkcs(M::SHA256_RSA_PKCS, M::SHA256, "v3.1, 6.1.14"),
    rsa_pkcs(M::SHA384_RSA_PKCS, M::SHA384, "v3.1, 6.1.14"),
    rsa_pkcs(M::SHA512_RSA_PKCS, M::SHA512, "v3.1, 6.1.14"),
    rsa_pss(M::SHA1_RSA_PKCS_PSS, M::SHA_1, "v3.1, 6.1.17"),
    rsa_pss(M::SHA224_RSA_PKCS_PSS, M::SHA224, "v3.1, 6.1.16"),
    rsa_pss(M::SHA256_RSA_PKCS_PSS, M::SHA256, "v3.1, 6.1.17"),
    rsa_pss(M::SHA384_RSA_PKCS_PSS, M::SHA384, "v3.1, 6.1.17"),
    rsa_pss(M::SHA512_RSA_PKCS_PSS, M::SHA512, "v3.1, 6.1.17"),
    ec(M::EC_KEY_PAIR_GEN, GENERATE_KEY_PAIR, "v3.1, 6.3.9"),
    ec(M::ECDSA, SIGN_VERIFY, "v3.1, 6.3.13"),
    ecdsa(M::ECDSA_SHA1, M::SHA_1),
    ecdsa(M::ECDSA_SHA224, M::SHA224),
    ecdsa(M::ECDSA_SHA256, M::SHA256),
    ecdsa(M::ECDSA_SHA384, M::SHA384),
    ecdsa(M::ECDSA_SHA512, M::SHA512),
    aes(M::AES_KEY_GEN, ParameterKind::None, GENERATE, "v3.1, 6.10.3"),
    aes(M::AES_ECB, ParameterKind::None, ENCRYPT_DECRYPT, "v3.1, 6.10.4"),
    aes(M::AES_CBC, ParameterKind::Iv16, ENCRYPT_DECRYPT, "v3.1, 6.10.5"),
    aes(M::AES_CBC_PAD, ParameterKind::Iv16, ENCRYPT_DECRYPT, "v3.1, 6.10.6"),
    aes(M::AES_GCM, ParameterKind::Gcm, ENCRYPT_DECRYPT, "v3.1, 6.13.2"),
    Row { mechanism: M::GENERIC_SECRET_KEY_GEN, parameters: ParameterKind::None, key_types: SECRET_KEY_TYPES,
        flags: GENERATE, key_size_min: 8, key_size_max: SECRET_BYTES_MAX * 8, key_size_unit: Unit::Bits, hash: None,
        raw: None, section: "v3.1, 6.8.3" },
    hmac(M::SHA_1_HMAC, ParameterKind::None, HMAC_SHA_1, M::SHA_1, "v3.1, 6.20.4"),
    hmac(M::SHA_1_HMAC_GENERAL, ParameterKind::MacGeneral, HMAC_SHA_1, M::SHA_1, "v3.1, 6.20.3"),
    hmac(M::SHA224_HMAC, ParameterKind::None, HMAC_SHA224, M::SHA224, "v3.1, 6.21.4"),
    hmac(M::SHA224_HMAC_GENERAL, ParameterKind::MacGeneral, HMAC_SHA224, M::SHA224, "v3.1, 6.21.3"),
    hmac(M::SHA256_HMAC, ParameterKind::None, HMAC_SHA256, M::SHA256, "v3.1, 6.22.4"),
    hmac(M::SHA256_HMAC_GENERAL, ParameterKind::MacGeneral, HMAC_SHA256, M::SHA256, "v3.1, 6.22.3"),
    hmac(M::SHA384_HMAC, ParameterKind::None, HMAC_SHA384, M::SHA384, "v3.1, 6.23.4"),
    hmac(M::SHA384_HMAC_GENERAL, ParameterKind::MacGeneral, HMAC_SHA384, M::SHA384, "v3.1, 6.23.3"),
    hmac(M::SHA512_HMAC, ParameterKind::None, HMAC_SHA512, M::SHA512, "v3.1, 6.24.4"),
    hmac(M::SHA512_HMAC_GENERAL, ParameterKind::MacGeneral, HMAC_SHA512, M::SHA512, "v3.1, 6.24.3"),
    digest(M::SHA_1, "v3.1, 6.20.2"),
    digest(M::SHA224, "v3.1, 6.21.2"),
    digest(M::SHA256, "v3.1, 6.22.2"),
    digest(M::SHA384, "v3.1, 6.23.2"),
    digest(M::SHA512, "v3.1, 6.24.2"),
];

/// The text of `docs/mechanisms.md`.
pub fn render() -> String {
    let mut page = String::from(
        "# Mechanisms\n\n\
         Rendered from the table in `spec/src/mechanisms.rs`; regenerate with `cargo xtask docs`. A mechanism that is \
         not in this list answers `CKR_MECHANISM_INVALID`.\nSections are those of the PKCS #11 specification.\n\n\
         | mechanism | number | functions | parameter | keys | key sizes | section |\n|---|---|---|---|---|---|---|\n",
    );
    for row in ROWS {
        let keys = row.key_types.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" ");
        let sizes = match row.key_size_unit {
            Unit::None => String::from("none"),
            Unit::Bits => format!("{} to {} bits", row.key_size_min, row.key_size_max),
            Unit::Bytes => format!("{} to {} bytes", row.key_size_min, row.key_size_max),
        };
        writeln!(
            page,
            "| `{}` | 0x{:04x} | {} | {} | {} | {sizes} | {} |",
            row.name(),
            row.mechanism.0,
            functions(row.flags),
            parameter(row.parameters),
            if keys.is_empty() { "none" } else { &keys },
            row.section,
        )
        .expect("writing to a String cannot fail");
    }
    page
}

/// The functions named by flags, in the order of the standard.
fn functions(flags: u64) -> String {
    let names = [
        (ENCRYPT, "encrypt"),
        (DECRYPT, "decrypt"),
        (DIGEST, "digest"),
        (SIGN, "sign"),
        (VERIFY, "verify"),
        (GENERATE, "generate key"),
        (GENERATE_KEY_PAIR, "generate key pair"),
    ];
    names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

fn parameter(kind: ParameterKind) -> &'static str {
    match kind {
        ParameterKind::None => "none",
        ParameterKind::Iv16 => "IV of 16 bytes",
        ParameterKind::Gcm => "`CK_GCM_PARAMS`",
        ParameterKind::Pss => "`CK_RSA_PKCS_PSS_PARAMS`",
        ParameterKind::Oaep => "`CK_RSA_PKCS_OAEP_PARAMS`",
        ParameterKind::MacGeneral => "`CK_MAC_GENERAL_PARAMS`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_row_is_found_under_its_number_and_nothing_under_any_other() {
        for number in (0..2 * NUMBERS as u64).chain([u64::from(u32::MAX), u64::MAX]) {
            let wanted = ROWS.iter().position(|row| row.mechanism.0 == number);
            let found = row_of(MechanismType(number));
            assert_eq!(found.map(Row::name), wanted.map(|at| ROWS[at].name()), "{number:#x}");
        }
    }

    #[test]
    fn rows_are_unique_named_and_cite_a_section() {
        let numbers: HashSet<_> = ROWS.iter().map(|row| row.mechanism).collect();
        assert_eq!(numbers.len(), ROWS.len());
        assert!(ROWS.iter().all(|row| row.mechanism.name().is_some() && !row.section.is_empty()));
    }

    #[test]
    fn rows_do_not_contradict_themselves() {
        for row in ROWS {
            assert_eq!(row.key_types.is_empty(), row.key_size_unit == Unit::None, "{}", row.name());
            assert_eq!(row.key_types.is_empty(), row.permits(DIGEST), "{}", row.name());
            assert!(row.key_size_min <= row.key_size_max, "{}", row.name());
            assert!(!functions(row.flags).is_empty(), "{}", row.name());
            if let Some(hash) = row.hash {
                assert!(digest_bytes(hash).is_some() && row_of(hash).is_some(), "{}", row.name());
            }
            if let Some(raw) = row.raw.and_then(row_of) {
                assert!(raw.raw.is_none() && raw.permits(SIGN), "{}", row.name());
                assert_eq!(
                    (raw.key_types, raw.parameters),
                    (row.key_types, row.parameters),
                    "{}",
                    row.name()
                );
            }
            assert_eq!(row.raw.is_some(), row.raw.and_then(row_of).is_some(), "{}", row.name());
        }
    }

    #[test]
    fn parameters_of_the_wrong_kind_or_shape_are_refused() {
        let pss = |hash| Parameters::Pss { hash, mgf: MgfType::MGF1_SHA256, salt_bytes: 32 };
        let gcm = |tag_bits| Parameters::Gcm { iv: vec![0; 12], aad: Vec::new(), tag_bits };
        let right = [
            (M::AES_CBC, Parameters::Iv(vec![0; 16])),
            (M::AES_GCM, gcm(128)),
            (M::SHA256_RSA_PKCS_PSS, pss(M::SHA256)),
            (M::RSA_PKCS_PSS, pss(M::SHA512)),
            (M::SHA256_HMAC_GENERAL, Parameters::MacGeneral { mac_bytes: 32 }),
            (M::RSA_PKCS, Parameters::None),
        ];
        let wrong = [
            (M::AES_CBC, Parameters::Iv(vec![0; 15])),
            (M::AES_CBC, Parameters::None),
            (M::AES_GCM, gcm(127)),
            (M::AES_GCM, gcm(136)),
            (M::SHA256_RSA_PKCS_PSS, pss(M::SHA384)),
            (M::RSA_PKCS_PSS, pss(M::RSA_PKCS)),
            (M::SHA256_HMAC_GENERAL, Parameters::MacGeneral { mac_bytes: 33 }),
            (M::SHA256_HMAC_GENERAL, Parameters::MacGeneral { mac_bytes: 0 }),
            (M::RSA_PKCS, Parameters::Iv(vec![0; 16])),
        ];
        for (mechanism_type, parameters) in right {
            assert!(Mechanism { mechanism_type, parameters }.check().is_ok(), "{mechanism_type}");
        }
        for (mechanism_type, parameters) in wrong {
            let found = Mechanism { mechanism_type, parameters }.check().map(Row::name);
            assert_eq!(found, Err(Rv::MECHANISM_PARAM_INVALID), "{mechanism_type}");
        }
        assert_eq!(Mechanism::plain(M::DES3_CBC).check().map(Row::name), Err(Rv::MECHANISM_INVALID));
    }

    #[test]
    fn debug_of_parameters_shows_lengths_only() {
        let shown = format!(
            "{:?}",
            Parameters::Oaep { hash: M::SHA_1, mgf: MgfType::MGF1_SHA1, label: b"abc".to_vec() }
        );
        assert_eq!(shown, "oaep(CKM_SHA_1, CKG_MGF1_SHA1, label[3 bytes])");
    }

    #[test]
    fn the_page_of_mechanisms_is_the_table() {
        let page = include_str!("../../docs/mechanisms.md");
        assert!(page == render(), "docs/mechanisms.md is not what the table says; run `cargo xtask docs`");
    }
}
