//! The templates of objects: for each class and key type, what an attribute must be when an object is made and whether
//! it may change afterwards (PKCS #11 v3.1, table 13, notes 1 to 12, and the tables of sections 4 and 6).
//!
//! ```text
//! every object   CLASS UNIQUE_ID TOKEN PRIVATE MODIFIABLE LABEL COPYABLE DESTROYABLE
//!   key          KEY_TYPE ID dates DERIVE LOCAL KEY_GEN_MECHANISM ALLOWED_MECHANISMS
//!     public | private | secret    usage, one-way attributes, templates
//!       RSA | EC | AES | secret bytes    key material, and the defaults of the usages that suit the type
//!   data, X.509 certificate
//! ```
//! A row lists one attribute once; an attribute without a row is CKR_ATTRIBUTE_TYPE_INVALID for that class.

use crate::attributes::{Join, join_of};
use crate::mechanisms::SECRET_KEY_TYPES;
use crate::numbers::{AttributeType, KeyType, ObjectClass};
use AttributeType as A;
use DefaultValue as D;
use Presence::{Forbidden, Optional, Required};

/// Whether a template must, may or must not give an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Presence {
    /// It must (else CKR_TEMPLATE_INCOMPLETE).
    Required,
    /// It may; otherwise the default holds.
    Optional,
    /// It must not (else CKR_TEMPLATE_INCONSISTENT); the token decides.
    Forbidden,
}

/// The value of an attribute that the template does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DefaultValue {
    /// The object does not have the attribute then.
    Absent,
    /// The token computes it from the rest, or from how the object was made.
    Computed,
    /// This truth value.
    Bool(bool),
    /// This number.
    Ulong(u64),
    /// These canonical bytes; often none.
    Bytes(&'static [u8]),
}

/// How an object comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// `C_CreateObject`.
    Create,
    /// `C_GenerateKey`, `C_GenerateKeyPair`.
    Generate,
    /// `C_UnwrapKey` and other functions that bring key material from outside.
    Unwrap,
}

/// When an attribute may be given a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Never.
    Never,
    /// By `C_CopyObject` only.
    AtCopy,
    /// By `C_SetAttributeValue` and `C_CopyObject`, in the direction that its join allows (HA 1.3).
    Always,
}

/// The rule of one attribute in one class and key type.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The attribute.
    pub attribute: AttributeType,
    /// In the template of `C_CreateObject`.
    pub create: Presence,
    /// In the template of a generation.
    pub generate: Presence,
    /// In the template of an unwrapping.
    pub unwrap: Presence,
    /// The value when the template gives none.
    pub default: DefaultValue,
    /// When it may change.
    pub change: Change,
}

impl Row {
    /// What the template must do with the attribute when an object is made this way.
    pub const fn presence(&self, way: Way) -> Presence {
        match way {
            Way::Create => self.create,
            Way::Generate => self.generate,
            Way::Unwrap => self.unwrap,
        }
    }

    const fn always(mut self) -> Self {
        self.change = Change::Always;
        self
    }

    const fn at_copy(mut self) -> Self {
        self.change = Change::AtCopy;
        self
    }
}

/// A row whose presence differs by the way the object is made; immutable.
const fn row(
    attribute: AttributeType,
    create: Presence,
    generate: Presence,
    unwrap: Presence,
    default: DefaultValue,
) -> Row {
    Row { attribute, create, generate, unwrap, default, change: Change::Never }
}

/// A row that every template may give; immutable.
const fn optional(attribute: AttributeType, default: DefaultValue) -> Row {
    row(attribute, Optional, Optional, Optional, default)
}

/// A row that no template may give: the token computes it (notes 2, 4 and 6).
const fn computed(attribute: AttributeType) -> Row {
    row(attribute, Forbidden, Forbidden, Forbidden, D::Computed)
}

/// Key material: given at creation, made by a generation, brought by an unwrapping (notes 1, 4 and 6).
const fn material(attribute: AttributeType, default: DefaultValue) -> Row {
    row(attribute, Required, Forbidden, Forbidden, default)
}

/// A usage that the owner may switch.
const fn usage(attribute: AttributeType, default: bool) -> Row {
    optional(attribute, D::Bool(default)).always()
}

const EMPTY: DefaultValue = D::Bytes(&[]);

/// Every object (4.2, 4.4). PRIVATE stands with the classes, whose defaults differ.
const STORAGE: &[Row] = &[
    row(A::CLASS, Required, Optional, Required, D::Computed),
    computed(A::UNIQUE_ID),
    optional(A::TOKEN, D::Bool(false)).at_copy(),
    optional(A::MODIFIABLE, D::Bool(true)).at_copy(),
    optional(A::LABEL, EMPTY).always(),
    optional(A::COPYABLE, D::Bool(true)).always(),
    optional(A::DESTROYABLE, D::Bool(true)).at_copy(),
];

/// Data objects (4.5).
const DATA: &[Row] = &[
    optional(A::PRIVATE, D::Bool(false)).at_copy(),
    optional(A::APPLICATION, EMPTY).always(),
    optional(A::OBJECT_ID, EMPTY).always(),
    optional(A::VALUE, EMPTY).always(),
];

/// X.509 certificates (4.6.2, 4.6.3). VALUE may be given empty when there is a URL.
const CERTIFICATE: &[Row] = &[
    optional(A::PRIVATE, D::Bool(false)).at_copy(),
    row(A::CERTIFICATE_TYPE, Required, Required, Required, D::Absent),
    optional(A::TRUSTED, D::Bool(false)).always(),
    optional(A::CERTIFICATE_CATEGORY, D::Ulong(0)),
    optional(A::CHECK_VALUE, D::Computed),
    optional(A::START_DATE, EMPTY),
    optional(A::END_DATE, EMPTY),
    optional(A::PUBLIC_KEY_INFO, EMPTY),
    row(A::SUBJECT, Required, Required, Required, D::Absent),
    optional(A::ID, EMPTY).always(),
    optional(A::ISSUER, EMPTY).always(),
    optional(A::SERIAL_NUMBER, EMPTY).always(),
    row(A::VALUE, Required, Required, Required, D::Absent),
    optional(A::URL, EMPTY),
    optional(A::HASH_OF_SUBJECT_PUBLIC_KEY, EMPTY),
    optional(A::HASH_OF_ISSUER_PUBLIC_KEY, EMPTY),
    optional(A::JAVA_MIDP_SECURITY_DOMAIN, D::Ulong(0)),
    optional(A::NAME_HASH_ALGORITHM, D::Ulong(crate::MechanismType::SHA_1.0)),
];

/// Every key (4.7).
const KEY: &[Row] = &[
    row(A::KEY_TYPE, Required, Optional, Required, D::Computed),
    optional(A::ID, EMPTY).always(),
    optional(A::START_DATE, EMPTY).always(),
    optional(A::END_DATE, EMPTY).always(),
    usage(A::DERIVE, false),
    computed(A::LOCAL),
    computed(A::KEY_GEN_MECHANISM),
    optional(A::ALLOWED_MECHANISMS, D::Absent),
];

/// Every public key (4.8).
const PUBLIC: &[Row] = &[
    optional(A::PRIVATE, D::Bool(false)).at_copy(),
    optional(A::SUBJECT, EMPTY).always(),
    usage(A::VERIFY, true),
    usage(A::VERIFY_RECOVER, false),
    usage(A::WRAP, false),
    optional(A::TRUSTED, D::Bool(false)).always(),
    optional(A::WRAP_TEMPLATE, D::Absent),
    optional(A::PUBLIC_KEY_INFO, D::Computed),
];

/// Every private key (4.9). The defaults that the standard leaves to the token are the safe ones.
const PRIVATE: &[Row] = &[
    optional(A::PRIVATE, D::Bool(true)).at_copy(),
    optional(A::SUBJECT, EMPTY).always(),
    usage(A::SENSITIVE, true),
    usage(A::SIGN, true),
    usage(A::SIGN_RECOVER, false),
    usage(A::UNWRAP, false),
    usage(A::EXTRACTABLE, false),
    computed(A::ALWAYS_SENSITIVE),
    computed(A::NEVER_EXTRACTABLE),
    usage(A::WRAP_WITH_TRUSTED, false),
    optional(A::UNWRAP_TEMPLATE, D::Absent),
    optional(A::DERIVE_TEMPLATE, D::Absent),
    optional(A::ALWAYS_AUTHENTICATE, D::Bool(false)),
    optional(A::PUBLIC_KEY_INFO, D::Computed),
];

/// Every secret key (4.10). SENSITIVE is false by default because the standard says so here; the value stays inside
/// all the same, because EXTRACTABLE, which it leaves to the token, is false too.
const SECRET: &[Row] = &[
    optional(A::PRIVATE, D::Bool(true)).at_copy(),
    usage(A::SENSITIVE, false),
    usage(A::SIGN, true),
    usage(A::VERIFY, true),
    usage(A::WRAP, false),
    usage(A::UNWRAP, false),
    usage(A::EXTRACTABLE, false),
    computed(A::ALWAYS_SENSITIVE),
    computed(A::NEVER_EXTRACTABLE),
    optional(A::CHECK_VALUE, D::Computed),
    usage(A::WRAP_WITH_TRUSTED, false),
    optional(A::TRUSTED, D::Bool(false)).always(),
    optional(A::WRAP_TEMPLATE, D::Absent),
    optional(A::UNWRAP_TEMPLATE, D::Absent),
    optional(A::DERIVE_TEMPLATE, D::Absent),
];

/// RSA public keys (6.1.2). The exponent defaults to 65537 in a generation.
const PUBLIC_RSA: &[Row] = &[
    material(A::MODULUS, D::Computed),
    row(A::MODULUS_BITS, Forbidden, Required, Forbidden, D::Computed),
    row(A::PUBLIC_EXPONENT, Required, Optional, Optional, D::Bytes(&[1, 0, 1])),
    usage(A::ENCRYPT, true),
];

/// RSA private keys (6.1.3). The primes and what follows from them may be left out at creation.
const PRIVATE_RSA: &[Row] = &[
    material(A::MODULUS, D::Computed),
    material(A::PUBLIC_EXPONENT, D::Computed),
    material(A::PRIVATE_EXPONENT, D::Computed),
    row(A::PRIME_1, Optional, Forbidden, Forbidden, D::Computed),
    row(A::PRIME_2, Optional, Forbidden, Forbidden, D::Computed),
    row(A::EXPONENT_1, Optional, Forbidden, Forbidden, D::Computed),
    row(A::EXPONENT_2, Optional, Forbidden, Forbidden, D::Computed),
    row(A::COEFFICIENT, Optional, Forbidden, Forbidden, D::Computed),
    usage(A::DECRYPT, true),
];

/// EC public keys (6.3.3).
const PUBLIC_EC: &[Row] = &[
    row(A::EC_PARAMS, Required, Required, Optional, D::Computed),
    material(A::EC_POINT, D::Computed),
    usage(A::ENCRYPT, false),
];

/// EC private keys (6.3.4).
const PRIVATE_EC: &[Row] =
    &[material(A::EC_PARAMS, D::Computed), material(A::VALUE, D::Computed), usage(A::DECRYPT, false)];

/// AES keys (6.10.2).
const SECRET_AES: &[Row] = &[
    material(A::VALUE, D::Computed),
    row(A::VALUE_LEN, Forbidden, Required, Forbidden, D::Computed),
    usage(A::ENCRYPT, true),
    usage(A::DECRYPT, true),
];

/// Generic secrets and HMAC keys (6.8.2).
const SECRET_BYTES: &[Row] = &[
    material(A::VALUE, D::Computed),
    row(A::VALUE_LEN, Forbidden, Required, Optional, D::Computed),
    usage(A::ENCRYPT, false),
    usage(A::DECRYPT, false),
];

/// Puts parts together, in order.
const fn assemble<const N: usize>(parts: &[&[Row]]) -> [Row; N] {
    let mut rows = [computed(A::VENDOR_DEFINED); N];
    let (mut part, mut filled) = (0, 0);
    while part < parts.len() {
        let mut index = 0;
        while index < parts[part].len() {
            rows[filled] = parts[part][index];
            filled += 1;
            index += 1;
        }
        part += 1;
    }
    assert!(filled == N, "the length given is the sum of the parts");
    rows
}

/// A static table made of parts.
macro_rules! table {
    ($($part:expr),+) => {{
        static ROWS: [Row; 0 $(+ $part.len())+] = assemble(&[$($part),+]);
        &ROWS
    }};
}

/// The rows of objects of a class and, for keys, a key type; none when such objects are not supported
/// (CKR_ATTRIBUTE_VALUE_INVALID). The caller checks that a certificate is X.509.
pub fn rows(class: ObjectClass, key_type: Option<KeyType>) -> Option<&'static [Row]> {
    let table: &'static [Row] = match (class, key_type) {
        (ObjectClass::DATA, None) => table!(STORAGE, DATA),
        (ObjectClass::CERTIFICATE, None) => table!(STORAGE, CERTIFICATE),
        (ObjectClass::PUBLIC_KEY, Some(KeyType::RSA)) => table!(STORAGE, KEY, PUBLIC, PUBLIC_RSA),
        (ObjectClass::PUBLIC_KEY, Some(KeyType::EC)) => table!(STORAGE, KEY, PUBLIC, PUBLIC_EC),
        (ObjectClass::PRIVATE_KEY, Some(KeyType::RSA)) => table!(STORAGE, KEY, PRIVATE, PRIVATE_RSA),
        (ObjectClass::PRIVATE_KEY, Some(KeyType::EC)) => table!(STORAGE, KEY, PRIVATE, PRIVATE_EC),
        (ObjectClass::SECRET_KEY, Some(KeyType::AES)) => table!(STORAGE, KEY, SECRET, SECRET_AES),
        (ObjectClass::SECRET_KEY, Some(key)) if SECRET_KEY_TYPES.contains(&key) => {
            table!(STORAGE, KEY, SECRET, SECRET_BYTES)
        }
        _ => return None,
    };
    Some(table)
}

/// The rule of one attribute in objects of a class and key type; none when such objects do not have it.
pub fn row_of(
    class: ObjectClass,
    key_type: Option<KeyType>,
    attribute: AttributeType,
) -> Option<&'static Row> {
    rows(class, key_type)?.iter().find(|row| row.attribute == attribute)
}

/// The join of an attribute of an object (HA 1.3): of the immutable core unless its row lets it change.
pub fn join(class: ObjectClass, key_type: Option<KeyType>, attribute: AttributeType) -> Join {
    match row_of(class, key_type, attribute) {
        Some(row) if row.change == Change::Always => join_of(class, attribute),
        _ => Join::Core,
    }
}

/// Whether objects of a class have a key type.
pub const fn is_key(class: ObjectClass) -> bool {
    matches!(class, ObjectClass::PUBLIC_KEY | ObjectClass::PRIVATE_KEY | ObjectClass::SECRET_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes;
    use std::collections::HashSet;

    /// Every class and key type in scope.
    fn all() -> Vec<(ObjectClass, Option<KeyType>, &'static [Row])> {
        let mut found = Vec::new();
        for class in ObjectClass::ALL {
            let key_types = KeyType::ALL.iter().copied().map(Some).chain([None]);
            found.extend(key_types.filter_map(|key| Some((*class, key, rows(*class, key)?))));
        }
        found
    }

    #[test]
    fn the_scope_is_data_certificates_rsa_ec_aes_and_secret_bytes() {
        assert_eq!(all().len(), 2 + 4 + 1 + SECRET_KEY_TYPES.len());
        assert!(rows(ObjectClass::SECRET_KEY, Some(KeyType::DES3)).is_none());
        assert!(rows(ObjectClass::PRIVATE_KEY, None).is_none());
        assert!(rows(ObjectClass::DATA, Some(KeyType::RSA)).is_none());
    }

    #[test]
    fn each_attribute_stands_once_and_has_a_row_of_its_own() {
        for (class, key, table) in all() {
            let unique: HashSet<_> = table.iter().map(|row| row.attribute).collect();
            assert_eq!(unique.len(), table.len(), "{class} {key:?}");
            assert!(table.iter().all(|row| attributes::row_of(row.attribute).is_some()), "{class} {key:?}");
            assert_eq!(is_key(class), unique.contains(&A::KEY_TYPE));
        }
    }

    #[test]
    fn what_may_change_is_what_the_join_says_may_change() {
        for (class, key, table) in all() {
            for row in table {
                let changes = attributes::join_of(class, row.attribute).changeable();
                assert_eq!(row.change == Change::Always, changes, "{class} {key:?} {}", row.attribute);
                assert_eq!(join(class, key, row.attribute).changeable(), changes);
            }
        }
    }

    #[test]
    fn defaults_have_the_shape_of_their_attribute() {
        use crate::attributes::Kind;
        for (class, key, row) in all().into_iter().flat_map(|(c, k, t)| t.iter().map(move |row| (c, k, row)))
        {
            let kind = attributes::kind_of(row.attribute);
            match row.default {
                DefaultValue::Bool(_) => assert_eq!(kind, Kind::Bool, "{class} {key:?} {}", row.attribute),
                DefaultValue::Ulong(_) => assert_eq!(kind, Kind::Ulong, "{class} {key:?} {}", row.attribute),
                DefaultValue::Bytes(_) => {
                    assert!(!matches!(kind, Kind::Bool | Kind::Ulong), "{}", row.attribute)
                }
                DefaultValue::Absent | DefaultValue::Computed => {}
            }
        }
    }

    #[test]
    fn key_material_is_never_given_to_a_generation() {
        for (class, key, table) in all().into_iter().filter(|(class, _, _)| is_key(*class)) {
            for row in table.iter().filter(|row| attributes::is_secret(row.attribute)) {
                assert_eq!(row.presence(Way::Generate), Forbidden, "{class} {key:?} {}", row.attribute);
                assert_eq!(row.change, Change::Never);
            }
        }
    }

    #[test]
    fn private_and_secret_keys_stay_inside_by_default() {
        for (class, key, table) in all() {
            if matches!(class, ObjectClass::PRIVATE_KEY | ObjectClass::SECRET_KEY) {
                let default =
                    |attribute| table.iter().find(|row| row.attribute == attribute).map(|row| row.default);
                assert_eq!(default(A::EXTRACTABLE), Some(D::Bool(false)), "{class} {key:?}");
                assert_eq!(default(A::PRIVATE), Some(D::Bool(true)), "{class} {key:?}");
                assert_eq!(default(A::LOCAL), Some(D::Computed), "{class} {key:?}");
            }
        }
    }
}
