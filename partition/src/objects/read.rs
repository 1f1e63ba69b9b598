//! GetAttributes (PKCS #11 v3.1, 5.7.4): sensitive values never leave.
use spec::attributes::is_secret;
use spec::changes::Changes;
use spec::messages::{AttributeValue, GetAttributes, GetAttributesAnswer};
use spec::record::Record;
use spec::{Attribute, AttributeType as A, ObjectClass, Rv, Template};

use super::{class_of, flag};
use crate::bounds;
use crate::error::Refusal;
use crate::partition::Partition;
use crate::roles::Access;

/// Whether an attribute of this object is key material that nobody may read (PKCS #11 v3.1, table 13, note 7).
pub(super) fn is_hidden(record: &Record, kind: A) -> bool {
    let key = matches!(class_of(record), Some(ObjectClass::PRIVATE_KEY | ObjectClass::SECRET_KEY));
    key && is_secret(kind) && (flag(record, A::SENSITIVE) || !flag(record, A::EXTRACTABLE))
}

/// The value of an attribute, with the one that is computed: CKA_UNIQUE_ID is the ouid (RULES 2.3).
pub(super) fn value(record: &Record, kind: A) -> Option<Vec<u8>> {
    if kind == A::UNIQUE_ID {
        return record.id().map(|ouid| ouid.hex().into_bytes());
    }
    record.get(kind).map(<[u8]>::to_vec)
}

/// Whether an attribute is there with this value.
pub(super) fn has_value(record: &Record, kind: A, wanted: &[u8]) -> bool {
    if kind == A::UNIQUE_ID {
        return record.id().is_some_and(|ouid| ouid.hex().as_bytes() == wanted);
    }
    record.get(kind) == Some(wanted)
}

/// Everything that whoever sees the object may read.
pub(crate) fn readable(record: &Record) -> Template {
    let core = record.core.iter().flat_map(|core| &core.attributes);
    let changeable = record.changeable.iter().filter_map(|item| item.attribute.as_ref());
    let shown = core.chain(changeable).filter(|attribute| !is_hidden(record, attribute.kind())).cloned();
    let unique_id = value(record, A::UNIQUE_ID).map(|id| Attribute::new(A::UNIQUE_ID, id));
    let mut attributes: Vec<Attribute> = shown.chain(unique_id).collect();
    attributes.sort_by_key(|attribute| attribute.number);
    Template::from(attributes)
}

fn answer(record: &Record, kind: A) -> AttributeValue {
    if is_hidden(record, kind) && record.get(kind).is_some() {
        return AttributeValue { rv: Rv::ATTRIBUTE_SENSITIVE.0, value: Vec::new() };
    }
    match value(record, kind) {
        Some(value) => AttributeValue { rv: Rv::OK.0, value },
        None => AttributeValue { rv: Rv::ATTRIBUTE_TYPE_INVALID.0, value: Vec::new() },
    }
}

impl Partition {
    pub(crate) fn get_attributes(
        &self,
        access: &Access<'_>,
        get: &GetAttributes,
    ) -> Result<GetAttributesAnswer, Refusal> {
        bounds::at_most("attributes asked for", get.numbers.len(), bounds::ATTRIBUTES_ASKED_MAX)?;
        let object = bounds::object(get.object.as_ref())?;
        let held = self.resolve(&self.contents.read(), access, object, Rv::OBJECT_HANDLE_INVALID)?;
        let record = &held.record;
        // What an object has fits; only big values that are asked for again and again do not.
        let bytes = |number: &u64| match A(*number) {
            kind if is_hidden(record, kind) => 0,
            kind => record.get(kind).map_or(0, <[u8]>::len),
        };
        let total = get.numbers.iter().map(bytes).sum();
        bounds::at_most("bytes in an answer, each attribute once", total, bounds::ANSWER_BYTES_MAX)?;
        Ok(GetAttributesAnswer {
            values: get.numbers.iter().map(|number| answer(record, A(*number))).collect(),
            version: record.version(),
            changed: Changes::of(record),
        })
    }
}
