//! The bounds of what a request may carry.
use prost::Message;
use spec::changes::Changes;
use spec::messages::ObjectRef;
use spec::{Ouid, Template};

use crate::error::Refusal;
use crate::objects::Named;

/// Templates in one Make: those of a pair.
pub(crate) const TEMPLATES_MAX: usize = 2;
/// Attributes in one template.
pub(crate) const TEMPLATE_ATTRIBUTES_MAX: usize = 128;
/// Bytes of one attribute's value; a certificate with many extensions fits, a disk image does not.
pub(crate) const VALUE_BYTES_MAX: usize = 256 << 10;
/// Bytes of all values of one template.
pub(crate) const TEMPLATE_BYTES_MAX: usize = 512 << 10;
/// Matches on one page of a search.
pub(crate) const FIND_LIMIT: usize = 1_000;
/// Objects looked at for one page of a search, matches or not.
pub(crate) const FIND_LOOKED_MAX: usize = 2_000;
/// Bytes of all values in one answer: those of the greatest object, and what the token has added to it.
pub(crate) const ANSWER_BYTES_MAX: usize = 2 * TEMPLATE_BYTES_MAX;
/// Attributes asked for in one request.
pub(crate) const ATTRIBUTES_ASKED_MAX: usize = 256;
/// Random bytes in one request.
pub(crate) const RANDOM_BYTES_MAX: usize = 1 << 20;
/// Objects in one batch: no call makes more than a pair today; key-and-MAC derivations will.
pub(crate) const BATCH_OBJECTS_MAX: usize = 16;
/// Records in one export or join.
pub(crate) const RECORDS_MAX: usize = 1_000;
/// Bytes of one part, digest or message; the frame bounds it too.
pub(crate) const DATA_BYTES_MAX: usize = 16 << 20;
/// Bytes of a sealed running state.
pub(crate) const STATE_BYTES_MAX: usize = 64 << 10;
/// Members of a group.
pub(crate) const MEMBERS_MAX: usize = 64;
/// Places where members were seen, in one Status.
pub(crate) const SEEN_MAX: usize = MEMBERS_MAX * spec::sightings::KEPT;

/// A tag is 16 bytes.
pub(crate) fn tag(tag: &[u8]) -> Result<(), Refusal> {
    if tag.len() == 16 {
        Ok(())
    } else {
        Err(Refusal::malformed(format!("wanted a tag of 16 bytes, found {}", tag.len())))
    }
}

/// An ouid is 16 bytes.
pub(crate) fn ouid(bytes: &[u8]) -> Result<Ouid, Refusal> {
    Ouid::from_bytes(bytes)
        .ok_or_else(|| Refusal::malformed(format!("wanted an ouid of 16 bytes, found {}", bytes.len())))
}

/// At most so many items.
pub(crate) fn at_most(what: &str, found: usize, most: usize) -> Result<(), Refusal> {
    if found <= most {
        Ok(())
    } else {
        Err(Refusal::malformed(format!("wanted at most {most} {what}, found {found}; split the request")))
    }
}

/// A part of a message that must be there.
pub(crate) fn present<'a, T>(what: &str, part: Option<&'a T>) -> Result<&'a T, Refusal> {
    part.ok_or_else(|| Refusal::malformed(format!("wanted {what}, found none")))
}

/// A template within its bounds.
pub(crate) fn template(template: &Template) -> Result<(), Refusal> {
    at_most("attributes in a template", template.attributes.len(), TEMPLATE_ATTRIBUTES_MAX)?;
    let mut bytes = 0;
    for attribute in &template.attributes {
        at_most("bytes in an attribute", attribute.value.len(), VALUE_BYTES_MAX)?;
        bytes += attribute.value.len();
    }
    at_most("bytes in a template", bytes, TEMPLATE_BYTES_MAX)
}

/// The changes that a client has seen of an object; none when it has seen none.
pub(crate) fn changes(encoded: &[u8]) -> Result<Option<Changes>, Refusal> {
    if encoded.is_empty() {
        return Ok(None);
    }
    at_most("bytes of changes seen", encoded.len(), Changes::BYTES_MAX)?;
    let decoded = Changes::decode(encoded);
    decoded
        .map(Some)
        .map_err(|error| Refusal::malformed(format!("wanted the changes seen of an object: {error}")))
}

/// The object that a request names.
pub(crate) fn object(object: Option<&ObjectRef>) -> Result<Named<'_>, Refusal> {
    present("an object", object).map(Named::from)
}
