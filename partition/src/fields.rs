//! The fields of an encoded message, one after another, without decoding it: what is counted and priced by.
use prost::encoding::decode_varint;

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    /// A number of up to 64 bits.
    Number(u32, u64),
    /// Bytes, a text, a message or packed numbers.
    Bytes(u32, &'a [u8]),
    /// A number of fixed length, which no message here has.
    Other,
}

/// The bytes are no message of fields that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// The fields of a message in their order; ends behind the first that cannot be read. Groups, which no message here has,
/// cannot be read: they would be skipped in more time than a field may take.
pub(crate) fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Result<Field<'_>, Unreadable>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let field = take(&mut bytes).ok_or(Unreadable);
        if field.is_err() {
            bytes = &[];
        }
        Some(field)
    })
}

/// The next field; `None` when it cannot be read.
pub(crate) fn take<'a>(bytes: &mut &'a [u8]) -> Option<Field<'a>> {
    let key = u32::try_from(varint(bytes)?).ok()?;
    // A field's number is not 0.
    let number = Some(key >> 3).filter(|number| *number > 0)?;
    let fixed = match key & 7 {
        0 => return Some(Field::Number(number, varint(bytes)?)),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (inside, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            return Some(Field::Bytes(number, inside));
        }
        1 => 8,
        5 => 4,
        _ => return None,
    };
    *bytes = bytes.get(fixed..)?;
    Some(Field::Other)
}

/// A number: of one byte, mostly.
#[inline]
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    match bytes.split_first() {
        Some((only, rest)) if *only < 0x80 => {
            *bytes = rest;
            Some(u64::from(*only))
        }
        _ => long_varint(bytes),
    }
}

/// A number of several bytes, by the codec.
#[inline(never)]
fn long_varint(bytes: &mut &[u8]) -> Option<u64> {
    decode_varint(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::encoding::{WireType, decode_key};

    use super::*;

    #[test]
    fn fields_are_read_one_by_one_until_one_cannot_be() {
        fn read(bytes: &[u8]) -> Vec<Result<Field<'_>, Unreadable>> {
            fields(bytes).collect()
        }
        let bytes = b"\x08\x96\x01\x12\x02hi\x1D\0\0\0\0\x21\0\0\0\0\0\0\0\0";
        let wanted = [Field::Number(1, 150), Field::Bytes(2, b"hi"), Field::Other, Field::Other];
        assert_eq!(read(bytes), wanted.map(Ok));
        for broken in [
            &b"\x12\x03hi"[..],
            b"\x08",
            b"\x1D\0\0\0",
            b"\x0B\x0C",
            b"\xFF",
            b"\x12\xFF\xFF\xFF\xFF\xFF\x7F",
        ] {
            let bytes = [b"\x08\x01", broken].concat();
            assert_eq!(read(&bytes), [Ok(Field::Number(1, 1)), Err(Unreadable)]);
        }
        assert_eq!(read(b""), []);
    }

    /// The next field as the library of the codec reads its parts.
    fn taken_by_prost<'a>(bytes: &mut &'a [u8]) -> Option<Field<'a>> {
        let (number, wire_type) = decode_key(bytes).ok()?;
        let length = match wire_type {
            WireType::Varint => return Some(Field::Number(number, decode_varint(bytes).ok()?)),
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => usize::try_from(decode_varint(bytes).ok()?).ok()?,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let (inside, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(if wire_type == WireType::LengthDelimited { Field::Bytes(number, inside) } else { Field::Other })
    }

    /// What both find in the bytes, field by field.
    fn compare(bytes: &[u8]) {
        let (mut ours, mut theirs) = (bytes, bytes);
        while !theirs.is_empty() {
            let found = take(&mut ours);
            assert_eq!(found, taken_by_prost(&mut theirs), "{bytes:?}");
            if found.is_none() {
                return;
            }
            assert_eq!(ours, theirs, "{bytes:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_field_is_what_the_codec_makes_of_the_same_bytes(
            keys in proptest::collection::vec((0..40_u8, any::<[u8; 4]>()), 1..8),
            long in 0..12_usize,
            last in any::<u8>(),
            rest in proptest::collection::vec(any::<u8>(), 0..24),
        ) {
            compare(&rest);
            let fields: Vec<u8> = keys.iter().flat_map(|(key, more)| [&[*key][..], &more[..]].concat()).collect();
            compare(&[&fields[..], &rest].concat());
            // Numbers of any length, overlong ones and too great ones among them, whole and cut off.
            for key in [&[8][..], &[18], &[]] {
                let number = [key, &vec![0x80 | (last >> 1); long], &[last]].concat();
                (0..=number.len()).for_each(|cut| compare(&number[..cut]));
                compare(&[&number[..], &rest].concat());
            }
        }
    }
}
