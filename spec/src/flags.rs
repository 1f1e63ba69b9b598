//! The flags of PKCS #11 v3.2, `CKF_*` without the prefix, grouped by the structure whose `flags` field they stand in.
//!
//! They are plain `u64`: one bit means different things in different structures, hence the modules.

/// Flags of `CK_SLOT_INFO` (PKCS #11 v3.2, 3.2).
pub mod slot {
    /// `CKF_TOKEN_PRESENT`: a token is in the slot.
    pub const TOKEN_PRESENT: u64 = 0x1;
    /// `CKF_REMOVABLE_DEVICE`: tokens come and go.
    pub const REMOVABLE_DEVICE: u64 = 0x2;
    /// `CKF_HW_SLOT`: the slot is hardware.
    pub const HW_SLOT: u64 = 0x4;
}

/// Flags of `CK_TOKEN_INFO` (PKCS #11 v3.2, 3.2).
pub mod token {
    /// `CKF_RNG`: has a random number generator.
    pub const RNG: u64 = 0x1;
    /// `CKF_WRITE_PROTECTED`
    pub const WRITE_PROTECTED: u64 = 0x2;
    /// `CKF_LOGIN_REQUIRED`: some functions need a login.
    pub const LOGIN_REQUIRED: u64 = 0x4;
    /// `CKF_USER_PIN_INITIALIZED`
    pub const USER_PIN_INITIALIZED: u64 = 0x8;
    /// `CKF_RESTORE_KEY_NOT_NEEDED`: a saved state contains all keys needed.
    pub const RESTORE_KEY_NOT_NEEDED: u64 = 0x20;
    /// `CKF_CLOCK_ON_TOKEN`
    pub const CLOCK_ON_TOKEN: u64 = 0x40;
    /// `CKF_PROTECTED_AUTHENTICATION_PATH`: a login without a PIN from the application.
    pub const PROTECTED_AUTHENTICATION_PATH: u64 = 0x100;
    /// `CKF_DUAL_CRYPTO_OPERATIONS`
    pub const DUAL_CRYPTO_OPERATIONS: u64 = 0x200;
    /// `CKF_TOKEN_INITIALIZED`
    pub const TOKEN_INITIALIZED: u64 = 0x400;
    /// `CKF_SECONDARY_AUTHENTICATION`: deprecated.
    pub const SECONDARY_AUTHENTICATION: u64 = 0x800;
    /// `CKF_USER_PIN_COUNT_LOW`: a wrong user PIN was given since the last right one (RULES 2.8).
    pub const USER_PIN_COUNT_LOW: u64 = 0x1_0000;
    /// `CKF_USER_PIN_FINAL_TRY`: one more wrong PIN locks (RULES 2.8).
    pub const USER_PIN_FINAL_TRY: u64 = 0x2_0000;
    /// `CKF_USER_PIN_LOCKED` (RULES 2.8).
    pub const USER_PIN_LOCKED: u64 = 0x4_0000;
    /// `CKF_USER_PIN_TO_BE_CHANGED`
    pub const USER_PIN_TO_BE_CHANGED: u64 = 0x8_0000;
    /// `CKF_SO_PIN_COUNT_LOW`
    pub const SO_PIN_COUNT_LOW: u64 = 0x10_0000;
    /// `CKF_SO_PIN_FINAL_TRY`
    pub const SO_PIN_FINAL_TRY: u64 = 0x20_0000;
    /// `CKF_SO_PIN_LOCKED`
    pub const SO_PIN_LOCKED: u64 = 0x40_0000;
    /// `CKF_SO_PIN_TO_BE_CHANGED`
    pub const SO_PIN_TO_BE_CHANGED: u64 = 0x80_0000;
    /// `CKF_ERROR_STATE`: the token failed a self test.
    pub const ERROR_STATE: u64 = 0x100_0000;
    /// `CKF_SEED_RANDOM_REQUIRED`
    pub const SEED_RANDOM_REQUIRED: u64 = 0x200_0000;
    /// `CKF_ASYNC_SESSION_SUPPORTED`
    pub const ASYNC_SESSION_SUPPORTED: u64 = 0x400_0000;
}

/// Flags of `CK_SESSION_INFO` and `C_OpenSession` (PKCS #11 v3.2, 3.3 and 5.6.1).
pub mod session {
    /// `CKF_RW_SESSION`: read and write; without it read only.
    pub const RW_SESSION: u64 = 0x2;
    /// `CKF_SERIAL_SESSION`: always set, for backward compatibility.
    pub const SERIAL_SESSION: u64 = 0x4;
    /// `CKF_ASYNC_SESSION`
    pub const ASYNC_SESSION: u64 = 0x8;
}

/// Flags of `CK_MECHANISM_INFO` (PKCS #11 v3.2, 3.5), and of `C_SessionCancel` (5.6.6), which names operations by them.
pub mod mechanism {
    /// `CKF_HW`: done by the device, not by software.
    pub const HW: u64 = 0x1;
    /// `CKF_MESSAGE_ENCRYPT`
    pub const MESSAGE_ENCRYPT: u64 = 0x2;
    /// `CKF_MESSAGE_DECRYPT`
    pub const MESSAGE_DECRYPT: u64 = 0x4;
    /// `CKF_MESSAGE_SIGN`
    pub const MESSAGE_SIGN: u64 = 0x8;
    /// `CKF_MESSAGE_VERIFY`
    pub const MESSAGE_VERIFY: u64 = 0x10;
    /// `CKF_MULTI_MESSAGE`
    pub const MULTI_MESSAGE: u64 = 0x20;
    /// `CKF_FIND_OBJECTS`: in `C_SessionCancel` only.
    pub const FIND_OBJECTS: u64 = 0x40;
    /// `CKF_ENCRYPT`
    pub const ENCRYPT: u64 = 0x100;
    /// `CKF_DECRYPT`
    pub const DECRYPT: u64 = 0x200;
    /// `CKF_DIGEST`
    pub const DIGEST: u64 = 0x400;
    /// `CKF_SIGN`
    pub const SIGN: u64 = 0x800;
    /// `CKF_SIGN_RECOVER`
    pub const SIGN_RECOVER: u64 = 0x1000;
    /// `CKF_VERIFY`
    pub const VERIFY: u64 = 0x2000;
    /// `CKF_VERIFY_RECOVER`
    pub const VERIFY_RECOVER: u64 = 0x4000;
    /// `CKF_GENERATE`: makes a secret key.
    pub const GENERATE: u64 = 0x8000;
    /// `CKF_GENERATE_KEY_PAIR`
    pub const GENERATE_KEY_PAIR: u64 = 0x1_0000;
    /// `CKF_WRAP`
    pub const WRAP: u64 = 0x2_0000;
    /// `CKF_UNWRAP`
    pub const UNWRAP: u64 = 0x4_0000;
    /// `CKF_DERIVE`
    pub const DERIVE: u64 = 0x8_0000;
    /// `CKF_EC_F_P`: curves over prime fields.
    pub const EC_F_P: u64 = 0x10_0000;
    /// `CKF_EC_F_2M`: curves over binary fields.
    pub const EC_F_2M: u64 = 0x20_0000;
    /// `CKF_EC_ECPARAMETERS`: curves given by explicit parameters.
    pub const EC_ECPARAMETERS: u64 = 0x40_0000;
    /// `CKF_EC_OID`: curves named by object identifier.
    pub const EC_OID: u64 = 0x80_0000;
    /// `CKF_EC_UNCOMPRESS`: points in uncompressed form.
    pub const EC_UNCOMPRESS: u64 = 0x100_0000;
    /// `CKF_EC_COMPRESS`: points in compressed form.
    pub const EC_COMPRESS: u64 = 0x200_0000;
    /// `CKF_EC_CURVENAME`: curves named by printable string.
    pub const EC_CURVENAME: u64 = 0x400_0000;
    /// `CKF_ENCAPSULATE`
    pub const ENCAPSULATE: u64 = 0x1000_0000;
    /// `CKF_DECAPSULATE`
    pub const DECAPSULATE: u64 = 0x2000_0000;
    /// `CKF_EXTENSION`
    pub const EXTENSION: u64 = 0x8000_0000;
}

/// Flags of `CK_C_INITIALIZE_ARGS` (PKCS #11 v3.2, 3.7).
pub mod initialize {
    /// `CKF_LIBRARY_CANT_CREATE_OS_THREADS`: the library makes no thread of its own.
    pub const LIBRARY_CANT_CREATE_OS_THREADS: u64 = 0x1;
    /// `CKF_OS_LOCKING_OK`: the library may use the locks of the system.
    pub const OS_LOCKING_OK: u64 = 0x2;
}

/// Flag of `C_WaitForSlotEvent` (PKCS #11 v3.2, 5.5.4).
pub mod wait {
    /// `CKF_DONT_BLOCK`: answer at once.
    pub const DONT_BLOCK: u64 = 0x1;
}

/// Flags of `CK_INTERFACE` (PKCS #11 v3.2, 3.1).
pub mod interface {
    /// `CKF_INTERFACE_FORK_SAFE`: the interface may be used in a forked child.
    pub const FORK_SAFE: u64 = 0x1;
}

/// The bit that marks an attribute whose value is an array of attributes, `CKF_ARRAY_ATTRIBUTE` (PKCS #11 v3.2, 4).
pub const ARRAY_ATTRIBUTE: u64 = 0x4000_0000;
