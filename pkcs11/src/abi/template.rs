//! Templates of the application: `CK_ATTRIBUTE` arrays in, canonical values out of this file ([`spec::value`]).

use cryptoki_sys::{CK_ATTRIBUTE, CK_BBOOL, CK_ULONG};
use prost::Message;
use spec::attributes::{Kind, kind_of};
use spec::messages::BODY_BYTES_MAX;
use spec::{Attribute, AttributeType, Rv, Template};
use zeroize::Zeroizing;

use super::convert::{ulong, wide};
use super::pointer::{Caller, as_bytes};

/// Most attributes in one template; the standard names 160.
pub(super) const ATTRIBUTES_MAX: usize = 1024;
/// How deep templates may stand in templates (WRAP_TEMPLATE and its like hold plain attributes).
pub(super) const DEPTH_MAX: usize = 1;

impl Caller {
    /// A template, parsed.
    ///
    /// # Errors
    /// `CKR_ARGUMENTS_BAD` for a NULL template or value with a length, or too many attributes;
    /// `CKR_ATTRIBUTE_VALUE_INVALID` for a value whose length its type cannot have.
    pub(super) fn template(&self, place: *mut CK_ATTRIBUTE, count: CK_ULONG) -> Result<Template, Rv> {
        self.template_at(place, count, 0)
    }

    fn template_at(&self, place: *mut CK_ATTRIBUTE, count: CK_ULONG, depth: usize) -> Result<Template, Rv> {
        let attributes = self.array(place, count, ATTRIBUTES_MAX)?;
        let parsed = attributes
            .iter()
            .map(|attribute| self.attribute(attribute, depth))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Template::from(parsed))
    }

    fn attribute(&self, attribute: &CK_ATTRIBUTE, depth: usize) -> Result<Attribute, Rv> {
        let number = AttributeType(wide(attribute.type_));
        let length = usize::try_from(attribute.ulValueLen).map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)?;
        if length > BODY_BYTES_MAX {
            return Err(Rv::ATTRIBUTE_VALUE_INVALID);
        }
        if kind_of(number) == Kind::Template {
            return self.nested(number, attribute, length, depth);
        }
        let value = self.bytes(as_bytes(attribute.pValue), attribute.ulValueLen)?;
        let canonical = match kind_of(number) {
            Kind::Bool => boolean(value)?,
            Kind::Ulong if value.len() == size_of::<CK_ULONG>() => numbers(value)?,
            Kind::Ulong => return Err(Rv::ATTRIBUTE_VALUE_INVALID),
            Kind::MechanismList => numbers(value)?,
            Kind::Template | Kind::Bytes | Kind::BigInteger | Kind::Text | Kind::Date => value.to_vec(),
        };
        Ok(Attribute::new(number, canonical))
    }

    fn nested(
        &self,
        number: AttributeType,
        attribute: &CK_ATTRIBUTE,
        length: usize,
        depth: usize,
    ) -> Result<Attribute, Rv> {
        if depth >= DEPTH_MAX || !length.is_multiple_of(size_of::<CK_ATTRIBUTE>()) {
            return Err(Rv::ATTRIBUTE_VALUE_INVALID);
        }
        let count = ulong(length.checked_div(size_of::<CK_ATTRIBUTE>()).unwrap_or(0));
        let inner = self.template_at(attribute.pValue.cast(), count, depth.saturating_add(1))?;
        Ok(Attribute::new(number, inner.encode_to_vec()))
    }
}

/// A canonical truth value.
fn boolean(value: &[u8]) -> Result<Vec<u8>, Rv> {
    const TRUE: CK_BBOOL = cryptoki_sys::CK_TRUE;
    const FALSE: CK_BBOOL = cryptoki_sys::CK_FALSE;
    match value {
        [FALSE] => Ok(vec![0]),
        [TRUE] => Ok(vec![1]),
        _ => Err(Rv::ATTRIBUTE_VALUE_INVALID),
    }
}

/// Canonical numbers from an array of `CK_ULONG`.
fn numbers(value: &[u8]) -> Result<Vec<u8>, Rv> {
    let (items, rest) = value.as_chunks::<{ size_of::<CK_ULONG>() }>();
    if !rest.is_empty() {
        return Err(Rv::ATTRIBUTE_VALUE_INVALID);
    }
    Ok(items.iter().flat_map(|item| wide(CK_ULONG::from_ne_bytes(*item)).to_le_bytes()).collect())
}

/// A canonical value as the bytes of its C form; nested templates have none of their own.
pub(super) fn c_bytes(kind: Kind, canonical: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match kind {
        Kind::Ulong | Kind::MechanismList => {
            let (items, _) = canonical.as_chunks::<8>();
            items.iter().flat_map(|item| ulong(u64::from_le_bytes(*item)).to_ne_bytes()).collect()
        }
        Kind::Bool | Kind::Bytes | Kind::BigInteger | Kind::Text | Kind::Date | Kind::Template => {
            canonical.to_vec()
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::ptr::null_mut;

    fn caller() -> Caller {
        // SAFETY: each test passes pointers into buffers of its own, with their lengths.
        unsafe { Caller::promised() }
    }

    fn attribute<T>(kind: AttributeType, value: &mut [T]) -> CK_ATTRIBUTE {
        CK_ATTRIBUTE {
            type_: ulong(kind.0),
            pValue: value.as_mut_ptr().cast(),
            ulValueLen: ulong(std::mem::size_of_val(value)),
        }
    }

    fn parse(attributes: &mut [CK_ATTRIBUTE]) -> Result<Template, Rv> {
        caller().template(attributes.as_mut_ptr(), ulong(attributes.len()))
    }

    #[test]
    fn values_become_canonical_by_their_kind() {
        let mut class: [CK_ULONG; 1] = [3];
        let mut mechanisms: [CK_ULONG; 2] = [1, 0x40];
        let mut label = *b"key";
        let mut token: [CK_BBOOL; 1] = [1];
        let parsed = parse(&mut [
            attribute(AttributeType::CLASS, &mut class),
            attribute(AttributeType::TOKEN, &mut token),
            attribute(AttributeType::LABEL, &mut label),
            attribute(AttributeType::ALLOWED_MECHANISMS, &mut mechanisms),
        ])
        .unwrap();
        assert_eq!(parsed.ulong(AttributeType::CLASS), Some(3));
        assert_eq!(parsed.bool(AttributeType::TOKEN), Some(true));
        assert_eq!(parsed.get(AttributeType::LABEL), Some(&b"key"[..]));
        let list = parsed.get(AttributeType::ALLOWED_MECHANISMS).and_then(spec::value::as_ulong_list);
        assert_eq!(list, Some(vec![1, 0x40]));
    }

    #[test]
    fn lengths_that_a_type_cannot_have_are_refused() {
        let mut byte = [1_u8];
        let mut two = [1_u8, 0];
        let mut untrue = [2_u8];
        for wrong in [
            attribute(AttributeType::CLASS, &mut byte),
            attribute(AttributeType::TOKEN, &mut two),
            attribute(AttributeType::TOKEN, &mut untrue),
            attribute(AttributeType::ALLOWED_MECHANISMS, &mut byte),
            attribute(AttributeType::WRAP_TEMPLATE, &mut byte),
            CK_ATTRIBUTE { ulValueLen: CK_ULONG::MAX, ..attribute(AttributeType::LABEL, &mut byte) },
        ] {
            assert_eq!(parse(&mut [wrong]), Err(Rv::ATTRIBUTE_VALUE_INVALID));
        }
    }

    #[test]
    fn null_values_and_templates_need_a_length_of_zero() {
        let null = |length| CK_ATTRIBUTE {
            type_: ulong(AttributeType::LABEL.0),
            pValue: null_mut(),
            ulValueLen: length,
        };
        assert_eq!(parse(&mut [null(0)]).unwrap().get(AttributeType::LABEL), Some(&[][..]));
        assert_eq!(parse(&mut [null(1)]), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(caller().template(null_mut(), 0).unwrap().attributes.len(), 0);
        assert_eq!(caller().template(null_mut(), 1), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(caller().template(std::ptr::dangling_mut(), CK_ULONG::MAX), Err(Rv::ARGUMENTS_BAD));
    }

    #[test]
    fn templates_in_templates_are_parsed_one_deep() {
        let mut token: [CK_BBOOL; 1] = [1];
        let mut inner = [attribute(AttributeType::TOKEN, &mut token)];
        let parsed = parse(&mut [attribute(AttributeType::UNWRAP_TEMPLATE, &mut inner)]).unwrap();
        let decoded = Template::decode(parsed.get(AttributeType::UNWRAP_TEMPLATE).unwrap()).unwrap();
        assert_eq!(decoded.bool(AttributeType::TOKEN), Some(true));
        let mut middle = [attribute(AttributeType::UNWRAP_TEMPLATE, &mut inner)];
        let outer = attribute(AttributeType::UNWRAP_TEMPLATE, &mut middle);
        assert_eq!(parse(&mut [outer]), Err(Rv::ATTRIBUTE_VALUE_INVALID));
    }

    #[test]
    fn canonical_numbers_return_to_the_width_of_c() {
        let canonical = [5_u64, u64::MAX].map(u64::to_le_bytes).concat();
        let c = c_bytes(Kind::MechanismList, &canonical);
        assert_eq!(c.as_slice(), [5, CK_ULONG::MAX].map(CK_ULONG::to_ne_bytes).concat());
        assert_eq!(c_bytes(Kind::Bool, &[1]).as_slice(), [1]);
    }
}
