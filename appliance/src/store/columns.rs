//! The keys of a store as bytes in columns.
use partition::store::Key;
use spec::record::Ouid;

const RECORD: u8 = 1;
const MANIFEST: u8 = 2;
const CREDENTIALS: u8 = 3;
const META: u8 = 4;

/// The least and the greatest bytes of any record's key are behind the first and before the second of these.
pub(crate) const RECORDS: ([u8; 1], [u8; 1]) = ([RECORD], [RECORD + 1]);

/// A key as bytes: records in the order of their ouids.
pub(crate) fn encode(key: &Key) -> Vec<u8> {
    match key {
        Key::Record(ouid) => [&[RECORD], ouid.0.as_slice()].concat(),
        Key::Manifest => vec![MANIFEST],
        Key::Credentials => vec![CREDENTIALS],
        Key::Meta(name) => [&[META], name.as_bytes()].concat(),
    }
}

/// The key of some bytes; `None` when they are none.
pub(crate) fn decode(bytes: &[u8]) -> Option<Key> {
    let (kind, rest) = bytes.split_first()?;
    match *kind {
        RECORD => Ouid::from_bytes(rest).map(Key::Record),
        MANIFEST if rest.is_empty() => Some(Key::Manifest),
        CREDENTIALS if rest.is_empty() => Some(Key::Credentials),
        META => String::from_utf8(rest.to_vec()).ok().map(Key::Meta),
        _ => None,
    }
}

/// Several keys as bytes, each behind its length.
pub(crate) fn encode_list<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<u8> {
    let mut list = Vec::new();
    for key in keys {
        let bytes = encode(key);
        list.extend_from_slice(&u32::try_from(bytes.len()).expect("a key is a short name").to_be_bytes());
        list.extend_from_slice(&bytes);
    }
    list
}

/// The keys of a list; `None` when the bytes are none.
pub(crate) fn decode_list(mut bytes: &[u8]) -> Option<Vec<Key>> {
    let mut keys = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        keys.push(decode(key)?);
        bytes = rest;
    }
    Some(keys)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_round_trip_and_damage_is_seen() {
        let keys = [Key::Record(Ouid([7; 16])), Key::Manifest, Key::Credentials, Key::Meta("name".into())];
        for key in &keys {
            assert_eq!(decode(&encode(key)).as_ref(), Some(key));
        }
        let list = encode_list(keys.iter());
        assert_eq!(decode_list(&list).unwrap(), keys);
        assert!(decode_list(&list[..list.len() - 1]).is_none());
        assert!(decode(&[]).is_none() && decode(&[9]).is_none() && decode(&[1, 2]).is_none());
    }

    #[test]
    fn records_sort_by_ouid_between_their_bounds() {
        let low = encode(&Key::Record(Ouid([0; 16])));
        let high = encode(&Key::Record(Ouid([255; 16])));
        assert!(
            RECORDS.0.as_slice() < low.as_slice() && low < high && high.as_slice() < RECORDS.1.as_slice()
        );
        assert!(encode(&Key::Manifest).as_slice() >= RECORDS.1.as_slice());
    }
}
