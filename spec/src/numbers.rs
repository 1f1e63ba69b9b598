//! The numbers of PKCS #11 v3.2 as open newtypes: known ones have names, unknown ones survive a round trip.
//!
//! A number is written once, in a list; the constant, its name and the reverse look-up come from that line. The long
//! lists stand in files of their own below this one. Aliases of the header (a second name for one number) are left out.

mod attribute;
mod mechanism;
mod rv;

pub use attribute::AttributeType;
pub use mechanism::MechanismType;
pub use rv::Rv;

/// Makes one open newtype: `$name` over `u64`, an associated constant per row, `name`, `from_name`, `ALL`, and a Debug and
/// Display that print the standard's name, or hexadecimal digits where the standard has none.
macro_rules! numbers {
    ($(#[$doc:meta])* pub struct $name:ident, $prefix:literal; $($constant:ident = $value:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl $name {
            $(
                #[doc = concat!("`", $prefix, stringify!($constant), "`")]
                pub const $constant: Self = Self($value);
            )*

            /// Every number that has a name, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$constant,)*];

            /// The standard's name with its prefix; none for a number that the standard does not name.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(concat!($prefix, stringify!($constant))),)*
                    _ => None,
                }
            }

            /// The number of a name with its prefix; none for a name that is not in the list.
            pub fn from_name(name: &str) -> Option<Self> {
                match name.strip_prefix($prefix)? {
                    $(stringify!($constant) => Some(Self::$constant),)*
                    _ => None,
                }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}{:#010x}", $prefix, self.0),
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Debug::fmt(self, f)
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }

        impl From<$name> for u64 {
            fn from(number: $name) -> Self {
                number.0
            }
        }
    };
}
use numbers;

/// Makes a newtype for an opaque number, which has a value and no names: a handle, a slot.
macro_rules! opaque {
    ($($(#[$doc:meta])* pub struct $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
            pub struct $name(pub u64);

            impl core::fmt::Debug for $name {
                fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                    write!(f, "{}({:#x})", stringify!($name), self.0)
                }
            }

            impl core::fmt::Display for $name {
                fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                    write!(f, "{:#x}", self.0)
                }
            }

            impl From<u64> for $name {
                fn from(value: u64) -> Self {
                    Self(value)
                }
            }

            impl From<$name> for u64 {
                fn from(number: $name) -> Self {
                    number.0
                }
            }
        )*
    };
}

opaque! {
    /// `CK_SESSION_HANDLE`: names a session within one process; 0 is never valid.
    pub struct HandleSession;
    /// `CK_OBJECT_HANDLE`: names an object within one process (RULES 2.3); 0 is never valid.
    pub struct HandleObject;
    /// `CK_SLOT_ID`: the slots are numbered by RULES 2.12.
    pub struct SlotId;
}

impl HandleSession {
    /// `CK_INVALID_HANDLE`.
    pub const INVALID: Self = Self(0);
}

impl HandleObject {
    /// `CK_INVALID_HANDLE`.
    pub const INVALID: Self = Self(0);
}

/// `CK_UNAVAILABLE_INFORMATION` in canonical width: all ones (PKCS #11 v3.2, 3.2). The C boundary narrows it to the
/// width of `CK_ULONG`.
pub const UNAVAILABLE_INFORMATION: u64 = u64::MAX;

numbers! {
    /// An object class: `CKO_*` without its prefix (PKCS #11 v3.2, 4.1).
    pub struct ObjectClass, "CKO_";
    DATA = 0x00000000,
    CERTIFICATE = 0x00000001,
    PUBLIC_KEY = 0x00000002,
    PRIVATE_KEY = 0x00000003,
    SECRET_KEY = 0x00000004,
    HW_FEATURE = 0x00000005,
    DOMAIN_PARAMETERS = 0x00000006,
    MECHANISM = 0x00000007,
    OTP_KEY = 0x00000008,
    PROFILE = 0x00000009,
    VALIDATION = 0x0000000a,
    TRUST = 0x0000000b,
    VENDOR_DEFINED = 0x80000000,
}

numbers! {
    /// A key type: `CKK_*` without its prefix (PKCS #11 v3.2, 4.7).
    pub struct KeyType, "CKK_";
    RSA = 0x00000000,
    DSA = 0x00000001,
    DH = 0x00000002,
    EC = 0x00000003,
    X9_42_DH = 0x00000004,
    KEA = 0x00000005,
    GENERIC_SECRET = 0x00000010,
    RC2 = 0x00000011,
    RC4 = 0x00000012,
    DES = 0x00000013,
    DES2 = 0x00000014,
    DES3 = 0x00000015,
    CAST = 0x00000016,
    CAST3 = 0x00000017,
    CAST128 = 0x00000018,
    RC5 = 0x00000019,
    IDEA = 0x0000001a,
    SKIPJACK = 0x0000001b,
    BATON = 0x0000001c,
    JUNIPER = 0x0000001d,
    CDMF = 0x0000001e,
    AES = 0x0000001f,
    BLOWFISH = 0x00000020,
    TWOFISH = 0x00000021,
    SECURID = 0x00000022,
    HOTP = 0x00000023,
    ACTI = 0x00000024,
    CAMELLIA = 0x00000025,
    ARIA = 0x00000026,
    MD5_HMAC = 0x00000027,
    SHA_1_HMAC = 0x00000028,
    RIPEMD128_HMAC = 0x00000029,
    RIPEMD160_HMAC = 0x0000002a,
    SHA256_HMAC = 0x0000002b,
    SHA384_HMAC = 0x0000002c,
    SHA512_HMAC = 0x0000002d,
    SHA224_HMAC = 0x0000002e,
    SEED = 0x0000002f,
    GOSTR3410 = 0x00000030,
    GOSTR3411 = 0x00000031,
    GOST28147 = 0x00000032,
    CHACHA20 = 0x00000033,
    POLY1305 = 0x00000034,
    AES_XTS = 0x00000035,
    SHA3_224_HMAC = 0x00000036,
    SHA3_256_HMAC = 0x00000037,
    SHA3_384_HMAC = 0x00000038,
    SHA3_512_HMAC = 0x00000039,
    BLAKE2B_160_HMAC = 0x0000003a,
    BLAKE2B_256_HMAC = 0x0000003b,
    BLAKE2B_384_HMAC = 0x0000003c,
    BLAKE2B_512_HMAC = 0x0000003d,
    SALSA20 = 0x0000003e,
    X2RATCHET = 0x0000003f,
    EC_EDWARDS = 0x00000040,
    EC_MONTGOMERY = 0x00000041,
    HKDF = 0x00000042,
    SHA512_224_HMAC = 0x00000043,
    SHA512_256_HMAC = 0x00000044,
    SHA512_T_HMAC = 0x00000045,
    HSS = 0x00000046,
    XMSS = 0x00000047,
    XMSSMT = 0x00000048,
    ML_KEM = 0x00000049,
    ML_DSA = 0x0000004a,
    SLH_DSA = 0x0000004b,
    VENDOR_DEFINED = 0x80000000,
}

numbers! {
    /// A certificate type: `CKC_*` without its prefix (PKCS #11 v3.2, 4.6).
    pub struct CertificateType, "CKC_";
    X_509 = 0x00000000,
    X_509_ATTR_CERT = 0x00000001,
    WTLS = 0x00000002,
    VENDOR_DEFINED = 0x80000000,
}

numbers! {
    /// Who logs in: `CKU_*` without its prefix (PKCS #11 v3.2, 5.6.8), and the vendor's Crypto User (RULES 2.5).
    pub struct UserType, "CKU_";
    SO = 0x00000000,
    USER = 0x00000001,
    CONTEXT_SPECIFIC = 0x00000002,
    CRYPTO_USER = 0x80000001,
}

numbers! {
    /// The state of a session: `CKS_*` without its prefix (PKCS #11 v3.2, 3.3).
    pub struct SessionState, "CKS_";
    RO_PUBLIC_SESSION = 0x00000000,
    RO_USER_FUNCTIONS = 0x00000001,
    RW_PUBLIC_SESSION = 0x00000002,
    RW_USER_FUNCTIONS = 0x00000003,
    RW_SO_FUNCTIONS = 0x00000004,
}

numbers! {
    /// A mask generation function of PSS and OAEP: `CKG_*` without its prefix (PKCS #11 v3.2, 6.1.7).
    pub struct MgfType, "CKG_";
    MGF1_SHA1 = 0x00000001,
    MGF1_SHA256 = 0x00000002,
    MGF1_SHA384 = 0x00000003,
    MGF1_SHA512 = 0x00000004,
    MGF1_SHA224 = 0x00000005,
    MGF1_SHA3_224 = 0x00000006,
    MGF1_SHA3_256 = 0x00000007,
    MGF1_SHA3_384 = 0x00000008,
    MGF1_SHA3_512 = 0x00000009,
}

impl Rv {
    /// Whether the call succeeded.
    pub const fn is_ok(self) -> bool {
        self.0 == Self::OK.0
    }

    /// `Ok` for `CKR_OK`, otherwise the value itself as the error.
    ///
    /// # Errors
    /// Every value but `CKR_OK`.
    pub fn ok(self) -> Result<(), Self> {
        if self.is_ok() { Ok(()) } else { Err(self) }
    }
}

impl core::error::Error for Rv {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Checks one list: ascending without repeats, unique names, and both directions agree.
    macro_rules! check {
        ($($name:ident),*) => {
            $({
                assert!($name::ALL.windows(2).all(|pair| pair[0] < pair[1]), stringify!($name));
                let names: HashSet<_> = $name::ALL.iter().map(|number| number.name()).collect();
                assert_eq!(names.len(), $name::ALL.len());
                for number in $name::ALL {
                    let name = number.name().expect("a listed number has a name");
                    assert_eq!($name::from_name(name), Some(*number));
                    assert_eq!(format!("{number:?}"), name);
                }
            })*
        };
    }

    #[test]
    fn lists_ascend_without_repeats_and_names_are_unique() {
        check!(
            Rv,
            MechanismType,
            AttributeType,
            ObjectClass,
            KeyType,
            CertificateType,
            UserType,
            SessionState,
            MgfType
        );
    }

    #[test]
    fn unknown_numbers_survive_and_print_as_hexadecimal() {
        let unknown = MechanismType::from(0x8000_1234);
        assert_eq!(unknown.name(), None);
        assert_eq!(u64::from(unknown), 0x8000_1234);
        assert_eq!(format!("{unknown:?}"), "CKM_0x80001234");
        assert_eq!(MechanismType::from_name("CKM_NO_SUCH"), None);
        assert_eq!(format!("{:?}", HandleObject(16)), "HandleObject(0x10)");
    }

    #[test]
    fn well_known_numbers_have_the_standards_values() {
        assert_eq!(Rv::BUFFER_TOO_SMALL.0, 0x150);
        assert_eq!(Rv::CRYPTOKI_ALREADY_INITIALIZED.0, 0x191);
        assert_eq!(MechanismType::SHA256_RSA_PKCS_PSS.0, 0x43);
        assert_eq!(AttributeType::ALLOWED_MECHANISMS.0, 0x4000_0600);
        assert_eq!(UserType::CRYPTO_USER.0, 0x8000_0001);
        assert_eq!(MgfType::MGF1_SHA224.0, 5);
    }

    #[test]
    fn only_ok_is_ok() {
        assert_eq!(Rv::OK.ok(), Ok(()));
        assert_eq!(Rv::DEVICE_ERROR.ok(), Err(Rv::DEVICE_ERROR));
    }
}
