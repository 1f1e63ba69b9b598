//! What an encoded request holds, counted before it is decoded: a decoder makes a struct of each item of a list, however
//! few bytes it has, and would make millions of them of one body before anybody could look at a bound.
//!
//! ```text
//! body -> one known call, few fields -> not longer than that call may be -> lists within their bounds -> decode
//! ```
use spec::calls::Row;

use crate::bounds;
use crate::error::Refusal;
use crate::fields::{Field, Unreadable, fields};

/// Fields of a request outside of its call: releases to come may add some.
const OUTER_FIELDS_MAX: usize = 64;
/// Fields of a call with all that is in it; the longest lists, a join's records, have a few thousand.
const FIELDS_MAX: usize = 16 << 10;

/// A field of a message that is more than one number or some bytes.
struct Part {
    number: u32,
    kind: Kind,
}

enum Kind {
    /// One message; a second one, which a decoder would merge into the first, is refused.
    Message(&'static [Part]),
    /// A list of messages: what they are, how many, their parts.
    Messages(&'static str, usize, &'static [Part]),
    /// A list of byte strings: what they are, how many.
    Strings(&'static str, usize),
    /// A list of numbers, packed or one by one: what they are, how many.
    Numbers(&'static str, usize),
}

const fn message(number: u32, parts: &'static [Part]) -> Part {
    Part { number, kind: Kind::Message(parts) }
}

const fn messages(number: u32, what: &'static str, most: usize, parts: &'static [Part]) -> Part {
    Part { number, kind: Kind::Messages(what, most, parts) }
}

const fn strings(number: u32, what: &'static str, most: usize) -> Part {
    Part { number, kind: Kind::Strings(what, most) }
}

const fn numbers(number: u32, what: &'static str, most: usize) -> Part {
    Part { number, kind: Kind::Numbers(what, most) }
}

/// A message of plain fields.
const FLAT: &[Part] = &[];
const OBJECT: &[Part] = &[message(2, FLAT)];
const TEMPLATE: &[Part] = &[messages(1, "attributes in a template", bounds::TEMPLATE_ATTRIBUTES_MAX, FLAT)];
const MANIFEST: &[Part] = &[messages(6, "members", bounds::MEMBERS_MAX, FLAT)];
const BATCH: &[Part] = &[strings(1, "objects in a batch", bounds::BATCH_OBJECTS_MAX)];

/// The parts of the calls' messages, by the calls' numbers; a call that is not named has plain fields.
const CALLS: &[(u32, &[Part])] = &[
    (10, &[messages(2, "members seen", bounds::SEEN_MAX, FLAT)]),
    (13, &[message(2, FLAT), message(3, OBJECT)]),
    (14, &[message(2, FLAT), message(3, OBJECT), message(4, FLAT)]),
    (16, &[message(2, FLAT), messages(3, "templates", bounds::TEMPLATES_MAX, TEMPLATE), message(4, OBJECT)]),
    (18, BATCH),
    (19, BATCH),
    (20, &[message(1, TEMPLATE)]),
    (21, &[message(1, OBJECT), numbers(2, "attributes asked for", bounds::ATTRIBUTES_ASKED_MAX)]),
    (22, &[message(1, OBJECT), message(2, TEMPLATE), message(4, FLAT)]),
    (23, &[message(1, OBJECT)]),
    (24, &[message(2, MANIFEST)]),
    (26, &[numbers(1, "buckets", crate::digest_tree::BUCKETS as usize)]),
    (27, &[strings(1, "ouids", bounds::RECORDS_MAX)]),
    (28, &[messages(1, "records", bounds::RECORDS_MAX, FLAT)]),
];

fn parts(call: u32) -> &'static [Part] {
    CALLS.iter().find(|(number, _)| *number == call).map_or(FLAT, |(_, parts)| parts)
}

/// The one call of a request that is fit to be decoded.
pub(crate) struct Counted<'a> {
    pub(crate) row: &'static Row,
    /// The call's encoded message.
    pub(crate) call: &'a [u8],
}

/// Counts a request. Costs some ten microseconds for what is refused and less than one for what is usual, whatever the
/// length of its data.
pub(crate) fn count(body: &[u8]) -> Result<Counted<'_>, Refusal> {
    let (row, call) = one_call(body)?;
    if body.len() > row.body_bytes_max {
        return Err(Refusal::malformed(format!(
            "wanted at most {} bytes in a request for {}, found {}",
            row.body_bytes_max,
            row.name,
            body.len()
        )));
    }
    let mut left = FIELDS_MAX;
    walk(call, parts(row.number), &mut left)?;
    Ok(Counted { row, call })
}

/// The row and the encoded message of the one call in a request. A decoder merges calls or takes the last one; what is
/// counted, priced, logged and run must be one and the same, so several are refused.
pub(crate) fn one_call(body: &[u8]) -> Result<(&'static Row, &[u8]), Refusal> {
    let mut found = None;
    for (at, field) in fields(body).enumerate() {
        if at == OUTER_FIELDS_MAX {
            return Err(too_many(OUTER_FIELDS_MAX));
        }
        let Field::Bytes(number, call) = field? else { continue };
        let Some(row) = spec::calls::call(number) else { continue };
        if found.replace((row, call)).is_some() {
            return Err(Refusal::malformed("wanted one call in a request, found several"));
        }
    }
    found.ok_or_else(|| Refusal::malformed("wanted a call that this release knows, found none"))
}

/// Whether an encoded template, as the value of an attribute, is fit to be decoded.
pub(crate) fn is_template(bytes: &[u8]) -> bool {
    walk(bytes, TEMPLATE, &mut FIELDS_MAX.clone()).is_ok()
}

fn too_many(most: usize) -> Refusal {
    Refusal::malformed(format!("wanted at most {most} fields in a request, found more; split it"))
}

impl From<Unreadable> for Refusal {
    fn from(_: Unreadable) -> Self {
        Refusal::malformed("wanted an encoded request, found bytes that are none")
    }
}

/// Counts the parts of a message, and those of the messages in it.
fn walk(bytes: &[u8], parts: &'static [Part], left: &mut usize) -> Result<(), Refusal> {
    let mut found = [0_usize; 4];
    for field in fields(bytes) {
        *left = left.checked_sub(1).ok_or_else(|| too_many(FIELDS_MAX))?;
        let (number, inside) = match field? {
            Field::Bytes(number, inside) => (number, Some(inside)),
            Field::Number(number, _) => (number, None),
            Field::Other => continue,
        };
        let Some((at, part)) = parts.iter().enumerate().find(|(_, part)| part.number == number) else {
            continue;
        };
        let (what, most, more) = match part.kind {
            Kind::Message(_) => ("message of a kind", 1, 1),
            Kind::Messages(what, most, _) | Kind::Strings(what, most) => (what, most, 1),
            Kind::Numbers(what, most) => (what, most, inside.map_or(1, packed)),
        };
        found[at] += more;
        bounds::at_most(what, found[at], most)?;
        if let (Kind::Message(parts) | Kind::Messages(_, _, parts), Some(inside)) = (&part.kind, inside) {
            walk(inside, parts, left)?;
        }
    }
    Ok(())
}

/// How many numbers stand packed in these bytes: each ends with the one byte of it that has no high bit.
fn packed(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte < 0x80).count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use prost::Message;
    use spec::messages::{
        Call, ChangeManifest, Commit, Compare, Export, Find, GetAttributes, Join, Make, RequestBody,
        SealedRecord, SeenMember, SetAttributes, Status,
    };
    use spec::record::{Manifest, ManifestMember};
    use spec::{Attribute, Template};

    use super::*;

    fn verdict(call: Call) -> Result<(), String> {
        let body = RequestBody { group: vec![1; 16], generation: 1, ticket: vec![2; 99], call: Some(call) };
        count(&body.encode_to_vec()).map(drop).map_err(|refusal| refusal.text)
    }

    /// Each list of each call, so long.
    fn lists(kind: usize, items: usize) -> Call {
        let template = Template { attributes: vec![Attribute::default(); items] };
        match kind {
            0 => Call::Join(Join { records: vec![SealedRecord::default(); items], ..Join::default() }),
            1 => Call::Export(Export { ouids: vec![vec![]; items], ..Export::default() }),
            2 => Call::Commit(Commit { ouids: vec![vec![]; items], ..Commit::default() }),
            3 => Call::Compare(Compare { buckets: vec![300; items] }),
            4 => Call::GetAttributes(GetAttributes { numbers: vec![300; items], ..GetAttributes::default() }),
            5 => Call::Find(Find { template: Some(template), ..Find::default() }),
            6 => Call::SetAttributes(SetAttributes { template: Some(template), ..SetAttributes::default() }),
            7 => Call::Make(Make { templates: vec![template; 2], ..Make::default() }),
            8 => Call::Make(Make { templates: vec![Template::default(); items], ..Make::default() }),
            9 => Call::Status(Status { mechanisms: false, seen: vec![SeenMember::default(); items] }),
            _ => {
                let members = vec![ManifestMember::default(); items];
                let manifest = Some(Manifest { members, ..Manifest::default() });
                Call::ChangeManifest(ChangeManifest { manifest, ..ChangeManifest::default() })
            }
        }
    }

    #[test]
    fn every_list_has_its_bound_before_anything_is_decoded() {
        for (kind, most) in [1_000, 1_000, 16, 4_096, 256, 128, 128, 128, 2, 256, 64].into_iter().enumerate()
        {
            assert_eq!(verdict(lists(kind, most)), Ok(()), "{kind}");
            let refused = verdict(lists(kind, most + 1)).unwrap_err();
            assert!(refused.contains(&format!("at most {most}")), "{kind}: {refused}");
        }
    }

    /// A request of one call of these encoded fields.
    fn body(number: u32, call: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        prost::encoding::bytes::encode(number, &call.to_vec(), &mut body);
        body
    }

    #[test]
    fn millions_of_empty_items_are_refused_by_their_number_and_by_the_length_of_the_body() {
        let few = body(28, &b"\x0A\0".repeat(1_001));
        assert!(count(&few).err().unwrap().text.contains("at most 1000 records"));
        for number in [13, 18, 20, 21, 24, 27] {
            let long = count(&body(number, &b"\x0A\0".repeat(8 << 20))).err().unwrap();
            assert!(long.text.contains("bytes in a request for"), "{}", long.text);
        }
        let unknown = count(&body(14, &b"\xFA\x01\0".repeat(5 << 20))).err().unwrap();
        assert!(unknown.text.contains("at most 16384 fields"), "{}", unknown.text);
        let outside = [&b"\x0A\0".repeat(65)[..], &body(10, b"")].concat();
        assert!(count(&outside).err().unwrap().text.contains("at most 64 fields"));
    }

    #[test]
    fn unpacked_numbers_and_messages_that_would_be_merged_are_counted_too() {
        assert!(count(&body(21, &b"\x10\x01".repeat(256))).is_ok());
        assert!(count(&body(21, &b"\x10\x01".repeat(257))).is_err());
        let template = Template { attributes: vec![Attribute::default(); 100] }.encode_to_vec();
        let mut find = Vec::new();
        prost::encoding::bytes::encode(1, &template, &mut find);
        assert!(count(&body(20, &find)).is_ok());
        assert!(count(&body(20, &find.repeat(2))).is_err());
    }

    #[test]
    fn a_request_has_one_call_and_nothing_that_cannot_be_read() {
        assert_eq!(verdict(Call::Status(Status::default())), Ok(()));
        for bytes in
            [&b""[..], b"\x52\x7F", b"\x52\0\x52\0", b"\x52\0\x0B\x0C", b"\x52\x02\x0B\x0C", b"\xFA\x3F\0"]
        {
            assert!(count(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn lists_have_room_beside_each_other() {
        // `walk` keeps one count for each part of a message.
        assert!((0..64).all(|call| parts(call).len() <= 4));
    }
}
