//! SetAttributes (PKCS #11 v3.1, 5.7.5; HA 1.3, 2.3): one-way rules, stamps, and the resend that yields to others.
use spec::attributes::join_of;
use spec::changes::Changes;
use spec::classes::{Change as When, is_key, row_of as class_row};
use spec::messages::{Outcome, SetAttributes, SetAttributesAnswer};
use spec::planted::{self, Bug};
use spec::record::{Record, Stamp, Stamped};
use spec::{Attribute, AttributeType as A, ObjectClass, Rv, Template};

use super::read::is_hidden;
use super::{class_of, flag, key_type_of, readable, shape};
use crate::bounds;
use crate::contents::{Change, seal_record};
use crate::error::Refusal;
use crate::partition::Partition;
use crate::roles::Access;
use crate::session_objects::is_private;

/// Whether a one-way attribute may take this value; any attribute that may change both ways may.
pub(super) fn check_direction(class: ObjectClass, wanted: &Attribute) -> Result<(), Rv> {
    match join_of(class, wanted.kind()).one_way() {
        Some(only) if wanted.value != [u8::from(only)] => Err(Rv::ATTRIBUTE_READ_ONLY),
        _ => Ok(()),
    }
}

/// Checks every wanted value against its row and what is there.
fn check(record: &Record, template: &Template) -> Result<(), Rv> {
    let class = class_of(record).ok_or(Rv::OBJECT_HANDLE_INVALID)?;
    let key_type = key_type_of(record).filter(|_| is_key(class));
    if !flag(record, A::MODIFIABLE) {
        return Err(Rv::ACTION_PROHIBITED);
    }
    for (at, wanted) in template.attributes.iter().enumerate() {
        let row = class_row(class, key_type, wanted.kind()).ok_or(Rv::ATTRIBUTE_TYPE_INVALID)?;
        shape::check(wanted)?;
        if template.attributes[..at].iter().any(|before| before.number == wanted.number) {
            return Err(Rv::TEMPLATE_INCONSISTENT);
        }
        // Before any comparison: the answer must not say whether a guess at hidden key material was right.
        if is_hidden(record, wanted.kind()) {
            return Err(Rv::ATTRIBUTE_READ_ONLY);
        }
        if record.get(wanted.kind()) == Some(&wanted.value) {
            continue;
        }
        if row.change != When::Always {
            return Err(Rv::ATTRIBUTE_READ_ONLY);
        }
        check_direction(class, wanted)?;
    }
    Ok(())
}

/// The record with the wanted values under a new stamp. A resend leaves attributes that somebody has stamped since
/// the client looked (HA 2.3): another writer, or this very change when it was first sent.
fn changed(
    record: &Record,
    template: &Template,
    stamp: Stamp,
    resent_after: Option<Option<Stamp>>,
) -> Record {
    let mut next = record.clone();
    for wanted in &template.attributes {
        let is_it = |item: &Stamped| item.attribute.as_ref().is_some_and(|a| a.number == wanted.number);
        let stamped = Stamped { attribute: Some(wanted.clone()), stamp: Some(stamp) };
        match next.changeable.iter_mut().find(|item| is_it(item)) {
            Some(item) if resent_after.is_some_and(|seen| item.stamp > seen) => {}
            Some(item) if item.attribute.as_ref() == Some(wanted) && !restamps(wanted) => {}
            Some(item) => *item = stamped,
            None if record.get(wanted.kind()).is_some() => {}
            None => next.changeable.push(stamped),
        }
    }
    next.changeable.sort_by_key(|item| item.attribute.as_ref().map_or(0, |attribute| attribute.number));
    next
}

/// Whether a write of what is there already gets a stamp: only in a planted bug.
fn restamps(wanted: &Attribute) -> bool {
    planted::is(Bug::ExtractableByLastWriter) && wanted.kind() == A::EXTRACTABLE
}

impl Partition {
    pub(crate) fn set_attributes(
        &self,
        access: &Access<'_>,
        set: &SetAttributes,
        attempt: u32,
        now_ms: u64,
    ) -> Result<SetAttributesAnswer, Refusal> {
        bounds::tag(&set.tag)?;
        let object = bounds::object(set.object.as_ref())?;
        let template = bounds::present("a template", set.template.as_ref())?;
        bounds::template(template)?;
        let resent_after = (attempt > 0 && !planted::is(Bug::UnconditionalResend)).then_some(set.seen);
        if object.blob_hash.is_empty() && object.blob.is_empty() {
            return self.set_token_attributes(access, set, template, resent_after, now_ms);
        }
        let contents = self.contents.read();
        let held = self.resolve(&contents, access, object, Rv::OBJECT_HANDLE_INVALID)?;
        check_trust(access, template, true)?;
        check(&held.record, template)?;
        let stamp = Stamp::next(now_ms, held.record.version(), contents.incarnation);
        let next = changed(&held.record, template, stamp, None);
        Ok(SetAttributesAnswer {
            version: next.version(),
            blob: self.seal_blob(contents.group(), access, &next)?,
            readable: Some(readable(&next)),
            record: Vec::new(),
            changed: None,
        })
    }

    fn set_token_attributes(
        &self,
        access: &Access<'_>,
        set: &SetAttributes,
        template: &Template,
        resent_after: Option<Option<Stamp>>,
        now_ms: u64,
    ) -> Result<SetAttributesAnswer, Refusal> {
        self.write(|contents| {
            let object = bounds::object(set.object.as_ref())?;
            let held = self.resolve(contents, access, object, Rv::OBJECT_HANDLE_INVALID)?;
            access.writer(is_private(&held.record))?;
            check_trust(access, template, contents.manifest.home == self.serial)?;
            check(&held.record, template)?;
            let stamp = Stamp::next(now_ms, held.record.version(), contents.incarnation);
            let next = changed(&held.record, template, stamp, resent_after);
            let answer = SetAttributesAnswer {
                version: next.version(),
                blob: Vec::new(),
                readable: None,
                record: seal_record(&self.sealer, contents.group(), &next),
                changed: Changes::of(&next),
            };
            let records = if next == held.record { Vec::new() } else { vec![next] };
            contents.check_room(&records, &self.settings)?;
            Ok((Change { records, ..Change::default() }, answer))
        })
    }
}

/// CKA_TRUSTED changes by the security officer at the home member alone (HA 1.3).
fn check_trust(access: &Access<'_>, template: &Template, home: bool) -> Result<(), Refusal> {
    if template.get(A::TRUSTED).is_none() {
        return Ok(());
    }
    if !access.is_security_officer() {
        return Err(Refusal::rv(Rv::ATTRIBUTE_READ_ONLY, "only the security officer sets CKA_TRUSTED"));
    }
    if home {
        Ok(())
    } else {
        Err(Refusal::new(Outcome::NOT_HOME, "CKA_TRUSTED changes at the home member only"))
    }
}
