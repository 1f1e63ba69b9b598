//! What an operator may set for a partition; every setting has a default.
use spec::MechanismType;

use crate::store::TryRules;

/// The settings of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Memory of Argon2id in KiB (RFC 9106); at least 8 for each lane.
    pub argon2_memory_kib: u32,
    /// Passes of Argon2id over its memory.
    pub argon2_passes: u32,
    /// Lanes of Argon2id.
    pub argon2_lanes: u32,
    /// Shortest PIN in bytes, at least 4.
    pub pin_bytes_min: u32,
    /// Failures in a row that cost no waiting.
    pub free_tries: u32,
    /// The first delay after those, in milliseconds; it doubles with each failure.
    pub retry_delay_ms_first: u64,
    /// The longest delay, in milliseconds.
    pub retry_delay_ms_max: u64,
    /// Policy `hash in member` (RULES 1.4): no digest from outside is ever signed.
    pub hash_in_member: bool,
    /// How many requests one client may have outstanding, told in every reply.
    pub window: u32,
    /// Unsealed session objects kept at most (RULES 2.2).
    pub blob_cache_entries: usize,
    /// The sealed bytes of those at most.
    pub blob_cache_bytes: usize,
    /// Mechanisms that this partition does not offer: each plan, use and generation with one answers
    /// CKR_MECHANISM_INVALID, and Status does not list it.
    pub mechanisms_off: Vec<MechanismType>,
    /// Objects that may be stored, provisional ones included; one more is refused with CKR_DEVICE_MEMORY. What repair
    /// brings is taken, for a member must be able to become equal to the others (HA 4.6).
    pub objects_max: u64,
    /// Bytes of all of them, likewise.
    pub bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            argon2_memory_kib: 19 * 1024,
            argon2_passes: 2,
            argon2_lanes: 1,
            pin_bytes_min: 7,
            free_tries: 3,
            retry_delay_ms_first: 1_000,
            retry_delay_ms_max: 300_000,
            hash_in_member: false,
            window: 64,
            blob_cache_entries: 4_096,
            blob_cache_bytes: 16 << 20,
            mechanisms_off: Vec::new(),
            objects_max: 1_000_000,
            bytes_max: 1 << 30,
        }
    }
}

/// Longest PIN in bytes (RULES 2.8: flags and lengths are the same on all members).
pub const PIN_BYTES_MAX: u32 = 255;

impl Settings {
    /// Whether the partition offers a mechanism.
    pub fn offers(&self, mechanism: MechanismType) -> bool {
        !self.mechanisms_off.contains(&mechanism)
    }

    /// The rules of PIN tries.
    pub fn try_rules(&self) -> TryRules {
        TryRules {
            free_tries: self.free_tries,
            delay_ms_first: self.retry_delay_ms_first,
            delay_ms_max: self.retry_delay_ms_max,
        }
    }

    /// Cheap settings for tests: the weakest Argon2id and PINs of four bytes.
    pub fn for_tests() -> Self {
        Self { argon2_memory_kib: 8, argon2_passes: 1, pin_bytes_min: 4, ..Self::default() }
    }
}
