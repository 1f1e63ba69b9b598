//! Messages about objects: making, storing, finding, reading, changing, destroying (HA 2, RULES 2.2 to 2.4).
use super::MechanismMessage;
use crate::changes::Changes;
use crate::record::Stamp;
use crate::value::Template;

/// Names an object: a token object by ouid and the least state that the caller knows; a session object by its
/// sealed blob (RULES 2.2).
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct ObjectRef {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub ouid: Vec<u8>,
    /// The greatest stamp that the caller has seen of it (token objects); a member with less is `BEHIND` (HA 3.1).
    #[prost(message, optional, tag = "2")]
    pub least: Option<Stamp>,
    /// SHA-256 of the whole blob, 32 bytes (session objects); empty for token objects.
    #[prost(bytes = "vec", tag = "3")]
    pub blob_hash: Vec<u8>,
    /// The blob, when a member has asked for it.
    #[prost(bytes = "vec", tag = "4")]
    pub blob: Vec<u8>,
    /// The [`Changes`] that the caller has seen of it (token objects), encoded: they are sent with every use; empty for none.
    /// A member that lacks one is `BEHIND` (HA 3.1).
    #[prost(bytes = "vec", tag = "5")]
    pub changed: Vec<u8>,
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
    /// Whether there may be more behind the last one of `found` and `deleted`, where the next page begins.
    #[prost(bool, tag = "2")]
    pub more: bool,
    /// Ouids deleted here among the range of this page (for the merge of HA 3.2), ascending; 1,000 at most, which may
    /// end a page before anything is found.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub deleted: Vec<Vec<u8>>,
    /// With `more`: the ouid behind which the next page begins, which may be behind the last one found. A member looks at
    /// so many objects for one page, whether they match or not.
    #[prost(bytes = "vec", tag = "4")]
    pub looked: Vec<u8>,
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
    /// What was changed of it since it was made.
    #[prost(message, optional, tag = "4")]
    pub changed: Option<Changes>,
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
    /// What was changed of the object since it was made.
    #[prost(message, optional, tag = "4")]
    pub changed: Option<Changes>,
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
    /// What was changed of a token object since it was made, this change among it.
    #[prost(message, optional, tag = "5")]
    pub changed: Option<Changes>,
}

/// Destroys a token object for ever (C_DestroyObject).
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Destroy {
    /// The object.
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectRef>,
}

secret! {
    AttributeValue { value }
}
secret!(@debug ObjectRef);
secret!(@debug Make);
secret!(@debug MakeAnswer);
secret!(@debug MadeObject);
secret!(@debug Find);
secret!(@debug GetAttributes);
secret!(@debug GetAttributesAnswer);
secret!(@debug SetAttributes);
secret!(@debug SetAttributesAnswer);
secret!(@debug Destroy);
