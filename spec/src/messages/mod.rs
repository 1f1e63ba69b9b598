//! What travels between client and member: the fixed headers of a frame and the bodies, by `prost` derives.
//! Unknown fields are ignored, so that releases may mix; every field of variable length is bounded by the frame.
//!
//! ```text
//! mod      headers, Hello, RequestBody, ReplyBody, the list of calls and answers
//! keys     mechanisms, plans, uses, random        objects  make, store, find, attributes
//! roles    status, login, PINs, manifest          repair   compare, export, join
//! hot      Use and its answer in place
//! ```

/// Wipes the named fields when the message is dropped and gives it a `Debug` that shows lengths at most.
macro_rules! secret {
    ($($message:ident { $($field:ident),* })*) => {$(
        impl Drop for $message {
            fn drop(&mut self) {
                // What was taken out has left no memory, as every answer's output is.
                $(if self.$field.capacity() > 0 {
                    crate::wipe::wipe_memory(&mut self.$field);
                })*
            }
        }
        secret!(@debug $message);
    )*};
    (@debug $message:ident) => {
        impl std::fmt::Debug for $message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($message), " { .. }"))
            }
        }
    };
}

mod hot;
mod keys;
mod objects;
mod repair;
mod roles;

pub use hot::{EncodedStamp, UseParts, use_answer};
pub use keys::{
    How, KeyFunction, MechanismMessage, OutputRule, Plan, PlanAnswer, PublicKeyMessage, Random, RandomAnswer,
    Use, UseAnswer,
};
pub use objects::{
    AttributeValue, Commit, Destroy, Discard, Find, FindAnswer, Found, GetAttributes, GetAttributesAnswer,
    MadeObject, Make, MakeAnswer, MakeKind, ObjectRef, SetAttributes, SetAttributesAnswer, Store,
};
pub use repair::{
    Compare, CompareAnswer, Export, ExportAnswer, Join, JoinAnswer, Lease, LeaseAnswer, RecordDigest,
    SealedRecord,
};
pub use roles::{
    Adopt, ChangeManifest, ChangeManifestAnswer, Login, LoginAnswer, MechanismFacts, SeenMember, SetPin,
    SetPinAnswer, Status, StatusAnswer,
};

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
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29"
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
    #[prost(message, tag = "29")]
    Lease(Lease),
}

impl Call {
    /// The numbers of all calls, for the test that compares them with the table.
    pub const NUMBERS: [u32; 20] =
        [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29];

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
            Call::Lease(_) => 29,
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
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29"
    )]
    pub answer: Option<Answer>,
}

/// The answer to a call, under the call's number.
#[derive(Clone, PartialEq, prost::Oneof)]
#[prost(skip_debug)]
#[allow(missing_docs, reason = "each variant is documented at its message")]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and none is kept in a list")]
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
    #[prost(message, tag = "29")]
    Lease(LeaseAnswer),
}

/// Done, with nothing to tell.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Done {}

secret!(@debug RequestBody);
secret!(@debug ReplyBody);
secret!(@debug Call);
secret!(@debug Answer);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::mechanisms::{Mechanism, Parameters};
    use crate::numbers::{MechanismType, MgfType};

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
