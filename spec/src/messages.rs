//! What travels between client and member: the fixed headers of a frame and the bodies, by `prost` derives.
//! Unknown fields are ignored, so that releases may mix; every field of variable length is bounded by the frame.
use std::fmt;

use zeroize::Zeroize;

use crate::mechanisms::{Mechanism, Parameters};
use crate::numbers::{MechanismType, MgfType};
use crate::record::{Manifest, Stamp};
use crate::value::Template;

/// The version of the wire spoken by this release; both sides use the lower of the two (RULES 3.4).
pub const WIRE_VERSION: u32 = 1;
/// The largest body that either side accepts, in bytes: 16 MiB of data and room for its envelope.
pub const BODY_BYTES_MAX: usize = (16 << 20) + (64 << 10);

/// In front of every request; written anew for each send (RULES 1.5, HA 7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHeader {
    /// The sender's number for this send, filled by the seam.
    pub tag: u64,
    /// The serial number of the partition that is asked.
    pub partition: u64,
    /// 0 for the first send, counting up with each resend or hedge.
    pub attempt: u32,
    /// How long the sender still waits, in milliseconds; the member drops what has expired.
    pub remaining_ms: u32,
    /// The manifest epoch that the sender knows.
    pub group_epoch: u64,
    /// The incarnation that `at_least` speaks of; 0 for none.
    pub incarnation: u64,
    /// The member must have reached this commit of that incarnation, or answer that it is behind.
    pub at_least: u64,
    /// Follows one application call through every log.
    pub trace: u64,
}

/// In front of every reply (HA 7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The tag of the request.
    pub tag: u64,
    /// The store's incarnation (HA 1.5).
    pub incarnation: u64,
    /// The store's commits so far (HA 1.5).
    pub seq: u64,
    /// The version of the credentials.
    pub credential_epoch: u64,
    /// The version of the manifest.
    pub manifest_epoch: u64,
    /// How many requests the member lets this client have outstanding.
    pub window: u32,
    /// How many requests wait at the member.
    pub queue: u32,
}

/// The client's first frame on a link.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// The highest wire version that the client speaks.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Capability bits; none are defined yet.
    #[prost(uint64, tag = "2")]
    pub capabilities: u64,
    /// The application instance's Ed25519 public key, 32 bytes (RULES 2.6).
    #[prost(bytes = "vec", tag = "3")]
    pub instance: Vec<u8>,
    /// The signature over this connection's TLS exporter value by the instance key, 64 bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub proof: Vec<u8>,
    /// The client's software and release, for the appliance's log.
    #[prost(string, tag = "5")]
    pub software: String,
}

/// The appliance's first frame on a link.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HelloReply {
    /// The wire version to speak from here on.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Capability bits; none are defined yet.
    #[prost(uint64, tag = "2")]
    pub capabilities: u64,
    /// The appliance's label.
    #[prost(string, tag = "3")]
    pub appliance: String,
    /// The name under which the client is registered.
    #[prost(string, tag = "4")]
    pub client: String,
    /// The partitions assigned to the client.
    #[prost(message, repeated, tag = "5")]
    pub partitions: Vec<PartitionName>,
    /// Why the appliance refuses the link: a sentence; empty when it does not.
    #[prost(string, tag = "6")]
    pub refusal: String,
    /// The appliance's software and release.
    #[prost(string, tag = "7")]
    pub software: String,
}

/// A partition as a list shows it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PartitionName {
    /// Its serial number.
    #[prost(uint64, tag = "1")]
    pub serial: u64,
    /// Its label.
    #[prost(string, tag = "2")]
    pub label: String,
}

/// Everything that decides the result of a request; encoded once (RULES 1.5).
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct RequestBody {
    /// The group that the caller means, 16 bytes; empty for "whatever group the partition is in" (Status, Login
    /// and the calls of tools only).
    #[prost(bytes = "vec", tag = "1")]
    pub group: Vec<u8>,
    /// The group's generation that the caller means (RULES 2.9).
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// The sealed proof of login; empty when there is none (RULES 2.6).
    #[prost(bytes = "vec", tag = "3")]
    pub ticket: Vec<u8>,
    /// The call.
    #[prost(
        oneof = "Call",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28"
    )]
    pub call: Option<Call>,
}

/// One call; the numbers are those of [`CALLS`](crate::calls::CALLS).
#[derive(Clone, PartialEq, prost::Oneof)]
#[prost(skip_debug)]
#[allow(missing_docs, reason = "each variant is documented at its message")]
pub enum Call {
    #[prost(message, tag = "10")]
    Status(Status),
    #[prost(message, tag = "11")]
    Login(Login),
    #[prost(message, tag = "12")]
    SetPin(SetPin),
    #[prost(message, tag = "13")]
    Plan(Plan),
    #[prost(message, tag = "14")]
    Use(Use),
    #[prost(message, tag = "15")]
    Random(Random),
    #[prost(message, tag = "16")]
    Make(Make),
    #[prost(message, tag = "17")]
    Store(Store),
    #[prost(message, tag = "18")]
    Commit(Commit),
    #[prost(message, tag = "19")]
    Discard(Discard),
    #[prost(message, tag = "20")]
    Find(Find),
    #[prost(message, tag = "21")]
    GetAttributes(GetAttributes),
    #[prost(message, tag = "22")]
    SetAttributes(SetAttributes),
    #[prost(message, tag = "23")]
    Destroy(Destroy),
    #[prost(message, tag = "24")]
    ChangeManifest(ChangeManifest),
    #[prost(message, tag = "25")]
    Adopt(Adopt),
    #[prost(message, tag = "26")]
    Compare(Compare),
    #[prost(message, tag = "27")]
    Export(Export),
    #[prost(message, tag = "28")]
    Join(Join),
}

impl Call {
    /// The numbers of all calls, for the test that compares them with the table.
    pub const NUMBERS: [u32; 19] =
        [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28];

    /// The call's number in [`CALLS`](crate::calls::CALLS).
    pub fn number(&self) -> u32 {
        match self {
            Call::Status(_) => 10,
            Call::Login(_) => 11,
            Call::SetPin(_) => 12,
            Call::Plan(_) => 13,
            Call::Use(_) => 14,
            Call::Random(_) => 15,
            Call::Make(_) => 16,
            Call::Store(_) => 17,
            Call::Commit(_) => 18,
            Call::Discard(_) => 19,
            Call::Find(_) => 20,
            Call::GetAttributes(_) => 21,
            Call::SetAttributes(_) => 22,
            Call::Destroy(_) => 23,
            Call::ChangeManifest(_) => 24,
            Call::Adopt(_) => 25,
            Call::Compare(_) => 26,
            Call::Export(_) => 27,
            Call::Join(_) => 28,
        }
    }
}

/// How a request ended, before any `CKR`: an open number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outcome(pub u32);

impl Outcome {
    /// Done; the answer is there.
    pub const OK: Self = Self(0);
    /// Decided by the standard's rules: the answer is the code in `rv`.
    pub const RV: Self = Self(1);
    /// This member holds nothing of that ouid: it may have missed it (HA 3.1).
    pub const UNKNOWN: Self = Self(2);
    /// This member holds an older state than the request demands (HA 3.1).
    pub const BEHIND: Self = Self(3);
    /// This member holds the tombstone: final (HA 3.1).
    pub const DESTROYED: Self = Self(4);
    /// The session object's blob is not cached here: send it along (RULES 2.2).
    pub const NEED_BLOB: Self = Self(5);
    /// The plan is older than the object: plan again (RULES 1.1).
    pub const PLAN_CHANGED: Self = Self(6);
    /// This member is being repaired and serves neither logins nor uses (HA 1.5).
    pub const RECOVERING: Self = Self(7);
    /// The request's time had passed when its turn came; not executed (HA 4.5).
    pub const EXPIRED: Self = Self(8);
    /// Only the home member does this (HA 2.7); `text` names it.
    pub const NOT_HOME: Self = Self(9);
    /// The partition is not of that group or generation (RULES 2.9, 3.1).
    pub const WRONG_GROUP: Self = Self(10);
    /// The ticket is not valid here: log in again (RULES 2.6).
    pub const TICKET_DEAD: Self = Self(11);
    /// Compare-and-set met another epoch (HA 2.6, 2.7).
    pub const EPOCH_CHANGED: Self = Self(12);
    /// The request cannot be read or breaks a bound; `text` says what was wanted.
    pub const MALFORMED: Self = Self(13);
    /// A sealed thing did not open in this context (RULES 3.1): one answer for every reason.
    pub const NOT_OPENED: Self = Self(14);
    /// The partition is not assigned to this client, or does not exist here.
    pub const NO_PARTITION: Self = Self(15);
    /// The member cannot do it now for a reason of its own (disk full, poisoned store); `text` says which.
    pub const FAILED: Self = Self(16);
}

/// The body of a reply.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct ReplyBody {
    /// An [`Outcome`].
    #[prost(uint32, tag = "1")]
    pub outcome: u32,
    /// The `CKR` when the outcome is `RV`.
    #[prost(uint64, tag = "2")]
    pub rv: u64,
    /// The ouid that `UNKNOWN`, `BEHIND`, `DESTROYED`, `NEED_BLOB`, `PLAN_CHANGED` speak of.
    #[prost(bytes = "vec", tag = "3")]
    pub object: Vec<u8>,
    /// A sentence for the log: wanted, found, what to do. Never a secret.
    #[prost(string, tag = "4")]
    pub text: String,
    /// The answer when the outcome is `OK`.
    #[prost(
        oneof = "Answer",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28"
    )]
    pub answer: Option<Answer>,
}

/// The answer to a call, under the call's number.
#[derive(Clone, PartialEq, prost::Oneof)]
#[prost(skip_debug)]
#[allow(missing_docs, reason = "each variant is documented at its message")]
pub enum Answer {
    #[prost(message, tag = "10")]
    Status(StatusAnswer),
    #[prost(message, tag = "11")]
    Login(LoginAnswer),
    #[prost(message, tag = "12")]
    SetPin(SetPinAnswer),
    #[prost(message, tag = "13")]
    Plan(PlanAnswer),
    #[prost(message, tag = "14")]
    Use(UseAnswer),
    #[prost(message, tag = "15")]
    Random(RandomAnswer),
    #[prost(message, tag = "16")]
    Make(MakeAnswer),
    #[prost(message, tag = "17")]
    Store(Done),
    #[prost(message, tag = "18")]
    Commit(Done),
    #[prost(message, tag = "19")]
    Discard(Done),
    #[prost(message, tag = "20")]
    Find(FindAnswer),
    #[prost(message, tag = "21")]
    GetAttributes(GetAttributesAnswer),
    #[prost(message, tag = "22")]
    SetAttributes(SetAttributesAnswer),
    #[prost(message, tag = "23")]
    Destroy(Done),
    #[prost(message, tag = "24")]
    ChangeManifest(ChangeManifestAnswer),
    #[prost(message, tag = "25")]
    Adopt(Done),
    #[prost(message, tag = "26")]
    Compare(CompareAnswer),
    #[prost(message, tag = "27")]
    Export(ExportAnswer),
    #[prost(message, tag = "28")]
    Join(JoinAnswer),
}

/// Done, with nothing to tell.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Done {}

/// Names an object: a token object by ouid and the least state that the caller knows; a session object by its
/// sealed blob (RULES 2.2).
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct ObjectRef {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub ouid: Vec<u8>,
    /// The greatest stamp that the caller has seen of it (token objects).
    #[prost(message, optional, tag = "2")]
    pub least: Option<Stamp>,
    /// SHA-256 of the whole blob, 32 bytes (session objects); empty for token objects.
    #[prost(bytes = "vec", tag = "3")]
    pub blob_hash: Vec<u8>,
    /// The blob, when a member has asked for it.
    #[prost(bytes = "vec", tag = "4")]
    pub blob: Vec<u8>,
}

/// A mechanism and its parameters, field by field (RULES 1.1 names those that a plan depends on).
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct MechanismMessage {
    /// `CKM_*`.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The kind of parameters: 0 none, 1 IV, 2 GCM, 3 PSS, 4 OAEP, 5 MAC length.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// IV or nonce.
    #[prost(bytes = "vec", tag = "3")]
    pub iv: Vec<u8>,
    /// Additional authenticated data.
    #[prost(bytes = "vec", tag = "4")]
    pub aad: Vec<u8>,
    /// Tag length in bits.
    #[prost(uint64, tag = "5")]
    pub tag_bits: u64,
    /// Hash (`CKM_*`) of PSS and OAEP.
    #[prost(uint64, tag = "6")]
    pub hash: u64,
    /// Mask generation function (`CKG_*`).
    #[prost(uint64, tag = "7")]
    pub mgf: u64,
    /// PSS salt length in bytes.
    #[prost(uint64, tag = "8")]
    pub salt_bytes: u64,
    /// OAEP label.
    #[prost(bytes = "vec", tag = "9")]
    pub label: Vec<u8>,
    /// Length of a general MAC in bytes.
    #[prost(uint64, tag = "10")]
    pub mac_bytes: u64,
}

impl From<&Mechanism> for MechanismMessage {
    fn from(mechanism: &Mechanism) -> Self {
        let mut message = MechanismMessage { number: mechanism.mechanism_type.0, ..Default::default() };
        match &mechanism.parameters {
            Parameters::None => {}
            Parameters::Iv(iv) => {
                message.kind = 1;
                message.iv.clone_from(iv);
            }
            Parameters::Gcm { iv, aad, tag_bits } => {
                message.kind = 2;
                message.iv.clone_from(iv);
                message.aad.clone_from(aad);
                message.tag_bits = *tag_bits;
            }
            Parameters::Pss { hash, mgf, salt_bytes } => {
                message.kind = 3;
                message.hash = hash.0;
                message.mgf = mgf.0;
                message.salt_bytes = *salt_bytes;
            }
            Parameters::Oaep { hash, mgf, label } => {
                message.kind = 4;
                message.hash = hash.0;
                message.mgf = mgf.0;
                message.label.clone_from(label);
            }
            Parameters::MacGeneral { mac_bytes } => {
                message.kind = 5;
                message.mac_bytes = *mac_bytes;
            }
        }
        message
    }
}

impl MechanismMessage {
    /// The typed mechanism; `None` when the kind of parameters is not one that this release knows.
    pub fn to_mechanism(&self) -> Option<Mechanism> {
        let parameters = match self.kind {
            0 => Parameters::None,
            1 => Parameters::Iv(self.iv.clone()),
            2 => Parameters::Gcm { iv: self.iv.clone(), aad: self.aad.clone(), tag_bits: self.tag_bits },
            3 => Parameters::Pss {
                hash: MechanismType(self.hash),
                mgf: MgfType(self.mgf),
                salt_bytes: self.salt_bytes,
            },
            4 => Parameters::Oaep {
                hash: MechanismType(self.hash),
                mgf: MgfType(self.mgf),
                label: self.label.clone(),
            },
            5 => Parameters::MacGeneral { mac_bytes: self.mac_bytes },
            _ => return None,
        };
        Some(Mechanism { mechanism_type: MechanismType(self.number), parameters })
    }
}

/// Asks for the partition's standing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// Whether the list of mechanisms is wanted too.
    #[prost(bool, tag = "1")]
    pub mechanisms: bool,
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

/// What a key is used for; the numbers of `function` in [`Plan`] and [`Use`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyFunction(pub u32);

impl KeyFunction {
    /// C_Sign*.
    pub const SIGN: Self = Self(1);
    /// C_Verify*.
    pub const VERIFY: Self = Self(2);
    /// C_Encrypt*.
    pub const ENCRYPT: Self = Self(3);
    /// C_Decrypt*.
    pub const DECRYPT: Self = Self(4);
}

/// Asks how to run a mechanism with a key (RULES 1.1).
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Plan {
    /// A [`KeyFunction`].
    #[prost(uint32, tag = "1")]
    pub function: u32,
    /// The mechanism; IV and AAD may be left out.
    #[prost(message, optional, tag = "2")]
    pub mechanism: Option<MechanismMessage>,
    /// The key.
    #[prost(message, optional, tag = "3")]
    pub key: Option<ObjectRef>,
}

/// How a mechanism runs in parts (DESIGN 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct How(pub u32);

impl How {
    /// Gathered to a bound and sent whole.
    pub const WHOLE: Self = Self(1);
    /// Hashed in the process with `prehash`; the digest is sent (RULES 1.4).
    pub const PREHASH: Self = Self(2);
    /// Whole blocks, continued from a public chaining value that the client has.
    pub const CHAIN: Self = Self(3);
    /// Each part goes to a member with a sealed running state.
    pub const STREAM: Self = Self(4);
}

/// How long an output is (RULES 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutputRule(pub u32);

impl OutputRule {
    /// Exactly `output_bytes`.
    pub const FIXED: Self = Self(1);
    /// At most `output_bytes`; known afterwards.
    pub const AT_MOST: Self = Self(2);
    /// As long as the input.
    pub const SAME: Self = Self(3);
    /// The input padded to the next whole block of `block_bytes` (a whole block more when it fits).
    pub const PADDED: Self = Self(4);
    /// At most as long as the input; known afterwards.
    pub const UNPADDED: Self = Self(5);
    /// `output_bytes` longer than the input.
    pub const PLUS: Self = Self(6);
    /// `output_bytes` shorter than the input.
    pub const MINUS: Self = Self(7);
}

/// The plan.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PlanAnswer {
    /// A [`How`].
    #[prost(uint32, tag = "1")]
    pub how: u32,
    /// The digest mechanism of a prehash, `CKM_*`.
    #[prost(uint64, tag = "2")]
    pub prehash: u64,
    /// An [`OutputRule`].
    #[prost(uint32, tag = "3")]
    pub output_rule: u32,
    /// The number that the rule speaks of.
    #[prost(uint64, tag = "4")]
    pub output_bytes: u64,
    /// Block length of chained mechanisms; 0 otherwise.
    #[prost(uint32, tag = "5")]
    pub block_bytes: u32,
    /// Longest input in one operation; 0 for no limit but the wire's.
    #[prost(uint64, tag = "6")]
    pub input_bytes_max: u64,
    /// The key's greatest stamp when the plan was made.
    #[prost(message, optional, tag = "7")]
    pub version: Option<Stamp>,
    /// Whether each use demands a context login (RULES 2.7).
    #[prost(bool, tag = "8")]
    pub always_authenticate: bool,
}

/// Uses a key once. Class Use.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Use {
    /// A [`KeyFunction`].
    #[prost(uint32, tag = "1")]
    pub function: u32,
    /// The mechanism; for `CHAIN` parts its IV is the chaining value.
    #[prost(message, optional, tag = "2")]
    pub mechanism: Option<MechanismMessage>,
    /// The key.
    #[prost(message, optional, tag = "3")]
    pub key: Option<ObjectRef>,
    /// The version of the plan that the client follows; absent when it follows none.
    #[prost(message, optional, tag = "4")]
    pub plan: Option<Stamp>,
    /// How the client runs it: `WHOLE` (data is all), `PREHASH` (data is the digest), `CHAIN`, `STREAM`.
    #[prost(uint32, tag = "5")]
    pub how: u32,
    /// The data, digest or part.
    #[prost(bytes = "vec", tag = "6")]
    pub data: Vec<u8>,
    /// The signature or MAC to be checked.
    #[prost(bytes = "vec", tag = "7")]
    pub signature: Vec<u8>,
    /// Whether this is the last part (`CHAIN`, `STREAM`).
    #[prost(bool, tag = "8")]
    pub last: bool,
    /// The sealed running state of the part before (`STREAM`); empty for the first part.
    #[prost(bytes = "vec", tag = "9")]
    pub state: Vec<u8>,
    /// The number of this part, from 0 (`STREAM`); bound into the seal of the state.
    #[prost(uint64, tag = "10")]
    pub part: u64,
    /// The PIN of a context login (RULES 2.7); empty otherwise.
    #[prost(bytes = "vec", tag = "11")]
    pub pin: Vec<u8>,
}

/// What the use gave.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct UseAnswer {
    /// Signature, ciphertext or plaintext; empty for a verdict.
    #[prost(bytes = "vec", tag = "1")]
    pub output: Vec<u8>,
    /// The sealed running state for the next part (`STREAM`).
    #[prost(bytes = "vec", tag = "2")]
    pub state: Vec<u8>,
}

/// Asks for random bytes (C_GenerateRandom).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Random {
    /// How many; at most 1 MiB a request.
    #[prost(uint32, tag = "1")]
    pub bytes: u32,
}

/// Random bytes.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct RandomAnswer {
    /// The bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub output: Vec<u8>,
}

/// What a `Make` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MakeKind(pub u32);

impl MakeKind {
    /// C_GenerateKey: one template.
    pub const GENERATE: Self = Self(1);
    /// C_GenerateKeyPair: public template, then private template.
    pub const GENERATE_PAIR: Self = Self(2);
    /// C_CreateObject: one template.
    pub const CREATE: Self = Self(3);
    /// C_CopyObject: `source` and one template of changes.
    pub const COPY: Self = Self(4);
}

/// Makes objects and stores nothing (HA 2.1). Class Make.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Make {
    /// A [`MakeKind`].
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// The generation mechanism.
    #[prost(message, optional, tag = "2")]
    pub mechanism: Option<MechanismMessage>,
    /// One template for each output, in the order of the standard's arguments.
    #[prost(message, repeated, tag = "3")]
    pub templates: Vec<Template>,
    /// The object that is copied.
    #[prost(message, optional, tag = "4")]
    pub source: Option<ObjectRef>,
    /// 16 random bytes, bound into the batch's seal: only this call's Store may present it.
    #[prost(bytes = "vec", tag = "5")]
    pub tag: Vec<u8>,
}

/// The batch and what is in it.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct MakeAnswer {
    /// The sealed batch of all token objects; empty when there are none.
    #[prost(bytes = "vec", tag = "1")]
    pub batch: Vec<u8>,
    /// One for each template.
    #[prost(message, repeated, tag = "2")]
    pub outputs: Vec<MadeObject>,
}

/// One object of a `Make`.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct MadeObject {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub ouid: Vec<u8>,
    /// CKA_TOKEN.
    #[prost(bool, tag = "2")]
    pub token: bool,
    /// CKA_PRIVATE.
    #[prost(bool, tag = "3")]
    pub private: bool,
    /// The sealed blob of a session object; empty for a token object.
    #[prost(bytes = "vec", tag = "4")]
    pub blob: Vec<u8>,
    /// The object's greatest stamp.
    #[prost(message, optional, tag = "5")]
    pub version: Option<Stamp>,
    /// The attributes that anybody who sees the object may read (for searches among session objects).
    #[prost(message, optional, tag = "6")]
    pub readable: Option<Template>,
}

/// Stores a batch, all of it or none, durably (HA 2.1). Class Store.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Store {
    /// The batch as `Make` gave it.
    #[prost(bytes = "vec", tag = "1")]
    pub batch: Vec<u8>,
    /// The tag of the `Make`.
    #[prost(bytes = "vec", tag = "2")]
    pub tag: Vec<u8>,
    /// Whether a `Commit` will follow (minimum copies above one, HA 2.2).
    #[prost(bool, tag = "3")]
    pub provisional: bool,
}

/// Makes a stored batch visible (HA 2.2). `UNKNOWN` when this member does not hold it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Commit {
    /// The ouids of the batch, 16 bytes each.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub ouids: Vec<Vec<u8>>,
    /// The tag of the `Make`.
    #[prost(bytes = "vec", tag = "2")]
    pub tag: Vec<u8>,
}

/// Tombstones a batch that did not reach its minimum and of which no Commit was sent (HA 2.2).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Discard {
    /// The ouids of the batch, 16 bytes each.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub ouids: Vec<Vec<u8>>,
    /// The tag of the `Make`.
    #[prost(bytes = "vec", tag = "2")]
    pub tag: Vec<u8>,
}

/// Searches token objects in ouid order (RULES 2.4).
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Find {
    /// What must match.
    #[prost(message, optional, tag = "1")]
    pub template: Option<Template>,
    /// Continue behind this ouid; empty to start.
    #[prost(bytes = "vec", tag = "2")]
    pub after: Vec<u8>,
    /// At most so many; 1,000 at most.
    #[prost(uint32, tag = "3")]
    pub limit: u32,
}

/// A page of matches.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FindAnswer {
    /// In ouid order.
    #[prost(message, repeated, tag = "1")]
    pub found: Vec<Found>,
    /// Whether there may be more behind the last one.
    #[prost(bool, tag = "2")]
    pub more: bool,
    /// Ouids deleted here among the range of this page (for the merge of HA 3.2), when asked of several members.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub deleted: Vec<Vec<u8>>,
}

/// One match.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Found {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub ouid: Vec<u8>,
    /// CKA_PRIVATE.
    #[prost(bool, tag = "2")]
    pub private: bool,
    /// Its greatest stamp.
    #[prost(message, optional, tag = "3")]
    pub version: Option<Stamp>,
}

/// Reads attributes (C_GetAttributeValue).
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct GetAttributes {
    /// The object.
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectRef>,
    /// `CKA_*`.
    #[prost(uint64, repeated, tag = "2")]
    pub numbers: Vec<u64>,
}

/// The values, one for each number asked for, in that order.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct GetAttributesAnswer {
    /// The values.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<AttributeValue>,
    /// The object's greatest stamp.
    #[prost(message, optional, tag = "2")]
    pub version: Option<Stamp>,
    /// The stamps of the changeable attributes among them.
    #[prost(message, repeated, tag = "3")]
    pub stamps: Vec<AttributeStamp>,
}

/// One attribute's answer.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct AttributeValue {
    /// `CKR_OK`, `CKR_ATTRIBUTE_SENSITIVE` or `CKR_ATTRIBUTE_TYPE_INVALID`.
    #[prost(uint64, tag = "1")]
    pub rv: u64,
    /// The canonical value when it is `CKR_OK`.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// The stamp of one attribute.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeStamp {
    /// `CKA_*`.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// Its stamp.
    #[prost(message, optional, tag = "2")]
    pub stamp: Option<Stamp>,
}

/// Changes attributes (C_SetAttributeValue). Class Change.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct SetAttributes {
    /// The object.
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectRef>,
    /// The new values.
    #[prost(message, optional, tag = "2")]
    pub template: Option<Template>,
    /// 16 random bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub tag: Vec<u8>,
    /// The greatest stamp that the client saw before its first send (HA 2.3).
    #[prost(message, optional, tag = "4")]
    pub seen: Option<Stamp>,
}

/// The changed object.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct SetAttributesAnswer {
    /// Its greatest stamp.
    #[prost(message, optional, tag = "1")]
    pub version: Option<Stamp>,
    /// The new blob of a session object.
    #[prost(bytes = "vec", tag = "2")]
    pub blob: Vec<u8>,
    /// The readable attributes of a session object.
    #[prost(message, optional, tag = "3")]
    pub readable: Option<Template>,
    /// The sealed record of a token object, for `Join` on the other members.
    #[prost(bytes = "vec", tag = "4")]
    pub record: Vec<u8>,
}

/// Destroys a token object for ever (C_DestroyObject).
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Destroy {
    /// The object.
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectRef>,
}

/// Changes the manifest by compare-and-set, at the home (HA 2.6).
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeManifest {
    /// The epoch that the caller has seen.
    #[prost(uint64, tag = "1")]
    pub expected_epoch: u64,
    /// The new manifest; the member sets its epoch to `expected_epoch + 1`.
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

/// Asks for digests (HA 1.6).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compare {
    /// The buckets (0..4096) whose records are wanted one by one; empty for the digests of all buckets.
    #[prost(uint32, repeated, tag = "1")]
    pub buckets: Vec<u32>,
}

/// Digests.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CompareAnswer {
    /// The root, 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub root: Vec<u8>,
    /// 4,096 digests of 32 bytes in a row, when no buckets were named.
    #[prost(bytes = "vec", tag = "2")]
    pub buckets: Vec<u8>,
    /// The records of the named buckets.
    #[prost(message, repeated, tag = "3")]
    pub records: Vec<RecordDigest>,
}

/// One record's digest.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RecordDigest {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub ouid: Vec<u8>,
    /// 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub digest: Vec<u8>,
}

/// Asks for sealed records (repair). Demands a Crypto Officer's ticket (RULES 3.3).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Export {
    /// At most 1,000 ouids of 16 bytes.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub ouids: Vec<Vec<u8>>,
    /// Whether the credentials are wanted.
    #[prost(bool, tag = "2")]
    pub credentials: bool,
    /// Whether the manifest is wanted.
    #[prost(bool, tag = "3")]
    pub manifest: bool,
}

/// Sealed records.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportAnswer {
    /// Those held, committed or deleted.
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<SealedRecord>,
    /// Sealed credentials, when asked for.
    #[prost(bytes = "vec", tag = "2")]
    pub credentials: Vec<u8>,
    /// Sealed manifest, when asked for.
    #[prost(bytes = "vec", tag = "3")]
    pub manifest: Vec<u8>,
}

/// A record under the domain's seal, as it lies on disk and travels between members.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SealedRecord {
    /// 16 bytes; bound into the seal.
    #[prost(bytes = "vec", tag = "1")]
    pub ouid: Vec<u8>,
    /// The maker's serial number; bound into the seal.
    #[prost(uint64, tag = "2")]
    pub maker: u64,
    /// The envelope.
    #[prost(bytes = "vec", tag = "3")]
    pub envelope: Vec<u8>,
}

/// Joins sealed records with what the member holds (HA 1.2). Demands a Crypto Officer's ticket.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Join {
    /// At most 1,000.
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<SealedRecord>,
    /// Sealed credentials; the greater epoch wins (HA 2.7).
    #[prost(bytes = "vec", tag = "2")]
    pub credentials: Vec<u8>,
    /// Sealed manifest; the greater epoch wins (HA 2.6).
    #[prost(bytes = "vec", tag = "3")]
    pub manifest: Vec<u8>,
    /// Whether this ends a repair: a recovering member that has been compared with a peer serves again (HA 1.5).
    #[prost(bool, tag = "4")]
    pub repaired: bool,
}

/// What the join did.
#[derive(Clone, PartialEq, prost::Message)]
pub struct JoinAnswer {
    /// Records that changed here.
    #[prost(uint32, tag = "1")]
    pub changed: u32,
    /// Records put in quarantine (HA 1.7).
    #[prost(uint32, tag = "2")]
    pub quarantined: u32,
}

/// Wipes the named fields when the message is dropped and gives it a `Debug` that shows lengths at most.
macro_rules! secret {
    ($($message:ident { $($field:ident),* })*) => {$(
        impl Drop for $message {
            fn drop(&mut self) {
                $(self.$field.zeroize();)*
            }
        }
        secret!(@debug $message);
    )*};
    (@debug $message:ident) => {
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($message), " { .. }"))
            }
        }
    };
}

secret! {
    Login { pin }
    SetPin { old, new }
    Use { data, pin }
    UseAnswer { output }
    RandomAnswer { output }
    AttributeValue { value }
}
secret!(@debug RequestBody);
secret!(@debug ReplyBody);
secret!(@debug Call);
secret!(@debug Answer);
secret!(@debug ObjectRef);
secret!(@debug MechanismMessage);
secret!(@debug LoginAnswer);
secret!(@debug Plan);
secret!(@debug Make);
secret!(@debug MakeAnswer);
secret!(@debug MadeObject);
secret!(@debug Find);
secret!(@debug GetAttributes);
secret!(@debug GetAttributesAnswer);
secret!(@debug SetAttributes);
secret!(@debug SetAttributesAnswer);
secret!(@debug Destroy);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn every_kind_of_parameters_survives_the_wire() {
        let (hash, mgf) = (MechanismType(0x250), MgfType(2));
        for parameters in [
            Parameters::None,
            Parameters::Iv(vec![1; 16]),
            Parameters::Gcm { iv: vec![2; 12], aad: vec![3], tag_bits: 128 },
            Parameters::Pss { hash, mgf, salt_bytes: 32 },
            Parameters::Oaep { hash, mgf, label: vec![4] },
            Parameters::MacGeneral { mac_bytes: 4 },
        ] {
            let mechanism = Mechanism { mechanism_type: MechanismType(9), parameters };
            let bytes = MechanismMessage::from(&mechanism).encode_to_vec();
            assert!(MechanismMessage::decode(bytes.as_slice()).unwrap().to_mechanism() == Some(mechanism));
        }
        assert!(MechanismMessage { kind: 77, ..Default::default() }.to_mechanism().is_none());
    }

    #[test]
    fn a_body_with_unknown_fields_and_calls_decodes_without_them() {
        let mut bytes = RequestBody { group: vec![1; 16], ..Default::default() }.encode_to_vec();
        prost::encoding::bytes::encode(900, &vec![7u8; 3], &mut bytes);
        let body = RequestBody::decode(bytes.as_slice()).unwrap();
        assert_eq!(body.group, vec![1; 16]);
        assert!(body.call.is_none());
    }

    #[test]
    fn debug_of_a_message_with_a_pin_shows_none_of_it() {
        let login = Login { user: 1, pin: b"12345678".to_vec(), tag: Vec::new() };
        let body = RequestBody { call: Some(Call::Login(login)), ..Default::default() };
        assert_eq!(format!("{body:?}"), "RequestBody { .. }");
    }
}
