//! Find among token objects, in ouid order, page by page (RULES 2.4; PKCS #11 v3.1, 5.7.6).
use spec::messages::{Find, FindAnswer, Found};
use spec::record::Record;
use spec::{Ouid, Template};

use super::read::{is_hidden, value};
use crate::bounds;
use crate::error::Refusal;
use crate::partition::Partition;
use crate::roles::Access;
use crate::session_objects::is_private;

/// Whether every attribute of the template is there with that value; hidden values never match.
fn matches(record: &Record, template: &Template) -> bool {
    template.attributes.iter().all(|wanted| {
        !is_hidden(record, wanted.kind()) && value(record, wanted.kind()).as_deref() == Some(&wanted.value)
    })
}

impl Partition {
    pub(crate) fn find(&self, access: &Access<'_>, find: &Find) -> Result<FindAnswer, Refusal> {
        let everything = Template::default();
        let template = find.template.as_ref().unwrap_or(&everything);
        bounds::template(template)?;
        let after = if find.after.is_empty() { None } else { Some(bounds::ouid(&find.after)?) };
        let limit = (find.limit as usize).clamp(1, bounds::FIND_LIMIT);
        let contents = self.contents.read();
        let visible = contents.index.candidates(template, after).filter(|held| {
            (access.sees_private() || !is_private(&held.record)) && matches(&held.record, template)
        });
        let mut found: Vec<Found> = visible
            .take(limit + 1)
            .map(|held| Found {
                ouid: held.record.ouid.clone(),
                private: is_private(&held.record),
                version: held.record.version(),
            })
            .collect();
        let mut more = found.len() > limit;
        found.truncate(limit);
        let last = if more { found.last().and_then(|last| Ouid::from_bytes(&last.ouid)) } else { None };
        let mut deleted = contents.index.tombstones(after, last, bounds::FIND_LIMIT + 1);
        if deleted.len() > bounds::FIND_LIMIT {
            // The page ends at the last tombstone that fits; the next one continues behind it.
            deleted.truncate(bounds::FIND_LIMIT);
            let end = deleted.last().map(|ouid| ouid.0.to_vec());
            found.retain(|found| Some(&found.ouid) <= end.as_ref());
            more = true;
        }
        Ok(FindAnswer { found, more, deleted: deleted.iter().map(|ouid| ouid.0.to_vec()).collect() })
    }
}
