//! Attribute values and templates as they travel: canonical bytes, zeroized when dropped.
//!
//! Canonical forms (the C boundary converts): a `CK_BBOOL` is one byte 0 or 1; a `CK_ULONG` is eight bytes
//! little-endian whatever the platform; an array of `CK_ULONG` is such eight-byte items in a row; a nested template
//! is an encoded [`Template`]; everything else is the standard's bytes.
use std::fmt;

use crate::numbers::AttributeType;

/// One attribute: its type and its canonical value (PKCS #11 v3.1, 3.5). Wiped when dropped; `Debug` shows the
/// length only.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Attribute {
    /// The attribute's number (`CKA_*`).
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The canonical value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl Attribute {
    /// An attribute with a canonical value.
    pub fn new(kind: AttributeType, value: impl Into<Vec<u8>>) -> Self {
        Self { number: kind.0, value: value.into() }
    }

    /// A `CK_BBOOL` attribute.
    pub fn bool(kind: AttributeType, value: bool) -> Self {
        Self::new(kind, vec![u8::from(value)])
    }

    /// A `CK_ULONG` attribute.
    pub fn ulong(kind: AttributeType, value: u64) -> Self {
        Self::new(kind, value.to_le_bytes().to_vec())
    }

    /// The attribute's type.
    pub fn kind(&self) -> AttributeType {
        AttributeType(self.number)
    }
}

impl Drop for Attribute {
    fn drop(&mut self) {
        crate::wipe::wipe_memory(&mut self.value);
    }
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}[{} bytes]", self.kind(), self.value.len())
    }
}

/// A list of attributes in the caller's order (PKCS #11 v3.1, 4.1).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Template {
    /// The attributes.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<Attribute>,
}

impl Template {
    /// The canonical value of the first attribute of this type.
    pub fn get(&self, kind: AttributeType) -> Option<&[u8]> {
        self.attributes.iter().find(|a| a.number == kind.0).map(|a| a.value.as_slice())
    }

    /// The value as `CK_BBOOL`; `None` when absent or not one byte of 0 or 1.
    pub fn bool(&self, kind: AttributeType) -> Option<bool> {
        as_bool(self.get(kind)?)
    }

    /// The value as `CK_ULONG`; `None` when absent or not eight bytes.
    pub fn ulong(&self, kind: AttributeType) -> Option<u64> {
        as_ulong(self.get(kind)?)
    }
}

impl From<Vec<Attribute>> for Template {
    fn from(attributes: Vec<Attribute>) -> Self {
        Self { attributes }
    }
}

/// A canonical value read as `CK_BBOOL`; `None` unless it is one byte of 0 or 1.
pub fn as_bool(value: &[u8]) -> Option<bool> {
    match value {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

/// A canonical value read as `CK_ULONG`; `None` unless it is eight bytes.
pub fn as_ulong(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes)
}

/// A canonical value read as an array of `CK_ULONG`; `None` unless its length is a multiple of eight bytes.
pub fn as_ulong_list(value: &[u8]) -> Option<Vec<u64>> {
    let items = value.chunks_exact(8);
    if !items.remainder().is_empty() {
        return None;
    }
    items.map(as_ulong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms_are_read_back_and_other_lengths_refused() {
        let template = Template::from(vec![
            Attribute::bool(AttributeType::TOKEN, true),
            Attribute::ulong(AttributeType::CLASS, 3),
        ]);
        assert_eq!(template.bool(AttributeType::TOKEN), Some(true));
        assert_eq!(template.ulong(AttributeType::CLASS), Some(3));
        assert_eq!(template.ulong(AttributeType::TOKEN), None);
        assert_eq!(as_bool(&[2]), None);
        assert_eq!(as_ulong_list(&[0; 12]), None);
        assert_eq!(as_ulong_list(&[0; 16]), Some(vec![0, 0]));
    }

    #[test]
    fn debug_never_shows_a_value() {
        let attribute = Attribute::new(AttributeType::VALUE, b"secret".to_vec());
        assert!(!format!("{attribute:?}").contains("secret"));
        assert!(format!("{attribute:?}").contains("6 bytes"));
    }
}
