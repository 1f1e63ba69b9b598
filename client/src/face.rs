//! The shapes that the safe API takes and gives.
use ha::Output;
use spec::numbers::SessionState;
use spec::{Rv, SlotId};
use zeroize::Zeroizing;

/// What `C_Initialize` was told.
#[derive(Clone, Copy, Debug)]
pub struct InitializeOptions {
    /// False when the application set `CKF_LIBRARY_CANT_CREATE_OS_THREADS`.
    pub may_create_threads: bool,
}

/// The room that the caller has for an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// A NULL pointer: only the length is wanted (PKCS #11 v3.1, 5.2).
    Ask,
    /// A buffer of so many bytes.
    Bytes(usize),
}

/// What a call with an output gives (RULES 1.2). Only `Bytes` may end an operation.
#[derive(Clone, PartialEq, Eq)]
pub enum Produced {
    /// The answer to `Room::Ask`: so many bytes suffice.
    Length(usize),
    /// The buffer is too small: so many bytes are needed; the operation goes on (CKR_BUFFER_TOO_SMALL).
    TooSmall(usize),
    /// The output; it fits the caller's room.
    Bytes(Output),
}

impl std::fmt::Debug for Produced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length(bytes) => write!(f, "Length({bytes})"),
            Self::TooSmall(bytes) => write!(f, "TooSmall({bytes})"),
            Self::Bytes(output) => write!(f, "Bytes[{}]", output.len()),
        }
    }
}

/// `CK_VERSION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Before the point.
    pub major: u8,
    /// Behind the point, in hundredths.
    pub minor: u8,
}

/// `CK_SLOT_INFO` without the padding of its strings (PKCS #11 v3.1, 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// At most 64 bytes of UTF-8.
    pub description: String,
    /// At most 32 bytes of UTF-8.
    pub manufacturer: String,
    /// Bits of `spec::flags::slot`.
    pub flags: u64,
    /// Version of the hardware.
    pub hardware: Version,
    /// Version of the firmware.
    pub firmware: Version,
}

/// `CK_TOKEN_INFO` without the padding of its strings (PKCS #11 v3.1, 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// At most 32 bytes of UTF-8.
    pub label: String,
    /// At most 32 bytes of UTF-8.
    pub manufacturer: String,
    /// At most 16 bytes of UTF-8.
    pub model: String,
    /// At most 16 bytes: the serial number in decimal, or its last 16 digits.
    pub serial: String,
    /// Bits of `spec::flags::token`.
    pub flags: u64,
    /// Most sessions at once: 0, effectively infinite (RULES 2.1).
    pub sessions_max: u64,
    /// Sessions that this process has open.
    pub sessions: u64,
    /// Most R/W sessions at once: 0, effectively infinite (RULES 2.1).
    pub rw_sessions_max: u64,
    /// R/W sessions that this process has open.
    pub rw_sessions: u64,
    /// Longest PIN in bytes.
    pub pin_bytes_max: u64,
    /// Shortest PIN in bytes.
    pub pin_bytes_min: u64,
    /// Version of the hardware.
    pub hardware: Version,
    /// Version of the firmware.
    pub firmware: Version,
    /// Sixteen characters, blanks: the token has no clock for applications.
    pub utc_time: String,
}

/// `CK_SESSION_INFO` (PKCS #11 v3.1, 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// The slot.
    pub slot: SlotId,
    /// `CKS_*`.
    pub state: SessionState,
    /// Bits of `spec::flags::session`.
    pub flags: u64,
    /// Always 0.
    pub device_error: u64,
}

/// How the members of an HA group stand, as this process last saw them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaState {
    /// Serial number of the group.
    pub serial: u64,
    /// Each member's serial number, with CKR_OK when it is used, CKR_DEVICE_ERROR when it answers and is not used yet or is
    /// suspected, CKR_TOKEN_NOT_PRESENT when it cannot be reached.
    pub members: Vec<(u64, Rv)>,
}

/// One attribute of an object: its canonical value, or CKR_ATTRIBUTE_SENSITIVE or CKR_ATTRIBUTE_TYPE_INVALID.
pub type AttributeResult = std::result::Result<Zeroizing<Vec<u8>>, Rv>;

/// The manufacturer of library, slots and tokens.
pub const MANUFACTURER: &str = "Hatoki project";
/// The library's description, at most 32 bytes.
pub const LIBRARY_DESCRIPTION: &str = "Hatoki PKCS#11 with HA";
/// The library's version.
pub const LIBRARY_VERSION: Version = Version { major: 0, minor: 1 };
