//! Make: generates, creates or copies and stores nothing (HA 2.1; PKCS #11 v3.1, 5.7.1, 5.7.2, 5.18.1, 5.18.2). The
//! token objects come back as one sealed batch, the session objects as one sealed blob each.
use spec::classes::{Change, Way, is_key, row_of as class_row};
use spec::flags::mechanism::{GENERATE, GENERATE_KEY_PAIR};
use spec::mechanisms::row_of;
use spec::messages::{MadeObject, Make, MakeAnswer, MakeKind};
use spec::record::{Ouid, Record, Stamp};
use spec::{Attribute, AttributeType as A, Mechanism, MechanismType, ObjectClass, Rv, Template};

use super::assemble::{self, Intent};
use super::read::is_hidden;
use super::{change, class_of, flag, key_type_of, readable};
use crate::bounds;
use crate::error::Refusal;
use crate::mechanisms::{self, Generated};
use crate::message::mechanism_of;
use crate::partition::Partition;
use crate::random::bytes;
use crate::roles::Access;
use crate::seal::Group;
use crate::session_objects::is_private;

/// The attributes of one object to be made.
type Attributes = Vec<Attribute>;

impl Partition {
    pub(crate) fn make(&self, access: &Access<'_>, make: &Make, now_ms: u64) -> Result<MakeAnswer, Refusal> {
        bounds::tag(&make.tag)?;
        make.templates.iter().try_for_each(bounds::template)?;
        let wanted = if make.kind == MakeKind::GENERATE_PAIR.0 { 2 } else { 1 };
        if make.templates.len() != wanted {
            let found = make.templates.len();
            return Err(Refusal::malformed(format!(
                "wanted {wanted} templates for this kind, found {found}"
            )));
        }
        if let Some(mechanism) = &make.mechanism {
            self.check_offered(MechanismType(mechanism.number))?;
        }
        let objects = match MakeKind(make.kind) {
            MakeKind::GENERATE => vec![generate(access, make)?],
            MakeKind::GENERATE_PAIR => generate_pair(access, make)?,
            MakeKind::CREATE => vec![create(access, &make.templates[0])?],
            MakeKind::COPY => vec![self.copy(access, make)?],
            MakeKind(other) => {
                return Err(Refusal::malformed(format!("wanted a kind of making, found {other}")));
            }
        };
        let (group, incarnation) = {
            let contents = self.contents.read();
            if objects.iter().any(|attributes| has(attributes, A::TOKEN) && has(attributes, A::TRUSTED)) {
                // CKA_TRUSTED begins, as it changes, at the home member alone (HA 1.3).
                self.check_home(&contents)?;
            }
            (contents.group(), contents.incarnation)
        };
        let stamp = Stamp::next(now_ms, None, incarnation);
        let made = objects.into_iter().map(|attributes| {
            let ouid = Ouid(bytes::<16>(&*self.names));
            assemble::record(attributes, ouid, stamp, self.serial)
        });
        self.answer_made(group, access, &make.tag, made.collect())
    }

    fn answer_made(
        &self,
        group: Group,
        access: &Access<'_>,
        tag: &[u8],
        records: Vec<Record>,
    ) -> Result<MakeAnswer, Refusal> {
        let outputs = records.iter().map(|record| {
            let token = flag(record, A::TOKEN);
            let blob = if token { Vec::new() } else { self.seal_blob(group, access, record)? };
            Ok(MadeObject {
                ouid: record.ouid.clone(),
                token,
                private: is_private(record),
                blob,
                version: record.version(),
                readable: Some(readable(record)),
            })
        });
        let outputs = outputs.collect::<Result<Vec<_>, Refusal>>()?;
        let stored: Vec<Record> = records.into_iter().filter(|record| flag(record, A::TOKEN)).collect();
        // Store decides; this says so before a copy of it lies anywhere.
        self.contents.read().check_room(&stored, &self.settings)?;
        let batch =
            if stored.is_empty() { Vec::new() } else { self.seal_batch(group, access.caller, tag, stored) };
        Ok(MakeAnswer { batch, outputs })
    }

    fn copy(&self, access: &Access<'_>, make: &Make) -> Result<Attributes, Refusal> {
        let source = {
            let contents = self.contents.read();
            let object = bounds::object(make.source.as_ref())?;
            self.resolve(&contents, access, object, Rv::OBJECT_HANDLE_INVALID)?
        };
        let template = &make.templates[0];
        let attributes = copied(&source.record, template)?;
        may_make(access, has(&attributes, A::TOKEN), has(&attributes, A::PRIVATE), template)?;
        Ok(attributes)
    }
}

/// Whether a truth value is there and true.
fn has(attributes: &[Attribute], kind: A) -> bool {
    attributes.iter().any(|attribute| attribute.kind() == kind && attribute.value == [1])
}

/// Whether the caller may make such an object (HA 2.8).
fn may_make(access: &Access<'_>, token: bool, private: bool, template: &Template) -> Result<(), Refusal> {
    if token {
        access.writer(private)?;
    }
    if private && !access.sees_private() {
        return Err(Rv::USER_NOT_LOGGED_IN.into());
    }
    if template.bool(A::TRUSTED) == Some(true) && !access.is_security_officer() {
        return Err(Refusal::rv(Rv::ATTRIBUTE_READ_ONLY, "only the security officer sets CKA_TRUSTED"));
    }
    Ok(())
}

fn permitted(access: &Access<'_>, intent: &Intent<'_>, template: &Template) -> Result<(), Refusal> {
    may_make(access, intent.flag(A::TOKEN), intent.flag(A::PRIVATE), template)
}

fn create(access: &Access<'_>, template: &Template) -> Result<Attributes, Refusal> {
    let intent = Intent::read(Way::Create, None, None, template)?;
    permitted(access, &intent, template)?;
    Ok(intent.complete(Vec::new(), None)?)
}

/// The mechanism of a generation, which must be one for `flag`, and the key type it makes by its row and the template.
fn generator(make: &Make, flag: u64, template: &Template) -> Result<(Mechanism, spec::KeyType), Refusal> {
    let mechanism = mechanism_of(bounds::present("a mechanism", make.mechanism.as_ref())?)?;
    let row =
        row_of(mechanism.mechanism_type).filter(|row| row.permits(flag)).ok_or(Rv::MECHANISM_INVALID)?;
    row.check_parameters(&mechanism.parameters)?;
    let named = template.ulong(A::KEY_TYPE).map(spec::KeyType);
    let key_type = named.or(row.key_types.first().copied()).ok_or(Rv::MECHANISM_INVALID)?;
    if row.accepts_key(key_type) { Ok((mechanism, key_type)) } else { Err(Rv::TEMPLATE_INCONSISTENT.into()) }
}

fn generate(access: &Access<'_>, make: &Make) -> Result<Attributes, Refusal> {
    let template = &make.templates[0];
    let (mechanism, key_type) = generator(make, GENERATE, template)?;
    let intent = Intent::read(Way::Generate, Some(ObjectClass::SECRET_KEY), Some(key_type), template)?;
    permitted(access, &intent, template)?;
    match mechanisms::generate(&mechanism, &|kind| template.get(kind))? {
        Generated::Secret(made) => Ok(intent.complete(made, Some(mechanism.mechanism_type))?),
        Generated::Pair { .. } => Err(Rv::MECHANISM_INVALID.into()),
    }
}

fn generate_pair(access: &Access<'_>, make: &Make) -> Result<Vec<Attributes>, Refusal> {
    let (public, private) = (&make.templates[0], &make.templates[1]);
    let (mechanism, key_type) = generator(make, GENERATE_KEY_PAIR, public)?;
    let intents = [
        (Intent::read(Way::Generate, Some(ObjectClass::PUBLIC_KEY), Some(key_type), public)?, public),
        (Intent::read(Way::Generate, Some(ObjectClass::PRIVATE_KEY), Some(key_type), private)?, private),
    ];
    intents.iter().try_for_each(|(intent, template)| permitted(access, intent, template))?;
    let number: Option<MechanismType> = Some(mechanism.mechanism_type);
    match mechanisms::generate(&mechanism, &|kind| public.get(kind))? {
        Generated::Pair { public, private } => {
            Ok(vec![intents[0].0.complete(public, number)?, intents[1].0.complete(private, number)?])
        }
        Generated::Secret(_) => Err(Rv::MECHANISM_INVALID.into()),
    }
}

/// The attributes of a copy: those of the source, with the changes that a copy may make (5.7.2).
fn copied(source: &Record, template: &Template) -> Result<Attributes, Rv> {
    let class = class_of(source).ok_or(Rv::OBJECT_HANDLE_INVALID)?;
    let key_type = key_type_of(source).filter(|_| is_key(class));
    if !flag(source, A::COPYABLE) {
        return Err(Rv::ACTION_PROHIBITED);
    }
    let core = source.core.iter().flat_map(|core| &core.attributes);
    let changeable = source.changeable.iter().filter_map(|item| item.attribute.as_ref());
    let mut attributes: Attributes = core.chain(changeable).cloned().collect();
    for (at, wanted) in template.attributes.iter().enumerate() {
        let row = class_row(class, key_type, wanted.kind()).ok_or(Rv::ATTRIBUTE_TYPE_INVALID)?;
        super::shape::check(wanted)?;
        if template.attributes[..at].iter().any(|before| before.number == wanted.number) {
            return Err(Rv::TEMPLATE_INCONSISTENT);
        }
        // Before any comparison: the answer must not say whether a guess at hidden key material was right.
        if is_hidden(source, wanted.kind()) {
            return Err(Rv::ATTRIBUTE_READ_ONLY);
        }
        let present = source.get(wanted.kind());
        if present == Some(&wanted.value) {
            continue;
        }
        match row.change {
            Change::Never => return Err(Rv::ATTRIBUTE_READ_ONLY),
            Change::AtCopy if wanted.kind() == A::PRIVATE && wanted.value == [0] => {
                // What was private stays private: its readers had to log in.
                return Err(Rv::TEMPLATE_INCONSISTENT);
            }
            Change::AtCopy => {}
            Change::Always => change::check_direction(class, wanted)?,
        }
        attributes.retain(|attribute| attribute.number != wanted.number);
        attributes.push(wanted.clone());
    }
    // A copy loses the trust that was given to the original.
    if template.bool(A::TRUSTED) != Some(true) {
        for attribute in attributes.iter_mut().filter(|attribute| attribute.kind() == A::TRUSTED) {
            attribute.value = vec![0];
        }
    }
    attributes.sort_by_key(|attribute| attribute.number);
    Ok(attributes)
}
