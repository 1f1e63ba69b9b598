//! Find among token objects, in ouid order, page by page (RULES 2.4; PKCS #11 v3.1, 5.7.6).
use std::sync::Arc;

use spec::changes::Changes;
use spec::messages::{Find, FindAnswer, Found};
use spec::record::Record;
use spec::{Attribute, Ouid, Template};

use super::read::{has_value, is_hidden};
use crate::bounds;
use crate::error::Refusal;
use crate::index::Held;
use crate::partition::Partition;
use crate::roles::Access;
use crate::session_objects::is_private;

/// The wanted attributes, each once; none when one is wanted with two values, which no object has.
fn distinct(template: &Template) -> Option<Vec<&Attribute>> {
    let mut wanted: Vec<&Attribute> = Vec::with_capacity(template.attributes.len());
    for attribute in &template.attributes {
        match wanted.iter().find(|other| other.number == attribute.number) {
            None => wanted.push(attribute),
            Some(other) if other.value == attribute.value => {}
            Some(_) => return None,
        }
    }
    Some(wanted)
}

/// Whether every wanted attribute is there with that value; hidden values never match.
fn matches(record: &Record, wanted: &[&Attribute]) -> bool {
    wanted
        .iter()
        .all(|wanted| has_value(record, wanted.kind(), &wanted.value) && !is_hidden(record, wanted.kind()))
}

/// One page of a search.
#[derive(Default)]
struct Page {
    found: Vec<Found>,
    /// The last object that was looked at, when there may be more behind it.
    stopped: Option<Ouid>,
}

/// Looks at candidates until so many match or so many have been looked at.
fn page<'a>(
    candidates: impl Iterator<Item = &'a Arc<Held>>,
    limit: usize,
    fits: impl Fn(&Record) -> bool,
) -> Page {
    let mut page = Page::default();
    let mut last = None;
    for (looked, held) in candidates.enumerate() {
        let fits = fits(&held.record);
        if looked == bounds::FIND_LOOKED_MAX || (fits && page.found.len() == limit) {
            page.stopped = last;
            break;
        }
        if fits {
            let (private, version) = (is_private(&held.record), held.record.version());
            let changed = Changes::of(&held.record);
            page.found.push(Found { ouid: held.record.ouid.clone(), private, version, changed });
        }
        last = held.record.id();
    }
    page
}

impl Partition {
    pub(crate) fn find(&self, access: &Access<'_>, find: &Find) -> Result<FindAnswer, Refusal> {
        let everything = Template::default();
        let template = find.template.as_ref().unwrap_or(&everything);
        bounds::template(template)?;
        let after = if find.after.is_empty() { None } else { Some(bounds::ouid(&find.after)?) };
        let limit = (find.limit as usize).clamp(1, bounds::FIND_LIMIT);
        let wanted = distinct(template);
        let fits = |record: &Record| {
            (access.sees_private() || !is_private(record))
                && wanted.as_ref().is_some_and(|wanted| matches(record, wanted))
        };
        let contents = self.contents.read();
        let Page { mut found, mut stopped } = match wanted {
            Some(_) => page(contents.index.candidates(template, after), limit, fits),
            None => Page::default(),
        };
        let mut deleted = contents.index.tombstones(after, stopped, bounds::FIND_LIMIT + 1);
        if deleted.len() > bounds::FIND_LIMIT {
            // The page ends at the last tombstone that fits; the next one continues behind it.
            deleted.truncate(bounds::FIND_LIMIT);
            stopped = deleted.last().copied();
            let end = stopped.map(|ouid| ouid.0.to_vec());
            found.retain(|found| Some(&found.ouid) <= end.as_ref());
        }
        Ok(FindAnswer {
            found,
            more: stopped.is_some(),
            deleted: deleted.iter().map(|ouid| ouid.0.to_vec()).collect(),
            looked: stopped.map(|ouid| ouid.0.to_vec()).unwrap_or_default(),
        })
    }
}
