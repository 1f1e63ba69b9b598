//! The answer of `C_GetAttributeValue`: each attribute is treated by itself, and what is known is filled in even when
//! another is refused (PKCS #11 v3.1, 5.7.5).

use client::{AttributeResult, Entered, Error, Module};
use cryptoki_sys::{CK_ATTRIBUTE, CK_ULONG, CK_UNAVAILABLE_INFORMATION};
use prost::Message;
use spec::attributes::{Kind, kind_of};
use spec::{AttributeType, HandleObject, HandleSession, Rv, Template};

use super::convert::{ulong, wide};
use super::pointer::{Caller, as_bytes, element};
use super::template::{ATTRIBUTES_MAX, c_bytes};

/// Asks for the attributes that the template names and fills it.
///
/// # Errors
/// `CKR_ARGUMENTS_BAD` for a NULL template with a count; those of the module; the first attribute's refusal.
pub(super) fn get(
    caller: &Caller,
    module: &Module<Entered>,
    session: HandleSession,
    object: HandleObject,
    place: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> Result<(), Error> {
    let asked = caller.array(place, count, ATTRIBUTES_MAX)?;
    let types: Vec<_> = asked.iter().map(|attribute| AttributeType(wide(attribute.type_))).collect();
    let found = module.get_attributes(session, object, &types)?;
    if found.len() != asked.len() {
        return Err(Error::Protocol(format!(
            "{} attributes were asked for, {} came",
            asked.len(),
            found.len()
        )));
    }
    Ok(fill(caller, place, &asked, &found)?)
}

/// Fills a template with what was found; the first refusal is the answer, after all are done.
fn fill(
    caller: &Caller,
    place: *mut CK_ATTRIBUTE,
    asked: &[CK_ATTRIBUTE],
    found: &[AttributeResult],
) -> Result<(), Rv> {
    let mut answer = Ok(());
    for (index, (attribute, value)) in asked.iter().zip(found).enumerate() {
        let placed = match value {
            Ok(canonical) => put(caller, attribute, canonical),
            Err(rv) => Err(*rv),
        };
        let length = *placed.as_ref().unwrap_or(&CK_UNAVAILABLE_INFORMATION);
        caller.target(element(place, index))?.set(CK_ATTRIBUTE { ulValueLen: length, ..*attribute });
        answer = answer.and(placed.map(|_| ()));
    }
    answer
}

/// Puts one value into the application's buffer, if there is one; gives the exact length in C.
fn put(caller: &Caller, attribute: &CK_ATTRIBUTE, canonical: &[u8]) -> Result<CK_ULONG, Rv> {
    let kind = kind_of(AttributeType(wide(attribute.type_)));
    if kind == Kind::Template {
        return put_template(caller, attribute, canonical);
    }
    let bytes = c_bytes(kind, canonical);
    let length = ulong(bytes.len());
    if attribute.pValue.is_null() {
        return Ok(length);
    }
    if attribute.ulValueLen < length {
        return Err(Rv::BUFFER_TOO_SMALL);
    }
    caller.copy_out(as_bytes(attribute.pValue), bytes.len(), &bytes)?;
    Ok(length)
}

/// Puts a nested template: the application gives an array of `CK_ATTRIBUTE`, each with a buffer of its own.
fn put_template(caller: &Caller, attribute: &CK_ATTRIBUTE, canonical: &[u8]) -> Result<CK_ULONG, Rv> {
    let template = Template::decode(canonical).map_err(|_| Rv::GENERAL_ERROR)?;
    let length = ulong(template.attributes.len().saturating_mul(size_of::<CK_ATTRIBUTE>()));
    if attribute.pValue.is_null() {
        return Ok(length);
    }
    if attribute.ulValueLen < length {
        return Err(Rv::BUFFER_TOO_SMALL);
    }
    let place = attribute.pValue.cast::<CK_ATTRIBUTE>();
    let room = caller.array(place, ulong(template.attributes.len()), ATTRIBUTES_MAX)?;
    for (index, (inner, given)) in template.attributes.iter().zip(room).enumerate() {
        if kind_of(inner.kind()) == Kind::Template {
            return Err(Rv::GENERAL_ERROR);
        }
        let named = CK_ATTRIBUTE { type_: ulong(inner.number), ..given };
        let placed = put(caller, &named, &inner.value);
        let inner_length = *placed.as_ref().unwrap_or(&CK_UNAVAILABLE_INFORMATION);
        caller.target(element(place, index))?.set(CK_ATTRIBUTE { ulValueLen: inner_length, ..named });
        placed?;
    }
    Ok(length)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use spec::Attribute;
    use std::ptr::null_mut;
    use zeroize::Zeroizing;

    fn caller() -> Caller {
        // SAFETY: each test passes pointers into buffers of its own, with their lengths.
        unsafe { Caller::promised() }
    }

    fn asked(kind: AttributeType, buffer: &mut [u8]) -> CK_ATTRIBUTE {
        CK_ATTRIBUTE {
            type_: ulong(kind.0),
            pValue: buffer.as_mut_ptr().cast(),
            ulValueLen: ulong(buffer.len()),
        }
    }

    fn found(canonical: &[u8]) -> AttributeResult {
        Ok(Zeroizing::new(canonical.to_vec()))
    }

    fn run(template: &mut [CK_ATTRIBUTE], results: &[AttributeResult]) -> Result<(), Rv> {
        let copy = template.to_vec();
        fill(&caller(), template.as_mut_ptr(), &copy, results)
    }

    #[test]
    fn known_attributes_are_filled_beside_refused_ones() {
        let (mut label, mut value, mut class) = ([0_u8; 5], [0_u8; 8], [0_u8; size_of::<CK_ULONG>()]);
        let mut template = [
            asked(AttributeType::LABEL, &mut label),
            asked(AttributeType::VALUE, &mut value),
            asked(AttributeType::MODULUS, &mut []),
            asked(AttributeType::CLASS, &mut class),
        ];
        let results = [
            found(b"key"),
            Err(Rv::ATTRIBUTE_SENSITIVE),
            Err(Rv::ATTRIBUTE_TYPE_INVALID),
            found(&3_u64.to_le_bytes()),
        ];
        assert_eq!(run(&mut template, &results), Err(Rv::ATTRIBUTE_SENSITIVE));
        let lengths = template.map(|attribute| attribute.ulValueLen);
        let ulong_bytes = ulong(size_of::<CK_ULONG>());
        assert_eq!(lengths, [3, CK_UNAVAILABLE_INFORMATION, CK_UNAVAILABLE_INFORMATION, ulong_bytes]);
        assert_eq!((&label[..3], value), (&b"key"[..], [0; 8]));
        assert_eq!(CK_ULONG::from_ne_bytes(class), 3);
    }

    #[test]
    fn a_null_buffer_asks_and_a_short_one_is_marked() {
        let mut short = [0_u8; 2];
        let mut exact = [0_u8; 3];
        let mut template = [
            CK_ATTRIBUTE { type_: ulong(AttributeType::LABEL.0), pValue: null_mut(), ulValueLen: 0 },
            asked(AttributeType::LABEL, &mut short),
            asked(AttributeType::LABEL, &mut exact),
        ];
        let results = [found(b"key"), found(b"key"), found(b"key")];
        assert_eq!(run(&mut template, &results), Err(Rv::BUFFER_TOO_SMALL));
        assert_eq!(template.map(|attribute| attribute.ulValueLen), [3, CK_UNAVAILABLE_INFORMATION, 3]);
        assert_eq!((short, exact), ([0; 2], *b"key"));
    }

    #[test]
    fn nested_templates_are_asked_then_filled() {
        let inner = Template::from(vec![
            Attribute::bool(AttributeType::TOKEN, true),
            Attribute::new(AttributeType::LABEL, b"key".to_vec()),
        ]);
        let results = [found(&inner.encode_to_vec())];
        let type_ = ulong(AttributeType::UNWRAP_TEMPLATE.0);
        let mut outer = [CK_ATTRIBUTE { type_, pValue: null_mut(), ulValueLen: 0 }];
        run(&mut outer, &results).unwrap();
        assert_eq!(outer[0].ulValueLen, ulong(2 * size_of::<CK_ATTRIBUTE>()));
        let (mut token, mut label) = ([9_u8; 1], [0_u8; 3]);
        let mut places = [asked(AttributeType::CLASS, &mut token), asked(AttributeType::CLASS, &mut label)];
        outer[0].pValue = places.as_mut_ptr().cast();
        run(&mut outer, &results).unwrap();
        assert_eq!(
            places.map(|place| place.type_),
            [AttributeType::TOKEN.0, AttributeType::LABEL.0].map(ulong)
        );
        assert_eq!((token, label), ([1], *b"key"));
        outer[0].ulValueLen = ulong(size_of::<CK_ATTRIBUTE>());
        assert_eq!(run(&mut outer, &results), Err(Rv::BUFFER_TOO_SMALL));
    }
}
