//! Messages about a partition's standing, its roles and its group (HA 2.6, 2.7, RULES 2.5, 2.6, 3.3).
use crate::record::Manifest;

/// Asks for the partition's standing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// Whether the list of mechanisms is wanted too.
    #[prost(bool, tag = "1")]
    pub mechanisms: bool,
    /// Where the asker has seen the members of the group, in their own words (HA 1.5).
    #[prost(message, repeated, tag = "2")]
    pub seen: Vec<SeenMember>,
}

/// The partition's standing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatusAnswer {
    /// The partition's label.
    #[prost(string, tag = "1")]
    pub label: String,
    /// Its serial number.
    #[prost(uint64, tag = "2")]
    pub serial: u64,
    /// Token flags (`CKF_*`) about PINs and initialisation.
    #[prost(uint64, tag = "3")]
    pub token_flags: u64,
    /// The manifest as this member has it.
    #[prost(message, optional, tag = "4")]
    pub manifest: Option<Manifest>,
    /// The root of the digest (HA 1.6), 32 bytes.
    #[prost(bytes = "vec", tag = "5")]
    pub root: Vec<u8>,
    /// Live token objects.
    #[prost(uint64, tag = "6")]
    pub objects: u64,
    /// Whether it is recovering (HA 1.5).
    #[prost(bool, tag = "7")]
    pub recovering: bool,
    /// Shortest PIN in bytes.
    #[prost(uint32, tag = "8")]
    pub pin_bytes_min: u32,
    /// Longest PIN in bytes.
    #[prost(uint32, tag = "9")]
    pub pin_bytes_max: u32,
    /// What it can do, when asked for.
    #[prost(message, repeated, tag = "10")]
    pub mechanisms: Vec<MechanismFacts>,
    /// Software and release.
    #[prost(string, tag = "11")]
    pub software: String,
    /// Records in quarantine (HA 1.7).
    #[prost(uint64, tag = "12")]
    pub quarantined: u64,
    /// The member's wall clock, milliseconds since 1970.
    #[prost(uint64, tag = "13")]
    pub wall_ms: u64,
    /// Failed tries of the Crypto Officer's PIN on this member since its last success.
    #[prost(uint32, tag = "14")]
    pub failed_tries_user: u32,
    /// Failed tries of the security officer's PIN on this member since its last success.
    #[prost(uint32, tag = "15")]
    pub failed_tries_so: u32,
    /// When the appliance's server certificate ends, milliseconds since 1970; 0 when it does not say.
    #[prost(uint64, tag = "16")]
    pub server_certificate_ends_ms: u64,
    /// When the asking client's certificate ends, milliseconds since 1970; 0 when it does not say.
    #[prost(uint64, tag = "17")]
    pub client_certificate_ends_ms: u64,
    /// The incarnation that `seq` counts in (HA 1.5).
    #[prost(uint64, tag = "18")]
    pub incarnation: u64,
    /// The commit at which the root was `root`; the header's may be a later one.
    #[prost(uint64, tag = "19")]
    pub seq: u64,
    /// Where the other members of the group were last seen (HA 1.5): what processes have told this member, with its proofs,
    /// and, for peers alone, what the appliance has seen itself.
    #[prost(message, repeated, tag = "20")]
    pub seen: Vec<SeenMember>,
    /// Names the credentials, under a key of the domain: members whose versions are equal and whose names are not hold
    /// what two homes set at a time, and want it exchanged (HA 2.7).
    #[prost(bytes = "vec", tag = "21")]
    pub credentials: Vec<u8>,
    /// Shows members of the domain that this one was at `incarnation`, `seq` and `root`, whoever tells them (HA 1.5).
    #[prost(bytes = "vec", tag = "22")]
    pub proof: Vec<u8>,
}

impl StatusAnswer {
    /// What it says of itself, to be told to other members.
    pub fn own_word(&self) -> SeenMember {
        SeenMember {
            serial: self.serial,
            incarnation: self.incarnation,
            seq: self.seq,
            root: self.root.clone(),
            said_ms: self.wall_ms,
            proof: self.proof.clone(),
        }
    }
}

/// Where somebody has last seen a member: its store went back when it is behind that later, and is a clone when it
/// shows another root there (HA 1.5).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SeenMember {
    /// The member's serial number.
    #[prost(uint64, tag = "1")]
    pub serial: u64,
    /// Its incarnation.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Its commits in that incarnation.
    #[prost(uint64, tag = "3")]
    pub seq: u64,
    /// The root of its digest at that commit, 32 bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub root: Vec<u8>,
    /// Shows members of the domain that the member has said so itself; empty where an appliance tells its peer what it has
    /// seen.
    #[prost(bytes = "vec", tag = "5")]
    pub proof: Vec<u8>,
    /// Its wall clock when it said so, milliseconds since 1970: of more incarnations than are kept the last ones are.
    #[prost(uint64, tag = "6")]
    pub said_ms: u64,
}

/// `CK_MECHANISM_INFO` of one mechanism (PKCS #11 v3.1, 5.5.6).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MechanismFacts {
    /// `CKM_*`.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Least key size in the unit of the standard for this mechanism.
    #[prost(uint64, tag = "2")]
    pub key_size_min: u64,
    /// Greatest key size, same unit.
    #[prost(uint64, tag = "3")]
    pub key_size_max: u64,
    /// `CKF_*`.
    #[prost(uint64, tag = "4")]
    pub flags: u64,
}

/// Proves knowledge of a PIN (C_Login). Class Role.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Login {
    /// `CKU_*`.
    #[prost(uint64, tag = "1")]
    pub user: u64,
    /// The PIN.
    #[prost(bytes = "vec", tag = "2")]
    pub pin: Vec<u8>,
    /// 16 random bytes: a resend carries the same (HA 4.2).
    #[prost(bytes = "vec", tag = "3")]
    pub tag: Vec<u8>,
}

/// The ticket.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct LoginAnswer {
    /// Sealed; valid on every member of the group (RULES 2.6).
    #[prost(bytes = "vec", tag = "1")]
    pub ticket: Vec<u8>,
}

/// Changes the PIN of the role that is logged in, or of the Crypto Officer when none is (C_SetPIN). At the home.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct SetPin {
    /// `CKU_*` of the role whose PIN changes.
    #[prost(uint64, tag = "1")]
    pub user: u64,
    /// The PIN that holds.
    #[prost(bytes = "vec", tag = "2")]
    pub old: Vec<u8>,
    /// The PIN that shall hold.
    #[prost(bytes = "vec", tag = "3")]
    pub new: Vec<u8>,
    /// 16 random bytes: a resend carries the same, and one that was executed is answered OK.
    #[prost(bytes = "vec", tag = "4")]
    pub tag: Vec<u8>,
}

/// The new credentials, sealed, for `Join` on the other members.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetPinAnswer {
    /// Sealed credential record.
    #[prost(bytes = "vec", tag = "1")]
    pub credentials: Vec<u8>,
}

/// Changes the manifest by compare-and-set, at the home (HA 2.6), or at the member that becomes the home by it (HA 2.7).
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeManifest {
    /// The epoch that the caller has seen.
    #[prost(uint64, tag = "1")]
    pub expected_epoch: u64,
    /// The new manifest; the home sets its epoch to `expected_epoch + 1`, a member that makes itself the home to the next term (HA 2.7).
    #[prost(message, optional, tag = "2")]
    pub manifest: Option<Manifest>,
    /// 16 random bytes; a resend of what was executed is answered OK.
    #[prost(bytes = "vec", tag = "3")]
    pub tag: Vec<u8>,
}

/// The manifest as it now is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeManifestAnswer {
    /// In clear.
    #[prost(message, optional, tag = "1")]
    pub manifest: Option<Manifest>,
    /// Sealed, for `Adopt` and `Join`.
    #[prost(bytes = "vec", tag = "2")]
    pub sealed: Vec<u8>,
}

/// Makes an empty partition of the same domain a member of another group (RULES 3.2, 3.3).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Adopt {
    /// The group to join, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub group: Vec<u8>,
    /// Its generation.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// Its sealed manifest, which must name this partition.
    #[prost(bytes = "vec", tag = "3")]
    pub manifest: Vec<u8>,
    /// Its sealed credentials.
    #[prost(bytes = "vec", tag = "4")]
    pub credentials: Vec<u8>,
}

secret! {
    Login { pin }
    SetPin { old, new }
}
secret!(@debug LoginAnswer);
