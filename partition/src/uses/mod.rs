//! Plan and Use: the member checks everything, whatever the client has checked (RULES 1.1, 1.4; DESIGN 1).
use std::sync::Arc;

use spec::flags::mechanism as bits;
use spec::mechanisms::row_of;
use spec::messages::{How, KeyFunction, MechanismMessage, Plan, PlanAnswer, PublicKeyMessage};
use spec::record::Record;
use spec::{AttributeType as A, Mechanism, MechanismType, Rv, value};

mod run;

use crate::bounds;
use crate::engine::Key;
use crate::error::Refusal;
use crate::index::Held;
use crate::mechanisms::{self, Job, KeyMaterial};
use crate::message::mechanism_of;
use crate::objects::{flag, key_type_of};
use crate::partition::Partition;
use crate::roles::Access;

/// A function of a key: its attribute and its bit in the rows of mechanisms.
fn function(number: u32) -> Result<(KeyFunction, A, u64), Refusal> {
    match KeyFunction(number) {
        KeyFunction::SIGN => Ok((KeyFunction::SIGN, A::SIGN, bits::SIGN)),
        KeyFunction::VERIFY => Ok((KeyFunction::VERIFY, A::VERIFY, bits::VERIFY)),
        KeyFunction::ENCRYPT => Ok((KeyFunction::ENCRYPT, A::ENCRYPT, bits::ENCRYPT)),
        KeyFunction::DECRYPT => Ok((KeyFunction::DECRYPT, A::DECRYPT, bits::DECRYPT)),
        KeyFunction(other) => {
            Err(Refusal::malformed(format!("wanted a key function of 1 to 4, found {other}")))
        }
    }
}

/// The mechanisms that a key is limited to; none when it is not limited.
fn allowed(record: &Record) -> Option<Vec<u64>> {
    record.get(A::ALLOWED_MECHANISMS).map(|list| value::as_ulong_list(list).unwrap_or_default())
}

/// Whether the key's own attributes permit the function with the mechanism.
fn check_rights(record: &Record, attribute: A, bit: u64, mechanism: MechanismType) -> Result<(), Rv> {
    let row = row_of(mechanism).ok_or(Rv::MECHANISM_INVALID)?;
    if !row.permits(bit) {
        return Err(Rv::MECHANISM_INVALID);
    }
    if !flag(record, attribute) {
        return Err(Rv::KEY_FUNCTION_NOT_PERMITTED);
    }
    match allowed(record) {
        Some(list) if !list.contains(&mechanism.0) => Err(Rv::MECHANISM_INVALID),
        _ => Ok(()),
    }
}

/// What a request asks of a key, parsed.
struct Asked {
    function: KeyFunction,
    attribute: A,
    bit: u64,
    mechanism: Mechanism,
}

impl Asked {
    fn read(number: u32, message: Option<&MechanismMessage>) -> Result<Self, Refusal> {
        let (function, attribute, bit) = function(number)?;
        let mechanism = mechanism_of(bounds::present("a mechanism", message)?)?;
        Ok(Self { function, attribute, bit, mechanism })
    }
}

/// The parsed key, when it may be used so. Rights and key type come first, for parsing checks an RSA key, and what a
/// request costs is told from its function and mechanism. Parameters are the mechanism's to check: a plan may leave IV
/// and AAD out.
fn permitted_key(held: &Held, asked: &Asked) -> Result<Arc<Key>, Rv> {
    let key_type = key_type_of(&held.record).ok_or(Rv::KEY_HANDLE_INVALID)?;
    let mechanism = asked.mechanism.mechanism_type;
    check_rights(&held.record, asked.attribute, asked.bit, mechanism)?;
    let row = row_of(mechanism).ok_or(Rv::MECHANISM_INVALID)?;
    if row.accepts_key(key_type) { held.key() } else { Err(Rv::KEY_TYPE_INCONSISTENT) }
}

/// The numbers of a public key that the client may use by itself (RULES 1.10): all it needs for what takes the data, or a
/// digest of them, at once. Where the data have to come here (RULES 1.4) there is nothing for it to do.
fn public_numbers(record: &Record, key: &KeyMaterial, how: How) -> Option<PublicKeyMessage> {
    let number = |kind| record.get(kind).map(<[u8]>::to_vec);
    match key {
        _ if ![How::WHOLE, How::PREHASH].contains(&how) => None,
        KeyMaterial::RsaPublic(_) => Some(PublicKeyMessage {
            modulus: number(A::MODULUS)?,
            public_exponent: number(A::PUBLIC_EXPONENT)?,
            ..PublicKeyMessage::default()
        }),
        KeyMaterial::EcPublic(key) => Some(PublicKeyMessage {
            curve: key.curve().parameters().to_vec(),
            point: key.point().to_vec(),
            ..PublicKeyMessage::default()
        }),
        KeyMaterial::RsaPrivate(_) | KeyMaterial::EcPrivate(_) | KeyMaterial::Secret(_) => None,
    }
}

impl Partition {
    /// RULES 1.4: a digest from outside grants nothing new only where the key permits the raw form of that padding.
    fn prehash_permitted(&self, record: &Record, mechanism: MechanismType) -> bool {
        let Some(raw) = row_of(mechanism).and_then(|row| row.raw) else { return false };
        !self.settings.hash_in_member
            && self.settings.offers(raw)
            && allowed(record).is_none_or(|list| list.contains(&raw.0))
    }

    /// Refuses a mechanism that this partition does not offer: a member of less ability says so (DESIGN 1).
    pub(crate) fn check_offered(&self, mechanism: MechanismType) -> Result<(), Refusal> {
        if self.settings.offers(mechanism) {
            return Ok(());
        }
        Err(Refusal::rv(Rv::MECHANISM_INVALID, format!("{mechanism} is switched off on this member")))
    }

    /// How to run a mechanism with a key, or the code that the standard reports at Init (RULES 1.1).
    pub(crate) fn plan(&self, access: &Access<'_>, plan: &Plan) -> Result<PlanAnswer, Refusal> {
        let asked = Asked::read(plan.function, plan.mechanism.as_ref())?;
        self.check_offered(asked.mechanism.mechanism_type)?;
        let object = bounds::object(plan.key.as_ref())?;
        let held = self.resolve(&self.contents.read(), access, object, Rv::USER_NOT_LOGGED_IN)?;
        let key = permitted_key(&held, &asked)?;
        let answer = mechanisms::plan(&Job {
            mechanism: &asked.mechanism,
            function: asked.function,
            key: &key.0,
            prehash_permitted: self.prehash_permitted(&held.record, asked.mechanism.mechanism_type),
        })?;
        Ok(PlanAnswer {
            public: public_numbers(&held.record, &key.0, How(answer.how)),
            version: held.record.version(),
            always_authenticate: flag(&held.record, A::ALWAYS_AUTHENTICATE),
            ..answer
        })
    }
}
