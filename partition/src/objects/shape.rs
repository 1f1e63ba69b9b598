//! The shapes of attribute values: what a canonical value of each kind looks like (PKCS #11 v3.1, 4 and 3).
use prost::Message;
use spec::attributes::{Kind, kind_of};
use spec::{Attribute, Rv, Template, value};

use crate::census;

/// Checks a value's shape; CKR_ATTRIBUTE_VALUE_INVALID for another.
pub(super) fn check(attribute: &Attribute) -> Result<(), Rv> {
    let bytes = attribute.value.as_slice();
    let right = match kind_of(attribute.kind()) {
        Kind::Bool => value::as_bool(bytes).is_some(),
        Kind::Ulong => value::as_ulong(bytes).is_some(),
        Kind::MechanismList => value::as_ulong_list(bytes).is_some(),
        Kind::Date => is_date(bytes),
        Kind::Template => is_template(bytes),
        Kind::Bytes | Kind::BigInteger | Kind::Text => true,
    };
    if right { Ok(()) } else { Err(Rv::ATTRIBUTE_VALUE_INVALID) }
}

/// Empty, or `YYYYMMDD` with a month and a day that exist in some year.
fn is_date(bytes: &[u8]) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let number = |digits: &[u8]| {
        digits
            .iter()
            .try_fold(0_u32, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0')))
    };
    bytes.len() == 8
        && number(&bytes[..4]).is_some()
        && number(&bytes[4..6]).is_some_and(|month| (1..=12).contains(&month))
        && number(&bytes[6..]).is_some_and(|day| (1..=31).contains(&day))
}

/// A nested template of well-shaped attributes that are no templates themselves.
fn is_template(bytes: &[u8]) -> bool {
    let flat =
        |attribute: &Attribute| kind_of(attribute.kind()) != Kind::Template && check(attribute).is_ok();
    census::is_template(bytes)
        && Template::decode(bytes).is_ok_and(|template| template.attributes.iter().all(flat))
}

#[cfg(test)]
mod tests {
    use spec::AttributeType as A;

    use super::*;

    #[test]
    fn each_kind_takes_its_shape_and_refuses_others() {
        let nested = Template::from(vec![Attribute::bool(A::SENSITIVE, true)]).encode_to_vec();
        let deeper = Template::from(vec![Attribute::new(A::WRAP_TEMPLATE, nested.clone())]).encode_to_vec();
        let rows: [(A, &[u8], bool); 14] = [
            (A::TOKEN, &[1], true),
            (A::TOKEN, &[2], false),
            (A::TOKEN, &[], false),
            (A::CLASS, &[0; 8], true),
            (A::CLASS, &[0; 4], false),
            (A::START_DATE, b"", true),
            (A::START_DATE, b"20261122", true),
            (A::START_DATE, b"20261322", false),
            (A::START_DATE, b"2026-1-2", false),
            (A::ALLOWED_MECHANISMS, &[0; 24], true),
            (A::ALLOWED_MECHANISMS, &[0; 12], false),
            (A::LABEL, b"any \xFF bytes", true),
            (A::WRAP_TEMPLATE, &nested, true),
            (A::WRAP_TEMPLATE, &deeper, false),
        ];
        for (kind, bytes, right) in rows {
            assert_eq!(check(&Attribute::new(kind, bytes)).is_ok(), right, "{kind} {bytes:?}");
        }
    }
}
