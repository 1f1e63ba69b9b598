//! From a caller's template to a whole object: presence, shapes, defaults and what the token computes
//! (PKCS #11 v3.1, table 13 and 4.1).
use spec::attributes::join_of;
use spec::classes::{self, DefaultValue, Presence, Way};
use spec::numbers::UNAVAILABLE_INFORMATION;
use spec::record::{Ouid, RECORD_FORMAT, Record, Stamp, Stamped, State};
use spec::{
    Attribute, AttributeType as A, CertificateType, KeyType, MechanismType, ObjectClass, Rv, Template,
};

use super::shape;
use crate::engine;
use crate::mechanisms::KeyMaterial;

/// What is to be made, read from the caller's template once.
pub(super) struct Intent<'a> {
    pub(super) way: Way,
    pub(super) class: ObjectClass,
    pub(super) key_type: Option<KeyType>,
    rows: &'static [classes::Row],
    given: &'a Template,
}

impl<'a> Intent<'a> {
    /// Checks a template against the rows of its class. `class` and `key_type` are those that the way of making
    /// implies; the template must agree where it names them.
    pub(super) fn read(
        way: Way,
        class: Option<ObjectClass>,
        key_type: Option<KeyType>,
        given: &'a Template,
    ) -> Result<Self, Rv> {
        let class = agreed(class.map(|class| class.0), given, A::CLASS)?.ok_or(Rv::TEMPLATE_INCOMPLETE)?;
        let class = ObjectClass(class);
        let key_type = if classes::is_key(class) {
            let agreed = agreed(key_type.map(|key_type| key_type.0), given, A::KEY_TYPE)?;
            Some(KeyType(agreed.ok_or(Rv::TEMPLATE_INCOMPLETE)?))
        } else {
            None
        };
        let rows = classes::rows(class, key_type).ok_or(Rv::ATTRIBUTE_VALUE_INVALID)?;
        let intent = Self { way, class, key_type, rows, given };
        intent.check()?;
        Ok(intent)
    }

    fn check(&self) -> Result<(), Rv> {
        for (at, attribute) in self.given.attributes.iter().enumerate() {
            let row = self.rows.iter().find(|row| row.attribute == attribute.kind());
            let row = row.ok_or(Rv::ATTRIBUTE_TYPE_INVALID)?;
            shape::check(attribute)?;
            let repeated = self.given.attributes[..at].iter().any(|before| before.number == attribute.number);
            if repeated || row.presence(self.way) == Presence::Forbidden {
                return Err(Rv::TEMPLATE_INCONSISTENT);
            }
        }
        let missing = self.rows.iter().any(|row| {
            row.presence(self.way) == Presence::Required && self.given.get(row.attribute).is_none()
        });
        if missing {
            return Err(Rv::TEMPLATE_INCOMPLETE);
        }
        // Whoever may use the key without a login would have to log in for each use (PKCS #11 v3.1, 4.9).
        if self.flag(A::ALWAYS_AUTHENTICATE) && !self.flag(A::PRIVATE) {
            return Err(Rv::TEMPLATE_INCONSISTENT);
        }
        let certificate_type = self.given.ulong(A::CERTIFICATE_TYPE);
        if certificate_type.is_some_and(|kind| kind != CertificateType::X_509.0) {
            return Err(Rv::ATTRIBUTE_VALUE_INVALID);
        }
        Ok(())
    }

    /// A truth value: the template's, or the row's default.
    pub(super) fn flag(&self, kind: A) -> bool {
        let default = self.rows.iter().find(|row| row.attribute == kind).map(|row| row.default);
        self.given.bool(kind).unwrap_or(matches!(default, Some(DefaultValue::Bool(true))))
    }

    /// Every attribute of the object: the template's, `made` by a generation, computed, and defaults; ascending.
    pub(super) fn complete(
        &self,
        made: Vec<Attribute>,
        mechanism: Option<MechanismType>,
    ) -> Result<Vec<Attribute>, Rv> {
        let mut attributes = made;
        for row in self.rows {
            if attributes.iter().any(|attribute| attribute.kind() == row.attribute) {
                continue;
            }
            let value = match (self.given.get(row.attribute), row.default) {
                (Some(given), _) => given.to_vec(),
                (None, DefaultValue::Bool(value)) => vec![u8::from(value)],
                (None, DefaultValue::Ulong(value)) => value.to_le_bytes().to_vec(),
                (None, DefaultValue::Bytes(value)) => value.to_vec(),
                (None, DefaultValue::Absent | DefaultValue::Computed) => continue,
            };
            attributes.push(Attribute::new(row.attribute, value));
        }
        self.history(&mut attributes, mechanism);
        self.material(&mut attributes)?;
        attributes.sort_by_key(|attribute| attribute.number);
        Ok(attributes)
    }

    /// What the token says about the object's making (PKCS #11 v3.1, 4.7 to 4.10).
    fn history(&self, attributes: &mut Vec<Attribute>, mechanism: Option<MechanismType>) {
        let local = self.way == Way::Generate;
        let (sensitive, extractable) = (self.flag(A::SENSITIVE), self.flag(A::EXTRACTABLE));
        let mechanism = mechanism.map_or(UNAVAILABLE_INFORMATION, |mechanism| mechanism.0);
        let computed = [
            Attribute::ulong(A::CLASS, self.class.0),
            Attribute::ulong(A::KEY_TYPE, self.key_type.map_or(0, |key_type| key_type.0)),
            Attribute::bool(A::LOCAL, local),
            Attribute::ulong(A::KEY_GEN_MECHANISM, mechanism),
            Attribute::bool(A::ALWAYS_SENSITIVE, local && sensitive),
            Attribute::bool(A::NEVER_EXTRACTABLE, local && !extractable),
        ];
        for attribute in computed {
            let has = self.rows.iter().any(|row| row.attribute == attribute.kind());
            if has && !attributes.iter().any(|present| present.number == attribute.number) {
                attributes.push(attribute);
            }
        }
    }

    /// Parses the key, which checks its numbers, and adds what follows from them.
    fn material(&self, attributes: &mut Vec<Attribute>) -> Result<(), Rv> {
        let mut computed = Vec::new();
        let get = |kind: A| {
            attributes
                .iter()
                .find(|attribute| attribute.kind() == kind)
                .map(|attribute| attribute.value.as_slice())
        };
        if let Some(key_type) = self.key_type {
            let key = KeyMaterial::from_attributes(self.class, key_type, &get)?;
            computed.extend(key.implied());
            let info = engine::public_key_info(&key, &|kind| get(kind).map(<[u8]>::to_vec));
            computed.extend(info.map(|info| Attribute::new(A::PUBLIC_KEY_INFO, info)));
        }
        let check_value = match self.class {
            ObjectClass::SECRET_KEY | ObjectClass::CERTIFICATE => get(A::VALUE)
                .filter(|value| !value.is_empty())
                .and_then(|v| engine::check_value(self.key_type, v)),
            _ => None,
        };
        computed.extend(check_value.map(|value| Attribute::new(A::CHECK_VALUE, value)));
        for attribute in computed {
            if !self.rows.iter().any(|row| row.attribute == attribute.kind()) {
                continue;
            }
            let present = attributes.iter().position(|present| present.number == attribute.number);
            match present.map(|at| (at, attributes[at].value.is_empty())) {
                None => attributes.push(attribute),
                Some((at, _)) if attributes[at] == attribute => {}
                // An empty check value says "do without" (4.10.2); any other empty value is filled in.
                Some((_, true)) if attribute.kind() == A::CHECK_VALUE => {}
                Some((at, true)) => attributes[at] = attribute,
                Some((_, false)) => return Err(Rv::ATTRIBUTE_VALUE_INVALID),
            }
        }
        Ok(())
    }
}

/// The value of an attribute that both the way of making and the template may name; they must agree.
fn agreed(implied: Option<u64>, given: &Template, kind: A) -> Result<Option<u64>, Rv> {
    let named = match given.get(kind) {
        None => None,
        Some(_) => Some(given.ulong(kind).ok_or(Rv::ATTRIBUTE_VALUE_INVALID)?),
    };
    match (implied, named) {
        (Some(implied), Some(named)) if implied != named => Err(Rv::TEMPLATE_INCONSISTENT),
        (implied, named) => Ok(implied.or(named)),
    }
}

/// A record of these attributes, which are ascending: the core apart from what may change.
pub(super) fn record(attributes: Vec<Attribute>, ouid: Ouid, stamp: Stamp, maker: u64) -> Record {
    let number = |kind: A| {
        let found = attributes.iter().find(|attribute| attribute.kind() == kind);
        found.and_then(|attribute| spec::value::as_ulong(&attribute.value))
    };
    let class = ObjectClass(number(A::CLASS).unwrap_or(u64::MAX));
    let (changeable, core): (Vec<_>, Vec<_>) =
        attributes.into_iter().partition(|attribute| join_of(class, attribute.kind()).changeable());
    let stamped = |attribute| Stamped { attribute: Some(attribute), stamp: Some(stamp) };
    Record {
        format: RECORD_FORMAT,
        ouid: ouid.0.to_vec(),
        state: State::Committed as i32,
        core: Some(Template::from(core)),
        created: Some(stamp),
        maker,
        changeable: changeable.into_iter().map(stamped).collect(),
        floor: 0,
        quarantined: false,
        aside: Vec::new(),
    }
}
