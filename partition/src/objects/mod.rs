//! PKCS#11 objects over records: templates, making, reading, searching, changing, destroying. The rules of attributes
//! are rows in `spec::classes` and `spec::attributes`; here they are carried out.
use std::sync::Arc;

use spec::messages::{ObjectRef, Outcome};
use spec::record::{Record, Stamp, State};
use spec::{AttributeType, KeyType, ObjectClass, Rv, value};

mod assemble;
mod change;
mod destroy;
mod find;
mod make;
mod read;
mod shape;

pub(crate) use read::readable;

use crate::bounds;
use crate::contents::Contents;
use crate::error::Refusal;
use crate::index::Held;
use crate::partition::Partition;
use crate::roles::Access;

/// The class of a record.
pub(crate) fn class_of(record: &Record) -> Option<ObjectClass> {
    record.get(AttributeType::CLASS).and_then(value::as_ulong).map(ObjectClass)
}

/// The key type of a record; none when it is no key.
pub(crate) fn key_type_of(record: &Record) -> Option<KeyType> {
    record.get(AttributeType::KEY_TYPE).and_then(value::as_ulong).map(KeyType)
}

/// A truth value of a record; false when it is not there.
pub(crate) fn flag(record: &Record, kind: AttributeType) -> bool {
    record.get(kind).and_then(value::as_bool).unwrap_or(false)
}

/// How a request names an object ([`ObjectRef`]), borrowed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Named<'a> {
    pub(crate) ouid: &'a [u8],
    pub(crate) least: Option<Stamp>,
    pub(crate) blob_hash: &'a [u8],
    pub(crate) blob: &'a [u8],
    pub(crate) changed: &'a [u8],
}

impl<'a> From<&'a ObjectRef> for Named<'a> {
    fn from(object: &'a ObjectRef) -> Self {
        let ObjectRef { ouid, least, blob_hash, blob, changed } = object;
        Self { ouid, least: *least, blob_hash, blob, changed }
    }
}

impl Partition {
    /// The live object that a request names (HA 3.1). `hidden` is the answer for a private one without a login.
    pub(crate) fn resolve(
        &self,
        contents: &Contents,
        access: &Access<'_>,
        object: Named<'_>,
        hidden: Rv,
    ) -> Result<Arc<Held>, Refusal> {
        if !object.blob_hash.is_empty() || !object.blob.is_empty() {
            return self.open_blob(contents.group(), access, object, hidden);
        }
        let ouid = bounds::ouid(object.ouid)?;
        let unknown = || {
            Refusal::new(Outcome::UNKNOWN, "this member holds no object of that ouid; another may")
                .about(ouid)
        };
        let held = contents.index.get(&ouid).ok_or_else(unknown)?;
        match held.record.state() {
            State::Provisional => return Err(unknown()),
            State::Deleted => return Err(Refusal::new(Outcome::DESTROYED, "destroyed for ever").about(ouid)),
            State::Committed => {}
        }
        if held.facts().private && !access.sees_private() {
            return Err(hidden.into());
        }
        if held.record.quarantined {
            let text = "two different objects of one ouid were found; an operator must decide (HA 1.7)";
            return Err(Refusal::new(Outcome::FAILED, text).about(ouid));
        }
        if (object.least.is_some() && object.least > held.facts().version)
            || !bounds::changes(object.changed)?.is_none_or(|seen| seen.are_in(&held.record))
        {
            return Err(
                Refusal::new(Outcome::BEHIND, "this member holds an older state; ask another").about(ouid)
            );
        }
        Ok(held.clone())
    }
}
