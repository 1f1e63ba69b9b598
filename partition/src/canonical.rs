//! Stored records read where they lie: what stands in the one form that this release writes is taken without a second look,
//! its encoding is known to be the bytes themselves, and nothing of it is copied twice. Anything else goes through the decoder.
//!
//! ```text
//! fields in ascending order, each number in its shortest form, none that is left out when it is nothing -> Record
//! anything else, and records in quarantine                                                              -> None
//! ```
use prost::encoding::{decode_varint, encoded_len_varint};
use spec::record::{Record, Stamp, Stamped, State};
use spec::{Attribute, Template};

/// A `SealedRecord` where it lies.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sealed<'a> {
    pub(crate) ouid: &'a [u8],
    pub(crate) maker: u64,
    pub(crate) envelope: &'a [u8],
}

/// What a field holds.
#[derive(Clone, Copy)]
enum Piece<'a> {
    /// A number other than 0.
    Number(u64),
    Bytes(&'a [u8]),
}

use Piece::{Bytes, Number};

/// The fields of a message, for all of which `take` has a use; only those of number `many` may stand several times.
fn each<'a>(mut bytes: &'a [u8], many: u8, mut take: impl FnMut(u8, Piece<'a>) -> Option<()>) -> Option<()> {
    let mut last = 0;
    while let Some((key, rest)) = bytes.split_first() {
        bytes = rest;
        let number = key >> 3;
        if *key >= 0x80 || number < last || (number == last && number != many) {
            return None;
        }
        last = number;
        let before = bytes.len();
        let value = decode_varint(&mut bytes).ok()?;
        if before - bytes.len() != encoded_len_varint(value) {
            return None;
        }
        match key & 7 {
            0 if value != 0 => take(number, Number(value))?,
            2 => {
                let (inside, rest) = bytes.split_at_checked(usize::try_from(value).ok()?)?;
                bytes = rest;
                take(number, Bytes(inside))?;
            }
            _ => return None,
        }
    }
    Some(())
}

/// How many fields of number `many` a message has.
fn count(bytes: &[u8], many: u8) -> Option<usize> {
    let mut count = 0;
    each(bytes, many, |number, _| {
        count += usize::from(number == many);
        Some(())
    })?;
    Some(count)
}

/// Bytes that are left out when there are none.
fn some(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

/// A sealed record; `None` when it does not stand in that form.
pub(crate) fn sealed(bytes: &[u8]) -> Option<Sealed<'_>> {
    let mut sealed = Sealed::default();
    each(bytes, 0, |number, piece| {
        match (number, piece) {
            (1, Bytes(ouid)) => sealed.ouid = ouid,
            (2, Number(maker)) => sealed.maker = maker,
            (3, Bytes(envelope)) => sealed.envelope = envelope,
            _ => return None,
        }
        Some(())
    })?;
    Some(sealed)
}

/// A record whose encoding is `bytes`; `None` when that is not sure.
pub(crate) fn record(bytes: &[u8]) -> Option<Record> {
    let mut record = Record::default();
    record.changeable.reserve_exact(count(bytes, 7)?);
    each(bytes, 7, |number, piece| {
        match (number, piece) {
            (1, Number(format)) => record.format = u32::try_from(format).ok()?,
            (2, Bytes(ouid)) => record.ouid = some(ouid)?.to_vec(),
            (3, Number(state)) => record.state = State::try_from(i32::try_from(state).ok()?).ok()? as i32,
            (4, Bytes(core)) => record.core = Some(template(core)?),
            (5, Bytes(created)) => record.created = Some(stamp(created)?),
            (6, Number(maker)) => record.maker = maker,
            (7, Bytes(item)) => record.changeable.push(stamped(item)?),
            (8, Number(floor)) => record.floor = floor,
            _ => return None,
        }
        Some(())
    })?;
    Some(record)
}

fn template(bytes: &[u8]) -> Option<Template> {
    let mut attributes = Vec::with_capacity(count(bytes, 1)?);
    each(bytes, 1, |number, piece| {
        let (1, Bytes(inside)) = (number, piece) else { return None };
        attributes.push(attribute(inside)?);
        Some(())
    })?;
    Some(Template { attributes })
}

fn attribute(bytes: &[u8]) -> Option<Attribute> {
    let mut attribute = Attribute::default();
    each(bytes, 0, |number, piece| {
        match (number, piece) {
            (1, Number(kind)) => attribute.number = kind,
            (2, Bytes(value)) => attribute.value = some(value)?.to_vec(),
            _ => return None,
        }
        Some(())
    })?;
    Some(attribute)
}

fn stamp(bytes: &[u8]) -> Option<Stamp> {
    let mut stamp = Stamp::default();
    each(bytes, 0, |number, piece| {
        match (number, piece) {
            (1, Number(ms)) => stamp.ms = ms,
            (2, Number(counter)) => stamp.counter = u32::try_from(counter).ok()?,
            (3, Number(incarnation)) => stamp.incarnation = incarnation,
            _ => return None,
        }
        Some(())
    })?;
    Some(stamp)
}

fn stamped(bytes: &[u8]) -> Option<Stamped> {
    let mut stamped = Stamped::default();
    each(bytes, 0, |number, piece| {
        match (number, piece) {
            (1, Bytes(inside)) => stamped.attribute = Some(attribute(inside)?),
            (2, Bytes(inside)) => stamped.stamp = Some(stamp(inside)?),
            _ => return None,
        }
        Some(())
    })?;
    Some(stamped)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use spec::messages::SealedRecord;

    use super::*;

    /// Numbers of all lengths, and 0 often.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), 0..300_u64, any::<u64>()]
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![Just(vec![]), proptest::collection::vec(any::<u8>(), 0..200)]
    }

    fn attributes() -> impl Strategy<Value = Vec<Attribute>> {
        proptest::collection::vec((number(), bytes()), 0..6)
            .prop_map(|all| all.into_iter().map(|(number, value)| Attribute { number, value }).collect())
    }

    fn stamps() -> impl Strategy<Value = Option<Stamp>> {
        proptest::option::of((number(), any::<u32>(), number())).prop_map(|stamp| {
            stamp.map(|(ms, counter, incarnation)| Stamp { ms, counter: counter % 3, incarnation })
        })
    }

    fn records() -> impl Strategy<Value = Record> {
        let core = proptest::option::of(attributes());
        let changeable = proptest::collection::vec((proptest::option::of(attributes()), stamps()), 0..5);
        (0..3_u32, bytes(), 0..3_i32, core, stamps(), number(), changeable, number()).prop_map(
            |(format, ouid, state, core, created, maker, changeable, floor)| Record {
                format,
                ouid,
                state,
                core: core.map(Template::from),
                created,
                maker,
                changeable: changeable
                    .into_iter()
                    .map(|(attributes, stamp)| Stamped {
                        attribute: attributes.and_then(|mut all| all.pop()),
                        stamp,
                    })
                    .collect(),
                floor,
                ..Record::default()
            },
        )
    }

    /// What is read is what the decoder reads, and would be written as it stood.
    fn check(bytes: &[u8]) -> bool {
        let Some(read) = record(bytes) else { return false };
        assert!(read.encode_to_vec() == bytes);
        assert!(Record::decode(bytes).unwrap() == read);
        true
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_record_as_releases_write_it_is_read_where_it_lies(record in records()) {
            prop_assert!(check(&record.encode_to_vec()));
        }

        #[test]
        fn what_is_read_after_any_damage_would_be_written_as_it_stands(
            record in records(),
            at in any::<prop::sample::Index>(),
            with in any::<u8>(),
            kind in 0..3_u8,
        ) {
            let mut bytes = record.encode_to_vec();
            bytes.push(0);
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = with,
                1 => bytes.insert(at, with),
                _ => drop(bytes.remove(at)),
            }
            check(&bytes);
        }

        #[test]
        fn sealed_records_are_read_as_a_decoder_reads_them(ouid in bytes(), maker in number(), envelope in bytes()) {
            let message = SealedRecord { ouid, maker, envelope };
            let bytes = message.encode_to_vec();
            let read = sealed(&bytes).unwrap();
            prop_assert_eq!((read.ouid, read.maker, read.envelope), (&message.ouid[..], maker, &message.envelope[..]));
        }
    }

    #[test]
    fn other_forms_of_the_same_record_go_through_the_decoder() {
        let plain = Record { format: 1, ouid: vec![7; 16], state: 1, maker: 5, ..Record::default() };
        let bytes = plain.encode_to_vec();
        assert!(check(&bytes));
        let others: [&[u8]; 5] = [b"\x40\0", b"\x38\x05", b"\x40\x85\0", b"\x7A\x01x", b"\x48\x01"];
        for more in others {
            assert!(!check(&[&bytes, more].concat()), "{more:?}");
        }
        assert!(record(&[&b"\x30\x05"[..], &bytes].concat()).is_none(), "not in ascending order");
        assert!(record(b"\x08\x81\0").is_none(), "a longer number than need be");
        assert!(sealed(b"\x10\x01\x0A\x01x").is_none() && sealed(b"\x10\0").is_none());
    }
}
