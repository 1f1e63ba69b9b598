//! The fields of an encoded message, one after another, without decoding it: what is counted and priced by.
use prost::encoding::{WireType, decode_key, decode_varint};

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

fn take<'a>(bytes: &mut &'a [u8]) -> Option<Field<'a>> {
    let (number, wire_type) = decode_key(bytes).ok()?;
    let mut skip = |length: usize| {
        let (inside, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(inside)
    };
    match wire_type {
        WireType::Varint => Some(Field::Number(number, decode_varint(bytes).ok()?)),
        WireType::ThirtyTwoBit => skip(4).map(|_| Field::Other),
        WireType::SixtyFourBit => skip(8).map(|_| Field::Other),
        WireType::LengthDelimited => {
            let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
            let (inside, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Some(Field::Bytes(number, inside))
        }
        WireType::StartGroup | WireType::EndGroup => None,
    }
}

#[cfg(test)]
mod tests {
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
}
