//! One row per attribute of PKCS #11 v3.2: the shape of its value, whether it is secret, whether it may change, and how
//! two members' values of it are joined (HA 1.3).
//!
//! What a class demands of its template stands in [`crate::classes`].

use crate::numbers::{AttributeType, ObjectClass};
use AttributeType as A;
use Kind::{BigInteger, Bool, Bytes, Date, MechanismList, Template, Text, Ulong};

/// The shape of an attribute's value in C; the canonical bytes are those of [`crate::value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `CK_BBOOL`.
    Bool,
    /// `CK_ULONG` or one of its aliases.
    Ulong,
    /// Any bytes, often DER.
    Bytes,
    /// An unsigned integer, most significant byte first.
    BigInteger,
    /// UTF-8 without a terminator.
    Text,
    /// `CK_DATE`: eight digits `YYYYMMDD`, or empty.
    Date,
    /// An array of `CK_ULONG`: mechanisms, or the types of HSS.
    MechanismList,
    /// An array of `CK_ATTRIBUTE`.
    Template,
}

/// How the values of two members are joined (HA 1.3), and so how `C_SetAttributeValue` may change the attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Join {
    /// Part of the immutable core: never changes; a difference is quarantine (HA 1.7).
    Core,
    /// May change to true only; true wins.
    TrueWins,
    /// May change to false only; false wins.
    FalseWins,
    /// Changed by the security officer at the home member alone.
    HomeOnly,
    /// May change; the greater stamp wins.
    GreaterStamp,
}

/// The rules of one attribute.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The attribute.
    pub attribute: AttributeType,
    /// The shape of its value.
    pub kind: Kind,
    /// Whether the value is key material: never revealed while the object is sensitive or not extractable
    /// (PKCS #11 v3.1, table 13, note 7), and never logged.
    pub secret: bool,
    /// The join of two values in every class that [`EXCEPTIONS`] does not name.
    pub join: Join,
    /// Where the standard defines it.
    pub section: &'static str,
}

impl Row {
    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn changes(mut self) -> Self {
        self.join = Join::GreaterStamp;
        self
    }

    const fn true_wins(mut self) -> Self {
        self.join = Join::TrueWins;
        self
    }

    const fn false_wins(mut self) -> Self {
        self.join = Join::FalseWins;
        self
    }

    const fn home_only(mut self) -> Self {
        self.join = Join::HomeOnly;
        self
    }
}

/// A row of the common case: open, immutable.
const fn row(attribute: AttributeType, kind: Kind, section: &'static str) -> Row {
    Row { attribute, kind, secret: false, join: Join::Core, section }
}

impl Join {
    /// Whether `C_SetAttributeValue` may ever change the attribute.
    pub const fn changeable(self) -> bool {
        !matches!(self, Self::Core)
    }

    /// The only value that a one-way attribute may change to; none where both ways are open or none is.
    pub const fn one_way(self) -> Option<bool> {
        match self {
            Self::TrueWins => Some(true),
            Self::FalseWins => Some(false),
            Self::Core | Self::HomeOnly | Self::GreaterStamp => None,
        }
    }
}

/// The rules of an attribute; none for a number that the standard does not name.
pub fn row_of(attribute: AttributeType) -> Option<&'static Row> {
    ROWS.binary_search_by_key(&attribute, |row| row.attribute).ok().map(|index| &ROWS[index])
}

/// The shape of an attribute's value; bytes for a number that the standard does not name.
pub fn kind_of(attribute: AttributeType) -> Kind {
    row_of(attribute).map_or(Bytes, |row| row.kind)
}

/// Whether a value of this attribute is key material. An unknown attribute counts as secret: nothing says that it is not.
pub fn is_secret(attribute: AttributeType) -> bool {
    row_of(attribute).is_none_or(|row| row.secret)
}

/// The join of an attribute in objects of a class. An attribute that the standard does not name is core.
pub fn join_of(class: ObjectClass, attribute: AttributeType) -> Join {
    let exception = EXCEPTIONS.iter().find(|(of, what, _)| *of == class && *what == attribute);
    match exception {
        Some((_, _, join)) => *join,
        None => row_of(attribute).map_or(Join::Core, |row| row.join),
    }
}

/// Where a class departs from the row: a data object's content may change (PKCS #11 v3.1, 4.5), while what a
/// certificate states may not (4.6.2, 4.6.3).
pub const EXCEPTIONS: &[(ObjectClass, AttributeType, Join)] = &[
    (ObjectClass::DATA, A::APPLICATION, Join::GreaterStamp),
    (ObjectClass::DATA, A::OBJECT_ID, Join::GreaterStamp),
    (ObjectClass::DATA, A::VALUE, Join::GreaterStamp),
    (ObjectClass::CERTIFICATE, A::SUBJECT, Join::Core),
    (ObjectClass::CERTIFICATE, A::START_DATE, Join::Core),
    (ObjectClass::CERTIFICATE, A::END_DATE, Join::Core),
];

/// Every attribute that the standard names, ascending by number.
#[rustfmt::skip]
pub static ROWS: &[Row] = &[
    row(A::CLASS, Ulong, "v3.1, 4.2"),
    row(A::TOKEN, Bool, "v3.1, 4.4"),
    row(A::PRIVATE, Bool, "v3.1, 4.4"),
    row(A::LABEL, Text, "v3.1, 4.4").changes(),
    row(A::UNIQUE_ID, Text, "v3.1, 4.4"),
    row(A::APPLICATION, Text, "v3.1, 4.5"),
    row(A::VALUE, Bytes, "v3.1, 4.5, 4.6, 6").secret(),
    row(A::OBJECT_ID, Bytes, "v3.1, 4.5"),
    row(A::CERTIFICATE_TYPE, Ulong, "v3.1, 4.6.2"),
    row(A::ISSUER, Bytes, "v3.1, 4.6.3").changes(),
    row(A::SERIAL_NUMBER, Bytes, "v3.1, 4.6.3").changes(),
    row(A::AC_ISSUER, Bytes, "v3.1, 4.6.5"),
    row(A::OWNER, Bytes, "v3.1, 4.6.5"),
    row(A::ATTR_TYPES, Bytes, "v3.1, 4.6.5"),
    row(A::TRUSTED, Bool, "v3.1, 4.6.2, 4.8, 4.10").home_only(),
    row(A::CERTIFICATE_CATEGORY, Ulong, "v3.1, 4.6.2"),
    row(A::JAVA_MIDP_SECURITY_DOMAIN, Ulong, "v3.1, 4.6.3"),
    row(A::URL, Text, "v3.1, 4.6.3"),
    row(A::HASH_OF_SUBJECT_PUBLIC_KEY, Bytes, "v3.1, 4.6.3"),
    row(A::HASH_OF_ISSUER_PUBLIC_KEY, Bytes, "v3.1, 4.6.3"),
    row(A::NAME_HASH_ALGORITHM, Ulong, "v3.1, 4.6.3"),
    row(A::CHECK_VALUE, Bytes, "v3.1, 4.6.2, 4.10"),
    row(A::KEY_TYPE, Ulong, "v3.1, 4.7"),
    row(A::SUBJECT, Bytes, "v3.1, 4.8, 4.9").changes(),
    row(A::ID, Bytes, "v3.1, 4.7").changes(),
    row(A::SENSITIVE, Bool, "v3.1, 4.9, 4.10").true_wins(),
    row(A::ENCRYPT, Bool, "v3.1, 4.8, 4.10").changes(),
    row(A::DECRYPT, Bool, "v3.1, 4.9, 4.10").changes(),
    row(A::WRAP, Bool, "v3.1, 4.8, 4.10").changes(),
    row(A::UNWRAP, Bool, "v3.1, 4.9, 4.10").changes(),
    row(A::SIGN, Bool, "v3.1, 4.9, 4.10").changes(),
    row(A::SIGN_RECOVER, Bool, "v3.1, 4.9").changes(),
    row(A::VERIFY, Bool, "v3.1, 4.8, 4.10").changes(),
    row(A::VERIFY_RECOVER, Bool, "v3.1, 4.8").changes(),
    row(A::DERIVE, Bool, "v3.1, 4.7").changes(),
    row(A::START_DATE, Date, "v3.1, 4.7").changes(),
    row(A::END_DATE, Date, "v3.1, 4.7").changes(),
    row(A::MODULUS, BigInteger, "v3.1, 6.1.2"),
    row(A::MODULUS_BITS, Ulong, "v3.1, 6.1.2"),
    row(A::PUBLIC_EXPONENT, BigInteger, "v3.1, 6.1.2"),
    row(A::PRIVATE_EXPONENT, BigInteger, "v3.1, 6.1.3").secret(),
    row(A::PRIME_1, BigInteger, "v3.1, 6.1.3").secret(),
    row(A::PRIME_2, BigInteger, "v3.1, 6.1.3").secret(),
    row(A::EXPONENT_1, BigInteger, "v3.1, 6.1.3").secret(),
    row(A::EXPONENT_2, BigInteger, "v3.1, 6.1.3").secret(),
    row(A::COEFFICIENT, BigInteger, "v3.1, 6.1.3").secret(),
    row(A::PUBLIC_KEY_INFO, Bytes, "v3.1, 4.8, 4.9"),
    row(A::PRIME, BigInteger, "v3.1, 6.2"),
    row(A::SUBPRIME, BigInteger, "v3.1, 6.2"),
    row(A::BASE, BigInteger, "v3.1, 6.2"),
    row(A::PRIME_BITS, Ulong, "v3.1, 6.2"),
    row(A::SUBPRIME_BITS, Ulong, "v3.1, 6.2"),
    row(A::VALUE_BITS, Ulong, "v3.1, 6.4"),
    row(A::VALUE_LEN, Ulong, "v3.1, 6.8.2"),
    row(A::EXTRACTABLE, Bool, "v3.1, 4.9, 4.10").false_wins(),
    row(A::LOCAL, Bool, "v3.1, 4.7"),
    row(A::NEVER_EXTRACTABLE, Bool, "v3.1, 4.9, 4.10"),
    row(A::ALWAYS_SENSITIVE, Bool, "v3.1, 4.9, 4.10"),
    row(A::KEY_GEN_MECHANISM, Ulong, "v3.1, 4.7"),
    row(A::MODIFIABLE, Bool, "v3.1, 4.4"),
    row(A::COPYABLE, Bool, "v3.1, 4.4").false_wins(),
    row(A::DESTROYABLE, Bool, "v3.1, 4.4"),
    row(A::EC_PARAMS, Bytes, "v3.1, 6.3"),
    row(A::EC_POINT, Bytes, "v3.1, 6.3"),
    row(A::SECONDARY_AUTH, Bool, "v2.11, 10"),
    row(A::AUTH_PIN_FLAGS, Ulong, "v2.11, 10"),
    row(A::ALWAYS_AUTHENTICATE, Bool, "v3.1, 4.9"),
    row(A::WRAP_WITH_TRUSTED, Bool, "v3.1, 4.9, 4.10").true_wins(),
    row(A::OTP_FORMAT, Ulong, "v3.1, 6.43"),
    row(A::OTP_LENGTH, Ulong, "v3.1, 6.43"),
    row(A::OTP_TIME_INTERVAL, Ulong, "v3.1, 6.43"),
    row(A::OTP_USER_FRIENDLY_MODE, Bool, "v3.1, 6.43"),
    row(A::OTP_CHALLENGE_REQUIREMENT, Ulong, "v3.1, 6.43"),
    row(A::OTP_TIME_REQUIREMENT, Ulong, "v3.1, 6.43"),
    row(A::OTP_COUNTER_REQUIREMENT, Ulong, "v3.1, 6.43"),
    row(A::OTP_PIN_REQUIREMENT, Ulong, "v3.1, 6.43"),
    row(A::OTP_USER_IDENTIFIER, Text, "v3.1, 6.43"),
    row(A::OTP_SERVICE_IDENTIFIER, Text, "v3.1, 6.43"),
    row(A::OTP_SERVICE_LOGO, Bytes, "v3.1, 6.43"),
    row(A::OTP_SERVICE_LOGO_TYPE, Text, "v3.1, 6.43"),
    row(A::OTP_COUNTER, Bytes, "v3.1, 6.43"),
    row(A::OTP_TIME, Text, "v3.1, 6.43"),
    row(A::GOSTR3410_PARAMS, Bytes, "v3.1, 6.47"),
    row(A::GOSTR3411_PARAMS, Bytes, "v3.1, 6.46"),
    row(A::GOST28147_PARAMS, Bytes, "v3.1, 6.45"),
    row(A::HW_FEATURE_TYPE, Ulong, "v3.1, 4.3"),
    row(A::RESET_ON_INIT, Bool, "v3.1, 4.3"),
    row(A::HAS_RESET, Bool, "v3.1, 4.3"),
    row(A::PIXEL_X, Ulong, "v3.1, 4.3"),
    row(A::PIXEL_Y, Ulong, "v3.1, 4.3"),
    row(A::RESOLUTION, Ulong, "v3.1, 4.3"),
    row(A::CHAR_ROWS, Ulong, "v3.1, 4.3"),
    row(A::CHAR_COLUMNS, Ulong, "v3.1, 4.3"),
    row(A::COLOR, Bool, "v3.1, 4.3"),
    row(A::BITS_PER_PIXEL, Ulong, "v3.1, 4.3"),
    row(A::CHAR_SETS, Text, "v3.1, 4.3"),
    row(A::ENCODING_METHODS, Text, "v3.1, 4.3"),
    row(A::MIME_TYPES, Text, "v3.1, 4.3"),
    row(A::MECHANISM_TYPE, Ulong, "v3.1, 4.12"),
    row(A::REQUIRED_CMS_ATTRIBUTES, Bytes, "v3.1, 4.12"),
    row(A::DEFAULT_CMS_ATTRIBUTES, Bytes, "v3.1, 4.12"),
    row(A::SUPPORTED_CMS_ATTRIBUTES, Bytes, "v3.1, 4.12"),
    row(A::PROFILE_ID, Ulong, "v3.1, 4.13"),
    row(A::X2RATCHET_BAG, Bytes, "v3.1, 6.6").secret(),
    row(A::X2RATCHET_BAGSIZE, Ulong, "v3.1, 6.6"),
    row(A::X2RATCHET_BOBS1STMSG, Bool, "v3.1, 6.6"),
    row(A::X2RATCHET_CKR, Bytes, "v3.1, 6.6").secret(),
    row(A::X2RATCHET_CKS, Bytes, "v3.1, 6.6").secret(),
    row(A::X2RATCHET_DHP, Bytes, "v3.1, 6.6").secret(),
    row(A::X2RATCHET_DHR, Bytes, "v3.1, 6.6").secret(),
    row(A::X2RATCHET_DHS, Bytes, "v3.1, 6.6").secret(),
    row(A::X2RATCHET_HKR, Bytes, "v3.1, 6.6").secret(),
    row(A::X2RATCHET_HKS, Bytes, "v3.1, 6.6").secret(),
    row(A::X2RATCHET_ISALICE, Bool, "v3.1, 6.6"),
    row(A::X2RATCHET_NHKR, Bytes, "v3.1, 6.6").secret(),
    row(A::X2RATCHET_NHKS, Bytes, "v3.1, 6.6").secret(),
    row(A::X2RATCHET_NR, Ulong, "v3.1, 6.6"),
    row(A::X2RATCHET_NS, Ulong, "v3.1, 6.6"),
    row(A::X2RATCHET_PNS, Ulong, "v3.1, 6.6"),
    row(A::X2RATCHET_RK, Bytes, "v3.1, 6.6").secret(),
    row(A::HSS_LEVELS, Ulong, "v3.1, 6.66"),
    row(A::HSS_LMS_TYPE, Ulong, "v3.1, 6.66"),
    row(A::HSS_LMOTS_TYPE, Ulong, "v3.1, 6.66"),
    row(A::HSS_LMS_TYPES, MechanismList, "v3.1, 6.66"),
    row(A::HSS_LMOTS_TYPES, MechanismList, "v3.1, 6.66"),
    row(A::HSS_KEYS_REMAINING, Ulong, "v3.1, 6.66"),
    row(A::PARAMETER_SET, Ulong, "v3.2, 4"),
    row(A::OBJECT_VALIDATION_FLAGS, Ulong, "v3.2, 4"),
    row(A::VALIDATION_TYPE, Ulong, "v3.2, 4"),
    row(A::VALIDATION_VERSION, Bytes, "v3.2, 4"),
    row(A::VALIDATION_LEVEL, Ulong, "v3.2, 4"),
    row(A::VALIDATION_MODULE_ID, Text, "v3.2, 4"),
    row(A::VALIDATION_FLAG, Ulong, "v3.2, 4"),
    row(A::VALIDATION_AUTHORITY_TYPE, Ulong, "v3.2, 4"),
    row(A::VALIDATION_COUNTRY, Text, "v3.2, 4"),
    row(A::VALIDATION_CERTIFICATE_IDENTIFIER, Text, "v3.2, 4"),
    row(A::VALIDATION_CERTIFICATE_URI, Text, "v3.2, 4"),
    row(A::VALIDATION_VENDOR_URI, Text, "v3.2, 4"),
    row(A::VALIDATION_PROFILE, Text, "v3.2, 4"),
    row(A::ENCAPSULATE_TEMPLATE, Template, "v3.2, 4"),
    row(A::DECAPSULATE_TEMPLATE, Template, "v3.2, 4"),
    row(A::TRUST_SERVER_AUTH, Ulong, "v3.2, 4"),
    row(A::TRUST_CLIENT_AUTH, Ulong, "v3.2, 4"),
    row(A::TRUST_CODE_SIGNING, Ulong, "v3.2, 4"),
    row(A::TRUST_EMAIL_PROTECTION, Ulong, "v3.2, 4"),
    row(A::TRUST_IPSEC_IKE, Ulong, "v3.2, 4"),
    row(A::TRUST_TIME_STAMPING, Ulong, "v3.2, 4"),
    row(A::TRUST_OCSP_SIGNING, Ulong, "v3.2, 4"),
    row(A::ENCAPSULATE, Bool, "v3.2, 4").changes(),
    row(A::DECAPSULATE, Bool, "v3.2, 4").changes(),
    row(A::HASH_OF_CERTIFICATE, Bytes, "v3.2, 4"),
    row(A::PUBLIC_CRC64_VALUE, Bytes, "v3.2, 4"),
    row(A::SEED, Bytes, "v3.2, 4").secret(),
    row(A::WRAP_TEMPLATE, Template, "v3.1, 4.8, 4.10"),
    row(A::UNWRAP_TEMPLATE, Template, "v3.1, 4.9, 4.10"),
    row(A::DERIVE_TEMPLATE, Template, "v3.1, 4.9, 4.10"),
    row(A::ALLOWED_MECHANISMS, MechanismList, "v3.1, 4.7"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_attribute_has_exactly_one_row_in_order() {
        let named: Vec<_> = A::ALL.iter().copied().filter(|a| *a != A::VENDOR_DEFINED).collect();
        let rows: Vec<_> = ROWS.iter().map(|row| row.attribute).collect();
        assert_eq!(rows, named);
        assert!(ROWS.iter().all(|row| !row.section.is_empty()));
        assert!(
            named.iter().all(|attribute| row_of(*attribute).is_some_and(|row| row.attribute == *attribute))
        );
        assert!(row_of(AttributeType(0x8000_0001)).is_none());
    }

    #[test]
    fn one_way_attributes_are_those_of_ha_1_3() {
        let of =
            |join| ROWS.iter().filter(|row| row.join == join).map(|row| row.attribute).collect::<Vec<_>>();
        assert_eq!(of(Join::TrueWins), [A::SENSITIVE, A::WRAP_WITH_TRUSTED]);
        assert_eq!(of(Join::FalseWins), [A::EXTRACTABLE, A::COPYABLE]);
        assert_eq!(of(Join::HomeOnly), [A::TRUSTED]);
        assert!(ROWS.iter().filter(|row| row.join.one_way().is_some()).all(|row| row.kind == Bool));
    }

    #[test]
    fn key_material_is_secret_and_immutable_in_keys() {
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::SECRET_KEY] {
            for row in ROWS.iter().filter(|row| row.secret) {
                assert_eq!(join_of(class, row.attribute), Join::Core, "{:?}", row.attribute);
            }
        }
        for attribute in [A::VALUE, A::PRIVATE_EXPONENT, A::PRIME_1, A::PRIME_2, A::COEFFICIENT, A::SEED] {
            assert!(is_secret(attribute));
        }
        assert!(!is_secret(A::LABEL));
        assert!(is_secret(AttributeType(0x8000_0001)));
    }

    #[test]
    fn data_objects_change_their_value_and_certificates_keep_their_subject() {
        assert_eq!(join_of(ObjectClass::DATA, A::VALUE), Join::GreaterStamp);
        assert_eq!(join_of(ObjectClass::CERTIFICATE, A::VALUE), Join::Core);
        assert_eq!(join_of(ObjectClass::CERTIFICATE, A::SUBJECT), Join::Core);
        assert_eq!(join_of(ObjectClass::PRIVATE_KEY, A::SUBJECT), Join::GreaterStamp);
    }

    #[test]
    fn array_attributes_carry_the_standards_mark() {
        for row in ROWS.iter().filter(|row| row.attribute.0 & crate::flags::ARRAY_ATTRIBUTE != 0) {
            assert!(matches!(row.kind, Template | MechanismList), "{:?}", row.attribute);
        }
    }
}
