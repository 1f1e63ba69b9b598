//! Plan and Use: the member checks everything, whatever the client has checked (RULES 1.1, 1.4; DESIGN 1).
use std::sync::Arc;

use spec::changes::Changes;
use spec::flags::mechanism as bits;
use spec::mechanisms::{Row, row_of};
use spec::messages::{How, KeyFunction, MechanismMessage, Plan, PlanAnswer, PublicKeyMessage};
use spec::record::Record;
use spec::{AttributeType as A, Mechanism, MechanismType, Rv, value};

mod run;
mod wanted;

pub(crate) use run::Used;
pub(crate) use wanted::Wanted;

use crate::bounds;
use crate::engine::Key;
use crate::error::Refusal;
use crate::index::Held;
use crate::mechanisms::{self, Job, KeyMaterial};
use crate::message::mechanism_of;
use crate::partition::Partition;
use crate::roles::Access;

/// A function of a key and its bit in the rows of mechanisms.
fn function(number: u32) -> Result<(KeyFunction, u64), Refusal> {
    match KeyFunction(number) {
        KeyFunction::SIGN => Ok((KeyFunction::SIGN, bits::SIGN)),
        KeyFunction::VERIFY => Ok((KeyFunction::VERIFY, bits::VERIFY)),
        KeyFunction::ENCRYPT => Ok((KeyFunction::ENCRYPT, bits::ENCRYPT)),
        KeyFunction::DECRYPT => Ok((KeyFunction::DECRYPT, bits::DECRYPT)),
        KeyFunction(other) => {
            Err(Refusal::malformed(format!("wanted a key function of 1 to 4, found {other}")))
        }
    }
}

/// Whether the key is not limited to mechanisms, or to these among others.
fn allows(held: &Held, mechanism: MechanismType) -> bool {
    if !held.facts().limited {
        return true;
    }
    let list = held.record.get(A::ALLOWED_MECHANISMS).and_then(value::as_ulong_list).unwrap_or_default();
    list.contains(&mechanism.0)
}

/// What a request asks of a key, parsed.
struct Asked {
    function: KeyFunction,
    bit: u64,
    mechanism: Mechanism,
    /// None when it is not in scope.
    row: Option<&'static Row>,
}

impl Asked {
    fn read(number: u32, message: Option<&MechanismMessage>) -> Result<Self, Refusal> {
        let (function, bit) = function(number)?;
        let mechanism = mechanism_of(bounds::present("a mechanism", message)?)?;
        Ok(Self { function, bit, row: row_of(mechanism.mechanism_type), mechanism })
    }
}

/// The parsed key, when it may be used so. Rights and key type come first, for parsing checks an RSA key, and what a
/// request costs is told from its function and mechanism. Parameters are the mechanism's to check: a plan may leave IV
/// and AAD out.
fn permitted_key(held: &Held, asked: &Asked) -> Result<Arc<Key>, Rv> {
    let facts = held.facts();
    let key_type = facts.key_type.ok_or(Rv::KEY_HANDLE_INVALID)?;
    let row = asked.row.filter(|row| row.permits(asked.bit)).ok_or(Rv::MECHANISM_INVALID)?;
    if facts.functions & asked.bit == 0 {
        return Err(Rv::KEY_FUNCTION_NOT_PERMITTED);
    }
    if !allows(held, row.mechanism) {
        return Err(Rv::MECHANISM_INVALID);
    }
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
    fn prehash_permitted(&self, held: &Held, asked: &Asked) -> bool {
        let Some(raw) = asked.row.and_then(|row| row.raw) else { return false };
        !self.settings.hash_in_member && self.settings.offers(raw) && allows(held, raw)
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
            prehash_permitted: self.prehash_permitted(&held, &asked),
        })?;
        Ok(PlanAnswer {
            public: public_numbers(&held.record, &key.0, How(answer.how)),
            version: held.facts().version,
            changed: Changes::of(&held.record),
            always_authenticate: held.facts().always_authenticate,
            ..answer
        })
    }
}
